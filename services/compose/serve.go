package compose

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/telemetry"
)

// A Door says where and to whom a process answers.
type Door struct {
	Addr string
	// TLS, if set, is spoken there.
	TLS *tls.Config
	// Leave is how long those in front are waited for when the process stops.
	Leave time.Duration
	// Believed are the addresses and networks of those who may say for whom they ask.
	Believed []string
	// ForwardedProto says that they say, too, whether the client came encrypted.
	ForwardedProto bool
	// Listening, if set, is told the address.
	Listening func(net.Addr)
}

// Serve gives the process: its parts behind one HTTP API.
//
// What is named first starts first and stops last: what everybody stands on; then
// this process counts among those that verify credentials; then the parts; then
// requests are let in.
func (p *Process) Serve(door Door, parts ...Part) (lifecycle.Service, error) {
	believed, err := credential.ParsePrefixes(door.Believed)
	if err != nil {
		return nil, fmt.Errorf("read who may say for whom they ask: %w", err)
	}
	checks := []Check{{Part: httpapi.PartKeys, Ask: errorOf(p.Ring.Healthy)}}
	beside := []lifecycle.Service{
		p.Ring, p.Book, p.Usage, p.budgets, bounded(p.Config.MemoryLimit),
		&telemetry.Server{Addr: p.Config.MetricsAddr, TLS: p.Secrecy.Inside(), Gatherer: p.registry, Logger: p.Logger},
	}
	var core []lifecycle.Service
	var services []string
	var handlers []httpapi.Handlers
	for i := range parts {
		part := &parts[i]
		services = append(services, part.Service)
		handlers = append(handlers, part.Handlers)
		beside = append(beside, part.Beside...)
		core = append(core, part.Core...)
		checks = append(checks, part.Checks...)
		p.Nodes.Flies(part.Flights...)
		p.registry.MustRegister(part.Collectors...)
	}
	handlers = append(handlers, httpapi.Handlers{"getHealth": ServeHealth(p.Config.Version, p.durability, checks...)})
	if len(core) == 0 {
		core = []lifecycle.Service{lifecycle.Func(Nothing)}
	}
	p.api, err = httpapi.New(httpapi.Config{
		Spec: p.Spec, Services: services, Authenticator: p.Ring, Limiter: p.limiter, Meter: p.Usage, Logger: p.Logger,
		Observe: telemetry.Requests(p.registry), ForwardedProto: door.ForwardedProto, TrustedProxies: believed, Settings: p.Book.Of,
	}, handlers...)
	if err != nil {
		return nil, fmt.Errorf("mount the API: %w", err)
	}
	handler := http.Handler(p.api)
	for i := range parts {
		if front := parts[i].Front; front != nil {
			handler = front(handler)
		}
	}
	return lifecycle.Seq(
		lifecycle.Par(beside...),
		p.Nodes, // before anybody is let in, and after what was let in is done
		lifecycle.Par(core...),
		&httpapi.Server{Addr: door.Addr, Handler: handler, TLS: door.TLS, Leave: door.Leave, Grace: stopGrace, Listening: door.Listening, MaxConnections: p.Config.MaxConnections, Logger: p.Logger},
	), nil
}
