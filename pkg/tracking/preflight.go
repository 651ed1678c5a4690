package tracking

import (
	"github.com/shipledger/shipledger/pkg/event"
)

// rule is one check of a start. It returns nil where it has no objection.
// Rules see the state only through the decider, so that checking and appending
// are one step for each product and environment (contract 12).
type rule func(d *decider) (*event.Refusal, *event.Record)

// rules in the order of contract 12. The first objection decides the answer.
// Schedules, flow, soak and approvals are added here.
var rules = []rule{concurrency}

// ruled tells whether the rules look at the command at all: at a start that
// would begin something and, where the account is strict, at an end of what never
// began. History, and reports of a run that has begun or ended, are not asked.
func (d *decider) ruled() bool {
	if d.c.Kind != event.Deployment || d.c.Backfill {
		return false
	}
	ends := d.c.Status.Terminal() && d.s.setting(d.c.Account).PreflightStrict
	if d.c.Status != event.Started && !ends {
		return false
	}
	return d.run == nil || d.run.record.Status == event.Pending
}

// skips tells whether the caller asks to skip the rules, and is heard.
func (d *decider) skips() bool {
	return d.c.SkipPreflight && d.s.setting(d.c.Account).HonourSkipPreflight
}

func (d *decider) preflight() (*event.Refusal, *event.Record) {
	if !d.ruled() || d.skips() {
		return nil, nil
	}
	for _, check := range rules {
		if refusal, conflict := check(d); refusal != nil {
			return refusal, conflict
		}
	}
	return nil, nil
}

// concurrency lets one deployment at a time be under way in an environment
// (contract 12, D-07), or as many as the environment says. A start that is older
// than the environment's stale_after blocks nobody.
func concurrency(d *decider) (*event.Refusal, *event.Record) {
	var first *event.Record
	n := 0
	for _, id := range d.s.byCell[d.triple.cell] {
		other := d.s.open[id]
		if d.run != nil && id == d.run.record.ID || other.record.Status != event.Started {
			continue
		}
		if d.k.Now.Sub(other.record.StartedAt) > d.environment.living.staleAfter() {
			continue
		}
		if n++; first == nil {
			first = other.record
		}
	}
	if n < d.environment.living.concurrency() {
		return nil, nil
	}
	return &event.Refusal{
		Rule: concurrencyRule, Code: "CONCURRENT_DEPLOYMENT", Conflict: first.ID,
		Message: "Another deployment of " + d.product.name + " to " + d.environment.name + " is in progress",
	}, first
}
