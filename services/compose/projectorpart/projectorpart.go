// Package projectorpart puts the projector into a process.
package projectorpart

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/kv/natskv"
	"github.com/shipledger/shipledger/pkg/lease"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/pkg/replay"
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/projector"
)

// New gives the part, which keeps model.
func New(ctx context.Context, p *compose.Process, model *chmodel.Model) (compose.Part, error) {
	partitions, err := p.Partitions(ctx)
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
	leases, err := p.Table(ctx, natskv.Config{Bucket: "LEASES", Description: "Who does what only one should do at a time", Volatile: true})
	if err != nil {
		return compose.Part{}, err
	}
	// One leads for each read model: processes on one log may have several. One that
	// no other process reaches is this one's alone.
	owner := rand.Text()
	place := cmp.Or(model.Place(), owner)
	lead := lease.New(lease.Config{Key: "projector." + replay.Ledger + "." + place, Owner: owner, Value: p.Address}, leases, p.Logger)
	var streams []projector.Stream
	var audits []*projector.Audit
	part := compose.Part{Service: compose.Projector}
	for _, partition := range partitions {
		streams = append(streams, projector.Stream{Name: partition.Stream, Log: partition.Log})
		audit := projector.NewAudit(partition.Log, model, partition.Stream, p.Config.AuditEvery, p.Logger)
		audits = append(audits, audit)
		part.Beside = append(part.Beside, audit)
		part.Collectors = append(part.Collectors, audit.Collectors()...)
	}
	streams = append(streams, projector.Stream{Name: event.CredentialStream, Log: credentials}, projector.Stream{Name: compose.OperationStream, Log: operations})
	service := projector.New(projector.Config{
		Streams: streams, Tracks: len(partitions),
		Keep: p.Config.ReplayKeep, Snapshots: p.Config.Snapshots, CodeVersion: p.Config.Version, Operator: p.Ring.Operator, Entropy: rand.Reader, Lease: lead,
	}, operations, model, p.Spec, p.Logger)
	believed, err := credential.ParsePrefixes(p.Config.FrontDoors)
	if err != nil {
		return compose.Part{}, fmt.Errorf("read the front doors: %w", err)
	}
	part.Front = func(api http.Handler) http.Handler { return handOver(lead, p, believed, api) }
	part.Handlers, part.Core = service.Handlers(), []lifecycle.Service{service}
	part.Collectors = append(part.Collectors, service.Collectors()...)
	part.Checks = Checks(service, audits...)
	return part, nil
}

// Checks tell how a projector and its audits feel. Events that are missing or set
// aside withhold no answer: others are as right as before.
func Checks(service *projector.Service, audits ...*projector.Audit) []compose.Check {
	balanced := func() error {
		var errs []error
		for _, a := range audits {
			errs = append(errs, a.Healthy())
		}
		return errors.Join(errs...)
	}
	return []compose.Check{
		{Part: "projector", Ask: func(context.Context) error { return service.Healthy() }},
		{Part: "ledger", Ask: func(context.Context) error { return balanced() }, Mild: true},
		{Part: "quarantine", Ask: func(context.Context) error { return service.Quarantine() }, Mild: true},
	}
}

// handedOver marks a request that a projector which stands by has passed on.
const handedOver = "X-Shipledger-Handed-Over"

// handOver passes requests for the projector on to the process that leads: only it
// knows how far a rebuild is, and whether what was decided is in force.
func handOver(lead *lease.Lease, p *compose.Process, believed []netip.Prefix, api http.Handler) http.Handler {
	routes := httpapi.NewRoutes(p.Spec)
	transport, scheme := http.DefaultTransport, "http"
	if secure := p.Secrecy.Peers; secure != nil {
		transport, scheme = secure.Transport(), "https"
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			holder, _ := lead.Holder()
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.RawQuery = scheme, holder, r.In.URL.RawQuery
			r.Out.Host = r.In.Host
			client := "unknown"
			if addr := httpapi.ClientAddr(r.In, believed); addr.IsValid() {
				client = addr.String()
			}
			r.Out.Header.Set("X-Forwarded-For", client)
			r.Out.Header.Set("X-Forwarded-Proto", r.In.Header.Get("X-Forwarded-Proto"))
			r.Out.Header.Set(handedOver, "1")
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			id := "req_" + rand.Text()
			p.Logger.WarnContext(r.Context(), "the projector that leads does not answer", "request_id", id, "err", err)
			httpapi.Answer(w, fault.New(fault.Unavailable, "SERVICE_UNAVAILABLE", "the projector that leads does not answer; another one takes over").
				WithHint("Read what stands after the time in Retry-After, and ask again."), id)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		holder, known := lead.Holder()
		if !known || lead.Held() || holder == "" || r.Header.Get(handedOver) != "" || routes.Service(r) != compose.Projector {
			api.ServeHTTP(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}
