// Package console is the front door where each service is a process of its own:
// one address for all of them. It forwards by the table of the API document, which
// the services answer by (architecture 9), and keeps and knows nothing itself: no
// log, no read model, no credential.
//
//	client ──► door ─┬─ POST /deployment-events/ ─► ingest, ingest
//	                 ├─ GET /matrix ──────────────► query, query
//	                 └─ …                            by operation, not by prefix
//
// What a service answers is passed on as it is, while it comes: streams and exports
// are not held. The address of the client is handed on in X-Forwarded-For, as the
// only one: what the client itself put there counts only behind a trusted proxy.
package console

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// The limits of a connection to a service.
const (
	headerTimeout = 85 * time.Second // for an answer to begin; a service gives up after 90 s
	idleConns     = 512
	// writePause is how long a client may take nothing of an answer.
	writePause = 90 * time.Second
)

// Config says who stands behind the door.
type Config struct {
	Spec *httpapi.Spec
	// At lists the processes of each service, as host:port.
	At map[string][]string
	// Secure, if set, encrypts connections to them.
	Secure httpapi.Secure
	// TrustedProxies are those in front whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// ForwardedProto says that a proxy in front sets X-Forwarded-Proto.
	ForwardedProto bool
	Version        string
	Logger         *slog.Logger
	// Observe, if set, is told of every answer, by service.
	Observe func(service string, status int, took time.Duration)
}

// Door is the front door. It is a http.Handler.
type Door struct {
	cfg      Config
	routes   *httpapi.Routes
	api      *httpapi.API // what every process answers, and paths that nobody does
	services map[string]*service
}

// service is where the processes of one service are.
type service struct {
	name      string
	transport http.RoundTripper
	idle      *http.Transport // whose connections are kept
	proxy     *httputil.ReverseProxy
}

// New returns a door. It fails where a service of the document has no process.
func New(cfg Config) (*Door, error) {
	d := &Door{cfg: cfg, routes: httpapi.NewRoutes(cfg.Spec), services: map[string]*service{}}
	var faults []error
	for _, op := range cfg.Spec.Operations() {
		name := op.Service
		if name == httpapi.Everywhere || d.services[name] != nil {
			continue
		}
		if len(cfg.At[name]) == 0 {
			faults = append(faults, fmt.Errorf("nobody answers for %s", name))
			continue
		}
		d.services[name] = d.open(name, cfg.At[name])
	}
	var err error
	d.api, err = httpapi.New(httpapi.Config{Spec: cfg.Spec, Logger: cfg.Logger}, httpapi.Handlers{"getHealth": httpapi.ServeHealth(d.health)})
	return d, errors.Join(append(faults, err)...)
}

func (d *Door) open(name string, at []string) *service {
	s := &service{name: name, idle: &http.Transport{
		MaxIdleConns: idleConns, MaxIdleConnsPerHost: idleConns, ResponseHeaderTimeout: headerTimeout, DisableCompression: true,
	}}
	s.transport = httpapi.NewUpstream(at, d.cfg.Secure).Through(s.idle)
	s.proxy = &httputil.ReverseProxy{
		Transport: s.transport, FlushInterval: -1,
		Rewrite:        func(r *httputil.ProxyRequest) { d.rewrite(s, r) },
		ModifyResponse: endWithServer,
		ErrorHandler:   func(w http.ResponseWriter, r *http.Request, err error) { d.failed(s, w, r, err) },
		ErrorLog:       slog.NewLogLogger(d.cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// ServeHTTP forwards a request, or answers what every process answers.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := d.services[d.routes.Service(r)]
	if s == nil {
		d.api.ServeHTTP(w, r)
		return
	}
	out := &patient{ResponseWriter: w, control: http.NewResponseController(w), status: http.StatusOK}
	if d.cfg.Observe != nil {
		began := time.Now()
		defer func() { d.cfg.Observe(s.name, out.status, time.Since(began)) }()
	}
	s.proxy.ServeHTTP(out, r)
}

// rewrite makes the request that a service gets: the same but for the connection's
// own headers. Path and query stay byte by byte as they came.
func (d *Door) rewrite(s *service, r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", s.name
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	r.Out.Host = r.In.Host
	client := "unknown" // no service takes that for an address, and none its own connection's
	if addr := httpapi.ClientAddr(r.In, d.cfg.TrustedProxies); addr.IsValid() {
		client = addr.String()
	}
	proto := "http"
	if r.In.TLS != nil || d.cfg.ForwardedProto && r.In.Header.Get("X-Forwarded-Proto") == "https" {
		proto = "https"
	}
	r.Out.Header.Set("X-Forwarded-For", client)
	r.Out.Header.Set("X-Forwarded-Proto", proto)
	if r.Out.Body == nil && r.In.Header.Get("Idempotency-Key") != "" {
		// The library takes the key of a request without a body for a promise that it may
		// be sent twice, which not every operation gives. It never sends a body twice.
		r.Out.Body = nothing{}
	}
	if _, ok := r.In.Header["User-Agent"]; !ok {
		r.Out.Header["User-Agent"] = nil // or the library would say that it is one
	}
}

// nothing is a body without a byte.
type nothing struct{}

// Read implements io.Reader.
func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// Close implements io.Closer.
func (nothing) Close() error { return nil }

// failed answers for a service that does not.
func (d *Door) failed(s *service, w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil { // the client has gone
		return
	}
	id := "req_" + rand.Text()
	d.cfg.Logger.WarnContext(r.Context(), "a service does not answer", "service", s.name, "request_id", id, "err", err)
	answer := fault.New(fault.Unavailable, "SERVICE_UNAVAILABLE", "the part that answers this was cut off in the middle; it may have been done").
		WithHint("Send the request again, byte for byte, after the time in Retry-After.")
	if errors.Is(err, httpapi.ErrUnreached) {
		answer = fault.New(fault.Unavailable, "SERVICE_UNAVAILABLE", "the part that answers this is not there right now; nothing was done").
			WithHint("Send the request again after the time in Retry-After.")
	}
	httpapi.Answer(w, answer, id)
}

// patient gives a client that takes something of an answer time for the rest: an
// answer may go on for ever.
type patient struct {
	http.ResponseWriter

	control *http.ResponseController
	status  int
}

// WriteHeader implements http.ResponseWriter.
func (p *patient) WriteHeader(status int) {
	if status >= http.StatusOK {
		p.status = status
	}
	p.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (p *patient) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(writePause)) // it is not served by a connection where it cannot be set
	return p.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// endWithServer ends streams of events when the door stops: they would go on for
// ever, and clients come back to where they were.
func endWithServer(r *http.Response) error {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	stopping := httpapi.Stopping(r.Request.Context())
	if kind != "text/event-stream" || stopping == nil {
		return nil
	}
	body := &ending{ReadCloser: r.Body}
	body.stop = make(chan struct{})
	go func() { // ends with the body
		select {
		case <-stopping:
			body.stopped.Store(true)
			_ = body.ReadCloser.Close() // wakes the reader
		case <-body.stop:
		}
	}()
	r.Body = body
	return nil
}

type ending struct {
	io.ReadCloser

	stopped atomic.Bool
	once    sync.Once
	stop    chan struct{}
}

// Read implements io.Reader.
func (e *ending) Read(b []byte) (int, error) {
	n, err := e.ReadCloser.Read(b)
	if err != nil && e.stopped.Load() {
		err = io.EOF
	}
	return n, err
}

// Close implements io.Closer.
func (e *ending) Close() error {
	e.once.Do(func() { close(e.stop) })
	return e.ReadCloser.Close()
}

// CloseIdle closes connections that nobody uses, when the door stops.
func (d *Door) CloseIdle() {
	for _, s := range d.services {
		s.idle.CloseIdleConnections()
	}
}
