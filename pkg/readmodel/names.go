package readmodel

import (
	"context"

	"github.com/shipledger/shipledger/pkg/event"
)

// NameRow says that a name of an account means a product or an environment,
// from the event at Position on. Key: account, object and name; the highest
// offset counts. A name without a row means what its id is derived from.
type NameRow struct {
	Account  string
	Object   Object // ProductObject or EnvironmentObject
	Name     string
	ID       [16]byte // a UUID
	Position event.Position
}

// Names tells what the names in questions mean: those of now, and those that
// things had before they were renamed (contract 2). It does not say whether what
// is meant is there.
type Names interface {
	ProductNamed(ctx context.Context, account, name string) (event.ProductID, error)
	EnvironmentNamed(ctx context.Context, account, name string) (event.EnvironmentID, error)
}
