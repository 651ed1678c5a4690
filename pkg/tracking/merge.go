package tracking

import (
	"maps"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
)

// merge lets a report change its run, and gives the report's effective time.
// The result does not depend on the order in which the reports of a run arrive,
// as far as the times they carry tell (contract 11).
func merge(r *event.Record, c *Command, status event.Status, now time.Time, at event.Offset) time.Time {
	mergeStart(r, c, status, now)
	effective := effectiveTime(r, c, status, now)
	if r.Seen == 0 || !r.Status.Terminal() && status.Rank() > r.Status.Rank() {
		r.Status = status
		if status.Terminal() {
			r.CompletedAt = effective
		}
	}
	r.Seen = r.Seen.With(status)
	stamp := event.Stamp{Rank: status.Rank(), Effective: effective, Offset: at}
	for a, v := range c.Attributes {
		if v != "" && (r.Attributes[a] == "" || stamp.After(r.AttributeStamps[a])) {
			r.Attributes[a], r.AttributeStamps[a] = v, stamp
		}
	}
	mergeExtra(r, c, stamp)
	return effective
}

// mergeStart keeps the earliest start that is known (contract 11.8). A start
// that becomes known after the end is set to the end at the latest (11.6).
func mergeStart(r *event.Record, c *Command, status event.Status, now time.Time) {
	start := time.Time{}
	if c.Backfill || c.Kind == event.Build {
		start = c.StartedAt // builds stamp it on every event (contract 4.2)
	}
	if start.IsZero() && status == event.Started {
		start = now
	}
	if start.IsZero() {
		return
	}
	if !c.Backfill && start.After(now) {
		start = now
	}
	if !r.CompletedAt.IsZero() && start.After(r.CompletedAt) {
		start = r.CompletedAt
	}
	if r.StartedAt.IsZero() || start.Before(r.StartedAt) {
		r.StartedAt = start
	}
}

// effectiveTime is when what a report says was so (contract 11.6): the reported
// completion of a terminal report, otherwise its receipt; never after receipt,
// and no end before the start. History is taken as it is told.
func effectiveTime(r *event.Record, c *Command, status event.Status, now time.Time) time.Time {
	t := now
	switch {
	case status.Terminal() && status != event.PreflightFailed && !c.CompletedAt.IsZero():
		t = c.CompletedAt
	case c.Backfill && !status.Terminal() && !c.StartedAt.IsZero():
		return c.StartedAt
	}
	if !c.Backfill && t.After(now) {
		t = now
	}
	if status.Terminal() && t.Before(r.StartedAt) {
		t = r.StartedAt
	}
	return t
}

func mergeExtra(r *event.Record, c *Command, stamp event.Stamp) {
	members := c.members()
	if len(members) == 0 {
		return
	}
	given := make(map[string]event.Extra, len(members))
	for k, v := range members {
		given[k] = event.Extra{Value: v, Stamp: stamp}
	}
	if r.Attributes[event.InvokeID] != "" && c.Attributes[event.InvokeID] == "" {
		delete(given, runAttemptMetadata) // part of the run's identity: a report that does not name the run cannot change it
	}
	merged := given
	if len(r.Extra) > 0 {
		merged = maps.Clone(r.Extra)
		for k, v := range given {
			if old, had := merged[k]; !had || stamp.After(old.Stamp) {
				merged[k] = v
			}
		}
	}
	if extraSize(merged) > maxExtra { // contract 11.8: then as a whole, by the same order
		merged = given
		for _, old := range r.Extra {
			if old.Stamp.After(stamp) {
				merged = r.Extra
				break
			}
		}
	}
	r.Extra = merged
}

// members gives those of Extra.
func (c *Command) members() event.Object {
	if c.Members == nil {
		return event.ReadObject(c.Extra)
	}
	return c.Members
}

// extraSize is what the object takes as JSON, without escapes in its keys.
func extraSize(m map[string]event.Extra) int {
	n := 2
	for k, v := range m {
		n += len(k) + len(v.Value) + len(`"":,`)
	}
	return n
}
