package ingest

import (
	"math"

	"github.com/go-json-experiment/json/jsontext"
)

// InParallel is what reads a batch.
var InParallel = inParallel

// KeepEvery makes the committer write a snapshot after every n events, and none
// when it stops.
func (c *Committer) KeepEvery(store Snapshots, n int) {
	c.snapshots = keeper{store: store, every: n, atStop: math.MaxInt}
}

// KeepAtStop makes it write one only when it stops.
func (c *Committer) KeepAtStop(store Snapshots) {
	c.snapshots = keeper{store: store, every: math.MaxInt}
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
