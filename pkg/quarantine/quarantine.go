// Package quarantine decides about events that a projection could not apply:
// which are tried again and which are never to be applied. It is pure; the
// projector does what is decided here, in every version of the tables that it
// keeps, and package projection says what being set aside means.
//
// Decisions are events of the stream of operations and what is set aside stands
// in the tables. So a decision names places of the log and nothing of a version:
// a rebuild treats what was discarded as discarded, whatever its own code makes
// of it, and begins with nothing to try again.
package quarantine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// The types of events.
const (
	WasRedriven  event.Type = "quarantine.redriven"
	WasDiscarded event.Type = "quarantine.discarded"
)

const schema = "quarantine/1"

// MaxNamed is how many events one decision names at most; it can be about all.
const MaxNamed = 1000

// Everything is the subject of decisions about all that an account has.
const Everything = "all"

// State says what became of an event that was set aside.
type State string

// The states.
const (
	Held      State = "quarantined" // not applied
	Redriven  State = "redriven"    // applied later
	Discarded State = "discarded"   // never to be applied
)

// A Decision is about events of one account, by their places, or all of them.
type Decision struct {
	Account   string // whose admin decided
	Type      event.Type
	Positions []event.Position
	Frame     bool     // it is about all events of the frame that the place is in
	Accounts  []string // where it is about all: of these accounts; "" is that of what has none
	Reason    string   // why it was discarded
}

// Item is an event as it stands when a decision is made about it.
type Item struct {
	Position event.Position
	Account  string
	State    State
	Frame    bool
}

// Redrive decides to try events again.
func (b *Book) Redrive(account string, items []Item) (Decision, error) {
	d := Decision{Account: account, Type: WasRedriven}
	if len(items) > MaxNamed {
		return d, fault.New(fault.Precondition, "TOO_MANY_EVENTS", "Name up to %d events, or all.", MaxNamed)
	}
	for _, i := range items {
		if err := b.held(i); err != nil {
			return d, err
		}
		d.Positions = append(d.Positions, i.Position)
	}
	return d, nil
}

// RedriveAll decides to try all events of some accounts again, of which there are n.
func (b *Book) RedriveAll(account string, accounts []string, n uint64) (Decision, error) {
	if n == 0 {
		return Decision{}, fault.New(fault.Conflict, "QUARANTINE_EMPTY", "Nothing is set aside.")
	}
	return Decision{Account: account, Type: WasRedriven, Accounts: accounts}, nil
}

// Discard decides never to apply an event.
func (b *Book) Discard(account string, i Item, reason string) (Decision, error) {
	return Decision{Account: account, Type: WasDiscarded, Positions: []event.Position{i.Position}, Frame: i.Frame, Reason: reason}, b.held(i)
}

// held refuses to decide about what is no longer there.
func (b *Book) held(i Item) error {
	if _, discarded := b.Discarded(i.Position); discarded {
		i.State = Discarded
	}
	if i.State != Held {
		return fault.New(fault.Conflict, "QUARANTINE_STATE", "The event at %s is %s already.", i.Position, i.State)
	}
	return nil
}

// Book is the fold of decisions. The zero value is an empty one. A copy of it
// stays as it is whatever is applied later.
type Book struct {
	last      uint64
	discarded map[event.Position]string // why
	frames    map[event.Position]string // of frames, by the place of their first event
	asked     map[event.Position]uint64 // sequence of the last decision to try it again
	everyOf   map[string]uint64         // the same, of all of an account
}

// Apply adds an event at a sequence; others than those of decisions change nothing.
func (b *Book) Apply(e *event.Recorded) error {
	d, err := Decode(&e.Event)
	if err != nil || d == nil {
		return err
	}
	b.last = e.Position.Offset.Seq()
	switch {
	case d.Type == WasDiscarded && d.Frame:
		b.frames = maps.Clone(b.frames)
		put(&b.frames, frameOf(d.Positions[0]), d.Reason)
	case d.Type == WasDiscarded:
		b.discarded = maps.Clone(b.discarded)
		for _, p := range d.Positions {
			put(&b.discarded, p, d.Reason)
		}
	case len(d.Accounts) > 0:
		b.everyOf = maps.Clone(b.everyOf)
		for _, a := range d.Accounts {
			put(&b.everyOf, a, b.last)
		}
	default:
		b.asked = maps.Clone(b.asked)
		for _, p := range d.Positions {
			put(&b.asked, p, b.last)
		}
	}
	return nil
}

func put[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[key] = value
}

func frameOf(p event.Position) event.Position {
	return event.Position{Stream: p.Stream, Offset: event.At(p.Offset.Seq(), 0)}
}

// Last gives the sequence of the last decision, 0 for none.
func (b *Book) Last() uint64 { return b.last }

// Discarded tells whether an event is never to be applied, and why.
func (b *Book) Discarded(p event.Position) (reason string, discarded bool) {
	if len(b.discarded) > 0 {
		if reason, discarded = b.discarded[p]; discarded {
			return reason, true
		}
	}
	if len(b.frames) > 0 {
		reason, discarded = b.frames[frameOf(p)]
	}
	return reason, discarded
}

// Asked gives the sequence of the last decision to try an event again, 0 for none.
func (b *Book) Asked(p event.Position, account string) uint64 {
	return max(b.asked[p], b.everyOf[account])
}

// ID names what a decision is about: a place, or all.
func (d *Decision) ID() string {
	if len(d.Positions) == 1 {
		return d.Positions[0].String()
	}
	return Everything
}

// LogSubject gives the subject that a decision is stored under. Places have dots,
// which part subjects, so they are written with dashes.
func (d *Decision) LogSubject() string {
	return "ops.quarantine." + strings.ReplaceAll(d.ID(), ".", "-")
}

type wire struct {
	Positions []string `json:"positions,omitzero"`
	Frame     bool     `json:"frame,omitzero"`
	Accounts  []string `json:"accounts,omitzero"`
	Reason    string   `json:"reason,omitzero"`
}

// Event gives the event of a decision.
func (d *Decision) Event(id ulid.ULID, at time.Time, by event.Author) (event.Event, error) {
	w := wire{Frame: d.Frame, Accounts: slices.Clone(d.Accounts), Reason: d.Reason}
	for _, p := range d.Positions {
		w.Positions = append(w.Positions, p.String())
	}
	body, err := json.Marshal(struct {
		Quarantine wire `json:"quarantine"`
	}{w}, json.Deterministic(true))
	if err != nil {
		return event.Event{}, fmt.Errorf("encode %s of %s: %w", d.Type, d.ID(), err)
	}
	return event.Event{
		ID: id, Account: d.Account, Type: d.Type, Subject: d.ID(), Time: at, Author: by,
		Payload: event.Opaque{Schema: schema, Data: body},
	}, nil
}

// Decode gives the decision that an event tells of, nil for an event about
// something else. One that a newer release wrote in a way unknown here is an error.
func Decode(e *event.Event) (*Decision, error) {
	o, ok := e.Payload.(event.Opaque)
	if !ok || !strings.HasPrefix(o.Schema, "quarantine/") {
		return nil, nil
	}
	if o.Schema != schema {
		return nil, fmt.Errorf("schema %q is unknown", o.Schema)
	}
	var data struct {
		Quarantine wire `json:"quarantine"`
	}
	if err := json.Unmarshal(o.Data, &data); err != nil {
		return nil, fmt.Errorf("decode %s of %s: %w", e.Type, e.Subject, err)
	}
	w := data.Quarantine
	d := &Decision{Account: e.Account, Type: e.Type, Frame: w.Frame, Accounts: w.Accounts, Reason: w.Reason}
	for _, text := range w.Positions {
		p, err := event.ParsePosition(text)
		if err != nil {
			return nil, err
		}
		d.Positions = append(d.Positions, p)
	}
	switch {
	case d.Type != WasRedriven && d.Type != WasDiscarded:
		return nil, fmt.Errorf("type %q is unknown", d.Type)
	case len(d.Positions) == 0 && (d.Type == WasDiscarded || len(d.Accounts) == 0):
		return nil, fmt.Errorf("%s names no event", d.Type)
	}
	return d, nil
}

// Known tells whether events with this schema are those of this package.
func Known(name string) bool { return name == schema }

// Shown gives what people may read of the data of a decision; nil for events of
// others, and for what a newer release wrote.
func Shown(e *event.Event) []byte {
	d, err := Decode(e)
	if err != nil || d == nil {
		return nil
	}
	shown, err := d.Event(ulid.ULID{}, e.Time, event.Author{})
	if err != nil {
		return nil
	}
	return shown.Payload.(event.Opaque).Data
}
