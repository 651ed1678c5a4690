package projector

import (
	"context"

	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/replay"
)

// Single gives the tables of a read model that has one version, such as one in
// memory. It is projected like any other; a replay of it fails and says so.
func Single(open func(context.Context) (readmodel.Sink, error)) Tables { return single{open} }

type single struct {
	open func(context.Context) (readmodel.Sink, error)
}

var errSingle = fault.New(fault.Precondition, "REPLAY_UNSUPPORTED", "this read model has one version only and cannot be rebuilt beside itself")

// Migrate implements Tables.
func (single) Migrate(context.Context) error { return nil }

// Active implements Tables.
func (single) Active() uint32 { return replay.FirstVersion }

// Activate implements Tables.
func (single) Activate(context.Context, uint32, uint64) error { return errSingle }

// EnsureVersion implements Tables.
func (single) EnsureVersion(context.Context, uint32) error { return nil }

// DeferMerges implements Tables.
func (single) DeferMerges(context.Context, uint32) error { return nil }

// AllowMerges implements Tables.
func (single) AllowMerges(context.Context, uint32) error { return nil }

// Parts implements Tables.
func (single) Parts(context.Context, uint32) (uint64, error) { return 0, nil }

// DropVersion implements Tables.
func (single) DropVersion(context.Context, uint32) error { return nil }

// TableVersions implements Tables.
func (single) TableVersions(context.Context) ([]uint32, error) {
	return []uint32{replay.FirstVersion}, nil
}

// Stored implements Tables.
func (single) Stored(context.Context, uint32) (uint64, error) { return 0, nil }

// OpenSink implements Tables.
func (t single) OpenSink(ctx context.Context, version uint32) (readmodel.Sink, func() error, error) {
	if version != replay.FirstVersion {
		return nil, nil, errSingle
	}
	sink, err := t.open(ctx)
	return sink, func() error { return nil }, err
}

// Clone implements Tables.
func (single) Clone(context.Context, uint32) error { return errSingle }

// DropClones implements Tables.
func (single) DropClones(context.Context) error { return nil }

// Compare implements Tables.
func (single) Compare(context.Context, replay.Comparison) (replay.Findings, error) {
	return replay.Findings{}, errSingle
}

// ChangedCells implements Tables.
func (single) ChangedCells(context.Context, string, string, string, uint64, int) ([]replay.CellChange, error) {
	return nil, nil
}

// DeliveriesOf implements Tables.
func (single) DeliveriesOf(uint32) readmodel.Deliveries { return nil } // no replay of it is ever compared

// ProgressOf implements Tables.
func (single) ProgressOf(context.Context, uint32) ([]readmodel.Progress, error) {
	return nil, errSingle
}
