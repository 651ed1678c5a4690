package contract_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi/httpapitest"
	"github.com/shipledger/shipledger/pkg/replay"
)

// ledger is a server as a script sees it. What it reads, it reads behind its
// own writes.
type ledger struct {
	t       *testing.T
	url     string
	account string
	product string // of the bodies it makes, so that scripts do not meet

	key, pat, admin string   // an ordinary API key, an ordinary token, one with admin
	secrets         []string // whose random parts no answer may hold, beside those three

	mu   sync.Mutex
	seen event.Position // of its latest write
	// others are the latest writes in partitions that the account does not live in.
	others     map[string]event.Position
	partitions int // of its log
}

func newLedger(t *testing.T, url, account string) *ledger {
	return &ledger{t: t, url: url, account: account, product: unique(t), partitions: *partitionsFlag}
}

// trackOf gives the stream that the events of an account are in.
func (l *ledger) trackOf(account string) string {
	return event.TrackStream(event.PartitionOf(account, l.partitions))
}

// name gives a name of this script's own.
func (l *ledger) name(stem string) string { return stem + "." + l.product }

// body is a JSON object that a script posts.
type body map[string]any

// with gives a copy with members changed; absent takes one out.
func (b body) with(changes body) body {
	out := maps.Clone(b)
	for k, v := range changes {
		if v == absent {
			delete(out, k)
			continue
		}
		out[k] = v
	}
	return out
}

// absent is the value of a member that is not there.
const absent = "\x00absent"

func (b body) String() string {
	text, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// deployment is the smallest body of the script's product.
func (l *ledger) deployment(status string, changes ...body) body {
	return change(body{"product_name": l.product, "version": "1.2.3", "environment_name": "production", "status": status}, changes)
}

// build is the smallest body of the script's product.
func (l *ledger) build(status string, changes ...body) body {
	return change(body{"product_name": l.product, "version": "1.2.3", "status": status}, changes)
}

func change(b body, changes []body) body {
	for _, c := range changes {
		b = b.with(c)
	}
	return b
}

// option is how a request differs from the usual one.
type option func(*http.Request)

// as sends another credential, or none at all.
func as(token string) option {
	return func(r *http.Request) {
		r.Header.Del("Authorization")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
	}
}

// header sets a header, or takes it away.
func header(name, value string) option {
	return func(r *http.Request) {
		r.Header.Del(name)
		if value != "" {
			r.Header.Set(name, value)
		}
	}
}

// chunked sends the body without saying how long it is.
func chunked(r *http.Request) { r.ContentLength = -1 }

// client follows no redirect: known clients do, and lose the event.
var client = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true},
	Timeout:       hang,
}

// post posts as the ordinary key.
func (l *ledger) post(path string, b any, options ...option) answer {
	l.t.Helper()
	var text string
	switch b := b.(type) {
	case string:
		text = b
	case body:
		text = b.String()
	}
	usual := []option{as(l.key), header("Content-Type", "application/json")}
	return l.send(http.MethodPost, path, text, append(usual, options...)...)
}

// deployed and built post events that are to be accepted.
func (l *ledger) deployed(b any, options ...option) answer {
	l.t.Helper()
	return l.post("/deployment-events/", b, options...).is(http.StatusOK)
}

func (l *ledger) built(b any, options ...option) answer {
	l.t.Helper()
	return l.post("/build-events/", b, options...).is(http.StatusOK)
}

// get reads as the ordinary token, behind what this script wrote.
func (l *ledger) get(path string, options ...option) answer {
	l.t.Helper()
	l.mu.Lock()
	seen := l.seen
	var behind []event.Position
	for _, at := range l.others {
		behind = append(behind, at)
	}
	behind = append(behind, event.Position{}) // whoever asks has written nothing
	l.mu.Unlock()
	ask := func(at event.Position) answer {
		usual := []option{as(l.pat)}
		if at.Stream != "" {
			usual = append(usual, header("X-Shipledger-Position", at.String()))
		}
		return l.patiently(func() answer { return l.send(http.MethodGet, path, "", append(usual, options...)...) })
	}
	a := ask(seen)
	for l.partitions > 1 && len(behind) > 0 && a.status == http.StatusUnprocessableEntity && bytes.Contains(a.raw, []byte("not drawn from the stream")) {
		a = ask(behind[0]) // whoever asks lives elsewhere
		behind = behind[1:]
	}
	return a
}

// hang is no expectation: only what hangs reaches it.
const hang = 3 * time.Minute

// patiently asks until the read model is there. On a busy machine that may take it
// longer than an answer waits: then it is asked again, as the answer says.
func (l *ledger) patiently(ask func() answer) answer {
	l.t.Helper()
	for deadline := time.Now().Add(hang); ; {
		a := ask()
		if !a.behind() || time.Now().After(deadline) {
			return a
		}
		select {
		case <-time.After(time.Second): // what Retry-After says
		case <-l.t.Context().Done():
			return a
		}
	}
}

// behind tells whether an answer says that the read model, or the engine beneath it, was
// not there in time, and when to ask again (contract 5.2). No other 503 is asked again.
// Agents are told so by the result of their call.
func (a answer) behind() bool {
	told := bytes.Contains(a.raw, []byte("READ_MODEL_BEHIND")) || bytes.Contains(a.raw, []byte("READ_MODEL_UNAVAILABLE"))
	return told && (a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "1" || strings.HasSuffix(a.of, "/mcp"))
}

// read is get of something that is there.
func (l *ledger) read(path string, options ...option) answer {
	l.t.Helper()
	return l.get(path, options...).is(http.StatusOK)
}

// send sends a request and holds the answer to the document and to the rules of
// every endpoint (contract 1).
func (l *ledger) send(method, path, text string, options ...option) answer {
	l.t.Helper()
	var reader io.Reader
	if text != "" {
		reader = strings.NewReader(text)
	}
	r, err := http.NewRequestWithContext(l.t.Context(), method, l.url+path, reader)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, o := range options {
		o(r)
	}
	response, err := client.Do(r)
	if err != nil {
		l.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := readAnswer(response)
	if err != nil {
		l.t.Fatalf("%s %s: read the answer: %v", method, path, err)
	}
	a := answer{l.t, method + " " + path, response.StatusCode, response.Header, raw}
	bare, _, _ := strings.Cut(path, "?")
	httpapitest.CheckResponse(l.t, document, method, bare, a.status, a.header, a.raw)
	a.holdsRules()
	l.keepsSecrets(a)
	l.wrote(a)
	return a
}

// readAnswer reads a body. Of a stream, which has no end, it reads how it begins.
func readAnswer(response *http.Response) ([]byte, error) {
	if response.Header.Get("Content-Type") != "text/event-stream" || response.Request.Method == http.MethodHead {
		if response.Header.Get("Content-Encoding") == "gzip" { // it was asked for
			z, err := gzip.NewReader(response.Body)
			if err != nil {
				return nil, err
			}
			return io.ReadAll(z)
		}
		return io.ReadAll(response.Body)
	}
	begin, err := newBlocks(response.Body).next()
	return []byte(begin), err
}

// keepsSecrets checks that no answer holds the random part of a credential,
// whatever was asked.
func (l *ledger) keepsSecrets(a answer) {
	l.t.Helper()
	var head bytes.Buffer
	_ = a.header.Write(&head)
	for _, secret := range append([]string{l.key, l.pat, l.admin}, l.secrets...) {
		random := []byte(randomPart(secret))
		if bytes.Contains(a.raw, random) || bytes.Contains(head.Bytes(), random) {
			l.t.Errorf("%s: the answer holds %s", credential.Redact(secret), a.raw)
		}
	}
}

// randomPart gives the random characters of a minted credential.
func randomPart(secret string) string { return secret[len(secret)-46 : len(secret)-6] }

func (l *ledger) wrote(a answer) {
	text := a.header.Get("X-Shipledger-Position")
	if text == "" || strings.HasPrefix(a.of, http.MethodGet) { // that of an export is how far it goes
		return
	}
	at, err := event.ParsePosition(text)
	if err != nil {
		l.t.Errorf("%s: position: %v", a.of, err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.Stream == event.CredentialStream || at.Stream == replay.Stream { // reads of the ledger are not drawn from it
		return
	}
	switch {
	case at.Stream != l.trackOf(l.account):
		if l.others == nil {
			l.others = map[string]event.Position{}
		}
		if at.Offset > l.others[at.Stream].Offset {
			l.others[at.Stream] = at
		}
	case at.Offset > l.seen.Offset:
		l.seen = at
	}
}

// answer is what came back.
type answer struct {
	t      *testing.T
	of     string
	status int
	header http.Header
	raw    []byte
}

// holdsRules checks what is true of every answer: no redirect, a request id,
// times with a zone and ids that are strings (contract 1.3, 1.5, 1.6, 1.11).
func (a answer) holdsRules() {
	a.t.Helper()
	if a.status >= 300 && a.status < 400 && a.status != http.StatusNotModified {
		a.t.Errorf("%s: %d redirects", a.of, a.status)
	}
	if !strings.HasPrefix(a.header.Get("X-Request-Id"), "req_") {
		a.t.Errorf("%s: X-Request-Id is %q", a.of, a.header.Get("X-Request-Id"))
	}
	if a.status == http.StatusUnauthorized && a.header.Get("WWW-Authenticate") != "Bearer" {
		a.t.Errorf("%s: 401 without WWW-Authenticate", a.of)
	}
	if strings.HasSuffix(a.of, "openapi.json") {
		return
	}
	walk(a.parsed(), "", func(member string, v any) {
		switch {
		case v == nil:
		case member == "id" || strings.HasSuffix(member, "_id"):
			if _, ok := v.(string); !ok {
				a.t.Errorf("%s: %s is %v, not a string", a.of, member, v)
			}
		case member != "extra_metadata" && strings.HasSuffix(member, "_at"):
			if _, err := time.Parse(time.RFC3339Nano, v.(string)); err != nil {
				a.t.Errorf("%s: %s: %v", a.of, member, err)
			}
		}
	})
}

// walk visits every member of an answer, save what clients made up.
func walk(v any, member string, visit func(string, any)) {
	switch v := v.(type) {
	case map[string]any:
		if member == "extra_metadata" || member == "data" {
			return
		}
		for k, x := range v {
			walk(x, k, visit)
		}
	case []any:
		for _, x := range v {
			walk(x, "", visit)
		}
	default:
		visit(member, v)
	}
}

// is ends the script unless the status is the one wanted.
func (a answer) is(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, want %d; %s", a.of, a.status, status, a.raw)
	}
	return a
}

// fails ends the script unless the answer is an error with this status and code.
func (a answer) fails(status int, code string) answer {
	a.t.Helper()
	a.is(status)
	at := "error.code"
	if status == http.StatusConflict || status == http.StatusLocked || status == http.StatusPreconditionRequired {
		at = "code"
	}
	if got := a.at(at); got != code {
		a.t.Fatalf("%s: %s is %v, want %s; %s", a.of, at, got, code, a.raw)
	}
	return a
}

func (a answer) parsed() any {
	if len(a.raw) == 0 || a.header.Get("Content-Type") != "application/json" { // a page, a stream or a file
		return nil
	}
	var v any
	if err := json.Unmarshal(a.raw, &v); err != nil {
		a.t.Errorf("%s: %v: %s", a.of, err, a.raw)
	}
	return v
}

// at gives a member by its path, such as items.0.id; absent where it is not there.
func (a answer) at(path string) any { return at(a.parsed(), path) }

func at(v any, path string) any {
	if path == "" {
		return v
	}
	for part := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			member, ok := x[part]
			if !ok {
				return absent
			}
			v = member
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(x) {
				return absent
			}
			v = x[i]
		default:
			return absent
		}
	}
	return v
}

// text gives a member that must be a string.
func (a answer) text(path string) string {
	a.t.Helper()
	s, ok := a.at(path).(string)
	if !ok || s == absent {
		a.t.Fatalf("%s: %s is no string: %s", a.of, path, a.raw)
	}
	return s
}

// id gives the record that the answer is about.
func (a answer) id() string { a.t.Helper(); return a.text("id") }

// list gives a member that must be an array.
func (a answer) list(path string) []any {
	a.t.Helper()
	s, ok := a.at(path).([]any)
	if !ok {
		a.t.Fatalf("%s: %s is no array: %s", a.of, path, a.raw)
	}
	return s
}

// each gives one member of every item of an array.
func (a answer) each(list, member string) []string {
	a.t.Helper()
	out := []string{}
	for _, item := range a.list(list) {
		s, _ := at(item, member).(string)
		out = append(out, s)
	}
	return out
}

// shows compares members, by their paths. Times compare as moments.
func (a answer) shows(want body) answer {
	a.t.Helper()
	v, got := a.parsed(), body{}
	plain := body{}
	for path, w := range want {
		got[path] = at(v, path)
		switch x := w.(type) {
		case int:
			w = float64(x)
		case time.Time:
			w = x.UTC().Format(time.RFC3339Nano)
			if s, ok := got[path].(string); ok {
				if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
					got[path] = t.UTC().Format(time.RFC3339Nano)
				}
			}
		case body:
			w = map[string]any(x)
		}
		plain[path] = w
	}
	if d := cmp.Diff(plain, got); d != "" {
		a.t.Errorf("%s: members differ (-want +got):\n%s", a.of, d)
	}
	return a
}

// faults gives the places that a 422 names.
func (a answer) faults() []string {
	a.t.Helper()
	a.is(http.StatusUnprocessableEntity)
	var out []string
	for _, f := range a.list("detail") {
		var parts []string
		for _, p := range at(f, "loc").([]any) {
			parts = append(parts, p.(string))
		}
		out = append(out, strings.Join(parts, "."))
	}
	return out
}

// history gives what the events of a deployment say of one thing.
func (l *ledger) history(id, member string) []string {
	l.t.Helper()
	return l.read("/deployments/"+id).each("events", member)
}

// where writes parameters behind a path.
func where(path string, pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return path + "?" + v.Encode()
}

// moment writes a time as a client does.
func moment(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// differ fails unless two values are equal.
func differ(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// matches fails unless text is of a form.
func matches(t *testing.T, form, text string) {
	t.Helper()
	if !regexp.MustCompile(form).MatchString(text) {
		t.Errorf("%q is not of the form %s", text, form)
	}
}
