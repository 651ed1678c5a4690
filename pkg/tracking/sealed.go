package tracking

import (
	"cmp"
	"iter"
	"slices"

	"github.com/shipledger/shipledger/pkg/event"
)

// A ClosedRun is an entry of the index of closed runs, which are remembered for
// ever so that their repeats are known: the hash of the run's key and where its
// last event stands. Where At is moved the entry says instead that the run of
// an earlier part has had another event since.
type ClosedRun struct {
	Hash uint64
	At   event.Offset
}

// moved marks an offset under which a run was known before. No event stands so
// far behind.
const moved = event.Offset(1) << 63

// Sealed is what was taken out of a State by Seal. Lookup gives the entries that
// stand under a hash, in any order.
type Sealed interface {
	Lookup(hash uint64) ([]event.Offset, error)
}

// Nothing is the Sealed of a state from which nothing was taken.
type Nothing struct{}

// Lookup gives nothing.
func (Nothing) Lookup(uint64) ([]event.Offset, error) { return nil, nil }

// A Part holds closed runs that were sealed together. It does not change and may
// be read by several at once.
type Part struct{ index runIndex }

// Fresh gives the number of closed runs that the state itself holds.
func (s *State) Fresh() int { return s.closed.n }

// Held gives the number of things that a snapshot of the state would hold.
func (s *State) Held() int {
	return s.closed.n + s.versions.len() + len(s.open) + len(s.products.byID) + len(s.environments.byID) + len(s.releases) + len(s.keyQueue)
}

// Closed gives the number of closed runs that it ever held.
func (s *State) Closed() int { return s.closed.n + s.sealed }

// Parts gives how many parts were sealed.
func (s *State) Parts() int { return s.parts }

// Seal takes out the closed runs that the state holds: from now on Needs looks
// them up in what it is given. It must not be called between Begin and Commit.
func (s *State) Seal() *Part {
	p := &Part{s.closed}
	s.closed = runIndex{}
	s.parts++
	s.sealed += p.index.n
	return p
}

// Len gives the number of entries.
func (p *Part) Len() int { return p.index.n }

// Lookup gives the entries under a hash.
func (p *Part) Lookup(hash uint64) []event.Offset { return p.index.lookup(hash) }

// All yields the entries in the order of Compare.
func (p *Part) All() iter.Seq[ClosedRun] {
	return func(yield func(ClosedRun) bool) {
		var sorted []ClosedRun
		for i := range p.index.shards { // a shard holds the hashes that begin alike
			sorted = sorted[:0]
			shard := &p.index.shards[i]
			for j, o := range shard.offsets {
				if o != 0 {
					sorted = append(sorted, ClosedRun{shard.hashes[j], o})
				}
			}
			slices.SortFunc(sorted, ClosedRun.Compare)
			for _, r := range sorted {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// Compare orders entries by hash, then by offset, and what says that an offset
// has moved right behind the entry of that offset.
func (r ClosedRun) Compare(other ClosedRun) int {
	return cmp.Or(cmp.Compare(r.Hash, other.Hash), cmp.Compare(r.At&^moved, other.At&^moved), cmp.Compare(r.At&moved, other.At&moved))
}

// EndedBy tells whether an entry has moved by what next says, so that neither
// need be kept. They are neighbours in the order of Compare.
func (r ClosedRun) EndedBy(next ClosedRun) bool {
	return r.Hash == next.Hash && r.At&moved == 0 && next.At == r.At|moved
}

// closedUnder gives where the closed runs under a hash have their last events.
func (s *State) closedUnder(hash uint64, sealed Sealed) ([]event.Offset, error) {
	earlier, err := sealed.Lookup(hash)
	if err != nil {
		return nil, err
	}
	all := s.closed.lookup(hash)
	if len(all) == 0 && len(earlier) == 0 {
		return nil, nil
	}
	all = append(all, earlier...)
	return slices.DeleteFunc(slices.Clone(all), func(o event.Offset) bool {
		return o&moved != 0 || slices.Contains(all, o|moved)
	}), nil
}

// rememberClosed remembers a run that is closed, which was known by its event at
// before; 0: it was not. Where that entry was sealed it is said to have moved.
func (s *State) rememberClosed(r *run, before event.Offset) {
	k := runKeyOf(r.record)
	if k.invoke == "" {
		return // nothing can name it again
	}
	h, now := k.hash(), r.offset
	if before != 0 {
		if s.closed.move(h, before, now) {
			s.undo(func() { s.closed.move(h, now, before) })
			return
		}
		s.insertClosed(h, before|moved)
	}
	s.insertClosed(h, now)
}

func (s *State) insertClosed(h uint64, o event.Offset) {
	s.closed.insert(h, o)
	s.undo(func() { s.closed.remove(h, o) })
}
