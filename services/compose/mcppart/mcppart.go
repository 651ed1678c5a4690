// Package mcppart puts mcp into a process. It knows the keyring, and neither the
// log of deployments nor the read model.
package mcppart

import (
	"net/http"

	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/mcp"
)

// New gives the part. Its tools ask the public API at that base URL, through
// transport.
func New(p *compose.Process, api string, transport http.RoundTripper) compose.Part {
	service := mcp.New(mcp.Config{API: api, Version: p.Config.Version, Transport: transport}, p.Logger)
	return compose.Part{Service: compose.MCP, Handlers: service.Handlers()}
}
