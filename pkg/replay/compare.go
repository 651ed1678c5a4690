package replay

import (
	"fmt"
	"time"
)

// A Comparison is of two versions of the tables that stand at the same position.
type Comparison struct {
	ReplayID string
	To       string // the position at which both stand
	Old, New uint32
	Part     Part
}

// Findings are what a comparison found.
type Findings struct {
	Events, Deployments uint64 // in the new tables
	Accounts            int
	Tables              []Table // all of them, in a fixed order
	Cells               uint64  // cells of the matrix that would change, of all accounts
	First               *Difference
	// Quarantined are the events that the old and the new version lack because
	// they could not be applied, or wait behind one.
	Quarantined [2]uint64
}

// Reason says why the versions differ where it is not what they hold; "" if not.
func (f *Findings) Reason() string {
	if f.Quarantined[0] == f.Quarantined[1] {
		return ""
	}
	return fmt.Sprintf("The quarantine differs: %d events in the old version, %d in the new one.", f.Quarantined[0], f.Quarantined[1])
}

// Equal tells whether nothing differs, what each version could not apply included.
func (f *Findings) Equal() bool {
	if f.Quarantined[0] != f.Quarantined[1] {
		return false
	}
	for _, t := range f.Tables {
		if t.HashOld != t.HashNew || len(t.Accounts) > 0 {
			return false
		}
	}
	return true
}

// CellChange is a cell of the matrix that a switch would change.
type CellChange struct {
	Seq             uint64 // orders the changes of a comparison
	ProductName     string
	EnvironmentName string
	From, To        CellContent // empty where nothing is, or would be, live
}

// CellContent is what is live in a cell.
type CellContent struct {
	Version      string
	DeploymentID string
	At           time.Time
}
