package ingest_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/services/ingest"
)

// parted gives a committer that seals two closed runs at a time, and writes a
// snapshot after every n events and at its end.
func parted(log *memlog.Log, kept ingest.Snapshots, dir string, n int) *ingest.Committer {
	c := newCommitter(log, time.Now, slog.DiscardHandler)
	c.KeepParts(kept, dir, n, 2)
	return c
}

// known tells whether the runs are known, each closed by the status that command makes.
func known(t *testing.T, c *ingest.Committer, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if out := submit(t, c, command(fmt.Sprint(i), event.Completed))[0]; out.Err != nil || !out.Decision.Duplicate {
			t.Errorf("run %d again: %+v", i, out)
		}
	}
}

func close20(t *testing.T, c *ingest.Committer, from int) {
	t.Helper()
	for i := from; i < from+20; i++ {
		if out := submit(t, c, command(fmt.Sprint(i), event.Completed))[0]; out.Err != nil || out.Decision.Duplicate {
			t.Errorf("run %d: %+v", i, out)
		}
	}
}

func TestClosedRunsInFilesAreKnownBeforeAndAfterAStart(t *testing.T) {
	log, kept, dir := memlog.New(), newShelf(), t.TempDir()
	for round := range 3 {
		c := parted(log, kept, dir, 7)
		stop := start(t, c)
		known(t, c, 0, 20*round)
		close20(t, c, 20*round)
		known(t, c, 0, 20*(round+1))
		stop()
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if kept.held[f.Name()] == nil {
			t.Errorf("%s is not kept for others", f.Name())
		}
	}
	named := map[string]bool{}
	for _, name := range kept.names() {
		if !strings.Contains(name, ".runs.") {
			parts, err := ingest.Named(t.Context(), kept, name)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range parts {
				named[part] = true
			}
		}
	}
	for _, name := range kept.names() {
		if strings.Contains(name, ".runs.") && !named[name] {
			t.Errorf("%s is left, and no snapshot names it", name)
		}
	}

	watched := &readFrom{Log: log}
	elsewhere := newCommitter(watched, time.Now, slog.DiscardHandler)
	elsewhere.KeepParts(kept, t.TempDir(), 7, 2)
	start(t, elsewhere)
	if watched.first {
		t.Error("a process with an empty directory read the log from its first frame")
	}
	known(t, elsewhere, 0, 60)
}

func TestALogIsFoldedIntoFilesWhereThereIsNoSnapshot(t *testing.T) {
	log := memlog.New()
	c := newCommitter(log, time.Now, slog.DiscardHandler)
	stop := start(t, c)
	close20(t, c, 0)
	stop()
	dir := t.TempDir()
	again := parted(log, newShelf(), dir, 1<<30)
	start(t, again)
	known(t, again, 0, 20)
}

func TestTwoProcessesShareADirectoryOfClosedRuns(t *testing.T) {
	log, kept, dir := memlog.New(), newShelf(), t.TempDir()
	one, two := parted(log, kept, dir, 5), parted(log, kept, dir, 5)
	stopOne, stopTwo := start(t, one), start(t, two)
	for i := range 6 {
		close20(t, []*ingest.Committer{one, two}[i%2], 20*i)
	}
	for _, c := range []*ingest.Committer{one, two} {
		known(t, c, 0, 120)
	}
	stopOne()
	known(t, two, 0, 120)
	stopTwo()
	third := parted(log, kept, dir, 5)
	start(t, third)
	known(t, third, 0, 120)
}

func TestWhereNoFileCanBeWrittenClosedRunsStayInMemory(t *testing.T) {
	log, kept := memlog.New(), newShelf()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	c := newCommitter(log, time.Now, slog.NewTextHandler(&lines, nil))
	c.KeepParts(kept, filepath.Join(file, "dir"), 7, 2)
	stop := start(t, c)
	close20(t, c, 0)
	known(t, c, 0, 20)
	stop()
	if !strings.Contains(lines.String(), "closed runs stay in memory") {
		t.Errorf("nobody was told: %s", lines.String())
	}
	again := newCommitter(log, time.Now, slog.DiscardHandler)
	again.KeepParts(kept, filepath.Join(file, "dir"), 7, 2)
	start(t, again)
	known(t, again, 0, 20)
}

func TestAFileOfClosedRunsThatIsDamagedRefusesAndIsMendedByAStart(t *testing.T) {
	log, kept, dir := memlog.New(), newShelf(), t.TempDir()
	c := parted(log, kept, dir, 7)
	stop := start(t, c)
	close20(t, c, 0)
	stop()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text[3] ^= 1
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var lines bytes.Buffer
	damaged := newCommitter(log, time.Now, slog.NewTextHandler(&lines, nil))
	damaged.KeepParts(kept, dir, 7, 2)
	stop = start(t, damaged)
	refused := 0
	for i := range 20 {
		out := submit(t, damaged, command(fmt.Sprint(i), event.Completed))[0]
		switch {
		case fault.KindOf(out.Err) == fault.Unavailable:
			refused++
		case out.Err != nil || !out.Decision.Duplicate:
			t.Errorf("run %d is taken for a new one: %+v", i, out)
		}
	}
	if refused == 0 || damaged.Healthy() == nil {
		t.Errorf("%d were refused, health says %v", refused, damaged.Healthy())
	}
	stop()
	if n := strings.Count(lines.String(), "closed runs cannot be read"); n != 1 {
		t.Errorf("the log says so %d times", n)
	}
	mended := parted(log, kept, dir, 7)
	start(t, mended)
	known(t, mended, 0, 20)
}

func TestASnapshotWhosePartsAreLostIsNotUsed(t *testing.T) {
	log, kept := memlog.New(), newShelf()
	c := parted(log, kept, t.TempDir(), 7)
	stop := start(t, c)
	close20(t, c, 0)
	stop()
	for name := range kept.held {
		if strings.Contains(name, ".runs.") {
			delete(kept.held, name)
		}
	}
	watched := &readFrom{Log: log}
	again := newCommitter(watched, time.Now, slog.DiscardHandler)
	again.KeepParts(kept, t.TempDir(), 1<<30, 2)
	start(t, again)
	if !watched.first {
		t.Error("the log was not read from its first frame")
	}
	known(t, again, 0, 20)
}
