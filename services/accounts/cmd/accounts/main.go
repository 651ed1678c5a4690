// Command accounts is the service accounts as a process of its own.
package main

import (
	"context"

	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/compose/accountspart"
)

// version is set by the build.
var version = "dev"

func main() {
	compose.Main(compose.Accounts, version, func(ctx context.Context, p *compose.Process) ([]compose.Part, error) {
		part, _, err := accountspart.New(ctx, p)
		return []compose.Part{part}, err
	})
}
