package tracking

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/shipledger/shipledger/pkg/event"
)

// A directory knows the products, or the environments, of all accounts by id
// and by every name that they have or once had (contract 2).
type directory struct {
	byID   map[uuid.UUID]*object
	byName map[naturalKey]uuid.UUID
}

func newDirectory() directory {
	return directory{map[uuid.UUID]*object{}, map[naturalKey]uuid.UUID{}}
}

// object is a product or an environment, living or deleted. It is never
// changed, only replaced. What only people read is left in the log, at offset.
type object struct {
	account, name string
	offset        event.Offset // of its last event
	incarnation   uint16
	deleted       bool
	class         event.Class // of an environment, as are the next two
	limit         uint16      // 0: the default
	staleMinutes  uint32      // 0: the default
}

// named is what a name stands for.
type named struct {
	id          uuid.UUID
	name        string // the one it has now
	incarnation uint16
	living      *object // nil where the next event that says the name makes it
}

// find gives what a name stands for. What does not live has the id and the
// incarnation that it is going to have; derived is its id if the name is new.
func (d *directory) find(account, name string, derive func(account, name string) uuid.UUID) named {
	id, ok := d.byName[naturalKey{account, name}]
	if !ok {
		return named{id: derive(account, name), name: name}
	}
	switch o := d.byID[id]; {
	case o.deleted:
		return named{id: id, name: name, incarnation: o.incarnation + 1}
	default:
		return named{id: id, name: o.name, incarnation: o.incarnation, living: o}
	}
}

func deriveProduct(account, name string) uuid.UUID {
	return uuid.UUID(event.ProductIDOf(account, name))
}

func deriveEnvironment(account, name string) uuid.UUID {
	return uuid.UUID(event.EnvironmentIDOf(account, name))
}

// concurrency gives how many deployments an environment takes at a time.
func (o *object) concurrency() int {
	if o == nil || o.limit == 0 {
		return event.DefaultConcurrencyLimit
	}
	return int(o.limit)
}

// staleAfter gives how old a start may be that still blocks others.
func (o *object) staleAfter() time.Duration {
	if o == nil || o.staleMinutes == 0 {
		return event.DefaultStaleAfter
	}
	return time.Duration(o.staleMinutes) * time.Minute
}

func (s *State) applyProduct(r event.Recorded, p *event.Product) {
	s.place(&s.products, uuid.UUID(p.ID), &object{
		account: strings.Clone(r.Account), name: strings.Clone(p.Name), offset: r.Position.Offset, incarnation: p.Incarnation, deleted: p.Deleted,
	})
	s.incarnations = max(s.incarnations, p.Incarnation) // a bound, so a roll-back may leave it
	if p.Deleted {
		s.forgetOpen(func(rec *event.Record) bool { return rec.ProductID == p.ID })
	}
}

func (s *State) applyEnvironment(r event.Recorded, p *event.Environment) {
	s.place(&s.environments, uuid.UUID(p.ID), &object{
		account: strings.Clone(r.Account), name: strings.Clone(p.Name), offset: r.Position.Offset, incarnation: p.Incarnation, deleted: p.Deleted,
		class: p.Class, limit: p.ConcurrencyLimit, staleMinutes: uint32(p.StaleAfter / time.Minute),
	})
	if p.Deleted {
		s.forgetOpen(func(rec *event.Record) bool { return rec.Kind == event.Deployment && rec.EnvironmentID == p.ID })
	}
}

func (s *State) place(d *directory, id uuid.UUID, o *object) {
	put(s, d.byID, id, o)
	if k := (naturalKey{o.account, o.name}); d.byName[k] != id {
		put(s, d.byName, k, id)
	}
}

// forgetOpen lets go of the open runs of what was deleted: nothing can name
// them again, and none may block a start (contract 2). It looks at every open
// run, which is little beside how seldom things are deleted.
func (s *State) forgetOpen(of func(*event.Record) bool) {
	var gone []*run
	for _, r := range s.open {
		if of(r.record) {
			gone = append(gone, r)
		}
	}
	slices.SortFunc(gone, func(a, b *run) int { return a.record.ID.Compare(b.record.ID) })
	for _, r := range gone {
		s.close(r)
	}
}
