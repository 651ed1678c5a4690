// Command query is the service query as a process of its own.
package main

import (
	"context"

	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/compose/querypart"
	"github.com/shipledger/shipledger/services/compose/tables"
)

// version is set by the build.
var version = "dev"

func main() {
	compose.Main(compose.Query, version, func(ctx context.Context, p *compose.Process) ([]compose.Part, error) {
		model, err := tables.OpenToRead(ctx, p.Config, p.Secrecy, p.Logger)
		if err != nil {
			return nil, err
		}
		part, err := querypart.New(ctx, p, model)
		part.Beside = append(part.Beside, tables.Following(model))
		return []compose.Part{part}, err
	})
}
