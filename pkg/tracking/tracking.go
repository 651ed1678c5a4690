// Package tracking is the write side: it decides what a command means and which
// events follow from it.
//
// Decide looks at a State and says which events to append; Apply folds an event
// into the State. Both are pure: time, ids and what was read from the log are
// arguments. The State is a fold of one partition of the log and of nothing
// else, so that any process can rebuild it and comes to the same decisions.
package tracking

import (
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// Rules of the contract that are numbers.
const (
	refusalMemory      = 150 * time.Second // contract 4.3: a refused start sent again
	keyMemory          = 24 * time.Hour    // contract 4.3: how long an idempotency key is known
	keyMemoryLeast     = 10 * time.Minute  // contract 4.3: how long it is known however many there are
	maxKeys            = 2_000_000         // contract 4.3, per partition
	maxExtra           = 128 << 10         // contract 4.1, in bytes of the merged object
	concurrencyRule    = "Concurrent deployments"
	runAttemptMetadata = "vi_gh_run_attempt" // contract 11.1: part of a run's identity
)

// A Command is a build or deployment event as a client reported it, parsed and
// checked at the border.
type Command struct {
	Account string
	Author  event.Author
	Kind    event.Kind

	ProductName     string
	EnvironmentName string // empty for builds
	Version         string
	Status          event.Status
	Attributes      event.Attributes
	StartedAt       time.Time // as reported; zero where it is absent
	CompletedAt     time.Time
	Extra           []byte       // a JSON object, or nil
	Members         event.Object // of Extra, where it was decoded; not to be changed
	SkipPreflight   bool

	Body           []byte         // as received, one JSON object without white space
	Asked          *event.Request // Body decoded; may be nil
	Hash           uint64         // of credential, endpoint and body; never zero
	BodyHash       uint64         // of endpoint and body; never zero where there is an IdempotencyKey
	IdempotencyKey string
	Backfill       bool // history: no rules, times as they are
}

// Context is what a decision may know besides the state.
type Context struct {
	Now   time.Time        // receipt; not before any event of the state
	Next  event.Offset     // where the first event of the decision will stand
	NewID func() ulid.ULID // a fresh id at Now
	Past  PastEvents       // at least what State.Needs asked for
	Runs  []event.Offset   // Needs.Runs
}

// PastEvents are events read back from the log, by offset.
type PastEvents map[event.Offset]event.Recorded

// A Decision is what follows from a command.
type Decision struct {
	Events  []event.Event // to append together, in order; none for a duplicate
	Record  *event.Record // the run, as the answer shows it, not to be changed; says nothing, or is nil, for a Change
	Object  event.Payload // for a Change, what it is about as it stands after it
	EventID ulid.ULID     // of the event that the answer is about
	Offset  event.Offset  // where it stands, or will stand

	Duplicate bool           // an earlier event already said this
	Refusal   *event.Refusal // a rule said no; the record is preflight_failed
	Conflict  *event.Record  // the deployment in the way, if that is why
}
