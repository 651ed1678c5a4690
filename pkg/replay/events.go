package replay

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// Each event carries the whole replay that it leaves behind, so a fold only
// replaces.
const (
	WasStarted   event.Type = "replay.started"
	WasVerified  event.Type = "replay.verified"
	WasSwitched  event.Type = "replay.switched"
	WasUndone    event.Type = "replay.undone"
	WasCancelled event.Type = "replay.cancelled"
	HasFailed    event.Type = "replay.failed"
)

const schema = "replay/1"

// ContentType is that of what the stream of operations holds: one event a message.
const ContentType = "application/cloudevents+json"

// LogSubject gives the subject that the events of a replay are stored under.
func (r *Replay) LogSubject() string { return "ops.replay." + r.ID }

type wire struct {
	Projection  string       `json:"projection"`
	Version     uint32       `json:"version"`
	Previous    uint32       `json:"previous"`
	Switch      Switch       `json:"switch"`
	Account     string       `json:"account,omitzero"`
	From        string       `json:"from,omitzero"`
	Snapshot    string       `json:"snapshot,omitzero"`
	State       State        `json:"state"`
	StartedAt   time.Time    `json:"started_at"`
	StartedBy   authorWire   `json:"started_by"`
	VerifiedAt  time.Time    `json:"verified_at,omitzero"`
	SwitchedAt  time.Time    `json:"switched_at,omitzero"`
	KeepUntil   time.Time    `json:"keep_until,omitzero"`
	EndedAt     time.Time    `json:"ended_at,omitzero"`
	Reason      string       `json:"reason,omitzero"`
	Certificate *Certificate `json:"certificate,omitzero"`
}

type authorWire struct {
	CredentialID   string     `json:"credential_id,omitzero"`
	CredentialName string     `json:"credential_name,omitzero"`
	Mode           event.Mode `json:"mode,omitzero"`
	Actor          string     `json:"actor,omitzero"`
}

// Event gives the event of a change.
func (c *Change) Event(id ulid.ULID, at time.Time, by event.Author) (event.Event, error) {
	w := wire{
		Projection: c.Projection, Version: c.Version, Previous: c.Previous, Switch: c.Switch, Account: c.Part.Account, Snapshot: c.Snapshot,
		State: c.State, StartedAt: c.StartedAt.UTC(), StartedBy: authorWire(c.StartedBy), VerifiedAt: c.VerifiedAt.UTC(),
		SwitchedAt: c.SwitchedAt.UTC(), KeepUntil: c.KeepUntil.UTC(), EndedAt: c.EndedAt.UTC(), Reason: c.Reason, Certificate: c.Certificate,
	}
	if c.Part.From != (event.Position{}) {
		w.From = c.Part.From.String()
	}
	body, err := json.Marshal(struct {
		Replay wire `json:"replay"`
	}{w}, json.Deterministic(true))
	if err != nil {
		return event.Event{}, fmt.Errorf("encode %s of %s: %w", c.Type, c.ID, err)
	}
	return event.Event{
		ID: id, Account: c.Account, Type: c.Type, Subject: c.ID, Time: at, Author: by,
		Payload: event.Opaque{Schema: schema, Data: body},
	}, nil
}

// Decode gives the replay that an event leaves behind, nil for an event about
// something else. One that a newer release wrote in a way unknown here is an error.
func Decode(e *event.Event) (*Replay, error) {
	o, ok := e.Payload.(event.Opaque)
	if !ok || !strings.HasPrefix(o.Schema, "replay/") {
		return nil, nil
	}
	if o.Schema != schema {
		return nil, fmt.Errorf("schema %q is unknown", o.Schema)
	}
	var d struct {
		Replay wire `json:"replay"`
	}
	if err := json.Unmarshal(o.Data, &d); err != nil {
		return nil, fmt.Errorf("decode %s of %s: %w", e.Type, e.Subject, err)
	}
	w := d.Replay
	r := &Replay{
		ID: e.Subject, Account: e.Account, Projection: w.Projection, Version: w.Version, Previous: w.Previous, Switch: w.Switch,
		Part: Part{Account: w.Account}, Snapshot: w.Snapshot, State: w.State, StartedAt: w.StartedAt, StartedBy: event.Author(w.StartedBy),
		VerifiedAt: w.VerifiedAt, SwitchedAt: w.SwitchedAt, KeepUntil: w.KeepUntil, EndedAt: w.EndedAt, Reason: w.Reason, Certificate: w.Certificate,
	}
	switch r.State {
	case Running, Cancelled, Failed:
	case Ready, Switched, Undone:
		if r.Certificate == nil {
			return nil, fmt.Errorf("replay %s is %s without a certificate", e.Subject, r.State)
		}
	case Verifying:
		fallthrough
	default:
		return nil, fmt.Errorf("state %q is unknown", r.State)
	}
	if w.From != "" {
		from, err := event.ParsePosition(w.From)
		if err != nil {
			return nil, err
		}
		r.Part.From = from
	}
	return r, nil
}

// Known tells whether events with this schema are those of this package.
func Known(name string) bool { return name == schema }

// Shown gives what people of its account may read of the data of a replay's event:
// all but the rows of a first difference and whose they are, for they may be those of
// another account; nil for events of others, and for what a newer release wrote.
// Who may see the rows reads the certificate.
func Shown(e *event.Event) []byte {
	r, err := Decode(e)
	if err != nil || r == nil {
		return nil
	}
	if r.Certificate != nil {
		c := *r.Certificate
		c.Tables = slices.Clone(c.Tables)
		for i := range c.Tables {
			c.Tables[i].Accounts = nil
		}
		if d := c.FirstDifference; d != nil {
			c.FirstDifference = &Difference{Table: d.Table, Key: map[string]string{}, Columns: d.Columns}
		}
		r.Certificate = &c
	}
	change := Change{Type: e.Type, Replay: *r}
	shown, err := change.Event(ulid.ULID{}, e.Time, event.Author{})
	if err != nil {
		return nil
	}
	return shown.Payload.(event.Opaque).Data
}
