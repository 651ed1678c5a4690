// Package event defines the facts that the ledger records, and how they are
// written: CloudEvents in frames.
//
// It is the innermost package: the write side decides on events, the log
// carries them, projections read them. It imports only the standard library,
// ulid, uuid and the JSON codec, and no clock, no randomness, no I/O.
package event

import (
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// Type names what happened, for instance "deployment.completed".
type Type string

// The types that are not made of a run kind and a status.
const (
	ProductCreated     Type = "product.created"
	ProductUpdated     Type = "product.updated"
	ProductRenamed     Type = "product.renamed"
	ProductDeleted     Type = "product.deleted"
	EnvironmentCreated Type = "environment.created"
	EnvironmentUpdated Type = "environment.updated"
	EnvironmentRenamed Type = "environment.renamed"
	EnvironmentDeleted Type = "environment.deleted"
	VersionCreated     Type = "version.created"
	VersionSHAFixed    Type = "version.sha_fixed"
)

// TypeOf gives the type of an event that reports status of a run.
func TypeOf(kind Kind, status Status) Type { return Type(kind.String() + "." + status.String()) }

// Mode tells traffic that counts from traffic that only tries things out.
type Mode string

// The modes of a credential and of what it writes.
const (
	Live Mode = "live"
	Test Mode = "test"
)

// An Author is the credential that a command came with. Every event carries it
// (contract C-57).
type Author struct {
	CredentialID   string // the public id, such as k1
	CredentialName string
	Mode           Mode
	Actor          string // the user behind a token or session; empty for API keys
}

// An Event is one fact. Its place in the log is not part of it; see Recorded.
type Event struct {
	ID      ulid.ULID
	Account string
	Type    Type
	Subject string    // the id of what the event is about
	Time    time.Time // receipt, set by the committer; never falls along a partition
	Author
	Backfilled     bool   // loaded as history: no rules, no notifications
	IdempotencyKey string // as sent by the caller; empty if none
	BodyHash       uint64 // of endpoint and body, for the idempotency key; zero without one

	Payload Payload
}

// Recorded is an event at its place in the log.
type Recorded struct {
	Event
	Position Position
}

// A Payload is the data of an event: *Run, *Product, *Environment, *Version, *Settings,
// *Release, or
// Opaque for what another package defines.
type Payload interface{ schema() string }

// A Product as it stands after an event. Deleted is a tombstone: the next event
// that names the product begins its next incarnation (contract 2).
type Product struct {
	ID          ProductID
	Name        string
	Description string
	Extra       []byte // extra_metadata, a JSON object without white space; nil: none
	Incarnation uint16
	Deleted     bool
	CreatedAt   time.Time // of this incarnation
}

// An Environment as it stands after an event, as a Product does.
type Environment struct {
	ID               EnvironmentID
	Name             string
	Class            Class
	Description      string
	Extra            []byte        // metadata, a JSON object without white space; nil: none
	ConcurrencyLimit uint16        // deployments under way at a time; 0: DefaultConcurrencyLimit
	StaleAfter       time.Duration // whole minutes until a start no longer blocks; 0: DefaultStaleAfter
	Incarnation      uint16
	Deleted          bool
	CreatedAt        time.Time // of this incarnation
}

// What an environment has that says nothing else (contract 22).
const (
	DefaultConcurrencyLimit = 1
	DefaultStaleAfter       = 60 * time.Minute
)

// A Version as it stands after an event. SHA is the commit it stands for, in
// the longest form seen; it is provisional until a build fixes it (contract 10).
type Version struct {
	ID          VersionID
	ProductID   ProductID
	ProductName string
	Version     string
	Incarnation uint16 // of the product
	SHA         string
	SHAFixed    bool
	CreatedAt   time.Time
}

// Opaque is data that this package carries without knowing its inside.
type Opaque struct {
	Schema string // such as "credential/1"
	Data   []byte // one JSON value
}

func (*Product) schema() string     { return "product/1" }
func (*Environment) schema() string { return "environment/1" }
func (*Version) schema() string     { return "version/1" }
func (o Opaque) schema() string     { return o.Schema }

// Family gives what a type is about: what stands before its dot.
func (t Type) Family() string {
	family, _, _ := strings.Cut(string(t), ".")
	return family
}
