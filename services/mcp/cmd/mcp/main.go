// Command mcp is the service mcp as a process of its own.
package main

import (
	"context"

	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/compose/mcppart"
)

// version is set by the build.
var version = "dev"

func main() {
	compose.Main(compose.MCP, version, func(_ context.Context, p *compose.Process) ([]compose.Part, error) {
		return []compose.Part{mcppart.New(p, "http://"+p.Config.Addr, p.Neighbours())}, nil
	})
}
