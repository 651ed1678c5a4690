// Package ingestpart puts ingest into a process. It needs the log and no read model.
package ingestpart

import (
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/ingest"
)

// New gives the part.
func New(ctx context.Context, p *compose.Process) (compose.Part, error) {
	partitions, err := p.Partitions(ctx)
	if err != nil {
		return compose.Part{}, err
	}
	snapshots, err := natslog.OpenObjects(ctx, p.JS, "STATE", "What decisions are made on, so that a start need not fold the whole log", p.Config.NATSReplicas)
	if err != nil {
		return compose.Part{}, err
	}
	part := compose.Part{Service: compose.Ingest}
	var committers []*ingest.Committer
	for _, partition := range partitions {
		c := ingest.NewCommitter(partition.Log, partition.Stream, time.Now, newIDs(), p.Logger)
		c.Keep(snapshots, filepath.Join(p.Config.Data, "closed-runs"))
		c.SetDefaults(p.Config.Settings.Defaults())
		c.Share(p.Book)
		committers = append(committers, c)
		part.Core = append(part.Core, c)
		part.Flights = append(part.Flights, c.Flight())
		part.Collectors = append(part.Collectors, c.Collectors()...)
	}
	part.Handlers = ingest.New(p.Spec, committers...).Telling(func(ctx context.Context, account string) bool {
		revision, err := p.Book.Share(ctx, account)
		return err == nil && p.Nodes.AwaitBeside(ctx, revision)
	}).Handlers()
	part.Checks = []compose.Check{{Part: httpapi.PartLog, Ask: func(context.Context) error {
		var errs []error
		for _, c := range committers {
			errs = append(errs, c.Healthy())
		}
		return errors.Join(errs...)
	}}}
	return part, nil
}

// newIDs gives the committer's source of ids: unpredictable and rising within a
// millisecond. It is for one goroutine.
func newIDs() func(ms uint64) ulid.ULID {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	entropy := ulid.Monotonic(mathrand.NewChaCha8(seed), 0)
	id := new(ulid.ULID) // not one each: what the source fills is on the heap
	return func(ms uint64) ulid.ULID {
		err := id.SetTime(ms)
		if err == nil {
			err = entropy.MonotonicRead(ms, id[6:])
		}
		if err != nil { // more than 2^80 ids in a millisecond, or a year past 10889
			panic(err)
		}
		return *id
	}
}
