package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// A Handler answers one operation. What it returns as an error is answered by
// the API, unless the handler has begun to answer itself.
type Handler func(w http.ResponseWriter, r *Request) error

// Handlers gives a handler per operationId.
type Handlers map[string]Handler

// Config is what an API is made of.
type Config struct {
	Spec *Spec
	// Services are those whose operations this API answers. Operations of
	// Everywhere are answered by every API; those of other services are known,
	// and refused with 421.
	Services      []string
	Authenticator Authenticator
	Limiter       Limiter // nil: no limits
	Meter         Meter   // nil: nobody wants to know who uses what
	Logger        *slog.Logger
	// ForwardedProto says that a proxy stands in front which sets X-Forwarded-Proto.
	ForwardedProto bool
	// TrustedProxies are those whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// Settings gives what an account decided; nil: every account has the defaults.
	Settings func(account string) event.Settings
	// RequestID makes the id of a request; nil: random ones.
	RequestID func() string
	// Observe, if set, is told of every answer: the operation's id, empty where
	// none was found, and the status.
	Observe func(operation string, status int, took time.Duration)
}

// API answers the documented operations of some services.
type API struct {
	cfg    Config
	table  table
	packed http.Handler // answers reads, compressed where the client takes it
}

// New makes an API of handlers. It fails if an operation of the services has
// no handler, or a handler names no operation of theirs.
//
// The operations getOpenAPI and getLiveness need no handler.
func New(cfg Config, handlers ...Handlers) (*API, error) {
	if cfg.RequestID == nil {
		cfg.RequestID = newRequestID
	}
	a := &API{cfg: cfg}
	var err error
	if a.packed, err = compressed(http.HandlerFunc(a.answer)); err != nil {
		return nil, err
	}
	all := Handlers{"getOpenAPI": cfg.Spec.serveDocument, "getLiveness": serveLiveness}
	var faults []error
	for _, set := range handlers {
		for id, h := range set {
			if op := cfg.Spec.byID[id]; op == nil || !a.serves(op) {
				faults = append(faults, fmt.Errorf("handler %s names no operation of %v", id, cfg.Services))
			}
			all[id] = h
		}
	}
	for _, op := range cfg.Spec.operations {
		h := all[op.ID]
		if h == nil && a.serves(op) {
			faults = append(faults, fmt.Errorf("operation %s has no handler", op.ID))
		}
		a.table.add(op, h, a.serves(op))
	}
	return a, errors.Join(faults...)
}

// newRequestID gives an id that no other request has. It is no secret: 128 bits
// of the runtime's own generator take 30 ns, of the system's 400.
func newRequestID() string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	id := [30]byte{'r', 'e', 'q', '_'}
	for i := 4; i < len(id); i += 13 { // 13 characters of 5 bits take 65, so the last has one of 16
		for n, at := rand.Uint64(), i; at < i+13; at++ {
			id[at] = alphabet[n&31]
			n >>= 5
		}
	}
	return string(id[:])
}

func (a *API) serves(op *Operation) bool {
	return op.Service == Everywhere || slices.Contains(a.cfg.Services, op.Service)
}

// Knows tells whether the document has this path, so that a composition root can
// serve pages beside it.
func (a *API) Knows(u *url.URL) bool {
	r, _ := a.table.match(u.EscapedPath())
	return r != nil
}

// ServeHTTP never redirects: both known clients follow a redirected POST with
// a body-less GET, and the event is lost (contract 1.3).
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		a.packed.ServeHTTP(w, r)
		return
	}
	a.answer(w, r) // what a write is answered is too short to gain
}

// noSniff keeps browsers from taking what a client once sent for a page.
var noSniff = []string{"nosniff"}

func (a *API) answer(rw http.ResponseWriter, hr *http.Request) {
	r := &Request{Request: hr, ID: a.cfg.RequestID(), api: a}
	r.response.ResponseWriter = rw
	w := &r.response
	h := rw.Header()
	h["X-Request-Id"] = []string{r.ID}
	h["X-Content-Type-Options"] = noSniff
	if a.cfg.Observe != nil {
		defer a.observe(r, time.Now())
	}
	if a.cfg.Meter != nil {
		defer r.used()
	}
	defer func() {
		if p := recover(); p != nil {
			a.recovered(r, p)
		}
	}()
	if err := a.serve(w, r); err != nil {
		a.fail(w, r, err)
	}
}

func (a *API) serve(w http.ResponseWriter, r *Request) error {
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath
	}
	route, values := a.table.matchDecoded(path, r.URL.RawPath != "")
	if route == nil {
		return fault.New(fault.NotFound, "NOT_FOUND", "There is nothing at this path.")
	}
	entry := route.entry(r.Method)
	if !route.ours && entry == nil || entry != nil && !entry.ours {
		return errMisdirected
	}
	r.params = values
	limit, code := route.maxBody, route.tooLarge
	if entry != nil {
		r.Operation = entry.op
		limit, code = entry.op.MaxBody, entry.op.TooLarge
	}
	if r.ContentLength > limit {
		return tooLarge(code, limit)
	}
	if !route.public(entry) {
		if err := a.admit(r, route, entry); err != nil {
			return err
		}
	}
	if entry == nil {
		w.Header().Set("Allow", route.allow)
		return errMethod
	}
	if err := r.parseQuery(); err != nil {
		return err
	}
	return entry.handler(w, r)
}

func (a *API) observe(r *Request, began time.Time) {
	operation := ""
	if r.Operation != nil {
		operation = r.Operation.ID
	}
	a.cfg.Observe(operation, r.response.status, time.Since(began))
}

// fail answers with err. An answer that has begun cannot be taken back: the
// connection is cut, so that the client sees a broken answer and not a short one.
// So is that of a client who left, which is why the request failed.
func (a *API) fail(w *response, r *Request, err error) {
	if r.Operation != nil && r.read() && fault.KindOf(err) != fault.Internal {
		if dead := r.Reverify(); dead != nil {
			err = dead
		}
	}
	p := Describe(err, r.ID)
	a.report(r, p.Status, err)
	if w.wrote || p.Status >= http.StatusInternalServerError && r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	p.write(w)
}

// report tells operators of what is not the caller's doing. It names the
// documented path: the real one and its query may hold secrets.
func (a *API) report(r *Request, status int, err error) {
	if status < http.StatusInternalServerError || r.Context().Err() != nil {
		return
	}
	operation := ""
	if r.Operation != nil {
		operation = r.Operation.ID
	}
	level := slog.LevelError
	if status == http.StatusServiceUnavailable {
		level = slog.LevelWarn
	}
	a.cfg.Logger.LogAttrs(r.Context(), level, "request failed",
		slog.String("operation", operation), slog.String("request_id", r.ID), slog.Int("status", status), slog.Any("err", err))
}

func (a *API) recovered(r *Request, p any) {
	if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it the same way
		panic(p)
	}
	a.fail(&r.response, r, fmt.Errorf("panic: %v\n%s", p, stack()))
}

// A table finds the route of a path by its segments. It is built once and then
// only read.
type table struct{ root node }

type node struct {
	static map[string]*node
	param  *node
	route  *route
}

// A route is a documented path.
type route struct {
	entries   []entry
	ours      bool // some method is answered here
	allow     string
	ingestion bool
	maxBody   int64
	tooLarge  string
}

type entry struct {
	op      *Operation
	handler Handler
	ours    bool // it is answered here, and not by another process
}

// maxParams is the most parameters a documented path has.
const maxParams = 4

func (t *table) add(op *Operation, h Handler, ours bool) {
	n := &t.root
	for segment := range strings.SplitSeq(op.Path, "/") {
		if segment == "" {
			continue
		}
		if _, ok := parameterName(segment); ok {
			if n.param == nil {
				n.param = &node{}
			}
			n = n.param
			continue
		}
		if n.static == nil {
			n.static = map[string]*node{}
		}
		if n.static[segment] == nil {
			n.static[segment] = &node{}
		}
		n = n.static[segment]
	}
	if n.route == nil {
		n.route = &route{}
	}
	r := n.route
	r.entries = append(r.entries, entry{op, h, ours})
	r.ours = r.ours || ours
	r.ingestion = r.ingestion || op.Ingestion
	if op.MaxBody > r.maxBody {
		r.maxBody, r.tooLarge = op.MaxBody, op.TooLarge
	}
	if r.allow != "" {
		r.allow += ", "
	}
	r.allow += op.Method
	if op.Method == http.MethodGet {
		r.allow += ", " + http.MethodHead
	}
}

// entry gives what answers method; HEAD is answered like GET.
func (r *route) entry(method string) *entry {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for i := range r.entries {
		if r.entries[i].op.Method == method {
			return &r.entries[i]
		}
	}
	return nil
}

// public tells whether no credential is looked at: the operation says so, or
// the method does not exist and every one that does says so.
func (r *route) public(e *entry) bool {
	if e != nil {
		return e.op.Public
	}
	for i := range r.entries {
		if !r.entries[i].op.Public {
			return false
		}
	}
	return true
}

func (t *table) match(escaped string) (*route, [maxParams]string) {
	return t.matchDecoded(escaped, true)
}

// matchDecoded walks path, at the root or under /api/v1. Empty segments are
// skipped: clients join base URL and path without trimming, and collections
// are known with and without the trailing slash. A segment that would climb or
// that hides a slash matches nothing.
func (t *table) matchDecoded(path string, escaped bool) (*route, [maxParams]string) {
	var values [maxParams]string
	n, params, depth := &t.root, 0, 0
	for len(path) > 0 {
		segment := path
		if i := strings.IndexByte(path, '/'); i >= 0 {
			segment, path = path[:i], path[i+1:]
		} else {
			path = ""
		}
		if segment == "" {
			continue
		}
		if escaped && strings.IndexByte(segment, '%') >= 0 {
			var err error
			if segment, err = url.PathUnescape(segment); err != nil {
				return nil, values
			}
		}
		if !plain(segment) {
			return nil, values
		}
		depth++
		if n == &t.root && (depth == 1 && segment == "api" || depth == 2 && segment == "v1") {
			continue
		}
		if depth == 2 && n == &t.root { // /api without /v1
			return nil, values
		}
		next := n.static[segment]
		if next == nil {
			if next = n.param; next == nil || params == maxParams {
				return nil, values
			}
			values[params] = segment
			params++
		}
		n = next
	}
	return n.route, values
}

func plain(segment string) bool {
	if segment == "." || segment == ".." {
		return false
	}
	for i := range len(segment) {
		if c := segment[i]; c == '/' || c == '\\' || c < ' ' || c == 0x7f {
			return false
		}
	}
	return utf8.ValidString(segment)
}
