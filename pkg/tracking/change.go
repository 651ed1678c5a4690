package tracking

import (
	"bytes"
	"time"

	"github.com/google/uuid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// A Change is a command by which somebody manages what an account has, in
// place of a run that is reported. It asks for one Action.
type Change struct {
	Account        string
	Author         event.Author
	Action         Action
	BodyHash       uint64 // of endpoint and body; never zero
	IdempotencyKey string
}

// An Action is what a Change asks for. Texts and numbers are checked at the
// border; nil members of a patch leave what is there.
type Action interface {
	// past gives the events that the action must be given.
	past(s *State) []event.Offset
	// decide emits what follows, or says where the object stands that already is so.
	decide(d *changing) error
}

// The actions on products and environments.
type (
	// CreateProduct makes a product that no event has named.
	CreateProduct struct {
		Name, Description string
		Extra             []byte // a JSON object without white space, or nil
	}
	// UpdateProduct changes what people say of a product, its name included.
	UpdateProduct struct {
		ID                event.ProductID
		Name, Description *string
		Extra             []byte // nil: as it is; {}: none
	}
	// DeleteProduct takes a product, its versions and its runs out of every read.
	DeleteProduct struct{ ID event.ProductID }

	// CreateEnvironment makes an environment that no event has named.
	CreateEnvironment struct {
		Name, Description string
		Class             *event.Class // nil: by its name
		Extra             []byte
		ConcurrencyLimit  uint16 // 0: the default
		StaleAfter        time.Duration
	}
	// UpdateEnvironment changes what people say of an environment.
	UpdateEnvironment struct {
		ID                event.EnvironmentID
		Name, Description *string
		Class             *event.Class
		Extra             []byte
		ConcurrencyLimit  *uint16
		StaleAfter        *time.Duration
	}
	// DeleteEnvironment takes an environment and its deployments out of every read.
	DeleteEnvironment struct{ ID event.EnvironmentID }
)

func (c *Change) needs(s *State, _ Sealed) (Needs, error) {
	out := c.Action.past(s)
	if use, ok := s.keyUse(c.Account, c.IdempotencyKey); ok {
		out = append(out, use.offset)
	}
	return Needs{Events: out}, nil
}

func (c *Change) decide(s *State, k Context) (Decision, error) {
	if d, done, err := s.decideByKey(c.Account, c.IdempotencyKey, c.BodyHash, k); done || err != nil {
		return d, err
	}
	d := changing{s: s, c: c, k: k}
	if err := c.Action.decide(&d); err != nil {
		return Decision{}, err
	}
	if n := len(d.out.Events); n > 0 && c.IdempotencyKey != "" {
		e := &d.out.Events[n-1]
		e.IdempotencyKey, e.BodyHash = c.IdempotencyKey, c.BodyHash
	}
	return d.out, nil
}

// A Trial is a Change that is not to be made: it is refused as the Change would be,
// and leaves nothing behind. It tells whose an object is that another partition may hold.
type Trial struct{ Change *Change }

func (t Trial) needs(s *State, _ Sealed) (Needs, error) {
	return Needs{Events: t.Change.Action.past(s)}, nil
}

func (t Trial) decide(s *State, k Context) (Decision, error) {
	return Decision{}, t.Change.Action.decide(&changing{s: s, c: t.Change, k: k, trial: true})
}

// changing holds the decision on a Change while it is made.
type changing struct {
	s   *State
	c   *Change
	k   Context
	out Decision
	// trial says that nothing will come of it.
	trial bool
}

// emit adds an event, which leaves behind the object of the answer.
func (d *changing) emit(typ event.Type, subject string, p event.Payload) {
	e := event.Event{
		ID: d.k.NewID(), Account: d.c.Account, Type: typ, Subject: subject, Time: d.k.Now, Author: d.c.Author, Payload: p,
	}
	d.out.Offset = d.k.Next + event.Offset(len(d.out.Events))
	d.out.Events = append(d.out.Events, e)
	d.out.EventID, d.out.Object = e.ID, p
}

// already answers with what an earlier event left behind.
func (d *changing) already(r event.Recorded) {
	d.out.EventID, d.out.Object, d.out.Offset = r.ID, r.Payload, r.Position.Offset
}

// mine gives a living object of the caller's account.
func (d *changing) mine(kind string, dir *directory, id uuid.UUID) (*object, error) {
	o := dir.byID[id]
	switch {
	case o == nil || o.deleted:
		return nil, notFound(kind)
	case o.account != d.c.Account:
		return nil, notOwner(kind)
	}
	return o, nil
}

func notFound(kind string) error {
	return fault.New(fault.NotFound, "NOT_FOUND", "This %s does not exist.", kind)
}

func notOwner(kind string) error {
	return fault.New(fault.Forbidden, "NOT_OWNER", "access denied: this %s does not belong to your account", kind)
}

// free refuses a name that a living object other than id has or once had (contract 2).
func (d *changing) free(kind string, dir *directory, name string, id uuid.UUID) error {
	other, ok := dir.byName[naturalKey{d.c.Account, name}]
	if !ok || other == id || dir.byID[other].deleted {
		return nil
	}
	return fault.New(fault.Conflict, "NAME_IN_USE", "Another %s has or once had the name %s", kind, name)
}

// offsetOf gives where the last event of an object stands; nothing for one that
// is not there.
func (d *directory) offsetOf(id uuid.UUID) []event.Offset {
	if o := d.byID[id]; o != nil {
		return []event.Offset{o.offset}
	}
	return nil
}

func (a CreateProduct) past(*State) []event.Offset     { return nil }
func (a CreateEnvironment) past(*State) []event.Offset { return nil }

func (a UpdateProduct) past(s *State) []event.Offset {
	return s.products.offsetOf(uuid.UUID(a.ID))
}

func (a DeleteProduct) past(s *State) []event.Offset {
	return s.products.offsetOf(uuid.UUID(a.ID))
}

func (a UpdateEnvironment) past(s *State) []event.Offset {
	return s.environments.offsetOf(uuid.UUID(a.ID))
}

func (a DeleteEnvironment) past(s *State) []event.Offset {
	return s.environments.offsetOf(uuid.UUID(a.ID))
}

func (a CreateProduct) decide(d *changing) error {
	n := d.s.products.find(d.c.Account, a.Name, deriveProduct)
	if err := d.free("product", &d.s.products, a.Name, uuid.Nil); err != nil {
		return err
	}
	p := &event.Product{
		ID: event.ProductID(n.id), Name: a.Name, Description: a.Description, Extra: given(a.Extra),
		Incarnation: n.incarnation, CreatedAt: d.k.Now,
	}
	d.emit(event.ProductCreated, p.ID.String(), p)
	return nil
}

func (a UpdateProduct) decide(d *changing) error {
	o, err := d.mine("product", &d.s.products, uuid.UUID(a.ID))
	if err != nil {
		return err
	}
	last := d.k.Past[o.offset]
	was, ok := last.Payload.(*event.Product)
	if !ok {
		return missingPast("product", a.ID.String())
	}
	d.already(last)
	p := *was
	if a.Name != nil && *a.Name != p.Name {
		if err := d.free("product", &d.s.products, *a.Name, uuid.UUID(a.ID)); err != nil {
			return err
		}
		p.Name = *a.Name
		renamed := p
		d.emit(event.ProductRenamed, p.ID.String(), &renamed)
	}
	changed := replace(&p.Description, a.Description)
	if replaceExtra(&p.Extra, a.Extra) || changed {
		d.emit(event.ProductUpdated, p.ID.String(), &p)
	}
	return nil
}

func (a DeleteProduct) decide(d *changing) error {
	o, err := d.mine("product", &d.s.products, uuid.UUID(a.ID))
	if err != nil {
		return err
	}
	was, ok := d.k.Past[o.offset].Payload.(*event.Product)
	if !ok {
		return missingPast("product", a.ID.String())
	}
	p := *was
	p.Deleted = true
	d.emit(event.ProductDeleted, p.ID.String(), &p)
	return nil
}

func (a CreateEnvironment) decide(d *changing) error {
	n := d.s.environments.find(d.c.Account, a.Name, deriveEnvironment)
	if err := d.free("environment", &d.s.environments, a.Name, uuid.Nil); err != nil {
		return err
	}
	e := &event.Environment{
		ID: event.EnvironmentID(n.id), Name: a.Name, Class: event.ClassOf(a.Name), Description: a.Description, Extra: given(a.Extra),
		ConcurrencyLimit: a.ConcurrencyLimit, StaleAfter: a.StaleAfter, Incarnation: n.incarnation, CreatedAt: d.k.Now,
	}
	replace(&e.Class, a.Class)
	d.emit(event.EnvironmentCreated, e.ID.String(), e)
	return nil
}

func (a UpdateEnvironment) decide(d *changing) error {
	o, err := d.mine("environment", &d.s.environments, uuid.UUID(a.ID))
	if err != nil {
		return err
	}
	last := d.k.Past[o.offset]
	was, ok := last.Payload.(*event.Environment)
	if !ok {
		return missingPast("environment", a.ID.String())
	}
	d.already(last)
	e := *was
	if a.Name != nil && *a.Name != e.Name {
		if err := d.free("environment", &d.s.environments, *a.Name, uuid.UUID(a.ID)); err != nil {
			return err
		}
		e.Name = *a.Name
		renamed := e
		d.emit(event.EnvironmentRenamed, e.ID.String(), &renamed)
	}
	changed := replace(&e.Description, a.Description)
	changed = replace(&e.Class, a.Class) || changed
	changed = replace(&e.ConcurrencyLimit, a.ConcurrencyLimit) || changed
	changed = replace(&e.StaleAfter, a.StaleAfter) || changed
	if replaceExtra(&e.Extra, a.Extra) || changed {
		d.emit(event.EnvironmentUpdated, e.ID.String(), &e)
	}
	return nil
}

func (a DeleteEnvironment) decide(d *changing) error {
	o, err := d.mine("environment", &d.s.environments, uuid.UUID(a.ID))
	if err != nil {
		return err
	}
	was, ok := d.k.Past[o.offset].Payload.(*event.Environment)
	if !ok {
		return missingPast("environment", a.ID.String())
	}
	e := *was
	e.Deleted = true
	d.emit(event.EnvironmentDeleted, e.ID.String(), &e)
	return nil
}

// missingPast is for a caller who did not give what Needs asked for.
func missingPast(kind, id string) error {
	return fault.New(fault.Internal, "", "the last event of %s %s was not given", kind, id)
}

// replace sets what is given, and tells whether it was another.
func replace[T comparable](at, to *T) bool {
	if to == nil || *at == *to {
		return false
	}
	*at = *to
	return true
}

func replaceExtra(at *[]byte, to []byte) bool {
	if to == nil || bytes.Equal(*at, given(to)) {
		return false
	}
	*at = given(to)
	return true
}

// given gives an object that has members, else nil.
func given(extra []byte) []byte {
	if len(extra) <= len("{}") {
		return nil
	}
	return extra
}
