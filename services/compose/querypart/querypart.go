// Package querypart puts query into a process. It reads the tables and the logs,
// and writes nothing but signed checkpoints of the logs.
package querypart

import (
	"context"
	"crypto/rand"
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/feed"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/logarchive"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/query"
)

// New gives the part, which reads model.
func New(ctx context.Context, p *compose.Process, model *chmodel.Model) (compose.Part, error) {
	partitions, err := p.Partitions(ctx)
	if err != nil {
		return compose.Part{}, err
	}
	credentials, err := p.Credentials(ctx)
	if err != nil {
		return compose.Part{}, err
	}
	operations, err := p.Operations(ctx)
	if err != nil {
		return compose.Part{}, err
	}
	tracks := compose.Readers(partitions)
	logs := maps.Clone(tracks)
	logs[event.CredentialStream], logs[compose.OperationStream] = credentials, operations
	keeper, err := openKeeper(ctx, p, logs)
	if err != nil {
		return compose.Part{}, err
	}
	live := feed.New(feed.Config{}, logs, query.Render, p.Logger)
	service := query.New(model, compose.Streams(partitions)...).Auditing(event.CredentialStream, compose.OperationStream).Keys(p.Ring.Record).Counting(p.Ring, p.Usage).
		Streaming(live, p.Config.Heartbeat).
		Following(event.CredentialStream, func() event.Offset { return event.At(p.Ring.Applied(), 0) }).
		Accounting(tracks).
		Exporting(keeper, p.Ring.Operator, compose.Archived(len(partitions))...)
	return compose.Part{
		Service: compose.Query, Handlers: service.Handlers(), Beside: []lifecycle.Service{keeper}, Core: []lifecycle.Service{live},
		Checks: []compose.Check{{Part: httpapi.PartReadModel, Ask: func(ctx context.Context) error {
			_, err := model.AsOf(ctx)
			return err
		}}},
		Collectors: []prometheus.Collector{prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "shipledger_log_checkpoints_total", Help: "Signed checkpoints of the logs that this process has made and kept.",
		}, func() float64 { return float64(keeper.Made()) })},
	}, nil
}

// openKeeper gives what signs the logs, once in a while and for exports.
func openKeeper(ctx context.Context, p *compose.Process, logs map[string]eventlog.Reader) (*logarchive.Keeper, error) {
	seed, err := keyring.LoadLogSeed(p.Config.LogKey, p.Config.LogKeyFile, p.Config.Data, rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := logarchive.NewSigner(seed)
	if err != nil {
		return nil, err
	}
	kept, err := p.Checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	return logarchive.NewKeeper(logs, kept, signer, p.Config.CheckpointEvery, p.Logger), nil
}
