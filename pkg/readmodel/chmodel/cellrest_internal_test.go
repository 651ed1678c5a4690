package chmodel

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// anyCell gives what shown and rest hold of a cell, and its stream.
func anyCell(t *rapid.T) (rec event.Record, stream string, succeeded bool) {
	run := anyRun(t)
	r := &run.Record
	rec = event.Record{
		ID: r.ID, Version: r.Version, Status: r.Status, SHAMismatch: r.SHAMismatch,
		CreatedAt: r.CreatedAt, StartedAt: r.StartedAt, CompletedAt: r.CompletedAt,
	}
	for _, a := range []event.Attribute{event.SCMSHA, event.BuildNumber, event.URL, event.By, event.ByEmail, event.ByName} {
		rec.Attributes[a] = r.Attributes[a]
	}
	return rec, run.Position.Stream, rapid.Bool().Draw(t, "succeeded")
}

func TestACellComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want, stream, succeeded := anyCell(t)
		shown, rest := string(appendCell(nil, &want, stream, succeeded)), string(appendCellRest(nil, &want, succeeded))
		got := event.Record{ID: want.ID}
		if of, err := readCell(shown, rest, &got); err != nil || of != stream || cmp.Diff(want, got) != "" {
			t.Fatal(err, of, cmp.Diff(want, got))
		}
		at := mark{rapid.Int64Range(-1e12, 1e12).Draw(t, "at"), rapid.Uint64().Draw(t, "pos")}
		position := event.Position{Stream: stream, Offset: event.Offset(at.pos)}
		if !succeeded {
			var tried readmodel.LastAttempt
			all := readmodel.LastAttempt{Version: want.Version, Status: want.Status, At: moment(at.at), Position: position}
			if err := readAttempt(shown, at, &tried); err != nil || tried != all {
				t.Fatal(err, tried, all)
			}
			return
		}
		var live readmodel.Success
		all := (&readmodel.Cell{Record: want, EffectiveAt: moment(at.at), Position: position}).Shown()
		all.ID, all.VersionID = live.ID, live.VersionID
		if err := readSuccess(shown, at, &live); err != nil || live != all {
			t.Fatal(err, live, all)
		}
	})
}

func TestACellThatIsCutIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec, stream, succeeded := anyCell(t)
		shown, rest := string(appendCell(nil, &rec, stream, succeeded)), string(appendCellRest(nil, &rec, succeeded))
		refused := func(shown, rest string) {
			t.Helper()
			if _, err := readCell(shown, rest, &event.Record{ID: rec.ID}); err == nil {
				t.Fatalf("%q and %q are read", shown, rest)
			}
		}
		for n := range shown {
			refused(shown[:n], rest)
		}
		for n := range rest {
			refused(shown, rest[:n])
		}
		refused(shown+"\x00", rest)
		refused(shown, rest+"\x00")
		noise := string(append([]byte{cellForm}, rapid.SliceOf(rapid.Byte()).Draw(t, "noise")...))
		_, _ = readCell(noise, noise, &event.Record{})
	})
}

func TestWhatACellHoldsIsShownByItsName(t *testing.T) {
	var rec event.Record
	rec.SHAMismatch, rec.Status = true, event.Failed
	rec.Attributes[event.URL], rec.Attributes[event.ByName] = "https://ci.example.com/7", "Ada"
	for _, succeeded := range []bool{true, false} {
		shown, rest := string(appendCell(nil, &rec, "t0", succeeded)), string(appendCellRest(nil, &rec, succeeded))
		got, err := cellRestColumns(rec.ID, shown, rest)
		if err != nil || got["sha_mismatch"] != "true" || got["status"] != event.Failed.String() || got["url"] != "https://ci.example.com/7" || got["done_by_name"] != "Ada" {
			t.Error(got, err)
		}
		got, err = cellShownColumns(shown)
		if err != nil || got["status"] != event.Failed.String() || (got["url"] != "") != succeeded {
			t.Error(got, err)
		}
		if _, err := cellRestColumns(rec.ID, shown, "?"); err == nil {
			t.Error("what is no rest of a cell is read")
		}
	}
}
