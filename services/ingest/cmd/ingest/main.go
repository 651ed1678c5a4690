// Command ingest is the service ingest as a process of its own.
package main

import (
	"context"

	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/compose/ingestpart"
)

// version is set by the build.
var version = "dev"

func main() {
	compose.Main(compose.Ingest, version, func(ctx context.Context, p *compose.Process) ([]compose.Part, error) {
		part, err := ingestpart.New(ctx, p)
		return []compose.Part{part}, err
	})
}
