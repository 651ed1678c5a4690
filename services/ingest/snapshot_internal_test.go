package ingest

import (
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheLargerASnapshotIsTheMoreEventsAreBetweenTwo(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		events, held int
		since        time.Duration
		want         bool
	}{
		{events: snapshotEvents, since: snapshotApart, want: true},
		{events: snapshotEvents - 1, since: snapshotApart},
		{events: snapshotEvents, since: snapshotApart - 1},
		{events: 500_000 - 1, held: 10_000_000, since: time.Hour},
		{events: 500_000, held: 10_000_000, since: time.Hour, want: true},
	} {
		k := keeper{every: snapshotEvents, apart: snapshotApart, events: c.events, began: now.Add(-c.since)}
		if got := k.due(c.held, now); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// slowly takes a millisecond for each write.
type slowly struct{ io.Writer }

func (s slowly) Write(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return s.Writer.Write(p)
}

func TestWhoWritesASnapshotRestsUntilSomebodyWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hurry, began := make(chan struct{}), time.Now()
		w := &unhurried{ctx: t.Context(), to: slowly{io.Discard}, hurry: hurry, began: began}
		write := func(times int) {
			for range times {
				if n, err := w.Write(make([]byte, unrested/4)); n != unrested/4 || err != nil {
					t.Fatal(n, err)
				}
			}
		}
		write(8)
		if took, want := time.Since(began), 8*(1+snapshotRests)*time.Millisecond; took != want {
			t.Errorf("two portions took %v, want %v", took, want)
		}
		began = time.Now()
		close(hurry)
		write(8)
		if took, want := time.Since(began), 8*time.Millisecond; took != want {
			t.Errorf("two portions took %v though somebody waits, want %v", took, want)
		}
	})
}
