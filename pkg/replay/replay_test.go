package replay_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/replay"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

var ada = event.Author{CredentialID: "p1", CredentialName: "ada's", Mode: event.Live, Actor: "ada"}

// ledger is a book and the events that made it.
type ledger struct {
	t    *testing.T
	book replay.Book
	all  []event.Recorded
}

// record stores a change as the log would: written, read back, applied.
func (l *ledger) record(c replay.Change, err error) replay.Replay {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
	seq := uint64(len(l.all)) + 1
	e, err := c.Event(ulid.MustNew(seq, nil), noon, ada)
	if err != nil {
		l.t.Fatal(err)
	}
	r, err := event.DecodeEvent(event.Position{Stream: replay.Stream, Offset: event.At(seq, 0)}, event.AppendEvent(nil, &e, 0))
	if err != nil {
		l.t.Fatal(err)
	}
	l.all = append(l.all, r)
	if err := l.book.Apply(&r); err != nil {
		l.t.Fatal(err)
	}
	stored, _ := l.book.Find(c.ID)
	if diff := cmp.Diff(c.Replay, stored); diff != "" {
		l.t.Error("what is read is not what was written:", diff)
	}
	return stored
}

func (l *ledger) start(id string, part replay.Part) replay.Replay {
	l.t.Helper()
	return l.record(l.book.Start(id, replay.Order{Account: "acme", By: ada, Part: part, Switch: replay.Manual}, noon))
}

func certificate(v replay.Verdict) *replay.Certificate {
	return &replay.Certificate{Verdict: v, From: "t0.1.0", To: "t0.9.0", Tables: []replay.Table{{Name: "events"}}, MadeAt: noon}
}

func (l *ledger) verify(r replay.Replay, v replay.Verdict) replay.Replay {
	l.t.Helper()
	return l.record(r.Verify(certificate(v), noon))
}

func (l *ledger) refused(code string, _ replay.Change, err error) {
	l.t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != fault.Conflict || f.Code != code {
		l.t.Errorf("want a conflict %s, got %v", code, err)
	}
}

func (l *ledger) plan(now time.Time, active uint32, projected, kept []uint32) {
	l.t.Helper()
	got := l.book.Plan(now)
	got.Change = time.Time{}
	if diff := cmp.Diff(replay.Plan{Active: active, Projected: projected, Kept: kept}, got); diff != "" {
		l.t.Error(diff)
	}
}

func TestAVersionThatIsEqualIsSwitchedToAndUndone(t *testing.T) {
	l := &ledger{t: t}
	l.plan(noon, 1, []uint32{1}, nil)
	r := l.start("A", replay.Part{})
	l.plan(noon, 1, []uint32{1, 2}, nil)
	_, early := r.SwitchTo(true, day, noon)
	l.refused("REPLAY_NOT_VERIFIED", replay.Change{}, early)
	r = l.verify(r, replay.Equal)
	r = l.record(r.SwitchTo(false, day, noon))
	l.plan(noon, 2, []uint32{1, 2}, nil)
	l.plan(noon.Add(day), 2, []uint32{2}, nil)
	late, err := l.book.Undo(&r, noon.Add(day))
	l.refused("REPLAY_NOT_UNDOABLE", late, err)
	r = l.record(l.book.Undo(&r, noon.Add(time.Hour)))
	l.plan(noon.Add(time.Hour), 1, []uint32{1}, []uint32{2})
	l.plan(noon.Add(time.Hour+replay.DropAfter), 1, []uint32{1}, nil)
	again, err := l.book.Undo(&r, noon)
	l.refused("REPLAY_STATE", again, err)
}

func TestADifferentVerdictNeedsConsent(t *testing.T) {
	l := &ledger{t: t}
	r := l.verify(l.start("A", replay.Part{}), replay.Different)
	without, err := r.SwitchTo(false, day, noon)
	l.refused("REPLAY_DIFFERS", without, err)
	l.record(r.SwitchTo(true, day, noon))
	if l.book.Active() != 2 {
		t.Errorf("version %d is live", l.book.Active())
	}
}

func TestOneReplayAtATimeAndNoNumberTwice(t *testing.T) {
	l := &ledger{t: t}
	r := l.start("A", replay.Part{})
	second, err := l.book.Start("B", replay.Order{}, noon)
	l.refused("REPLAY_IN_PROGRESS", second, err)
	r = l.record(r.Cancel(noon))
	l.plan(noon, 1, []uint32{1}, nil)
	cancelled, err := r.Cancel(noon)
	l.refused("REPLAY_STATE", cancelled, err)
	if r = l.start("B", replay.Part{}); r.Version != 3 {
		t.Errorf("version %d is used for another replay", r.Version)
	}
	r = l.record(r.Fail("the disk is full", noon))
	if r = l.start("C", replay.Part{}); r.Version != 4 || r.Previous != 1 {
		t.Errorf("%+v", r)
	}
}

func TestACheckIsNeverSwitchedToAndHoldsNobodyUp(t *testing.T) {
	for _, part := range []replay.Part{{Account: "acme"}, {From: event.Position{Stream: "t0", Offset: event.At(7, 0)}}} {
		l := &ledger{t: t}
		r := l.verify(l.start("A", part), replay.Equal)
		l.plan(noon, 1, []uint32{1}, nil)
		switched, err := r.SwitchTo(true, day, noon)
		l.refused("REPLAY_IS_CHECK", switched, err)
		l.start("B", replay.Part{})
	}
}

// What the first switch kept is dropped at the second, so it must not come back
// as something to return to.
func TestOfTwoSwitchesOnlyTheLastIsUndone(t *testing.T) {
	l := &ledger{t: t}
	first := l.verify(l.start("A", replay.Part{}), replay.Equal)
	first = l.record(first.SwitchTo(false, day, noon))
	second := l.verify(l.start("B", replay.Part{}), replay.Equal)
	second = l.record(second.SwitchTo(false, day, noon))
	l.plan(noon.Add(time.Hour), 3, []uint32{2, 3}, nil)
	older, err := l.book.Undo(&first, noon)
	l.refused("REPLAY_NOT_LIVE", older, err)
	l.record(l.book.Undo(&second, noon))
	first, _ = l.book.Find("A")
	l.plan(noon.Add(time.Hour), 2, []uint32{2}, nil)
	gone, err := l.book.Undo(&first, noon)
	l.refused("REPLAY_NOT_UNDOABLE", gone, err)
}

func TestABookIsTheSameWhoeverFoldsIt(t *testing.T) {
	l := &ledger{t: t}
	r := l.verify(l.start("A", replay.Part{}), replay.Equal)
	l.record(r.SwitchTo(false, day, noon))
	l.start("B", replay.Part{Account: "acme"})
	var other replay.Book
	for i := range l.all {
		if err := other.Apply(&l.all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(l.book.Replays(), other.Replays()); diff != "" {
		t.Error(diff)
	}
	seq, _ := other.Applied()
	if other.Active() != 2 || seq != uint64(len(l.all)) {
		t.Errorf("active %d, applied %d", other.Active(), seq)
	}
}

func TestWhatANewerReleaseWroteIsNotGuessed(t *testing.T) {
	for _, data := range []event.Opaque{
		{Schema: "replay/2", Data: []byte(`{}`)},
		{Schema: "replay/1", Data: []byte(`{"replay":{"state":"frozen"}}`)},
		{Schema: "replay/1", Data: []byte(`{"replay":{"state":"ready"}}`)},
	} {
		if r, err := replay.Decode(&event.Event{Payload: data}); err == nil {
			t.Errorf("%s: %+v", data.Data, r)
		}
	}
}

// The audit log is read by everybody of an account, and a comparison is of all
// accounts: what is shown of its certificate names no row and no account.
func TestTheAuditLogShowsNoRowOfACertificate(t *testing.T) {
	l := &ledger{t: t}
	c := certificate(replay.Different)
	c.Tables = []replay.Table{{Name: "cells", Rows: 3, HashOld: "aa", HashNew: "bb", Changed: 1, Accounts: []string{"globex"}}}
	c.FirstDifference = &replay.Difference{
		Table: "cells", Account: "globex", Key: map[string]string{"account": "globex", "product_id": "p9"}, Columns: []string{"version"},
		Old: map[string]string{"version": "6.6.6"}, New: map[string]string{"version": "7.7.7"}, Event: &replay.Cause{Position: "t0.9.9", Subject: "s9"},
	}
	r := l.start("01JW2C5R3V0E6H7Q8S9T0A1B2D", replay.Part{})
	l.record(r.Verify(c, noon))
	last := l.all[len(l.all)-1]
	text := string(replay.Shown(&last.Event))
	for _, hidden := range []string{"globex", "p9", "6.6.6", "7.7.7", "t0.9.9", "s9"} {
		if strings.Contains(text, hidden) {
			t.Errorf("%s is shown: %s", hidden, text)
		}
	}
	for _, shown := range []string{`"verdict":"different"`, `"hash_new":"bb"`, `"table":"cells"`, `"columns":["version"]`} {
		if !strings.Contains(text, shown) {
			t.Errorf("%s is not shown: %s", shown, text)
		}
	}
	if stored, _ := l.book.Find(r.ID); stored.Certificate.FirstDifference.Account != "globex" || stored.Certificate.Tables[0].Accounts == nil {
		t.Error("showing it has changed it")
	}
	other := event.Event{Account: "acme", Subject: r.ID, Payload: event.Opaque{Schema: "replay/2", Data: []byte(`{}`)}}
	if got := replay.Shown(&other); got != nil {
		t.Errorf("of what a newer release wrote, %s is shown", got)
	}
}
