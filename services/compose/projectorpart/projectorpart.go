// Package projectorpart puts the projector into a process.
package projectorpart

import (
	"context"
	"crypto/rand"
	"slices"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/projector"
)

// New gives the part, which keeps model.
func New(ctx context.Context, p *compose.Process, model *chmodel.Model) (compose.Part, error) {
	track, err := p.Track(ctx)
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
	audit := projector.NewAudit(track, model, p.Stream, p.Config.AuditEvery, p.Logger)
	service := projector.New(projector.Config{
		Streams: []projector.Stream{{Name: p.Stream, Log: track}, {Name: event.CredentialStream, Log: credentials}},
		Keep:    p.Config.ReplayKeep, CodeVersion: p.Config.Version, Operator: p.Ring.Operator, Entropy: rand.Reader,
	}, operations, model, p.Spec, p.Logger)
	return compose.Part{
		Service: compose.Projector, Handlers: service.Handlers(), Beside: []lifecycle.Service{audit}, Core: []lifecycle.Service{service},
		Collectors: slices.Concat(service.Collectors(), audit.Collectors()),
		Checks: []compose.Check{
			{Part: "projector", Ask: func(context.Context) error { return service.Healthy() }},
			{Part: "ledger", Ask: func(context.Context) error { return audit.Healthy() }, Mild: true},
			{Part: "quarantine", Ask: func(context.Context) error { return service.Quarantine() }, Mild: true},
		},
	}, nil
}
