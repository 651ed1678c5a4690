package logarchive_test

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/logarchive"
)

func keeper(t *testing.T, kept eventlog.Log, c, t0 eventlog.Reader) *logarchive.Keeper {
	t.Helper()
	return logarchive.NewKeeper(map[string]eventlog.Reader{"c": c, "t0": t0}, kept, signer(t, 1), 0, slog.New(slog.DiscardHandler))
}

// counting counts the frames that are read.
type counting struct {
	*memlog.Log
	read *int
}

func (l counting) Read(ctx context.Context, after uint64) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		for r, err := range l.Log.Read(ctx, after) {
			*l.read++
			if !yield(r, err) {
				return
			}
		}
	}
}

func TestCheckpointsAreKeptAndGoneOnFrom(t *testing.T) {
	c, t0 := logs(t, 6)
	kept, read := memlog.New(), 0
	for range 5 { // a new process each
		fill(t, t0, 3)
		k := keeper(t, kept, c, counting{t0, &read})
		if err := k.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
		if err := k.Checkpoint(ctx); err != nil { // nothing has grown
			t.Fatal(err)
		}
	}
	if read != 21 {
		t.Errorf("%d frames were read, of 21", read)
	}
	k := keeper(t, kept, c, t0)
	sources, err := k.Sources(ctx, "c", "t0")
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := logarchive.Write(ctx, &file, sources, logarchive.Options{Signer: k.Signer()}); err != nil {
		t.Fatal(err)
	}
	got := scan(t, file.Bytes(), logarchive.Expect{Key: k.Signer().PublicKey()})
	if !got.OK() || got.Checked != 5+1+2 {
		t.Errorf("%+v", got)
	}
}

// A log that was changed under its checkpoints, checksums and all, is found by
// them, and so are the frames.
func TestALogThatWasChangedBehindItsCheckpointsIsFound(t *testing.T) {
	c, t0 := logs(t, 4)
	kept := memlog.New()
	if err := keeper(t, kept, c, t0).Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	fill(t, t0, 4)
	if err := keeper(t, kept, c, t0).Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	forged := memlog.New()
	for _, r := range framesOf(t, t0) {
		if r.Seq == 6 {
			r.Body = bytes.Replace(r.Body, []byte(`"n":6`), []byte(`"n":9`), 1)
		}
		if _, err := forged.AppendFrame(ctx, r.Frame, r.Seq-1); err != nil {
			t.Fatal(err)
		}
	}
	k := keeper(t, kept, c, forged)
	sources, err := k.Sources(ctx, "c", "t0")
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := logarchive.Write(ctx, &file, sources, logarchive.Options{Signer: k.Signer()}); err != nil {
		t.Fatal(err)
	}
	got := faults(scan(t, file.Bytes(), logarchive.Expect{Key: k.Signer().PublicKey()}))
	if len(got) == 0 || !strings.Contains(got[0], "stream t0") || !strings.Contains(got[0], "frames 5 to 8 are not those that were signed") {
		t.Errorf("got %q", got)
	}
}

// A keeper reads a log that grows a little at a time, long before a checkpoint is
// due, and signs what it has read when one is.
func TestALogIsReadInPortionsBetweenCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, t0 := logs(t, 0)
		kept, read := memlog.New(), 0
		k := logarchive.NewKeeper(map[string]eventlog.Reader{"c": c, "t0": counting{t0, &read}}, kept, signer(t, 1), time.Minute, slog.New(slog.DiscardHandler))
		running, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(running, func() {}) }()
		const frames = 700 // more than two portions
		fill(t, t0, frames)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if last, err := kept.Last(t.Context()); read != frames || last != 0 || err != nil {
			t.Errorf("after half of the time %d of %d frames are read, and %d checkpoints kept, %v", read, frames, last, err)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		last, err := kept.Last(t.Context())
		if read != frames || last == 0 || err != nil {
			t.Errorf("%d frames are read, and %d checkpoints kept, %v", read, last, err)
		}
		time.Sleep(2 * time.Minute) // nothing grows
		synctest.Wait()
		if again, err := kept.Last(t.Context()); again != last || err != nil {
			t.Errorf("%d checkpoints of what has not grown, %v", again-last, err)
		}
		if k.Made() != last {
			t.Errorf("it says that it has made %d checkpoints, and %d are kept", k.Made(), last)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
