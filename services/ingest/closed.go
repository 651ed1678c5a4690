package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/closedruns"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// Closed runs are remembered for ever. Every so many of them are sealed, after the
// frame that brought the last one, and written to the disk; a snapshot names the
// files that hold those before it.
const (
	partRuns      = 1 << 18 // 4 to 7 MB in memory, 4.6 MB in a file
	mostUnsettled = 2       // parts that wait to be written while a log is folded
)

// errNoIndex is for the commands that may be repeats of what cannot be read.
var errNoIndex = fault.New(fault.Unavailable, "INDEX_UNREADABLE", "what is known of earlier runs cannot be read; nothing was stored").
	WithHint("Send the event again, byte for byte, after the time in Retry-After. Operators: the log of the process names the file; it is fetched anew when the process is started again.")

// seal takes closed runs out of memory where they are many. It is called between two
// frames.
func (c *Committer) seal() {
	k := &c.snapshots
	defer c.remembered()
	if k.parts == nil || c.state.Fresh() < k.partRuns {
		return
	}
	number, parts, logger, stream := c.state.Parts(), k.parts, c.logger, c.stream
	parts.Seal(number, c.state.Seal())
	k.begin(func(ctx context.Context, hurry <-chan struct{}) {
		if err := parts.Settle(number+1, pace(ctx, hurry)); err != nil {
			logger.WarnContext(ctx, "closed runs stay in memory until they can be written", "stream", stream, "parts", parts.Waiting(), "err", err)
		}
	})
}

// remembered shows how many closed runs are known, and how many of them take memory.
func (c *Committer) remembered() {
	inMemory := c.state.Fresh()
	if c.snapshots.parts != nil {
		inMemory += c.snapshots.parts.Unwritten()
	}
	c.metrics.closed.Set(float64(c.state.Closed()))
	c.metrics.fresh.Set(float64(inMemory))
}

// keepPace lets the disk follow, where a log is folded faster than that.
func (k *keeper) keepPace(ctx context.Context) {
	if k.parts != nil && k.parts.Waiting() > mostUnsettled {
		k.wait(ctx)
	}
}

// blind tells that closed runs cannot be read: in the log once, as each event that
// asks the file may be refused.
func (c *Committer) blind(ctx context.Context, err error) {
	c.blinded.Do(func() {
		c.logger.ErrorContext(ctx, "closed runs cannot be read; start this process again, it fetches the file anew", "stream", c.stream, "err", err)
	})
	c.failing.Store(&failure{err, c.clock()})
	c.metrics.failures.Inc()
}

// storeParts writes the first n parts to the disk and into the store, and gives the
// names of their files.
func (k *keeper) storeParts(ctx context.Context, n int, hurry <-chan struct{}) ([]string, error) {
	if k.parts == nil {
		return nil, nil
	}
	settling := k.parts.Settle(n, pace(ctx, hurry))
	if k.parts.Settled() < n { // where only a merge failed, there are more files than need be
		return nil, settling
	}
	held, err := k.store.List(ctx)
	if err != nil {
		return nil, err
	}
	names := k.parts.Names()
	for _, name := range names {
		if slices.Contains(held, name) {
			continue
		}
		content, err := k.parts.Content(name)
		if err != nil {
			return nil, err
		}
		if err := k.put(ctx, name, hurry, func(to io.Writer) error { _, err := io.Copy(to, content); return err }); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// loadParts begins with the parts that a snapshot names.
func (c *Committer) loadParts(ctx context.Context, state *tracking.State, names []string) error {
	k := &c.snapshots
	if k.parts == nil {
		if state.Parts() > 0 {
			return errors.New("it names files of closed runs, and there is no directory for them")
		}
		return nil
	}
	return k.parts.Load(state.Parts(), names, func(name string) (io.ReadCloser, error) { return k.store.Open(ctx, name) })
}

// pruneParts removes the parts of stored, which are given with where they end, that
// none of the snapshots names, unless they reach behind them all.
func pruneParts(ctx context.Context, store Snapshots, snapshots []string, stored map[string]int, parts *closedruns.Parts) error {
	named, end := map[string]bool{}, 0
	for _, name := range snapshots {
		a, err := readAbout(ctx, store, name)
		if err != nil {
			return fmt.Errorf("read what the snapshot %s names: %w", name, err)
		}
		for _, part := range a.Parts {
			named[part] = true
			if at, ok := parts.End(part); ok {
				end = max(end, at)
			}
		}
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		if !named[name] && stored[name] <= end {
			faults = append(faults, store.Remove(ctx, name))
		}
	}
	return errors.Join(faults...)
}

func readAbout(ctx context.Context, store Snapshots, name string) (a about, err error) {
	content, err := store.Open(ctx, name)
	if err != nil {
		return about{}, err
	}
	defer content.Close()
	text, err := tracking.ReadAbout(content)
	if err != nil {
		return about{}, err
	}
	return a, json.Unmarshal(text, &a)
}
