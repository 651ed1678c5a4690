package tracking

import "github.com/shipledger/shipledger/pkg/event"

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
		"environments": len(s.environments.byID), "environment names": len(s.environments.byName), "versions": len(s.versions),
		"open": len(s.open), "byRun": len(s.byRun), "byTriple": len(s.byTriple), "byCell": len(s.byCell),
		"closed": s.closed.n, "refused": len(s.refused), "refusedQueue": len(s.refusedQueue),
		"releases": len(s.releases), "settings": len(s.settings), "keys": len(s.keys), "keyQueue": len(s.keyQueue),
	}
}
