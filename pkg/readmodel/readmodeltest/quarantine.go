package readmodeltest

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// setAside stores what was set aside, lists it and counts it.
func setAside(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	ctx := t.Context()
	sink, reader := open(t)
	stream := fmt.Sprintf("t%d", 5000+serial.Add(1))
	at := func(seq uint64, index int) event.Position {
		return event.Position{Stream: stream, Offset: event.At(seq, index)}
	}
	account := "aside-" + stream
	first := readmodel.QuarantineRow{
		Account: account, Position: at(1, 0), ID: "01JW2C5R3V0E6H7Q8S9T0A1B2D", Type: "deployment.completed", Subject: "d1", ReceivedAt: epoch,
		Events: 1, State: readmodel.Quarantined, Reason: "of a bug", CodeVersion: "1.2", Attempts: 1, Decision: 7, SetAsideAt: epoch, Turn: 1,
	}
	second := first
	second.Position, second.Behind, second.Reason = at(2, 0), first.Position, "waits behind "+first.Position.String()
	frame := readmodel.QuarantineRow{
		Account: account, Position: at(3, 0), Type: "build.started", Frame: true, Events: 4, State: readmodel.Quarantined, Reason: "no batch", Turn: 1,
	}
	nobody := readmodel.QuarantineRow{Position: at(4, 0), Frame: true, Events: 1, State: readmodel.Quarantined, Turn: 1}
	half := readmodel.EventRow{Account: account, Position: first.Position, Type: first.Type, ReceivedAt: epoch, EffectiveAt: epoch}
	whole := half
	whole.Position = at(2, 1)
	store := func(upTo readmodel.Progress, aside ...readmodel.QuarantineRow) {
		t.Helper()
		if err := sink.Store(ctx, &readmodel.Rows{Events: []readmodel.EventRow{half, whole}, Quarantine: aside}, upTo); err != nil {
			t.Fatal(err)
		}
	}
	list := func(f readmodel.QuarantineFilter, after string, limit int, want ...readmodel.QuarantineRow) {
		t.Helper()
		if f.Stream == "" && f.Position == (event.Position{}) {
			f.Stream = stream
		}
		got, err := sink.Quarantine(ctx, f, readmodel.Page{After: after, Limit: limit})
		for i := range want {
			want[i].ReceivedAt, want[i].SetAsideAt = readmodel.Moment(want[i].ReceivedAt), readmodel.Moment(want[i].SetAsideAt)
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%+v: %v %s", f, err, diff)
		}
	}
	counted := func(want ...readmodel.EventCount) {
		t.Helper()
		_, got, err := reader.EventCounts(ctx, account, stream)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	}
	store(readmodel.Progress{Stream: stream, Offset: at(4, 0).Offset, Time: epoch}, first, second, frame, nobody)
	store(readmodel.Progress{}, second, first)
	list(readmodel.QuarantineFilter{}, "", 10, first, second, frame, nobody)
	list(readmodel.QuarantineFilter{}, first.Key(), 1, second)
	list(readmodel.QuarantineFilter{Accounts: []string{account}}, second.Key(), 10, frame)
	list(readmodel.QuarantineFilter{Accounts: []string{account, ""}, Type: ""}, frame.Key(), 10, nobody)
	list(readmodel.QuarantineFilter{Subject: "d1", Type: "deployment.completed", State: readmodel.Quarantined}, "", 10, first, second)
	list(readmodel.QuarantineFilter{Position: frame.Position}, "", 10, frame)
	counted(readmodel.EventCount{Account: account, Type: "build.started", Quarantined: 4},
		readmodel.EventCount{Account: account, Type: "deployment.completed", Stored: 1, Quarantined: 2})

	applied, discarded := first, second
	applied.State, applied.Turn = readmodel.Redriven, 2
	discarded.State, discarded.Reason, discarded.Turn = readmodel.Discarded, "a test", 2
	store(readmodel.Progress{}, applied, discarded)
	store(readmodel.Progress{}, first, second) // late, and too late
	upTo := at(1, 0).Offset
	list(readmodel.QuarantineFilter{Pending: &upTo}, "", 10, discarded, frame, nobody)
	list(readmodel.QuarantineFilter{State: readmodel.Redriven}, "", 10, applied)
	counted(readmodel.EventCount{Account: account, Type: "build.started", Quarantined: 4},
		readmodel.EventCount{Account: account, Type: "deployment.completed", Stored: 2, Discarded: 1})
}
