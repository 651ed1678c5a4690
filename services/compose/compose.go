// Package compose puts processes together: from the same pieces where everything
// is one process and where each service is one. No service knows which.
//
//	Open ─► Process: NATS, secrets, keyring, nodes, settings, usage, budgets
//	            │
//	            ├── ingestpart    TRACK ─ committer
//	            ├── querypart     tables (read only), logs, feed, archives
//	            ├── accountspart  CREDENTIALS, the first credentials
//	            ├── projectorpart tables, OPS, the lease of who projects
//	            └── mcppart       the public API
//	            │
//	Serve ◄─────┘ one HTTP API of the parts that this process has
//
// A part is a package of its own, so that a program links the backends that it
// needs: ingest has no ClickHouse in it.
package compose

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/lifecycle"
)

// The services, as the API document names them.
const (
	Ingest    = "ingest"
	Query     = "query"
	Accounts  = "accounts"
	Projector = "projector"
	MCP       = "mcp"
)

// Services are all of them.
var Services = []string{Ingest, Query, Accounts, Projector, MCP}

// A Part is a service as a process has it.
type Part struct {
	Service  string
	Handlers httpapi.Handlers
	// Beside runs from the start to the end, and nobody waits for it.
	Beside []lifecycle.Service
	// Core runs while the process counts as one that acts by the keyring, and
	// requests are let in once it is ready.
	Core []lifecycle.Service
	// Flights are what the part decides by the keyring.
	Flights    []*keyring.Flight
	Collectors []prometheus.Collector
	Checks     []Check
	// Front, if set, stands before the API of the process.
	Front func(api http.Handler) http.Handler
}

// A Check tells how a part of the process feels.
type Check struct {
	Part string
	Ask  func(ctx context.Context) error
	// Mild says that what is wrong degrades answers and withholds none.
	Mild bool
}
