package tracking

import (
	"slices"

	"github.com/shipledger/shipledger/pkg/event"
)

// RunIndex lets tests measure and exercise the index of closed runs.
type RunIndex struct{ x runIndex }

func (r *RunIndex) Insert(h uint64, o event.Offset)           { r.x.insert(h, o) }
func (r *RunIndex) Remove(h uint64, o event.Offset)           { r.x.remove(h, o) }
func (r *RunIndex) Move(h uint64, from, to event.Offset) bool { return r.x.move(h, from, to) }
func (r *RunIndex) Lookup(h uint64) []event.Offset            { return r.x.lookup(h) }
func (r *RunIndex) BytesEach() float64                        { return float64(r.x.bytes()) / float64(r.x.n) }

// Sizes tells how much the state holds, for comparing before and after.
func (s *State) Sizes() map[string]int {
	return map[string]int{
		"products": len(s.products.byID), "product names": len(s.products.byName),
		"environments": len(s.environments.byID), "environment names": len(s.environments.byName), "versions": s.versions.len(),
		"open": len(s.open), "byRun": len(s.byRun), "byTriple": len(s.byTriple), "byCell": len(s.byCell),
		"closed": s.closed.n, "parts": s.parts, "sealed": s.sealed, "refused": len(s.refused), "refusedQueue": len(s.refusedQueue),
		"releases": len(s.releases), "settings": len(s.settings), "keys": len(s.keys), "keyQueue": len(s.keyQueue),
	}
}

// ClosedRuns gives what the index of closed runs holds.
func (s *State) ClosedRuns() map[uint64][]event.Offset {
	out := map[uint64][]event.Offset{}
	for i := range s.closed.shards {
		shard := &s.closed.shards[i]
		for j, o := range shard.offsets {
			if o != 0 {
				out[shard.hashes[j]] = append(out[shard.hashes[j]], o)
			}
		}
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out
}

// OpenRuns gives the records of open runs.
func (s *State) OpenRuns() map[string]event.Record {
	out := map[string]event.Record{}
	for id, r := range s.open {
		out[id.String()] = *r.record
	}
	return out
}

// StateOfClosedRuns gives a state that knows n closed runs.
func StateOfClosedRuns(n int) *State {
	s := NewState()
	for i := range n {
		h := (uint64(i) + 1) * 0x9e3779b97f4a7c15
		s.closed.insert(h^h>>29, event.Offset(i+1))
	}
	return s
}
