package quarantine_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/quarantine"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func at(seq uint64, index int) event.Position {
	return event.Position{Stream: "t0", Offset: event.At(seq, index)}
}

// apply stores a decision as the log would: written, read back, applied.
func apply(t *testing.T, b *quarantine.Book, d quarantine.Decision, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	seq := b.Last() + 1
	e, err := d.Event(ulid.MustNew(seq, nil), noon, event.Author{CredentialID: "p1"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := event.DecodeEvent(event.Position{Stream: "o", Offset: event.At(seq, 0)}, event.AppendEvent(nil, &e, 0))
	if err != nil {
		t.Fatal(err)
	}
	read, err := quarantine.Decode(&r.Event)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&d, read); diff != "" {
		t.Error("what is read is not what was written:", diff)
	}
	if err := b.Apply(&r); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, code string, _ quarantine.Decision, err error) {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != fault.Conflict || f.Code != code {
		t.Errorf("want a conflict %s, got %v", code, err)
	}
}

func TestWhatWasDiscardedIsFinal(t *testing.T) {
	var b quarantine.Book
	held := quarantine.Item{Position: at(7, 1), Account: "acme", State: quarantine.Held}
	before := b
	d, err := b.Discard("acme", held, "a test")
	apply(t, &b, d, err)
	if reason, ok := b.Discarded(at(7, 1)); !ok || reason != "a test" {
		t.Errorf("%q %v", reason, ok)
	}
	if _, ok := b.Discarded(at(7, 2)); ok {
		t.Error("its neighbour is discarded, too")
	}
	if _, ok := before.Discarded(at(7, 1)); ok {
		t.Error("a copy has changed")
	}
	d, err = b.Discard("acme", held, "again")
	refused(t, "QUARANTINE_STATE", d, err)
	d, err = b.Redrive("acme", []quarantine.Item{held})
	refused(t, "QUARANTINE_STATE", d, err)
}

func TestADiscardedFrameIsDiscardedWhole(t *testing.T) {
	var b quarantine.Book
	d, err := b.Discard("acme", quarantine.Item{Position: at(7, 1), State: quarantine.Held, Frame: true}, "planted")
	apply(t, &b, d, err)
	for seq, want := range map[uint64]bool{6: false, 7: true, 8: false} {
		if _, got := b.Discarded(at(seq, 5)); got != want {
			t.Errorf("frame %d: %v", seq, got)
		}
	}
}

func TestADecisionToTryAgainIsAboutThoseItNames(t *testing.T) {
	var b quarantine.Book
	d, err := b.Redrive("acme", []quarantine.Item{{Position: at(1, 0), State: quarantine.Held}, {Position: at(2, 0), State: quarantine.Held}})
	apply(t, &b, d, err)
	d, err = b.RedriveAll("acme", []string{"acme", ""}, 3)
	apply(t, &b, d, err)
	for _, c := range []struct {
		at      event.Position
		account string
		want    uint64
	}{{at(1, 0), "other", 1}, {at(2, 0), "other", 1}, {at(3, 0), "other", 0}, {at(3, 0), "acme", 2}, {at(1, 0), "acme", 2}, {at(3, 0), "", 2}} {
		if got := b.Asked(c.at, c.account); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	d, err = b.Redrive("acme", []quarantine.Item{{Position: at(1, 0), State: quarantine.Redriven}})
	refused(t, "QUARANTINE_STATE", d, err)
	d, err = b.RedriveAll("acme", []string{"acme"}, 0)
	refused(t, "QUARANTINE_EMPTY", d, err)
	_, err = b.Redrive("acme", make([]quarantine.Item, quarantine.MaxNamed+1))
	if err == nil {
		t.Error("more than may be named")
	}
}
