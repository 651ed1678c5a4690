package credential

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// Each event carries the whole record that it leaves behind, so every type
// about a credential has the same data, and a fold only replaces.
const (
	Created        event.Type = "credential.created"
	Imported       event.Type = "credential.imported"
	Updated        event.Type = "credential.updated"
	WasSuspended   event.Type = "credential.suspended"
	Resumed        event.Type = "credential.resumed"
	Rotated        event.Type = "credential.rotated"
	WasRevoked     event.Type = "credential.revoked"
	Expiring       event.Type = "credential.expiring" // a warning before its end; see Record.DaysLeft
	Rehashed       event.Type = "credential.rehashed" // digested under a newer pepper
	UserJoined     event.Type = "user.joined"
	RoleChanged    event.Type = "user.role_changed"
	UserRemoved    event.Type = "user.removed"
	AccountCreated event.Type = "account.created"
)

// The schemas of what this package puts into events.
const (
	recordSchema  = "credential/1"
	userSchema    = "user/1"
	accountSchema = "account/1"
)

// ContentType is the media type of one event of the stream of credentials.
const ContentType = "application/cloudevents+json"

// A Record is a credential as it stands after an event. It holds no secret.
type Record struct {
	ID          string // a ULID; the subject of its events
	Kind        Kind   // APIKey or PAT
	Account     string
	PublicID    string // k1, t1, … or the token id
	Name        string
	Description string
	Scopes      Scopes
	Mode        event.Mode
	Status      Status // Active, Suspended or Revoked; see StatusAt
	Digest      Digest
	Pepper      int // the version that Digest was made with
	LastFour    string
	UserID      string // the owner of a PAT
	CreatedAt   time.Time
	CreatedBy   string    // a user id
	ExpiresAt   time.Time // zero: never
	Legacy      bool      // imported
	FirstStart  bool      // made by the first start, or the successor of one that was

	RotatedFrom string    // the record id of what it succeeds
	RotatedTo   string    // the record id of its successor
	RotatedAt   time.Time // when that was decided
	GraceUntil  time.Time // when it was to make way for the successor; ExpiresAt is no later
	DaysLeft    int       // of the latest warning before ExpiresAt; 0: none was given

	AllowFrom []netip.Prefix // where it works from; none: everywhere
	Rate      Rate           // its own budget; zero: that of its class
	Leak      Leak           // zero: none is known
}

// StatusAt gives the status at now, Expired included.
func (r *Record) StatusAt(now time.Time) Status { return statusAt(r.Status, r.ExpiresAt, now) }

// LogSubject gives the subject that the record's events are stored under. It
// ends in the public id: whoever stores the first event under it has claimed
// the id, and no second record can.
func (r *Record) LogSubject() string {
	return logSubject(r.Account, r.Kind.String(), r.PublicID)
}

// A User is a person as they stand after an event.
type User struct {
	ID           string // a ULID; the subject of their events
	Account      string
	Email        string
	Name         string
	Role         string
	PasswordHash string // PHC string; empty: signs in elsewhere
	Removed      bool
	CreatedAt    time.Time
	Invited      bool // and has not joined: may do nothing yet
	Link         Link

	EndedUpTo   uint64 // sessions stored up to this sequence have ended,
	KeptSession string // save this one
}

// LogSubject gives the subject that the user's events are stored under.
func (u *User) LogSubject() string { return logSubject(u.Account, "user", u.ID) }

// An Account is an account as it stands after an event.
type Account struct {
	ID        string // the slug, never changed
	Name      string // for people; may change
	CreatedAt time.Time
}

// LogSubject gives the subject that the account's events are stored under.
func (a *Account) LogSubject() string { return logSubject(a.ID, "account", a.ID) }

func logSubject(account, family, id string) string {
	return "cred." + account + "." + family + "." + id
}

type recordWire struct {
	Kind        string    `json:"kind"`
	KeyID       string    `json:"key_id,omitzero"`
	TokenID     string    `json:"token_id,omitzero"`
	Name        string    `json:"name"`
	Description string    `json:"description,omitzero"`
	Scopes      []string  `json:"scopes"`
	Mode        string    `json:"mode"`
	Status      string    `json:"status"`
	Digest      []byte    `json:"digest"`
	Pepper      int       `json:"pepper"`
	LastFour    string    `json:"last4"`
	UserID      string    `json:"user_id,omitzero"`
	CreatedAt   time.Time `json:"created_at"`
	CreatedBy   string    `json:"created_by,omitzero"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	Legacy      bool      `json:"legacy,omitzero"`
	FirstStart  bool      `json:"first_start,omitzero"`
	RotatedFrom string    `json:"rotated_from,omitzero"`
	RotatedTo   string    `json:"rotated_to,omitzero"`
	RotatedAt   time.Time `json:"rotated_at,omitzero"`
	GraceUntil  time.Time `json:"grace_until,omitzero"`
	DaysLeft    int       `json:"days_left,omitzero"`
	AllowFrom   []string  `json:"ip_allow,omitempty"`
	Rate        *rateWire `json:"rate_limit,omitempty"`
	Leak        *leakWire `json:"leak,omitempty"`
}

type userWire struct {
	Email        string    `json:"email"`
	Name         string    `json:"name,omitzero"`
	Role         string    `json:"role"`
	PasswordHash string    `json:"password_hash,omitzero"`
	Removed      bool      `json:"removed,omitzero"`
	CreatedAt    time.Time `json:"created_at"`
	Invited      bool      `json:"invited,omitzero"`
	Link         *linkWire `json:"link,omitempty"`
	EndedUpTo    uint64    `json:"sessions_ended_up_to,omitzero"`
	KeptSession  string    `json:"kept_session,omitzero"`
}

type accountWire struct {
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// Event gives the event of type t that leaves the record behind.
func (r *Record) Event(id ulid.ULID, t event.Type, at time.Time, by event.Author) (event.Event, error) {
	w := recordWire{
		Kind: r.Kind.String(), Name: r.Name, Description: r.Description,
		Scopes: r.Scopes.Names(), Mode: string(r.Mode), Status: string(r.Status),
		Digest: r.Digest[:], Pepper: r.Pepper, LastFour: r.LastFour, UserID: r.UserID,
		CreatedAt: r.CreatedAt.UTC(), CreatedBy: r.CreatedBy, ExpiresAt: r.ExpiresAt.UTC(),
		Legacy: r.Legacy, FirstStart: r.FirstStart,
		RotatedFrom: r.RotatedFrom, RotatedTo: r.RotatedTo, RotatedAt: r.RotatedAt.UTC(), GraceUntil: r.GraceUntil.UTC(), DaysLeft: r.DaysLeft, Rate: toRateWire(r.Rate), Leak: toLeakWire(r.Leak),
	}
	for _, p := range r.AllowFrom {
		w.AllowFrom = append(w.AllowFrom, p.String())
	}
	if r.Kind == APIKey {
		w.KeyID = r.PublicID
	} else {
		w.TokenID = r.PublicID
	}
	return wrap(id, t, at, by, r.Account, r.ID, recordSchema, struct {
		Credential recordWire `json:"credential"`
	}{w})
}

// Event gives the event of type t that leaves the user behind.
func (u *User) Event(id ulid.ULID, t event.Type, at time.Time, by event.Author) (event.Event, error) {
	return wrap(id, t, at, by, u.Account, u.ID, userSchema, struct {
		User userWire `json:"user"`
	}{userWire{
		u.Email, u.Name, u.Role, u.PasswordHash, u.Removed, u.CreatedAt.UTC(), u.Invited, toLinkWire(&u.Link), u.EndedUpTo, u.KeptSession,
	}})
}

// Event gives the event of type t that leaves the account behind.
func (a *Account) Event(id ulid.ULID, t event.Type, at time.Time, by event.Author) (event.Event, error) {
	return wrap(id, t, at, by, a.ID, a.ID, accountSchema, struct {
		Account accountWire `json:"account"`
	}{accountWire{a.Name, a.CreatedAt.UTC()}})
}

func wrap(id ulid.ULID, t event.Type, at time.Time, by event.Author, account, subject, schema string, data any) (event.Event, error) {
	body, err := json.Marshal(data)
	if err != nil {
		return event.Event{}, fmt.Errorf("encode %s of %s: %w", t, subject, err)
	}
	return event.Event{
		ID: id, Account: account, Type: t, Subject: subject, Time: at, Author: by,
		Payload: event.Opaque{Schema: schema, Data: body},
	}, nil
}

// Decode gives what an event leaves behind: a *Record, a *User, a *WebSession or
// an *Account; nil for an event that is about something else. An event about one of these
// that cannot be read, or that a newer release wrote in a way unknown here, is
// an error: it may be a revocation.
func Decode(e *event.Event) (any, error) {
	o, ok := e.Payload.(event.Opaque)
	if !ok {
		return nil, nil
	}
	switch o.Schema {
	case recordSchema:
		return decodeRecord(e, o)
	case userSchema:
		return decodeUser(e, o)
	case sessionSchema:
		return decodeSession(e, o)
	case accountSchema:
		return decodeAccount(e, o)
	}
	if family, _, _ := strings.Cut(o.Schema, "/"); family == "credential" || family == "user" || family == "session" {
		return nil, fmt.Errorf("schema %q is unknown", o.Schema)
	}
	return nil, nil
}

func decodeRecord(e *event.Event, o event.Opaque) (*Record, error) {
	var d struct {
		Credential recordWire `json:"credential"`
	}
	if err := json.Unmarshal(o.Data, &d); err != nil {
		return nil, err
	}
	w := d.Credential
	r := &Record{
		ID: e.Subject, Account: e.Account, Name: w.Name, Description: w.Description,
		Mode: event.Mode(w.Mode), Status: Status(w.Status), Pepper: w.Pepper, LastFour: w.LastFour, UserID: w.UserID,
		CreatedAt: w.CreatedAt, CreatedBy: w.CreatedBy, ExpiresAt: w.ExpiresAt, Legacy: w.Legacy, FirstStart: w.FirstStart,
		RotatedFrom: w.RotatedFrom, RotatedTo: w.RotatedTo, RotatedAt: w.RotatedAt, GraceUntil: w.GraceUntil, DaysLeft: w.DaysLeft,
	}
	switch w.Kind {
	case "sk":
		r.Kind, r.PublicID = APIKey, w.KeyID
	case "pat":
		r.Kind, r.PublicID = PAT, w.TokenID
	default:
		return nil, fmt.Errorf("kind %q is unknown", w.Kind)
	}
	switch {
	case r.Status != Active && r.Status != Suspended && r.Status != Revoked:
		return nil, fmt.Errorf("status %q is unknown", w.Status)
	case r.Mode != event.Live && r.Mode != event.Test:
		return nil, fmt.Errorf("mode %q is unknown", w.Mode)
	case len(w.Digest) != len(r.Digest):
		return nil, fmt.Errorf("a digest of %d bytes is none", len(w.Digest))
	case r.PublicID == "":
		return nil, errors.New("the public id is missing")
	}
	copy(r.Digest[:], w.Digest)
	var err error
	if r.AllowFrom, err = readPrefixes(w.AllowFrom); err != nil {
		return nil, err
	}
	r.Leak = w.Leak.leak()
	if r.Rate, err = w.Rate.rate(); err != nil {
		return nil, err
	}
	for _, name := range w.Scopes { // not ParseScopes: what was granted is no longer a matter of defaults
		granted, ok := scopeByName[name]
		if !ok {
			return nil, fmt.Errorf("scope %q is unknown", name)
		}
		r.Scopes |= granted
	}
	return r, nil
}

func decodeUser(e *event.Event, o event.Opaque) (*User, error) {
	var d struct {
		User userWire `json:"user"`
	}
	if err := json.Unmarshal(o.Data, &d); err != nil {
		return nil, err
	}
	w := d.User
	l, err := w.Link.link()
	if err != nil {
		return nil, err
	}
	return &User{e.Subject, e.Account, w.Email, w.Name, w.Role, w.PasswordHash, w.Removed, w.CreatedAt, w.Invited, l, w.EndedUpTo, w.KeptSession}, nil
}

func decodeAccount(e *event.Event, o event.Opaque) (*Account, error) {
	var d struct {
		Account accountWire `json:"account"`
	}
	if err := json.Unmarshal(o.Data, &d); err != nil {
		return nil, err
	}
	return &Account{e.Account, d.Account.Name, d.Account.CreatedAt}, nil
}
