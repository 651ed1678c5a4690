// Package ingestpart puts ingest into a process. It needs the log and no read model.
package ingestpart

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/ingest"
)

// New gives the part.
func New(ctx context.Context, p *compose.Process) (compose.Part, error) {
	track, err := p.Track(ctx)
	if err != nil {
		return compose.Part{}, err
	}
	committer := ingest.NewCommitter(track, p.Stream, time.Now, newIDs(), p.Logger)
	snapshots, err := natslog.OpenObjects(ctx, p.JS, "STATE", "What decisions are made on, so that a start need not fold the whole log", p.Config.NATSReplicas)
	if err != nil {
		return compose.Part{}, err
	}
	committer.Keep(snapshots)
	committer.SetDefaults(p.Config.Settings.Defaults())
	committer.Share(p.Book)
	service := ingest.New(p.Spec, committer).Telling(func(ctx context.Context, account string) bool {
		revision, err := p.Book.Share(ctx, account)
		return err == nil && p.Nodes.AwaitBeside(ctx, revision)
	})
	return compose.Part{
		Service: compose.Ingest, Handlers: service.Handlers(), Core: []lifecycle.Service{committer},
		Flights: []*keyring.Flight{committer.Flight()}, Collectors: committer.Collectors(),
		Checks: []compose.Check{{Part: httpapi.PartLog, Ask: func(context.Context) error { return committer.Healthy() }}},
	}, nil
}

// newIDs gives the committer's source of ids: unpredictable and rising within a
// millisecond. It is for one goroutine.
func newIDs() func(ms uint64) ulid.ULID {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	entropy := ulid.Monotonic(mathrand.NewChaCha8(seed), 0)
	return func(ms uint64) ulid.ULID {
		id, err := ulid.New(ms, entropy)
		if err != nil { // more than 2^80 ids in a millisecond, or a year past 10889
			panic(err)
		}
		return id
	}
}
