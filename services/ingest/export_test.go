package ingest

import (
	"context"
	"math"

	"github.com/go-json-experiment/json/jsontext"
)

// InParallel is what reads a batch.
var InParallel = inParallel

// KeepEvery makes the committer write a snapshot after every n events, and none
// when it stops.
func (c *Committer) KeepEvery(store Snapshots, n int) {
	c.keep(keeper{store: store, every: n, atStop: math.MaxInt}, "")
}

// KeepParts does, and seals closed runs in parts of runs each.
func (c *Committer) KeepParts(store Snapshots, dir string, n, runs int) {
	c.keep(keeper{store: store, every: n, partRuns: runs}, dir)
}

// KeepAtStop makes it write one only when it stops.
func (c *Committer) KeepAtStop(store Snapshots) {
	c.keep(keeper{store: store, every: math.MaxInt}, "")
}

// Named gives the parts that a snapshot names.
func Named(ctx context.Context, store Snapshots, name string) ([]string, error) {
	a, err := readAbout(ctx, store, name)
	return a.Parts, err
}

// Items is what cuts a batch into events, from lines or from an array.
func Items(body []byte, lines bool) ([]jsontext.Value, int, error) {
	if lines {
		out, n := splitLines(body)
		return out, n, nil
	}
	return splitArray(body)
}

// Queued tells how many requests stand in the queue, those aside that are being
// decided.
func (c *Committer) Queued() int { return len(c.queue) }
