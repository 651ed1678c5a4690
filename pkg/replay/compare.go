package replay

import "time"

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
}

// Equal tells whether nothing differs.
func (f *Findings) Equal() bool {
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
