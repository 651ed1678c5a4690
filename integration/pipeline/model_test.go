package pipeline_test

import (
	"cmp"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// report is a command that was accepted, with its receipt: all that the model
// knows. It knows no events, no frames and no rows.
type report struct {
	cmd *tracking.Command
	at  time.Time
	n   int // its place among all reports
}

// modelRun is a deployment or build as the contract describes it, worked out
// from all its reports at once and not one after the other.
type modelRun struct {
	id      string
	reports []report
	refused bool // the start that a rule refused
}

// effective is contract 11.6 for the i-th report of a run.
func (r *modelRun) effective(i int) time.Time {
	x := r.reports[i]
	if !x.cmd.Status.Terminal() {
		return x.at
	}
	t := x.at
	if !r.refused && !x.cmd.CompletedAt.IsZero() && x.cmd.CompletedAt.Before(t) {
		t = x.cmd.CompletedAt
	}
	if start := r.start(i + 1); !start.IsZero() && t.Before(start) {
		t = start
	}
	return t
}

// start is the earliest start that the first n reports tell of.
func (r *modelRun) start(n int) time.Time {
	var start time.Time
	for i, x := range r.reports[:n] {
		var s time.Time
		if x.cmd.Kind == event.Build {
			s = x.cmd.StartedAt
		}
		if s.IsZero() && x.cmd.Status == event.Started && !r.refused {
			s = x.at
		}
		if s.IsZero() {
			continue
		}
		if s.After(x.at) {
			s = x.at
		}
		if end, ok := r.completed(i); ok && s.After(end) {
			s = end
		}
		if start.IsZero() || s.Before(start) {
			start = s
		}
	}
	return start
}

// completed is when the run ended, as far as the first n reports tell: the
// first terminal one decides for good.
func (r *modelRun) completed(n int) (time.Time, bool) {
	for i, x := range r.reports[:n] {
		if x.cmd.Status.Terminal() {
			return r.effective(i), true
		}
	}
	return time.Time{}, false
}

func (r *modelRun) status() event.Status {
	if r.refused {
		return event.PreflightFailed
	}
	best := event.Status(0)
	for _, x := range r.reports {
		if x.cmd.Status.Terminal() {
			return x.cmd.Status
		}
		if x.cmd.Status.Rank() > best.Rank() {
			best = x.cmd.Status
		}
	}
	return best
}

// best gives the value of the highest report that has one (contract 11.8).
func (r *modelRun) best(value func(*tracking.Command) string) string {
	var with []int
	for i, x := range r.reports {
		if value(x.cmd) != "" {
			with = append(with, i)
		}
	}
	if len(with) == 0 {
		return ""
	}
	top := slices.MaxFunc(with, func(a, b int) int {
		x, y := r.reports[a], r.reports[b]
		return cmp.Or(cmp.Compare(x.cmd.Status.Rank(), y.cmd.Status.Rank()), r.effective(a).Compare(r.effective(b)), cmp.Compare(x.n, y.n))
	})
	return value(r.reports[top].cmd)
}
