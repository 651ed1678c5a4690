// Package hostile makes requests out of the API document: valid ones, ones that
// are wrong in one place, and ones that mean harm. From one seed it makes the
// same requests, as long as it is told the same answers.
//
// It exists so that a new operation, member or parameter is attacked on the day
// that it is documented. Tests send what it makes and hold the answers to the
// document; it knows nothing of the system behind.
package hostile

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

// Intent is what a request is meant to be. An answer decides what it was.
type Intent string

// The intents.
const (
	Valid  Intent = "valid"
	Nearly Intent = "nearly valid"
	Harm   Intent = "hostile"
)

// A Bearer is a credential to send.
type Bearer struct {
	Name, Token string // no Token: none is sent
	Cookie      bool   // it is a web session, which goes into the cookie at times
	// Admits tells whether the document lets it call an operation.
	Admits func(*httpapi.Operation) bool
}

// A Request is what goes over the wire, byte by byte.
type Request struct {
	Operation *httpapi.Operation
	Intent    Intent
	How       []string // what was done to it, in order
	Bearer    string   // the name of whose credential it carries

	Method, Target string
	Header         []string // lines, without their ends
	Body           []byte
	Chunked        bool
	// Unframed requests declare another length than they have: the server may
	// hang up, and the connection is good for nothing afterwards.
	Unframed bool
}

// Append writes the request as HTTP/1.1.
func (r *Request) Append(b []byte) []byte {
	b = append(b, r.Method+" "+r.Target+" HTTP/1.1\r\n"...)
	for _, line := range r.Header {
		b = append(append(b, line...), "\r\n"...)
	}
	if r.Chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n\r\n"...)
		for part := range slices.Chunk(r.Body, 1000) {
			b = fmt.Appendf(b, "%x\r\n", len(part))
			b = append(append(b, part...), "\r\n"...)
		}
		return append(b, "0\r\n\r\n"...)
	}
	if !r.Unframed && (len(r.Body) > 0 || r.Method != http.MethodGet && r.Method != http.MethodHead) {
		b = fmt.Appendf(b, "Content-Length: %d\r\n", len(r.Body))
	}
	return append(append(b, "\r\n"...), r.Body...)
}

// Path gives what stands before the query.
func (r *Request) Path() string {
	path, _, _ := strings.Cut(r.Target, "?")
	return path
}

// Has tells whether something was done to the request.
func (r *Request) Has(how string) bool { return slices.Contains(r.How, how) }

// A Generator makes requests. It is for one goroutine.
type Generator struct {
	rng        *rand.Rand
	document   map[string]any
	operations []weighted
	total      int
	bearers    []Bearer
	objects    map[string][]string // ids by the first segment of their paths
	pages      []page
	tags       []string
	how        []string
}

type weighted struct {
	op     *httpapi.Operation
	body   map[string]any // the schema of its JSON body; nil: none
	list   bool           // the body may be lines of such values
	params []map[string]any
	upTo   int
}

// A page is where a list goes on.
type page struct {
	op     *httpapi.Operation
	target string
}

// kept is how many ids, pages and tags of each kind are remembered.
const kept = 64

// New makes a generator of requests with these credentials.
func New(spec *httpapi.Spec, seed uint64, bearers []Bearer) (*Generator, error) {
	g := &Generator{rng: rand.New(rand.NewPCG(seed, 0x5eed)), bearers: bearers, objects: map[string][]string{}}
	if err := json.Unmarshal(spec.Document(), &g.document); err != nil {
		return nil, fmt.Errorf("read the API document: %w", err)
	}
	for _, op := range spec.Operations() {
		w := weighted{op: op}
		said, _ := g.at("paths", op.Path, strings.ToLower(op.Method)).(map[string]any)
		content, _ := at(said, "requestBody", "content").(map[string]any)
		for _, media := range slices.Sorted(maps.Keys(content)) {
			schema, _ := at(content, media, "schema").(map[string]any)
			w.list = w.list || media == "application/x-ndjson"
			if media == "application/json" {
				w.body = schema
			}
		}
		params, _ := said["parameters"].([]any)
		for _, p := range params {
			w.params = append(w.params, g.resolve(p))
		}
		g.total += weightOf(op)
		w.upTo = g.total
		g.operations = append(g.operations, w)
	}
	return g, nil
}

// weightOf says how often an operation is called: each often enough, and those
// less that take long or would end what the others need.
func weightOf(op *httpapi.Operation) int {
	switch {
	case strings.HasSuffix(op.Path, "/stream"), op.ID == "logOut":
		return 1
	case strings.HasPrefix(op.Path, "/auth/"), strings.HasPrefix(op.Path, "/replays/"), op.ID == "updateSettings", op.ID == "createAccount":
		return 4
	case op.Public:
		return 4
	case op.Ingestion:
		return 60
	case op.Body != "":
		return 20
	}
	return 12
}

// Learn tells the generator what an answer held, so that later requests meet
// what is there: objects, pages and tags.
func (g *Generator) Learn(r *Request, status int, header http.Header, body []byte) {
	if tag := header.Get("ETag"); tag != "" {
		g.tags = keep(g.tags, tag)
	}
	if status >= 300 || header.Get("Content-Type") != "application/json" {
		return
	}
	var a struct {
		ID            any `json:"id"`
		ProductID     any `json:"product_id"`
		EnvironmentID any `json:"environment_id"`
		VersionID     any `json:"version_id"`
		EventID       any `json:"event_id"`
		NextCursor    any `json:"next_cursor"`
	}
	if json.Unmarshal(body, &a) != nil {
		return
	}
	segment := strings.Trim(r.Operation.Path, "/")
	segment, _, _ = strings.Cut(segment, "/")
	if r.Method == http.MethodPost || r.Method == http.MethodPatch {
		g.found(strings.Replace(segment, "-events", "s", 1), a.ID)
		g.found("products", a.ProductID)
		g.found("environments", a.EnvironmentID)
		g.found("versions", a.VersionID)
		g.found("events", a.EventID)
	}
	if cursor, ok := a.NextCursor.(string); ok && len(r.Target) < 2000 {
		joint := "?"
		if strings.Contains(r.Target, "?") {
			joint = "&"
		}
		g.pages = keep(g.pages, page{r.Operation, r.Target + joint + "cursor=" + cursor})
	}
}

func (g *Generator) found(kind string, id any) {
	if text, ok := id.(string); ok {
		g.objects[kind] = keep(g.objects[kind], text)
	}
}

func keep[T any](all []T, v T) []T {
	if len(all) >= kept {
		all = append(all[:0], all[kept/2:]...)
	}
	return append(all, v)
}

// Next makes a request.
func (g *Generator) Next() Request {
	g.how = nil
	n := g.rng.IntN(g.total)
	i := slices.IndexFunc(g.operations, func(w weighted) bool { return n < w.upTo })
	w := &g.operations[i]
	r := Request{Operation: w.op, Method: w.op.Method, Intent: Valid}
	switch n := g.rng.IntN(10); {
	case n >= 7:
		r.Intent = Harm
	case n >= 3:
		r.Intent = Nearly
	}
	r.Target = g.target(w, r.Intent)
	g.headers(&r, w)
	g.body(&r, w)
	if r.Intent == Nearly && len(g.how) == 0 || g.one(25) {
		g.spoilFrame(&r, w)
	}
	r.How = g.how
	return r
}

func (g *Generator) one(in int) bool { return g.rng.IntN(in) == 0 }

func (g *Generator) did(how string) { g.how = append(g.how, how) }

func pick[T any](g *Generator, from []T) T { return from[g.rng.IntN(len(from))] }

func (g *Generator) target(w *weighted, intent Intent) string {
	if g.one(4) {
		for _, p := range g.pages {
			if p.op == w.op && intent == Valid {
				return p.target
			}
			if p.op == w.op {
				return g.forgePage(p.target)
			}
		}
	}
	segments := strings.Split(w.op.Path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i] = g.id(segments, i, intent)
		}
	}
	path := strings.Join(segments, "/")
	if g.one(4) {
		path = "/api/v1" + path
	}
	if intent != Valid && g.one(12) {
		path = g.spoilPath(path)
	}
	if query := g.query(w, intent); query != "" {
		path += "?" + query
	}
	return path
}

// id gives the value of a path parameter: an object of that kind, where one is known.
func (g *Generator) id(segments []string, i int, intent Intent) string {
	if intent == Harm && g.one(2) {
		g.did("hostile id")
		return escape(g.hostileText())
	}
	kind := segments[1]
	if i > 2 {
		kind = "versions" // the only objects inside others
	}
	known := g.objects[kind]
	switch {
	case segments[1] == "docs":
		return pick(g, []string{"swagger-ui.css", "docs.js", "redoc.js", "x"})
	case len(known) > 0 && !g.one(8):
		return pick(g, known)
	}
	return pick(g, []string{
		"01HZX3V5K6QJ8W9Y0A1B2C3D4E", "00000000-0000-0000-0000-000000000000", "t0.1.0", "k1", "0", "x",
		strings.Repeat("a", 300), "01HZX3V5K6QJ8W9Y0A1B2C3D4E.1",
	})
}

func (g *Generator) query(w *weighted, intent Intent) string {
	var parts []string
	spoil := intent == Nearly && g.one(2)
	for _, p := range w.params {
		if p["in"] != "query" || !g.one(3) && p["required"] != true {
			continue
		}
		name, _ := p["name"].(string)
		schema := g.resolve(p["schema"])
		switch schema["type"] {
		case "array":
			schema = g.resolve(schema["items"])
		case "object":
			name, schema = name+pick(g, words), g.resolve(schema["additionalProperties"])
		}
		value := g.parameter(name, schema)
		switch {
		case intent == Harm && g.one(2):
			g.did("hostile " + name)
			value = g.hostileText()
		case spoil && g.one(2):
			g.did("wrong " + name)
			value = pick(g, wrongParameters)
		case spoil && g.one(3):
			g.did("repeated " + name)
			parts = append(parts, escape(name)+"="+escape(value))
		}
		parts = append(parts, escape(name)+"="+escape(value))
	}
	if spoil && g.one(4) {
		g.did("unknown parameter")
		parts = append(parts, pick(g, []string{"x=1", "=", "&&", "%", "%zz=1", "limit", "a;b=c", "limit=1;2", escape(g.hostileText()) + "=1"}))
	}
	return strings.Join(parts, "&")
}

func (g *Generator) parameter(name string, schema map[string]any) string {
	switch schema["type"] {
	case "integer":
		return strconv.Itoa(1 + g.rng.IntN(60))
	case "boolean":
		return pick(g, []string{"true", "false"})
	}
	if words, ok := schema["enum"].([]any); ok {
		text, _ := pick(g, words).(string)
		return text
	}
	switch schema["format"] {
	case "date-time":
		return pick(g, moments)
	case "status-word":
		return pick(g, statuses)
	case "position":
		return "t0.1.0"
	case "cursor":
		return ""
	}
	return g.text(name)
}

// headers gives the credential and what else a client sends.
func (g *Generator) headers(r *Request, w *weighted) {
	r.Header = append(r.Header, "Host: ledger.example")
	candidates := g.bearers
	if !g.one(4) && !w.op.Public {
		candidates = slices.DeleteFunc(slices.Clone(g.bearers), func(b Bearer) bool { return !b.Admits(w.op) })
	}
	if len(candidates) > 0 {
		b := pick(g, candidates)
		r.Bearer = b.Name
		switch {
		case b.Token == "":
		case b.Cookie && g.one(2):
			r.Header = append(r.Header, "Cookie: "+httpapi.SessionCookie+"="+b.Token)
			if !g.one(5) {
				r.Header = append(r.Header, "Origin: http://ledger.example")
			}
		default:
			r.Header = append(r.Header, "Authorization: Bearer "+b.Token)
		}
	}
	for _, p := range w.params {
		if name, _ := p["name"].(string); p["in"] == "header" && g.one(6) {
			value := "t0.1.0"
			if name == "Idempotency-Key" {
				value = "key-" + strconv.Itoa(g.rng.IntN(200))
			}
			if r.Intent == Harm && g.one(2) {
				g.did("hostile " + name)
				value = headerText(g.hostileText())
			}
			r.Header = append(r.Header, name+": "+value)
		}
	}
	if g.one(5) && len(g.tags) > 0 {
		r.Header = append(r.Header, "If-None-Match: "+pick(g, g.tags))
	}
	if g.one(4) {
		r.Header = append(r.Header, "Accept-Encoding: "+pick(g, []string{"gzip", "gzip;q=0", "br, gzip", "*", "gzip;q=x", "zstd"}))
	}
	if g.one(10) {
		r.Header = append(r.Header, "Accept: "+pick(g, []string{"text/html", "application/json", "*/*", "text/csv", "\"", "application/json;q=9"}))
	}
	if r.Intent == Harm && g.one(6) {
		g.did("hostile header")
		line := pick(g, hostileHeaders)
		if strings.HasSuffix(line, ": ") {
			line += headerText(g.hostileText())
		}
		r.Header = append(r.Header, line)
	}
}

// body writes the JSON that an operation takes, spoilt in one place or not.
func (g *Generator) body(r *Request, w *weighted) {
	if w.body == nil {
		if w.op.Method != http.MethodGet && r.Intent != Valid && g.one(6) {
			g.did("a body that nobody wants")
			r.Body = []byte(`{"a":1}`)
		}
		return
	}
	mediaType := "application/json"
	v := g.value("", w.body, r.Intent, 0)
	if r.Intent == Nearly && g.one(2) {
		g.spoil(v)
	}
	if w.list && v.items != nil && g.one(2) {
		mediaType = "application/x-ndjson"
		for _, item := range v.items {
			r.Body = append(item.append(r.Body), '\n')
		}
	} else {
		r.Body = v.append(nil)
	}
	if r.Intent == Nearly && g.one(5) {
		r.Body = g.spoilText(r.Body)
	}
	if r.Intent != Valid && g.one(12) {
		g.did("media type")
		mediaType = pick(g, mediaTypes)
	}
	if !g.one(12) {
		r.Header = append(r.Header, "Content-Type: "+mediaType)
	}
	if w.list && g.one(3) || r.Intent != Valid && g.one(20) {
		g.encode(r)
	}
	r.Chunked = g.one(8)
}

func (g *Generator) at(path ...string) any { return at(g.document, path...) }

func at(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

// resolve follows a reference.
func (g *Generator) resolve(v any) map[string]any {
	m, _ := v.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return m
	}
	return g.resolve(g.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...))
}
