package projector

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
)

// version is a version of the tables that is kept up to date: a lane for each
// stream, in the order of Config.Streams.
type version struct {
	number uint32
	lanes  []*lane
	done   chan struct{} // closed when all lanes have ended
}

func (v *version) stop() {
	for _, l := range v.lanes {
		l.stop()
	}
	<-v.done
}

// state is that of all streams together: the progress is of the one with the newest
// event.
func (v *version) state() State {
	var all State
	var errs []error
	for i, l := range v.lanes {
		s := l.State()
		if i == 0 || s.Progress.Time.After(all.Progress.Time) {
			all.Progress = s.Progress
		}
		all.Events += s.Events
		all.Unknown += s.Unknown
		all.Quarantined += s.Quarantined
		errs = append(errs, s.Err)
	}
	all.Err = joined(errs)
	return all
}

// oldest gives since when the oldest event of all streams is set aside; the zero
// time: none is.
func (v *version) oldest() (at time.Time) {
	for _, l := range v.lanes {
		if since := l.oldest(); !since.IsZero() && (at.IsZero() || since.Before(at)) {
			at = since
		}
	}
	return at
}

// joined gives the only error as it is, so that its kind can be told.
func joined(errs []error) error {
	var found error
	for _, err := range errs {
		switch {
		case err == nil:
		case found == nil:
			found = err
		default:
			found = errors.Join(found, err)
		}
	}
	return found
}

// broken gives why a stream does not get on whatever is tried.
func (v *version) broken() error {
	for _, l := range v.lanes {
		if err := l.broken(); err != nil {
			return err
		}
	}
	return nil
}

// keepPace makes v go on at the pace of the live version, from its next portion.
func (v *version) keepPace() {
	for _, l := range v.lanes {
		if l.rebuilding.Swap(false) {
			l.gate.nudge()
		}
	}
}

// offsets says how far each stream is.
func (v *version) offsets() []event.Offset {
	var out []event.Offset
	for _, l := range v.lanes {
		out = append(out, l.State().Progress.Offset)
	}
	return out
}

// heeded gives the last decision about the quarantine that each stream has done.
func (v *version) heeded() uint64 {
	least := ^uint64(0)
	for _, l := range v.lanes {
		l.mu.Lock()
		least = min(least, l.heeded)
		l.mu.Unlock()
	}
	return least
}

// reached tells whether each stream is at least that far.
func (v *version) reached(at []event.Offset) bool {
	for i, l := range v.lanes {
		if l.State().Progress.Offset < at[i] {
			return false
		}
	}
	return true
}

// near tells whether v lacks few frames of what other holds, and both get on.
func (v *version) near(other *version) bool {
	for i, l := range v.lanes {
		if from, ok := l.log.(*snapshot); ok && !from.verified.Load() {
			return false
		}
		mine, goal := l.State(), other.lanes[i].State()
		if mine.Err != nil || goal.Err != nil {
			return false
		}
		few := mine.Progress.Offset.Seq()+near >= goal.Progress.Offset.Seq()
		if !few && (l.turn == nil || goal.Progress.Time.Sub(mine.Progress.Time) > nearTime) {
			return false
		}
	}
	return true
}

// positions names offsets, one a stream that has any.
func (v *version) positions(at []event.Offset) string {
	var names []string
	for i, l := range v.lanes {
		if at[i] > 0 {
			names = append(names, event.Position{Stream: l.stream, Offset: at[i]}.String())
		}
	}
	return strings.Join(names, ",")
}

// standing is a version that stood still: where, for how long, and what came of it.
type standing struct {
	at     []event.Offset
	heeded uint64 // the last decision about the quarantine that it has done
	took   time.Duration
	err    error
}

// standStill makes each of two versions stand between the same two frames of
// each stream and calls do there. Each goes on when its own call has returned.
// Nothing is lost: what they do not read stays in
// the log. The second lets the first go first: readers wait for the live version.
func standStill(ctx context.Context, versions [2]*version, do func(context.Context, *version) error) (stood [2]standing) {
	ctx, cancel := context.WithTimeoutCause(ctx, stillTimeout, errMoving)
	defer cancel()
	began := time.Now()
	a, b := versions[0], versions[1]
	for i := range a.lanes {
		limit := b.lanes[i].gate.arm(a.lanes[i].gate.arm(0))
		a.lanes[i].gate.arm(limit) // what one has let through before is the limit of the other
	}
	var wg sync.WaitGroup
	first := make(chan struct{}) // closed when the first goes on
	for i, v := range versions {
		wg.Go(func() {
			defer func() {
				if i == 0 {
					close(first)
				}
				for _, l := range v.lanes {
					l.gate.disarm()
				}
				stood[i].took = time.Since(began)
			}()
			for _, l := range v.lanes {
				if stood[i].err = l.gate.await(ctx); stood[i].err != nil {
					return
				}
			}
			if i > 0 {
				<-first
			}
			stood[i].at, stood[i].heeded = v.offsets(), v.heeded()
			stood[i].err = do(ctx, v)
		})
	}
	wg.Wait()
	return stood
}
