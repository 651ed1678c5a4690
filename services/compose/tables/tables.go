// Package tables opens the read model in a ClickHouse that somebody else runs.
package tables

import (
	"context"
	"log/slog"

	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// Open gives the read model at a ClickHouse address.
func Open(ctx context.Context, dsn string, logger *slog.Logger) (*chmodel.Model, error) {
	c, err := chmodel.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	return chmodel.Open(ctx, c, logger)
}

// Following follows which version of the tables is live. It is ready at once: a
// read model that is away stops readers only.
func Following(model *chmodel.Model) lifecycle.Service {
	return lifecycle.Func(func(ctx context.Context, ready func()) error {
		ready()
		return model.Run(ctx, func() {})
	})
}
