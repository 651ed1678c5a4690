package tracking_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/tracking"
)

var update = flag.Bool("update", false, "write golden files anew")

func snapshotOf(t fataler, s *tracking.State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteSnapshot(&b, []byte("about")); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestASnapshotAndTheRestAreTheFoldOfEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger(t)
		for _, f := range rapid.SliceOfN(anyBody, 0, 40).Draw(t, "commands") {
			l.try(f)
		}
		at := rapid.IntRange(0, len(l.events)).Draw(t, "at")
		whole, restored := newLedger(t), newLedger(t)
		var frozen *tracking.State
		for i, r := range l.events {
			if i == at {
				frozen = whole.state.Freeze()
			}
			whole.state.Apply(r)
		}
		if frozen == nil {
			frozen = whole.state.Freeze()
		}
		state, about, err := tracking.ReadSnapshot(bytes.NewReader(snapshotOf(t, frozen))) // written after the state went on
		if err != nil || string(about) != "about" {
			t.Fatalf("%q, %v", about, err)
		}
		for _, r := range l.events[at:] {
			state.Apply(r)
		}
		restored.state = state
		if diff := cmp.Diff(whole.state.Sizes(), state.Sizes()); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(whole.state.ClosedRuns(), state.ClosedRuns()); diff != "" {
			t.Fatal(diff)
		}
		for _, side := range []*ledger{whole, restored} {
			side.seq, side.ids, side.now, side.events = l.seq, l.ids, l.now, l.events
			maps.Copy(side.frames, l.frames)
		}
		for _, f := range rapid.SliceOfN(anyBody, 1, 20).Draw(t, "next") {
			if want, got := whole.try(f), restored.try(f); want != got {
				t.Fatalf("%v: the restored state decides %s, the fold %s", f, got, want)
			}
		}
	})
}

// eventful gives a state that has something of everything.
func eventful(t fataler) *ledger {
	l := newLedger(t)
	for i := range 30 {
		l.try(build("success", fields{"product_name": fmt.Sprint("p", i%3), "version": fmt.Sprint(i), "invoke_id": fmt.Sprint(i), "scm_sha": "1111111"}))
		l.try(deployment("started", fields{"product_name": fmt.Sprint("p", i%5), "invoke_id": fmt.Sprint(i), "extra_metadata": fields{"k": i}}))
	}
	c := command(deployment("pending", fields{"invoke_id": "keyed"}))
	c.IdempotencyKey = "key"
	if _, err := l.decide(c); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestADamagedSnapshotIsNotRead(t *testing.T) {
	whole := snapshotOf(t, eventful(t).state)
	if _, _, err := tracking.ReadSnapshot(bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole); n += 1 + n/16 {
		if _, _, err := tracking.ReadSnapshot(bytes.NewReader(whole[:n])); !errors.Is(err, tracking.ErrSnapshot) {
			t.Fatalf("cut off after %d bytes: %v", n, err)
		}
		bad := bytes.Clone(whole)
		bad[n] ^= 0x11
		if _, _, err := tracking.ReadSnapshot(bytes.NewReader(bad)); !errors.Is(err, tracking.ErrSnapshot) {
			t.Fatalf("byte %d is another: %v", n, err)
		}
	}
}

// A golden snapshot that is read otherwise, or not at all, says that
// SnapshotVersion must be raised; -update then writes it anew.
func TestSnapshotsOfThisVersionAreReadAsTheyWereWritten(t *testing.T) {
	path := filepath.Join("testdata", fmt.Sprintf("snapshot.v%d", tracking.SnapshotVersion))
	l := eventful(t)
	if *update {
		if err := os.WriteFile(path, snapshotOf(t, l.state), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	state, _, err := tracking.ReadSnapshot(bytes.NewReader(golden))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l.state.Sizes(), state.Sizes()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(l.state.ClosedRuns(), state.ClosedRuns()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(l.state.OpenRuns(), state.OpenRuns()); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkSnapshot is of five million closed runs, what ten million events
// leave: how long requests wait for it, how long writing takes, and reading.
func BenchmarkSnapshot(b *testing.B) {
	const runs = 5_000_000
	state := tracking.StateOfClosedRuns(runs)
	var text bytes.Buffer
	text.Grow(20 * runs)
	b.Run("freeze", func(b *testing.B) {
		for b.Loop() {
			state.Freeze()
		}
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			text.Reset()
			if err := state.WriteSnapshot(&text, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(text.Len())/runs, "B/run")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := tracking.ReadSnapshot(bytes.NewReader(text.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func FuzzReadSnapshot(f *testing.F) {
	f.Add(snapshotOf(f, eventful(f).state))
	f.Add(snapshotOf(f, tracking.NewState()))
	f.Fuzz(func(t *testing.T, text []byte) {
		state, _, err := tracking.ReadSnapshot(bytes.NewReader(text))
		if err != nil {
			return
		}
		state.Apply(event.Recorded{Event: event.Event{Time: epoch}}) // whatever passes its checksum can be used
	})
}
