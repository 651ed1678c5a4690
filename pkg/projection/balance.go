package projection

import (
	"cmp"
	"slices"
	"strings"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/quarantine"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/replay"
	"github.com/shipledger/shipledger/pkg/tally"
)

// An Entry says what became of the events of one account and type. What was
// accepted is counted by the write side, the rest by the read model.
type Entry struct {
	Account     string
	Type        event.Type
	Accepted    uint64
	Projected   uint64 // applied
	Quarantined uint64 // set aside because they could not be applied
	Discarded   uint64 // set aside, and never to be applied, as people decided
	Skipped     uint64 // of a type that this version does not know: kept, and applied nowhere
}

// Difference gives how many accepted events are not accounted for; below zero,
// how many are that were never accepted.
func (e *Entry) Difference() int64 {
	return int64(e.Accepted) - int64(e.Projected+e.Quarantined+e.Discarded+e.Skipped) //nolint:gosec // counts of events
}

// Balance holds what was accepted up to a position against what the read model
// has up to there, by account and type in that order.
func Balance(accepted tally.Counts, held []readmodel.EventCount) []Entry {
	entries := make(map[tally.Key]Entry, len(accepted))
	for k, n := range accepted {
		entries[k] = Entry{Account: k.Account, Type: k.Type, Accepted: n}
	}
	for _, c := range held {
		k := tally.Key{Account: c.Account, Type: c.Type}
		e := entries[k]
		e.Account, e.Type, e.Quarantined, e.Discarded = c.Account, c.Type, c.Quarantined, c.Discarded
		if Knows(c.Type) {
			e.Projected = c.Stored
		} else {
			e.Skipped = c.Stored
		}
		entries[k] = e
	}
	out := make([]Entry, 0, len(entries))
	for _, e := range entries {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Type, b.Type))
	})
	return out
}

// runs are the types of events that report a status of a run.
var runs = func() map[event.Type]bool {
	types := map[event.Type]bool{}
	for _, kind := range []event.Kind{event.Deployment, event.Build} {
		for _, s := range []event.Status{event.Pending, event.Started, event.Completed, event.Failed, event.Aborted, event.PreflightFailed} {
			types[event.TypeOf(kind, s)] = true
		}
	}
	return types
}()

// Knows tells whether events of this type are applied, and not only kept. Of a
// product, an environment, a release and what is no state, whatever happens is applied
// alike; Project says the same of every golden event.
func Knows(t event.Type) bool {
	family, _, _ := strings.Cut(string(t), ".")
	switch family {
	case event.Deployment.String(), event.Build.String():
		return runs[t]
	case "product", "environment", "version", "setting", "release":
		return true
	}
	schema := family + "/1"
	return credential.Known(schema) || replay.Known(schema) || quarantine.Known(schema)
}
