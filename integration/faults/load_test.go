//go:build linux

package faults_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

const (
	batchRuns   = 10 // deployments in a batch, each started and ended
	batchBuilds = 5

	batchRest = 200 * time.Millisecond
)

// A pace is how many workers set on each client send single events and batches, and what the
// first rest between two runs.
type pace struct {
	singles, batches int
	rest             time.Duration
}

var (
	restless = pace{6, 2, 0} // there is always something in flight
	// For tests that wait for something else, which would bury themselves in
	// events meanwhile.
	calm = pace{6, 2, 20 * time.Millisecond}
	// For tests that hold everything that was sent against everything that is
	// read, many times.
	gentle = pace{1, 1, 50 * time.Millisecond}
)

// A load is a number of pipelines that report runs, one after another, for as
// long as it is not told to end.
type load struct {
	ctx    context.Context // of the workers; done when they are abandoned
	ending chan struct{}
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// startLoad sets workers on each client. Runs carry the name of the load: it
// must be a new one each time.
func startLoad(t *testing.T, name string, p pace, clients ...*client) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &load{ctx: ctx, ending: make(chan struct{}), cancel: cancel}
	for i, c := range clients {
		for w := range p.singles {
			l.wg.Go(func() { l.singles(ctx, c, fmt.Sprintf("%s-%d-s%d", name, i, w), p.rest) })
		}
		for w := range p.batches {
			l.wg.Go(func() { l.batches(ctx, c, fmt.Sprintf("%s-%d-b%d", name, i, w)) })
		}
	}
	t.Cleanup(l.abandon)
	return l
}

// goesOn rests, and tells whether to begin another run.
func (l *load) goesOn(ctx context.Context, rest time.Duration) bool {
	select {
	case <-l.ending:
		return false
	case <-ctx.Done():
		return false
	case <-time.After(rest):
		return true
	}
}

// end begins no more runs. Workers first bring to an end what they have begun,
// so that afterwards all that was sent is acknowledged.
func (l *load) end() { close(l.ending) }

// settle waits until the workers have done so.
func (l *load) settle(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); l.wg.Wait() }() // ends with the workers, which abandon makes certain
	eventually(t, "everything sent is acknowledged", func() error {
		select {
		case <-done:
			return nil
		default:
			return errors.New("some of it is not")
		}
	})
}

// abandon leaves what is unanswered.
func (l *load) abandon() {
	l.cancel()
	l.wg.Wait()
}

var ends = []string{"completed", "failed", "aborted"}

// singles reports runs of a product and environment of its own, so that no rule
// refuses any.
func (l *load) singles(ctx context.Context, c *client, name string, rest time.Duration) {
	for n := 0; l.goesOn(ctx, rest); n++ {
		e := entry{
			report:  report{"deployment", fmt.Sprintf("%s-%d", name, n), "started"},
			product: "product " + name, environment: "production", version: fmt.Sprintf("1.0.%d", n),
		}
		for _, e.status = range []string{"started", ends[n%len(ends)]} {
			if c.single(ctx, e) != nil {
				return
			}
		}
	}
}

func (l *load) batches(ctx context.Context, c *client, name string) {
	for n := 0; l.goesOn(ctx, batchRest); n++ {
		var entries []entry
		for i := range batchRuns {
			e := entry{
				report:  report{"deployment", fmt.Sprintf("%s-%d-%d", name, n, i), "started"},
				product: "product " + name, environment: fmt.Sprintf("staging-%d", i), version: fmt.Sprintf("2.0.%d", n),
			}
			end := e
			end.status = ends[(n+i)%len(ends)]
			entries = append(entries, e, end)
		}
		for i := range batchBuilds {
			entries = append(entries, entry{
				report:  report{"build", fmt.Sprintf("%s-%d-build-%d", name, n, i), "completed"},
				product: "product " + name, version: fmt.Sprintf("2.0.%d", n),
			})
		}
		if c.batch(ctx, entries) != nil {
			return
		}
	}
}

const (
	bulkWorkers = 4
	bulkBytes   = 60 << 10
)

// startBulk sets workers on a client that send large events, to fill what has
// an end.
func startBulk(t *testing.T, c *client) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &load{ctx: ctx, ending: make(chan struct{}), cancel: cancel}
	for w := range bulkWorkers {
		l.wg.Go(func() {
			for n := 0; l.goesOn(ctx, restless.rest); n++ {
				e := entry{
					report:  report{"deployment", fmt.Sprintf("bulk-%d-%d", w, n), "completed"},
					product: fmt.Sprintf("bulk %d", w), environment: "production", version: fmt.Sprint(n), extra: noise(),
				}
				if c.single(ctx, e) != nil {
					return
				}
			}
		})
	}
	t.Cleanup(l.abandon)
	return l
}

// noise is metadata that nothing can compress.
func noise() string {
	b := make([]byte, bulkBytes*3/4)
	_, _ = rand.Read(b) // never fails
	return fmt.Sprintf(`{"noise":%q}`, base64.StdEncoding.EncodeToString(b))
}

// newName tells the runs of one round from those of another.
func newName(what string, round int) string { return fmt.Sprintf("%s%d", what, round) }
