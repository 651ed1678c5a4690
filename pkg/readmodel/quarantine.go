package readmodel

import (
	"errors"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
)

// ErrRefused says that a store will never take some of the rows, for what they
// hold. Smaller portions may be taken.
var ErrRefused = errors.New("the store refuses the rows for what they hold")

// QuarantineState says what became of an event that was set aside.
type QuarantineState string

// The states.
const (
	Quarantined QuarantineState = "quarantined" // not applied
	Redriven    QuarantineState = "redriven"    // applied later
	Discarded   QuarantineState = "discarded"   // never to be applied
)

// A QuarantineRow is an event that could not be applied, or waits behind one.
// Key: position; the row with the highest Turn counts.
//
// A frame whose events cannot be told apart is set aside as a whole: Frame is
// set, and there is a row for each account and type that it is said to hold,
// with places that number them.
//
// Rows are of one version of the tables: a rebuild begins without any, and has
// those that its own code cannot apply.
type QuarantineRow struct {
	Account    string // "" where it is not known
	Position   event.Position
	ID         string // "" where it is not known, as Type and Subject
	Type       event.Type
	Subject    string
	ReceivedAt time.Time // zero where it is not known
	Frame      bool
	Events     uint64 // how many it stands for; 1 but for frames

	State       QuarantineState
	Reason      string         // why it could not be applied last time, or was discarded
	Behind      event.Position // what it waits for; zero: it was tried itself
	CodeVersion string         // of the code that tried last
	Attempts    uint32         // how often it was tried
	Decision    uint64         // the last decision that it was tried or discarded under; 0: none
	SetAsideAt  time.Time
	Turn        uint64 // counts what was said of the position
}

// Key orders them as the log does.
func (r *QuarantineRow) Key() string { return r.Position.String() }

// QuarantineFilter narrows lists of what was set aside. Zero members do not narrow.
type QuarantineFilter struct {
	// Accounts are those whose events are seen; "" is that of events of which it
	// is not known. nil is all, and for the projection only.
	Accounts []string
	Stream   string
	State    QuarantineState
	Type     event.Type
	Subject  string
	Position event.Position
	// Pending narrows to what is quarantined, and to anything after this offset.
	Pending *event.Offset
}

// Matches tells whether a row is among those that f narrows to.
func (f *QuarantineFilter) Matches(r *QuarantineRow) bool {
	switch {
	case f.Accounts != nil && !slices.Contains(f.Accounts, r.Account),
		f.Stream != "" && r.Position.Stream != f.Stream,
		f.State != "" && r.State != f.State,
		f.Type != "" && r.Type != f.Type,
		f.Subject != "" && r.Subject != f.Subject,
		f.Position != (event.Position{}) && r.Position != f.Position,
		f.Pending != nil && r.State != Quarantined && r.Position.Offset <= *f.Pending:
		return false
	}
	return true
}
