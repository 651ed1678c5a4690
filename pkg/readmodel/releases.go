package readmodel

import (
	"context"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// ReleaseObject is a release.
const ReleaseObject Object = "release"

// ReleaseRow is a release. Key: account and id; the highest offset counts. Reads
// leave out versions of products that were deleted, and give the names of now.
type ReleaseRow struct {
	event.Release

	Account  string
	Position event.Position
}

// Key orders releases newest first.
func (r *ReleaseRow) Key() string { return r.ID.String() }

// Releases answers what people planned to ship together. Lists are newest first.
type Releases interface {
	Releases(ctx context.Context, account string, p Page) ([]ReleaseRow, error)
	Release(ctx context.Context, account string, id ulid.ULID) (ReleaseRow, error)
}
