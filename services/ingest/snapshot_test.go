package ingest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/tally"
	"github.com/shipledger/shipledger/services/ingest"
)

// shelf keeps snapshots in memory.
type shelf struct {
	mu    sync.Mutex
	held  map[string][]byte
	stuck error // what Put fails with
}

func newShelf() *shelf { return &shelf{held: map[string][]byte{}} }

func (s *shelf) List(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.held)), nil
}

func (s *shelf) Open(_ context.Context, name string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return io.NopCloser(bytes.NewReader(s.held[name])), nil
}

func (s *shelf) Put(_ context.Context, name string, content io.Reader) error {
	text, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck == nil {
		s.held[name] = text
	}
	return s.stuck
}

func (s *shelf) Remove(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, name)
	return nil
}

func (s *shelf) names() []string {
	names, _ := s.List(context.Background())
	slices.Sort(names)
	return names
}

// readFrom remembers whether the first frame of a log was read.
type readFrom struct {
	eventlog.Log
	first bool
}

func (l *readFrom) Read(ctx context.Context, after uint64) iter.Seq2[eventlog.Recorded, error] {
	l.first = l.first || after == 0
	return l.Log.Read(ctx, after)
}

func (l *readFrom) At(ctx context.Context, seq uint64) (eventlog.Recorded, error) {
	l.first = l.first || seq == 1
	return l.Log.At(ctx, seq)
}

// filled gives a log of n frames, and the snapshots of whoever wrote it.
func filled(t *testing.T, n int) (*memlog.Log, *shelf) {
	t.Helper()
	log, kept := memlog.New(), newShelf()
	c := newCommitter(log, time.Now, slog.DiscardHandler)
	c.KeepAtStop(kept)
	stop := start(t, c)
	for i := range n {
		submit(t, c, command(fmt.Sprint(i), []event.Status{event.Started, event.Completed}[i%2]))
	}
	stop()
	return log, kept
}

func TestAStartReadsTheLogFromItsSnapshot(t *testing.T) {
	log, kept := filled(t, 9)
	if diff := cmp.Diff([]string{"t0.v2.00000000000000000009"}, kept.names()); diff != "" {
		t.Fatal(diff)
	}
	late := run(t, log, time.Now) // a process without snapshots, which goes on
	submit(t, late, command("late", event.Completed))

	watched := &readFrom{Log: log}
	c := newCommitter(watched, time.Now, slog.DiscardHandler)
	c.KeepAtStop(kept)
	start(t, c)
	if watched.first {
		t.Error("the log was read from its first frame")
	}
	for i := range 9 { // all are known, open and closed ones
		if out := submit(t, c, command(fmt.Sprint(i), []event.Status{event.Started, event.Completed}[i%2]))[0]; out.Err != nil || !out.Decision.Duplicate {
			t.Errorf("run %d again: %+v", i, out)
		}
	}
	if out := submit(t, c, command("late", event.Completed))[0]; !out.Decision.Duplicate {
		t.Error("what stands behind the snapshot is not known")
	}
	submit(t, c, command("more", event.Completed))
	counts, err := tally.Accepted(t.Context(), log, "t0", 11)
	if err != nil || counts[tally.Key{Account: "acme", Type: event.TypeOf(event.Deployment, event.Completed)}] == 0 {
		t.Errorf("the count goes on wrongly: %v, %v", counts, err)
	}
}

// Committers of several partitions keep their snapshots in one store, each its own.
func TestPartitionsBeginWithTheirOwnSnapshots(t *testing.T) {
	kept := newShelf()
	logs := []*memlog.Log{memlog.New(), memlog.New(), memlog.New()}
	open := func(i int, log eventlog.Log) *ingest.Committer {
		ids := ulid.Monotonic(rand.Reader, 0)
		c := ingest.NewCommitter(log, event.TrackStream(i), time.Now, func(ms uint64) ulid.ULID { return ulid.MustNew(ms, ids) }, slog.New(slog.DiscardHandler))
		c.KeepAtStop(kept)
		return c
	}
	for i, log := range logs {
		c := open(i, log)
		stop := start(t, c)
		for n := range i + 2 {
			submit(t, c, command(fmt.Sprint(i, n), event.Completed))
		}
		stop()
	}
	if diff := cmp.Diff([]string{"t0.v2.00000000000000000002", "t1.v2.00000000000000000003", "t2.v2.00000000000000000004"}, kept.names()); diff != "" {
		t.Fatal(diff)
	}
	for i, log := range logs {
		watched := &readFrom{Log: log}
		c := open(i, watched)
		stop := start(t, c)
		if watched.first {
			t.Errorf("partition %d was read from its first frame", i)
		}
		for of := range logs {
			out := submit(t, c, command(fmt.Sprint(of, 0), event.Completed))[0]
			if out.Err != nil || out.Decision.Duplicate != (of == i) || !strings.HasPrefix(out.Position.String(), event.TrackStream(i)+".") {
				t.Errorf("partition %d knows the run of %d: %+v", i, of, out)
			}
		}
		stop()
	}
}

func TestASnapshotThatCannotBeUsedIsIgnored(t *testing.T) {
	for name, spoil := range map[string]func(log *memlog.Log, kept *shelf) eventlog.Log{
		"damaged": func(log *memlog.Log, kept *shelf) eventlog.Log {
			for _, text := range kept.held {
				text[len(text)/2] ^= 1
			}
			return log
		},
		"cut off": func(log *memlog.Log, kept *shelf) eventlog.Log {
			for name, text := range kept.held {
				kept.held[name] = text[:len(text)/2]
			}
			return log
		},
		"of another log": func(_ *memlog.Log, _ *shelf) eventlog.Log {
			other, _ := filled(t, 12)
			return other
		},
		"of a longer log": func(_ *memlog.Log, _ *shelf) eventlog.Log {
			other, _ := filled(t, 2)
			return other
		},
		"under another's name": func(log *memlog.Log, kept *shelf) eventlog.Log {
			for name, text := range kept.held {
				delete(kept.held, name)
				kept.held[strings.Replace(name, "09", "05", 1)] = text
			}
			return log
		},
	} {
		t.Run(name, func(t *testing.T) {
			log, kept := filled(t, 9)
			var lines bytes.Buffer
			watched := &readFrom{Log: spoil(log, kept)}
			c := newCommitter(watched, time.Now, slog.NewTextHandler(&lines, nil))
			c.KeepAtStop(kept)
			stop := start(t, c)
			out := submit(t, c, command("0", event.Started))
			stop()
			if !watched.first {
				t.Error("the log was not read from its first frame")
			}
			if !strings.Contains(lines.String(), "a snapshot of the state is ignored") {
				t.Errorf("nobody was told: %s", lines.String())
			}
			if name != "of another log" && name != "of a longer log" && !out[0].Decision.Duplicate {
				t.Error("the log was not folded")
			}
		})
	}
}

func TestSnapshotsAreWrittenWhileCommandsAreDecided(t *testing.T) {
	log, kept := memlog.New(), newShelf()
	kept.held["t0.v0.00000000000000000001"] = []byte("of an earlier version")
	kept.held["t1.v0.00000000000000000001"] = []byte("of another partition")
	kept.held["t0.v9.00000000000000000001"] = []byte("of a later version")
	c := newCommitter(log, time.Now, slog.DiscardHandler)
	c.KeepEvery(kept, 5)
	stop := start(t, c)
	for i := range 100 {
		submit(t, c, command(fmt.Sprint(i), event.Completed))
	}
	stop()
	names := kept.names()
	if len(names) < 3 || len(names) > 4 || names[len(names)-1] != "t1.v0.00000000000000000001" || !slices.Contains(names, "t0.v9.00000000000000000001") ||
		slices.Contains(names, "t0.v0.00000000000000000001") {
		t.Errorf("%v are left, want the newest two of t0 and what is not ours to remove", names)
	}
	watched := &readFrom{Log: log}
	again := newCommitter(watched, time.Now, slog.DiscardHandler)
	again.KeepEvery(kept, 5)
	start(t, again)
	if watched.first {
		t.Error("none of them could be used")
	}
	for i := range 100 {
		if out := submit(t, again, command(fmt.Sprint(i), event.Completed))[0]; !out.Decision.Duplicate {
			t.Errorf("run %d is not known", i)
		}
	}
}

func TestASnapshotThatCannotBeWrittenStopsNobody(t *testing.T) {
	log, kept := memlog.New(), newShelf()
	kept.stuck = io.ErrShortWrite
	c := newCommitter(log, time.Now, slog.DiscardHandler)
	c.KeepEvery(kept, 1)
	stop := start(t, c)
	for i := range 10 {
		if out := submit(t, c, command(fmt.Sprint(i), event.Completed))[0]; out.Err != nil {
			t.Error(out.Err)
		}
	}
	stop()
}
