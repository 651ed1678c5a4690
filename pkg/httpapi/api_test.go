package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/httpapi/httpapitest"
)

// callers is an Authenticator that knows tokens by heart.
type callers map[string]credential.Identity

func (c callers) Verify(token string) (credential.Identity, error) {
	if id, ok := c[token]; ok {
		return id, nil
	}
	code := "AUTH_INVALID_KEY"
	if strings.HasPrefix(token, "revoked") {
		code = "AUTH_REVOKED_KEY"
	}
	return credential.Identity{}, fault.New(fault.Unauthenticated, code, "invalid or missing api key").WithHint("Check that the key is correct and active.")
}

const (
	readWrite = credential.Read | credential.EventsWrite | credential.Write
	everyOf   = readWrite | credential.Admin
)

func known() callers {
	return callers{
		"sk_events": {Kind: credential.APIKey, Account: "acme", Scopes: credential.EventsWrite},
		"sk_sync":   {Kind: credential.APIKey, Account: "acme", Scopes: credential.EventsWrite | credential.Read},
		"sk_read":   {Kind: credential.APIKey, Account: "acme", Scopes: credential.Read},
		"pat_read":  {Kind: credential.PAT, Account: "acme", Scopes: credential.Read, Role: credential.RoleAdmin},
		"pat_other": {Kind: credential.PAT, Account: "other", Scopes: credential.Read, Role: credential.RoleAdmin},
		"pat_admin": {Kind: credential.PAT, Account: "acme", Scopes: everyOf, Role: credential.RoleAdmin},
		"eyJ.admin": {Kind: credential.Session, Account: "acme", Scopes: everyOf, Role: credential.RoleAdmin},
		"eyJ.dev":   {Kind: credential.Session, Account: "acme", Scopes: readWrite, Role: credential.RoleDeveloper},
	}
}

// fixture is an API whose handlers say which operation they are, unless the
// test puts another one in their place.
type fixture struct {
	spec *httpapi.Spec
	api  *httpapi.API
	log  bytes.Buffer
}

func newFixture(tb testing.TB, instead httpapi.Handlers, change ...func(*httpapi.Config)) *fixture {
	tb.Helper()
	f := &fixture{spec: spec(tb)}
	handlers := httpapi.Handlers{"getHealth": httpapi.ServeHealth(func(*httpapi.Request) httpapi.Health {
		return httpapi.Health{Status: httpapi.HealthOK, Version: "1", Parts: map[string]string{}}
	})}
	for _, op := range f.spec.Operations() {
		if op.Service != httpapi.Everywhere {
			handlers[op.ID] = func(_ http.ResponseWriter, r *httpapi.Request) error {
				return r.JSON(http.StatusOK, map[string]string{"operation": r.Operation.ID})
			}
		}
	}
	maps.Copy(handlers, instead)
	cfg := httpapi.Config{
		Spec: f.spec, Services: []string{"ingest", "query", "accounts", "projector", "mcp"}, Authenticator: known(),
		Logger: slog.New(slog.NewTextHandler(&f.log, nil)),
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if f.api, err = httpapi.New(cfg, handlers); err != nil {
		tb.Fatal(err)
	}
	return f
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (f *fixture) send(method, path, token, body string, header ...string) answer {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, reader)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return f.do(r)
}

func (f *fixture) do(r *http.Request) answer {
	w := httptest.NewRecorder()
	f.api.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.Bytes()}
}

// common is the error body of contract 6.1.
type common struct {
	Detail  any  `json:"detail"`
	Success bool `json:"success"`
	Error   struct {
		Type    string `json:"type"`
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Meta struct {
		RequestID string `json:"request_id"`
	} `json:"meta"`
}

func (a answer) common(tb testing.TB) common {
	tb.Helper()
	var c common
	if err := json.Unmarshal(a.body, &c); err != nil {
		tb.Fatalf("%v: %s", err, a.body)
	}
	return c
}

// Rows: VO-X2
func TestAnswersOfTheRouterHaveTheirTypes(t *testing.T) {
	f := newFixture(t, nil)
	for status, row := range map[int]struct {
		got       answer
		errorType string
	}{
		401: {f.send("GET", "/deployments/", "", ""), "authentication_error"},
		403: {f.send("POST", "/deployments/", "pat_read", ""), "permission_error"},
		404: {f.send("GET", "/nothing", "pat_read", ""), "not_found"},
		405: {f.send("POST", "/deployments/", "pat_admin", ""), "invalid_request_error"},
		422: {f.send("GET", "/deployments/?limit=0", "pat_read", ""), "invalid_request_error"},
	} {
		if c := row.got.common(t); row.got.status != status || c.Error.Type != row.errorType || c.Error.Message == "" {
			t.Errorf("%d: %d %s", status, row.got.status, row.got.body)
		}
	}
}

func (a answer) code(tb testing.TB) string { tb.Helper(); return a.common(tb).Error.Code }

// Rows: S-07, VF-28
func TestEveryFormOfAPathReachesTheSameOperationWithoutARedirect(t *testing.T) {
	f := newFixture(t, nil)
	for _, path := range []string{
		"/deployment-events/", "/deployment-events", "//deployment-events/", "///deployment-events//",
		"/api/v1/deployment-events/", "/api/v1/deployment-events", "//api//v1//deployment-events/",
	} {
		a := f.send("POST", path, "sk_events", "{}")
		if a.status != 200 || !bytes.Contains(a.body, []byte("postDeploymentEvent")) {
			t.Errorf("POST %s: %d %s", path, a.status, a.body)
		}
	}
	for _, op := range f.spec.Operations() {
		path := strings.ReplaceAll(op.Path, "{id}", "x")
		token := "pat_admin"
		if !op.Public && !slices.Contains(op.Kinds, credential.PAT) {
			token = "eyJ.admin"
		}
		root, v1 := f.send(op.Method, path, token, "{}"), f.send(op.Method, "/api/v1"+path, token, "{}")
		if root.status != v1.status || !bytes.Equal(root.body, v1.body) {
			t.Errorf("%s %s: %d at the root, %d under /api/v1", op.Method, path, root.status, v1.status)
		}
		if root.status >= 300 {
			t.Errorf("%s %s: %d", op.Method, path, root.status)
		}
	}
}

// Rows: S-07
func FuzzNoPathIsEverRedirected(f *testing.F) {
	fx := newFixture(f, nil)
	for _, p := range []string{"/", "", "//", "/../x", "/deployments/..", "/deployments/%2e%2e", "/deployments/a%2Fb", "/deployment-events/../health", "/api", "/api/v1", "/api/v1/api/v1/health", "/deployments/{id}", "/deployments/a/b", "/./health", "/health%00", `/deployments/\..`} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest(http.MethodPost, "http://api.test/", nil)
		u, err := r.URL.Parse("http://api.test/" + strings.TrimPrefix(path, "/"))
		if err != nil || u.RawQuery != "" || u.Host != "api.test" {
			return // no request for a path of ours
		}
		r.URL = u
		r.Header.Set("Authorization", "Bearer pat_admin")
		a := fx.do(r)
		if a.status >= 300 && a.status < 400 || a.header.Get("Location") != "" {
			t.Errorf("%q was redirected", path)
		}
		if a.header.Get("X-Request-Id") == "" {
			t.Error("no X-Request-Id")
		}
	})
}

func TestAPathThatClimbsOrHidesASlashIsUnknown(t *testing.T) {
	f := newFixture(t, nil)
	for _, path := range []string{
		"/", "/nothing", "/api", "/api/v1", "/api/deployments/", "/v1/deployments/", "/api/v1/api/v1/deployments/", "/deployments/x/y",
		"/deployments/..", "/deployments/%2e%2e", "/deployments/a%2Fb", "/deployments/a%5Cb", "/deployments/%2E", "/deployments/%00", "/deployment-events/../deployments/", "/health/liver",
	} {
		a := f.send("GET", path, "pat_admin", "")
		if c := a.common(t); a.status != 404 || c.Detail != "Not found" || c.Error.Code != "NOT_FOUND" {
			t.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
		httpapitest.CheckResponse(t, f.spec, "GET", "/nothing", a.status, a.header, a.body)
	}
	a := newFixture(t, httpapi.Handlers{"getDeployment": func(_ http.ResponseWriter, r *httpapi.Request) error {
		return r.JSON(200, r.PathValue("id"))
	}}).send("GET", "/deployments/a%20b%25", "pat_read", "")
	if got := string(a.body); got != `"a b%"` {
		t.Errorf("path parameter %s", got)
	}
}

// Rows: VR-03, VR-24, VO-11, VO-12
func TestACredentialCountsOnlyAsABearerToken(t *testing.T) {
	f := newFixture(t, nil)
	rows := []struct {
		name, path, body string
		header           []string
		code             string
	}{
		{"missing", "/deployment-events/", "{}", nil, "AUTH_MISSING"},
		{"in the query", "/deployment-events/?key=sk_events&access_token=sk_events", "{}", nil, "AUTH_MISSING"},
		{"in the body", "/deployment-events/", `{"api_key":"sk_events"}`, nil, "AUTH_MISSING"},
		{"in another header", "/deployment-events/", "{}", []string{"X-Api-Key", "sk_events"}, "AUTH_MISSING"},
		{"basic", "/deployment-events/", "{}", []string{"Authorization", "Basic c2tfZXZlbnRz"}, "AUTH_INVALID_FORMAT"},
		{"bare", "/deployment-events/", "{}", []string{"Authorization", "sk_events"}, "AUTH_INVALID_FORMAT"},
		{"empty header", "/deployment-events/", "{}", []string{"Authorization", ""}, "AUTH_INVALID_FORMAT"},
		{"empty token", "/deployment-events/", "{}", []string{"Authorization", "Bearer "}, "AUTH_INVALID_FORMAT"},
		{"no token", "/deployment-events/", "{}", []string{"Authorization", "Bearer"}, "AUTH_INVALID_FORMAT"},
		{"two words", "/deployment-events/", "{}", []string{"Authorization", "Bearer sk_events x"}, "AUTH_INVALID_FORMAT"},
		{"wrong characters", "/deployment-events/", "{}", []string{"Authorization", "Bearer sk_évents"}, "AUTH_INVALID_FORMAT"},
		{"two headers", "/deployment-events/", "{}", []string{"Authorization", "Bearer sk_events", "Authorization", "Bearer sk_events"}, "AUTH_INVALID_FORMAT"},
		{"very long", "/deployment-events/", "{}", []string{"Authorization", "Bearer " + strings.Repeat("a", 1<<14)}, "AUTH_INVALID_FORMAT"},
		{"unknown", "/deployment-events/", "{}", []string{"Authorization", "Bearer sk_nobody"}, "AUTH_INVALID_KEY"},
		{"revoked", "/deployment-events/", "{}", []string{"Authorization", "Bearer revoked"}, "AUTH_REVOKED_KEY"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := f.send("POST", row.path, "", row.body, row.header...)
			c := a.common(t)
			if a.status != 401 || c.Error.Code != row.code || c.Detail != "Invalid authentication credentials" || c.Error.Type != "authentication_error" || c.Success {
				t.Errorf("%d %s", a.status, a.body)
			}
			if strings.HasPrefix(row.code, "AUTH_MISSING") && !strings.HasPrefix(c.Error.Message, "Missing or malformed Authorization header.") {
				t.Errorf("message %q", c.Error.Message)
			}
			httpapitest.CheckResponse(t, f.spec, "POST", "/deployment-events/", a.status, a.header, a.body)
		})
	}
	if a := f.send("POST", "/deployment-events/", "", "{}", "Authorization", "bearer sk_events"); a.status != 200 {
		t.Errorf("a scheme is compared without case: %d", a.status)
	}
}

// Rows: VR-25
func TestWhoMayDoWhat(t *testing.T) {
	f := newFixture(t, nil)
	rows := []struct {
		method, path, token string
		status              int
		code                string
	}{
		{"POST", "/deployment-events/", "sk_events", 200, ""},
		{"POST", "/deployment-events/", "sk_sync", 200, ""},
		{"POST", "/deployment-events/", "pat_admin", 200, ""},
		{"POST", "/deployment-events/", "sk_read", 403, "INSUFFICIENT_SCOPE"},
		{"POST", "/deployment-events/", "pat_read", 403, "INSUFFICIENT_SCOPE"},
		{"POST", "/deployment-events/", "eyJ.admin", 403, "WRONG_CREDENTIAL_KIND"},
		{"GET", "/deployment-events/", "eyJ.admin", 403, "WRONG_CREDENTIAL_KIND"},
		{"GET", "/deployment-events/", "sk_events", 405, "METHOD_NOT_ALLOWED"},
		{"GET", "/deployment-events/", "pat_read", 405, "METHOD_NOT_ALLOWED"},
		{"DELETE", "/deployment-events/", "sk_events", 405, "METHOD_NOT_ALLOWED"},
		{"GET", "/deployments/", "sk_events", 403, "INSUFFICIENT_SCOPE"},
		{"GET", "/deployments/", "sk_sync", 200, ""},
		{"GET", "/deployments/", "pat_read", 200, ""},
		{"HEAD", "/deployments/", "pat_read", 200, ""},
		{"GET", "/deployments/", "eyJ.admin", 200, ""},
		{"POST", "/deployments/", "pat_read", 403, "INSUFFICIENT_SCOPE"},
		{"PUT", "/matrix", "pat_read", 403, "INSUFFICIENT_SCOPE"},
		{"PATCH", "/products/x", "sk_read", 403, "INSUFFICIENT_SCOPE"},
		{"DELETE", "/products/x", "sk_events", 403, "INSUFFICIENT_SCOPE"},
		{"OPTIONS", "/products/x", "sk_events", 403, "INSUFFICIENT_SCOPE"},
		{"POST", "/deployments/", "eyJ.admin", 405, "METHOD_NOT_ALLOWED"},
		{"BREW", "/deployments/", "eyJ.admin", 405, "METHOD_NOT_ALLOWED"},
		{"OPTIONS", "/deployments/", "pat_read", 405, "METHOD_NOT_ALLOWED"},
		{"POST", "/health", "pat_read", 405, "METHOD_NOT_ALLOWED"},
		{"POST", "/nothing", "pat_read", 404, "NOT_FOUND"},
	}
	for _, row := range rows {
		t.Run(row.method+row.path+" "+row.token, func(t *testing.T) {
			a := f.send(row.method, row.path, row.token, "")
			if a.status != row.status {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if row.status == 200 {
				return
			}
			c := a.common(t)
			if c.Error.Code != row.code {
				t.Errorf("code %s, want %s", c.Error.Code, row.code)
			}
			switch row.status {
			case 403:
				if c.Detail != "You do not have permission to perform this action" || c.Error.Type != "permission_error" {
					t.Errorf("%s", a.body)
				}
			case 405:
				if a.header.Get("Allow") == "" || c.Error.Type != "invalid_request_error" {
					t.Errorf("Allow %q, %s", a.header.Get("Allow"), a.body)
				}
			}
			httpapitest.CheckResponse(t, f.spec, row.method, row.path, a.status, a.header, a.body)
		})
	}
	if got := f.send("POST", "/deployments/", "eyJ.admin", "").header.Get("Allow"); got != "GET, HEAD" {
		t.Errorf("Allow %q", got)
	}
}

func TestPermissionHoldsOnEveryPathWhateverTheMethod(t *testing.T) {
	f := newFixture(t, nil)
	for _, op := range f.spec.Operations() {
		if op.Public {
			continue
		}
		path := strings.ReplaceAll(op.Path, "{id}", "x")
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			if a := f.send(method, path, "", ""); a.status != 401 {
				t.Errorf("%s %s without credential: %d", method, path, a.status)
			}
			if a := f.send(method, path, "sk_events", ""); !op.Ingestion && a.status != 403 {
				t.Errorf("%s %s with an ingestion key: %d", method, path, a.status)
			}
			if a := f.send(method, path, "eyJ.admin", ""); op.Ingestion && a.status != 403 {
				t.Errorf("%s %s with a session: %d", method, path, a.status)
			}
			write := slices.Contains([]string{"POST", "PUT", "PATCH", "DELETE"}, method) &&
				(method != op.Method || !slices.Contains(op.Scopes, credential.Read)) // POST /mcp only reads
			if a := f.send(method, path, "pat_read", ""); write && a.status != 403 {
				t.Errorf("%s %s with read: %d", method, path, a.status)
			}
		}
	}
}

func TestALongReadIsCompressedWhereTheClientTakesIt(t *testing.T) {
	f := newFixture(t, nil)
	plain := f.send("GET", "/openapi.json", "", "")
	if plain.header.Get("Content-Encoding") != "" || plain.header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("not asked for: encoding %q, Vary %q", plain.header.Get("Content-Encoding"), plain.header.Get("Vary"))
	}
	packed := f.send("GET", "/openapi.json", "", "", "Accept-Encoding", "br, gzip")
	if packed.header.Get("Content-Encoding") != "gzip" || len(packed.body) > len(plain.body)/2 {
		t.Fatalf("encoding %q, %d of %d bytes", packed.header.Get("Content-Encoding"), len(packed.body), len(plain.body))
	}
	z, err := gzip.NewReader(bytes.NewReader(packed.body))
	if err != nil {
		t.Fatal(err)
	}
	if unpacked, err := io.ReadAll(z); err != nil || !bytes.Equal(unpacked, plain.body) {
		t.Errorf("unpacked to something else: %v", err)
	}
	for _, other := range []string{"gzip;q=0", "zstd", "br"} {
		if a := f.send("GET", "/openapi.json", "", "", "Accept-Encoding", other); a.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: encoding %q", other, a.header.Get("Content-Encoding"))
		}
	}
	if short := f.send("GET", "/health", "", "", "Accept-Encoding", "gzip"); short.header.Get("Content-Encoding") != "" {
		t.Error("a short answer is compressed")
	}
}

// Rows: VF-30
func TestNoAnswerAllowsAnotherOrigin(t *testing.T) {
	f := newFixture(t, nil)
	for _, method := range []string{"GET", "OPTIONS", "POST"} {
		for _, token := range []string{"", "pat_read"} {
			a := f.send(method, "/deployments/", token, "", "Origin", "https://elsewhere.test", "Access-Control-Request-Method", "GET")
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s: %s", method, name)
				}
			}
		}
	}
}

func TestPublicRoutesDoNotLookAtACredential(t *testing.T) {
	f := newFixture(t, nil)
	for _, path := range []string{"/health", "/health/live", "/openapi.json", "/health?probe=1"} {
		for _, header := range [][]string{nil, {"Authorization", "Bearer nobody"}, {"Authorization", "?"}, {"X-Shipledger-Position", "?"}} {
			a := f.send("GET", path, "", "", header...)
			if a.status != 200 {
				t.Errorf("%s %v: %d", path, header, a.status)
			}
			bare, _, _ := strings.Cut(path, "?")
			httpapitest.CheckResponse(t, f.spec, "GET", bare, a.status, a.header, a.body)
		}
	}
	a := f.send("GET", "/openapi.json", "", "")
	if !bytes.Equal(a.body, f.spec.Document()) {
		t.Error("the document is not served as it stands")
	}
	again := f.send("GET", "/openapi.json", "", "", "If-None-Match", a.header.Get("ETag"))
	if again.status != 304 || len(again.body) > 0 {
		t.Errorf("%d with If-None-Match", again.status)
	}
}

func TestHealthIs503WhenNothingCanBeServed(t *testing.T) {
	f := newFixture(t, httpapi.Handlers{"getHealth": httpapi.ServeHealth(func(*httpapi.Request) httpapi.Health {
		return httpapi.Health{Status: httpapi.HealthUnavailable, Version: "1", Parts: map[string]string{"log": "down"}}
	})})
	a := f.send("GET", "/health", "", "")
	if a.status != 503 {
		t.Errorf("%d", a.status)
	}
	httpapitest.CheckResponse(t, f.spec, "GET", "/health", a.status, a.header, a.body)
}

func TestAnAPIIsRefusedUnlessHandlersAndOperationsAgree(t *testing.T) {
	s := spec(t)
	h := func(http.ResponseWriter, *httpapi.Request) error { return nil }
	cfg := httpapi.Config{Spec: s, Services: []string{"ingest"}, Authenticator: known(), Logger: slog.New(slog.DiscardHandler)}
	full := httpapi.Handlers{"getHealth": h}
	for _, op := range s.Operations() {
		if op.Service == "ingest" {
			full[op.ID] = h
		}
	}
	if _, err := httpapi.New(cfg, full); err != nil {
		t.Error(err)
	}
	for name, set := range map[string]httpapi.Handlers{
		"unknown":            {"postNothing": h},
		"of another service": {"getMatrix": h},
	} {
		if _, err := httpapi.New(cfg, full, set); err == nil {
			t.Errorf("a handler for an operation %s was accepted", name)
		}
	}
	if _, err := httpapi.New(cfg, httpapi.Handlers{"getHealth": h}); err == nil {
		t.Error("operations without handlers were accepted")
	}
}

// budget grants a number of tokens and shows what is left.
type budget struct{ left int }

func (b *budget) Take(_ *credential.Identity, ingestion bool, n int) httpapi.Budget {
	granted := min(n, b.left)
	b.left -= granted
	out := httpapi.Budget{Granted: granted, Limit: 120, Remaining: b.left, Full: time.Unix(1_800_000_000, 0)}
	if ingestion {
		out.Limit = 1000
	}
	if b.left == 0 {
		out.RetryAfter = 1500 * time.Millisecond
	}
	return out
}

func TestABudgetIsCheckedAfterTheCredentialAndBeforePermission(t *testing.T) {
	b := &budget{left: 3}
	f := newFixture(t, nil, func(c *httpapi.Config) { c.Limiter = b })
	for _, row := range []struct {
		method, path, token string
		status, left        int
	}{
		{"GET", "/deployments/", "", 401, 3},
		{"GET", "/nothing", "pat_read", 404, 3},
		{"GET", "/deployments/", "pat_read", 200, 2},
		{"POST", "/deployments/", "pat_read", 403, 1},
		{"GET", "/deployments/?limit=0", "pat_read", 422, 0},
		{"POST", "/deployments/", "pat_read", 429, 0},
	} {
		a := f.send(row.method, row.path, row.token, "")
		if a.status != row.status || b.left != row.left {
			t.Errorf("%s %s: %d with %d left", row.method, row.path, a.status, b.left)
		}
		if limited := a.header.Get("X-RateLimit-Limit") != ""; limited != (row.status != 401 && row.status != 404) {
			t.Errorf("%s %s: rate headers %v", row.method, row.path, limited)
		}
		if row.status == 429 {
			if c := a.common(t); a.header.Get("Retry-After") != "2" || c.Detail != "Rate limit exceeded. Try again in 2 seconds." || c.Error.Code != "RATE_LIMIT_EXCEEDED" {
				t.Errorf("%s %s", a.header, a.body)
			}
		}
	}
	b.left = 3
	f = newFixture(t, httpapi.Handlers{"postEventBatch": func(_ http.ResponseWriter, r *httpapi.Request) error {
		return r.JSON(200, r.Take(5))
	}}, func(c *httpapi.Config) { c.Limiter = b })
	if a := f.send("POST", "/events/batch", "sk_events", "[]"); string(a.body) != "3" || a.header.Get("X-RateLimit-Remaining") != "0" || a.header.Get("X-RateLimit-Limit") != "1000" {
		t.Errorf("a batch is charged per item: %s %s", a.header, a.body)
	}
}

func TestAReadThatOutlivesItsKeyIsRefused(t *testing.T) {
	keys := known()
	f := newFixture(t, httpapi.Handlers{
		"listDeployments": func(_ http.ResponseWriter, r *httpapi.Request) error {
			delete(keys, "pat_read")
			return r.JSON(200, "secret")
		},
		"getDeployment": func(http.ResponseWriter, *httpapi.Request) error {
			delete(keys, "pat_read")
			return httpapi.NotFound("deployment")
		},
		"postBuildEvent": func(_ http.ResponseWriter, r *httpapi.Request) error {
			if err := r.Reverify(); err != nil {
				t.Error("before the commit", err)
			}
			delete(keys, "sk_events")
			if err := r.Reverify(); err == nil {
				t.Error("a dead key was verified")
			}
			return r.JSON(200, "written before the revocation")
		},
	}, func(c *httpapi.Config) { c.Authenticator = keys })
	for _, path := range []string{"/deployments/", "/deployments/x"} {
		keys["pat_read"] = known()["pat_read"]
		if a := f.send("GET", path, "pat_read", ""); a.status != 401 || bytes.Contains(a.body, []byte("secret")) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := f.send("POST", "/build-events/", "sk_events", "{}"); a.status != 200 {
		t.Errorf("a committed write keeps its answer: %d", a.status)
	}
}

// Rows: VO-X1, VO-X2, VT-X1
func TestEveryKindOfFaultHasItsAnswer(t *testing.T) {
	var err error
	f := newFixture(t, httpapi.Handlers{"postDeploymentEvent": func(http.ResponseWriter, *httpapi.Request) error { return err }})
	rows := []struct {
		err       error
		status    int
		errorType string
		code      string
		detail    any
		retry     string
	}{
		{fault.New(fault.Invalid, "", "x"), 400, "invalid_request_error", "INVALID_JSON", "Invalid JSON in request body", ""},
		{fault.New(fault.Unauthenticated, "AUTH_EXPIRED_KEY", "x"), 401, "authentication_error", "AUTH_EXPIRED_KEY", "Invalid authentication credentials", ""},
		{fault.New(fault.Forbidden, "INSUFFICIENT_ROLE", "x"), 403, "permission_error", "INSUFFICIENT_ROLE", "You do not have permission to perform this action", ""},
		{httpapi.NotOwner("deployment"), 403, "permission_error", "NOT_OWNER", "You do not have permission to perform this action", ""},
		{fault.New(fault.TooLarge, "", "x"), 413, "invalid_request_error", "BODY_TOO_LARGE", "Request body too large", ""},
		{
			fault.New(fault.Unprocessable, "IDEMPOTENCY_KEY_REUSED", "x"), 422, "invalid_request_error", "IDEMPOTENCY_KEY_REUSED",
			[]any{map[string]any{"loc": []any{"body"}, "msg": "x", "type": "value_error"}},
			"",
		},
		{
			&httpapi.ValidationError{}, 422, "invalid_request_error", "VALIDATION_ERROR",
			[]any{map[string]any{"loc": []any{"body"}, "msg": "The request is not valid.", "type": "value_error"}},
			"",
		},
		{fault.New(fault.RateLimited, "", "x"), 429, "rate_limit_error", "RATE_LIMIT_EXCEEDED", "Rate limit exceeded. Try again in 1 seconds.", "1"},
		{httpapi.RetryLater{Err: fault.New(fault.Unavailable, "READ_MODEL_BEHIND", "x"), After: 2100 * time.Millisecond}, 503, "api_error", "READ_MODEL_BEHIND", "Service temporarily unavailable", "3"},
		{fmt.Errorf("wrapped: %w", fault.New(fault.Unavailable, "", "x")), 503, "api_error", "SERVICE_UNAVAILABLE", "Service temporarily unavailable", "1"},
		{errors.New("the password is hunter2"), 500, "api_error", "INTERNAL_ERROR", "Internal server error", ""},
		{fault.New(fault.Internal, "", "x").Because(errors.New("hunter2")), 500, "api_error", "INTERNAL_ERROR", "Internal server error", ""},
	}
	for _, row := range rows {
		t.Run(strconv.Itoa(row.status)+" "+row.code, func(t *testing.T) {
			err = row.err
			a := f.send("POST", "/deployment-events/", "sk_events", "{}")
			c := a.common(t)
			if a.status != row.status || c.Error.Type != row.errorType || c.Error.Code != row.code || c.Error.Message == "" || c.Success {
				t.Errorf("%d %s", a.status, a.body)
			}
			if diff := cmp.Diff(row.detail, c.Detail); diff != "" {
				t.Error(diff)
			}
			if got := a.header.Get("Retry-After"); got != row.retry {
				t.Errorf("Retry-After %q", got)
			}
			if bytes.Contains(a.body, []byte("hunter2")) {
				t.Error("the cause left the process")
			}
			httpapitest.CheckResponse(t, f.spec, "POST", "/deployment-events/", a.status, a.header, a.body)
		})
	}
}

// Rows: VO-X1, S-05
func TestARefusalStandsUnderDetailAndAtTopLevel(t *testing.T) {
	var err error
	f := newFixture(t, httpapi.Handlers{"postDeploymentEvent": func(http.ResponseWriter, *httpapi.Request) error { return err }})
	end := time.Now().Add(90 * time.Second)
	rows := []struct {
		err    error
		status int
		rule   string
		retry  bool
	}{
		{&httpapi.Blocked{Kind: fault.Conflict, Code: "CONCURRENT_DEPLOYMENT", Message: "busy", Details: map[string]any{"rule_name": "concurrency", "conflicting_deployment_id": "x"}}, 409, "concurrency", false},
		{&httpapi.Blocked{Kind: fault.Locked, Code: "NO_DEPLOY_WINDOW", Message: "friday", RetryAfter: end}, 423, "", true},
		{fmt.Errorf("ingest: %w", &httpapi.Blocked{Kind: fault.Precondition, Code: "FLOW_VIOLATION", Message: "staging first"}), 428, "", false},
		{fault.New(fault.Precondition, "APPROVAL_REQUIRED", "ask qa"), 428, "", false},
	}
	for _, row := range rows {
		t.Run(strconv.Itoa(row.status), func(t *testing.T) {
			err = row.err
			a := f.send("POST", "/deployment-events/", "sk_events", "{}")
			var top map[string]any
			if e := json.Unmarshal(a.body, &top); e != nil || a.status != row.status {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if top["success"] != false || top["error"] != "deployment_blocked" {
				t.Errorf("%s", a.body)
			}
			detail, _ := top["detail"].(map[string]any)
			delete(top, "detail")
			delete(top, "success")
			delete(top, "meta")
			if diff := cmp.Diff(top, detail); diff != "" {
				t.Errorf("the two shapes differ: %s", diff)
			}
			details, _ := detail["details"].(map[string]any)
			if details["rule_name"] != row.rule {
				t.Errorf("rule_name %v", details["rule_name"])
			}
			if (a.header.Get("Retry-After") != "") != row.retry || (detail["retry_after"] != nil) != row.retry {
				t.Errorf("Retry-After %q, retry_after %v", a.header.Get("Retry-After"), detail["retry_after"])
			}
			httpapitest.CheckResponse(t, f.spec, "POST", "/deployment-events/", a.status, a.header, a.body)
		})
	}
}

// Rows: VO-X1
func TestAConflictIsReadableToBothClients(t *testing.T) {
	var err error
	f := newFixture(t, httpapi.Handlers{"postBuildEvent": func(http.ResponseWriter, *httpapi.Request) error { return err }})
	for code, word := range map[string]string{"VERSION_SHA_MISMATCH": "version_conflict", "NAME_IN_USE": "conflict", "": "conflict"} {
		err = fault.New(fault.Conflict, code, "Version 1.2.3 already exists with different SHA")
		a := f.send("POST", "/build-events/", "sk_events", "{}")
		var top map[string]any
		if e := json.Unmarshal(a.body, &top); e != nil || a.status != 409 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if top["detail"] != top["message"] || top["detail"] != "Version 1.2.3 already exists with different SHA" || top["error"] != word || top["code"] == "" {
			t.Errorf("%s", a.body)
		}
		httpapitest.CheckResponse(t, f.spec, "POST", "/build-events/", a.status, a.header, a.body)
	}
}

func TestAPanicIsAnsweredAndLoggedOnce(t *testing.T) {
	f := newFixture(t, httpapi.Handlers{"listBuilds": func(http.ResponseWriter, *httpapi.Request) error { panic("a bug") }})
	a := f.send("GET", "/builds/?product=hunter2", "pat_read", "")
	if a.status != 500 || a.code(t) != "INTERNAL_ERROR" {
		t.Errorf("%d %s", a.status, a.body)
	}
	logged := f.log.String()
	if strings.Count(logged, "a bug") != 1 || !strings.Contains(logged, a.header.Get("X-Request-Id")) || !strings.Contains(logged, "operation=listBuilds") {
		t.Errorf("log: %s", logged)
	}
	for _, secret := range []string{"pat_read", "hunter2"} {
		if strings.Contains(logged, secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
	httpapitest.CheckResponse(t, f.spec, "GET", "/builds/", a.status, a.header, a.body)
}

func TestAnAnswerThatBreaksOffIsCut(t *testing.T) {
	f := newFixture(t, httpapi.Handlers{"listBuilds": func(w http.ResponseWriter, _ *httpapi.Request) error {
		_, _ = w.Write([]byte(`{"items":[`))
		return errors.New("the store broke off")
	}})
	server := httptest.NewServer(f.api)
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/builds/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer pat_read")
	resp, err := http.DefaultClient.Do(r)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a short answer looked whole")
	}
}

func TestServerFaultsAreLoggedAndCallersFaultsAreNot(t *testing.T) {
	var err error
	f := newFixture(t, httpapi.Handlers{"listBuilds": func(http.ResponseWriter, *httpapi.Request) error { return err }})
	for _, row := range []struct {
		err    error
		logged bool
	}{{errors.New("x"), true}, {fault.New(fault.Unavailable, "", "x"), true}, {httpapi.NotFound("build"), false}} {
		err = row.err
		f.log.Reset()
		f.send("GET", "/builds/", "pat_read", "")
		if (f.log.Len() > 0) != row.logged {
			t.Errorf("%v: %s", row.err, &f.log)
		}
	}
}

func echoBody(_ http.ResponseWriter, r *httpapi.Request) error {
	b, err := r.ReadJSON()
	if err != nil {
		return err
	}
	return r.JSON(200, len(b))
}

func TestABodyHasALimitAndAMediaType(t *testing.T) {
	f := newFixture(t, httpapi.Handlers{"postBuildEvent": echoBody, "postEventBatch": echoBody})
	at, over := strings.Repeat(" ", 256<<10), strings.Repeat(" ", 256<<10+1)
	rows := []struct {
		name, path, body string
		declared         bool
		header           []string
		status           int
		code             string
	}{
		{"at the limit", "/build-events/", at, true, nil, 200, ""},
		{"at the limit, not declared", "/build-events/", at, false, nil, 200, ""},
		{"over it", "/build-events/", over, true, nil, 413, "BODY_TOO_LARGE"},
		{"over it, not declared", "/build-events/", over, false, nil, 413, "BODY_TOO_LARGE"},
		{"a batch may be larger", "/events/batch", over, true, nil, 200, ""},
		{"up to its own limit", "/events/batch", strings.Repeat(" ", 8<<20+1), false, nil, 413, "BATCH_TOO_LARGE"},
		{"declared over its limit", "/events/batch", strings.Repeat(" ", 8<<20+1), true, nil, 413, "BATCH_TOO_LARGE"},
		{"json", "/build-events/", "{}", true, []string{"Content-Type", "application/json"}, 200, ""},
		{"json with parameters", "/build-events/", "{}", true, []string{"Content-Type", "Application/JSON; charset=utf-8"}, 200, ""},
		{"empty type", "/build-events/", "{}", true, []string{"Content-Type", ""}, 200, ""},
		{"text", "/build-events/", "{}", true, []string{"Content-Type", "text/plain"}, 400, "UNSUPPORTED_MEDIA_TYPE"},
		{"json patch", "/build-events/", "{}", true, []string{"Content-Type", "application/json-patch+json"}, 400, "UNSUPPORTED_MEDIA_TYPE"},
		{"nonsense", "/build-events/", "{}", true, []string{"Content-Type", ";;"}, 400, "UNSUPPORTED_MEDIA_TYPE"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var body io.Reader = strings.NewReader(row.body)
			if !row.declared {
				body = io.MultiReader(body)
			}
			r := httptest.NewRequest(http.MethodPost, row.path, body)
			r.Header.Set("Authorization", "Bearer sk_events")
			for i := 0; i+1 < len(row.header); i += 2 {
				r.Header.Set(row.header[i], row.header[i+1])
			}
			a := f.do(r)
			if a.status != row.status || row.code != "" && a.code(t) != row.code {
				t.Errorf("%d %s", a.status, a.body)
			}
			if a.status != 200 {
				httpapitest.CheckResponse(t, f.spec, "POST", row.path, a.status, a.header, a.body)
			}
		})
	}
}

// The order of contract 1.13, as far as the router decides it.
func TestChecksAreMadeInTheirOrder(t *testing.T) {
	f := newFixture(t, nil)
	huge := func(method, path, token string) answer {
		r := httptest.NewRequest(method, path, nil)
		r.ContentLength = 1 << 30
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		return f.do(r)
	}
	for _, row := range []struct {
		what string
		got  answer
		want int
	}{
		{"path before length", huge("POST", "/nothing", ""), 404},
		{"length before credential", huge("POST", "/build-events/", ""), 413},
		{"length where the method does not exist", huge("POST", "/deployments/", ""), 413},
		{"credential before permission", f.send("POST", "/deployments/", "nobody", ""), 401},
		{"permission before method", f.send("POST", "/deployments/", "pat_read", ""), 403},
		{"method before query", f.send("PUT", "/deployments/?limit=x", "pat_admin", ""), 405},
		{"permission before query", f.send("GET", "/deployments/?limit=x", "sk_events", ""), 403},
		{"query before handler", f.send("GET", "/deployments/?limit=x", "pat_read", ""), 422},
	} {
		if row.got.status != row.want {
			t.Errorf("%s: %d %s", row.what, row.got.status, row.got.body)
		}
	}
}
