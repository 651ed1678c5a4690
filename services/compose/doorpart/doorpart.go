// Package doorpart puts the front door together, which is a process of its own and
// stands on no backend.
package doorpart

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/telemetry"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/console"
)

// stopGrace is longer than that of a service, which is stopped after the door.
const stopGrace = 5 * time.Second

// New gives the front door.
func New(_ context.Context, cfg compose.Config, logger *slog.Logger) (lifecycle.Service, error) {
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("read the API document: %w", err)
	}
	proxies, err := credential.ParsePrefixes(cfg.TrustedProxies)
	if err != nil {
		return nil, fmt.Errorf("read the trusted proxies: %w", err)
	}
	at := map[string][]string{}
	for _, name := range compose.Services {
		_, at[name] = cfg.Places.Of(name)
	}
	secrecy, err := cfg.Secrecy(logger)
	if err != nil {
		return nil, err
	}
	registry := telemetry.NewRegistry()
	door, err := console.New(console.Config{
		Spec: spec, At: at, Secure: secrecy.Upstream(), TrustedProxies: proxies, ForwardedProto: cfg.ForwardedProto, Version: cfg.Version, Logger: logger,
		Observe: observe(registry),
	})
	if err != nil {
		return nil, err
	}
	return lifecycle.Seq(
		&telemetry.Server{Addr: cfg.MetricsAddr, TLS: secrecy.Inside(), Gatherer: registry, Logger: logger},
		&httpapi.Server{Addr: cfg.Addr, Handler: door, TLS: secrecy.Outside(), Grace: stopGrace, Listening: cfg.Listening, MaxConnections: cfg.MaxConnections, Logger: logger},
	), nil
}

// observe counts what was forwarded, by service.
func observe(r prometheus.Registerer) func(service string, status int, took time.Duration) {
	forwarded := telemetry.Requests(r)
	return func(service string, status int, took time.Duration) { forwarded("to "+service, status, took) }
}
