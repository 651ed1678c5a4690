package contract_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
)

// posts are the routes that take a single event.
var posts = []string{"/deployment-events/", "/build-events/", "/version-events/"}

// Rows: VR-04, VR-05, VO-15, S-09
func TestEventIsAnsweredWithTheIdsOfWhatItMade(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		const ulid, v5 = `^[0-9A-HJKMNP-TV-Z]{26}$`, `^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`
		d, b := l.deployed(l.deployment("success")), l.built(l.build("success"))
		for _, id := range []string{"id", "deployment_id", "event_id"} {
			matches(t, ulid, d.text(id))
		}
		for _, id := range []string{"id", "build_id", "event_id"} {
			matches(t, ulid, b.text(id))
		}
		for _, id := range []string{"product_id", "version_id"} {
			matches(t, v5, d.text(id))
			b.shows(body{id: d.text(id)})
		}
		matches(t, v5, d.text("environment_id"))
		d.shows(body{"deployment_id": d.id()})
		b.shows(body{"build_id": b.id()})

		l.read("/deployments/" + d.id()).shows(body{"id": d.id(), "product_id": d.text("product_id"), "events.0.id": d.text("event_id")})
		l.read("/builds/" + b.id()).shows(body{"id": b.id(), "events.0.id": b.text("event_id")})
		l.read("/products/" + d.text("product_id")).shows(body{"id": d.text("product_id"), "name": l.product})
		l.read("/environments/" + d.text("environment_id")).shows(body{"name": "production", "type": "production"})
		l.read("/versions/" + d.text("version_id")).shows(body{"version": "1.2.3", "product_name": l.product, "builds": 1})
	})
}

// quickStart is the body of the quick start.
const quickStart = `{
  "product_name": "my-service",
  "version": "1.2.3",
  "environment_name": "production",
  "status": "success"
}`

// The headers are what each client sends by itself; curl and node are also run
// where they are installed.
//
// Rows: VR-06
func TestBodyOfTheQuickStartIsAcceptedAsItStands(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		shows := body{"product_name": "my-service", "version": "1.2.3", "environment_name": "production", "status": "completed"}
		for _, headers := range [][]string{
			{"User-Agent", "curl/8.5.0", "Accept", "*/*"},
			{"User-Agent", "python-requests/2.32.3", "Accept", "*/*", "Accept-Encoding", "gzip, deflate", "Connection", "keep-alive"},
			{"User-Agent", "node", "Accept", "*/*", "Accept-Language", "*", "Sec-Fetch-Mode", "cors", "Accept-Encoding", "gzip, deflate"},
		} {
			var options []option
			for i := 0; i < len(headers); i += 2 {
				options = append(options, header(headers[i], headers[i+1]))
			}
			m.deployed(quickStart, options...).shows(shows)
		}
		for program, args := range map[string][]string{
			"curl": {
				"-sS", "-X", "POST", m.url + "/deployment-events/", "-H", "Authorization: Bearer " + m.key, "-H", "Content-Type: application/json", "-d", quickStart,
			},
			"node": {
				"-e", "fetch(process.argv[1] + '/deployment-events/', {method: 'POST', body: process.argv[3], headers: " +
					"{'Authorization': `Bearer ${process.argv[2]}`, 'Content-Type': 'application/json'}}).then(r => r.text()).then(t => console.log(t))",
				m.url, m.key, quickStart,
			},
		} {
			path, err := exec.LookPath(program)
			if err != nil {
				t.Logf("%s is not installed: only its headers were sent", program)
				continue
			}
			out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", program, err, out)
			}
			answer{t: t, of: program, status: http.StatusOK, header: http.Header{"Content-Type": {"application/json"}}, raw: out}.shows(shows)
		}
	})
}

// The shapes of contract 8.1, which known clients post.
func TestBodiesOfKnownClientsAreAccepted(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		run := body{
			"source_system": "github", "build_number": "412", "scm_sha": "8d1c0a7f3b2e4d5c6a798081726354453627181a", "scm_repository": "acme/svc",
			"invoke_id": "9000000001",
		}
		vi := body{"vi_gh_workflow": "Deploy", "vi_gh_job": "deploy", "vi_gh_run_attempt": "1", "vi_gh_event_name": "push", "vi_gh_ref": "refs/heads/main"}
		who := func(prefix string) body {
			return body{prefix: "ada", prefix + "_email": "ada@acme.example", prefix + "_name": "Ada L"}
		}
		l.deployed(l.deployment("success", body{"source_system": "unknown"}))
		l.built(l.build("completed", body{"source_system": "unknown"}))
		full := l.deployed(l.deployment("In_Progress", run, who("deployed_by"), body{
			"deploy_url": "https://ci.example/1", "completed_at": "2026-02-01T10:00:00Z", "skip_preflight_checks": false, "extra_metadata": vi,
		}))
		full.shows(body{
			"status": "started", "source_system": "github", "deployed_by": "ada", "deployed_by_email": "ada@acme.example", "deployed_by_name": "Ada L",
			"deploy_url": "https://ci.example/1", "completed_at": nil, "soak_time_hours": nil, "sha_mismatch": false, "extra_metadata": vi,
		})
		l.read("/deployments/" + full.id()).shows(body{
			"build_number": "412", "scm_sha": run["scm_sha"], "scm_branch": nil, "scm_repository": "acme/svc", "invoke_id": "9000000001", "mode": "live",
			"backfilled": false, "credential_id": "k1",
		})
		built := l.built(l.build("completed", run, who("built_by"), body{
			"scm_branch": "main", "build_url": "https://ci.example/2", "started_at": "2026-02-01T10:00:00+01:00", "completed_at": "2026-02-01T09:10:00.5Z",
			"extra_metadata": vi,
		}))
		built.shows(body{
			"status": "completed", "build_number": "412", "build_url": "https://ci.example/2",
			"started_at": time.Date(2026, 2, 1, 9, 0, 0, 0, time.UTC), "completed_at": time.Date(2026, 2, 1, 9, 10, 0, 5e8, time.UTC),
		})
		l.read("/builds/" + built.id()).shows(body{"built_by": "ada", "built_by_email": "ada@acme.example", "built_by_name": "Ada L", "scm_branch": "main"})
	})
}

// Rows: S-08
func TestBodiesOfOlderActionsWork(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		old := l.deployment("success", body{"environment_name": absent, "environment": "staging", "build_url": "https://ci.example/7", "skip_preflight_checks": true})
		l.deployed(old).shows(body{"environment_name": "staging", "deploy_url": "https://ci.example/7"})
		l.deployed(old.with(body{"environment_name": "dev", "deploy_url": "https://ci.example/8"})).
			shows(body{"environment_name": "dev", "deploy_url": "https://ci.example/8"})

		bare := l.build("", body{"status": absent})
		l.post("/version-events/", bare).is(200).shows(body{"status": "completed", "product_name": l.product, "version": "1.2.3"})
		l.post("/version-events/", bare.with(body{"status": "", "built_at": "2026-02-01T09:00:00Z"})).is(200).
			shows(body{"status": "completed", "completed_at": time.Date(2026, 2, 1, 9, 0, 0, 0, time.UTC)})
		l.post("/version-events/", bare.with(body{"status": "building"})).is(200).shows(body{"status": "started"})
		l.built(l.build("success", body{"version": "2", "built_at": "2026-02-01T09:00:00Z", "completed_at": "2026-02-01T08:00:00Z"})).
			shows(body{"completed_at": time.Date(2026, 2, 1, 8, 0, 0, 0, time.UTC)})
		differ(t, "only /version-events/ may leave the status out", []string{"body.status"}, l.post("/build-events/", bare).faults())
	})
}

// Rows: S-07
func TestEveryFormOfAPathReachesItsHandler(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		forms := []string{"%s/", "%s", "/%s/", "/%s", "//%s//", "/api/v1%s/", "/api/v1%s", "/api/v1/%s", "//api//v1//%s/"}
		for _, path := range posts {
			for i, form := range forms {
				b := l.deployment("success", body{"invoke_id": fmt.Sprint(path, i)})
				l.post(fmt.Sprintf(form, strings.TrimSuffix(path, "/")), b).is(200)
			}
		}
		for _, form := range forms {
			l.post(fmt.Sprintf(form, "/events/batch"), "[]").is(200)
			l.read(fmt.Sprintf(form, "/deployments"))
		}
	})
}

func TestNoEventPostIsEverRedirected(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, path := range append(posts, "/events/batch", "/deployments/", "/matrix", "/nothing", "/", "//", "/api/v1", "/deployment-events/../build-events/", "/./deployment-events/") {
			for _, token := range []string{l.key, l.pat, ""} {
				a := l.post(path, l.deployment("success"), as(token))
				if a.status/100 == 3 || a.status == http.StatusNoContent || len(a.raw) == 0 {
					t.Errorf("POST %s: status %d with %d bytes", path, a.status, len(a.raw))
				}
			}
		}
	})
}

// Rows: VF-28
func TestEveryRouteAnswersUnderAPIv1AsAtTheRoot(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		d, b := l.deployed(l.deployment("success", body{"invoke_id": "1"})), l.built(l.build("success", body{"invoke_id": "1"}))
		ids := map[string]string{
			"/deployments/{id}": d.id(), "/builds/{id}": b.id(), "/versions/{id}": d.text("version_id"),
			"/products/{id}": d.text("product_id"), "/environments/{id}": d.text("environment_id"),
		}
		for _, op := range document.Operations() {
			id := ids[op.Path]
			if op.Service == "accounts" || op.Service == "ingest" && !op.Ingestion {
				id = "01JW2C5R3V0E6H7Q8S9T0A1B2C" // of nothing: what changes a thing answers differently the second time
			}
			path := strings.Replace(op.Path, "{id}", id, 1)
			for _, token := range []string{l.pat, l.admin, "", "sk_main_k1_x"} {
				var at [2]answer
				for i, root := range []string{"", "/api/v1"} {
					b := l.build("success", body{"invoke_id": "2", "environment_name": "production"}).String()
					if op.Method == http.MethodGet {
						b = ""
					}
					switch path {
					case "/events/batch":
						b = "[" + b + "]"
					case "/replays/":
						b = "{" // one at a time: the second would be answered differently
					}
					p := root + path
					switch {
					case slices.Contains([]string{"/deployments/", "/builds/", "/versions/"}, path): // others write meanwhile
						p = where(p, "product", l.product)
					case path == "/matrix":
						p = where(p, "product", l.product, "environment", "production")
					case strings.HasSuffix(path, "s/") && op.Method == http.MethodGet:
						p = where(p, "limit", "1")
					}
					at[i] = l.patiently(func() answer {
						return l.send(op.Method, p, b, as(token), header("X-Shipledger-Position", position(l, op.Method)))
					})
				}
				if at[0].status != at[1].status || !slices.Equal(members(at[0]), members(at[1])) {
					t.Errorf("%s %s: %d %s at the root, %d %s under /api/v1", op.Method, path, at[0].status, at[0].raw, at[1].status, at[1].raw)
				}
			}
		}
	})
}

func position(l *ledger, method string) string {
	if method != http.MethodGet {
		return ""
	}
	return l.seen.String()
}

// members gives the names of an answer's members and of its items', each once: others
// write meanwhile, so that a second answer may have more items.
func members(a answer) []string {
	var out []string
	object, _ := a.parsed().(map[string]any)
	for name := range object {
		out = append(out, name)
	}
	items, _ := object["items"].([]any)
	for _, item := range items {
		for name := range item.(map[string]any) {
			out = append(out, "items."+name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestUnknownPathIs404AndAnotherMethod405AsJSON(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, path := range []string{"/nothing", "/api", "/api/v2/deployments/", "/deployments/1/2", "/"} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				l.send(method, path, "", as("")).fails(404, "NOT_FOUND").shows(body{"detail": "Not found", "error.type": "not_found", "success": false})
			}
		}
		for _, c := range []struct{ method, path, allow string }{
			{http.MethodGet, "/deployment-events/", "POST"},
			{http.MethodDelete, "/events/batch", "POST"},
			{http.MethodPost, "/deployments/", "GET, HEAD"},
			{http.MethodPut, "/matrix", "GET, HEAD"},
		} {
			a := l.send(c.method, c.path, "", as(l.admin)).fails(405, "METHOD_NOT_ALLOWED")
			a.shows(body{"detail": "Method not allowed", "error.type": "invalid_request_error"})
			differ(t, c.path+": Allow", c.allow, a.header.Get("Allow"))
		}
	})
}

func TestContentTypeMayBeAbsentOrJSON(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, good := range []string{"", "application/json", "application/json; charset=utf-8", "Application/JSON", `application/json;charset="UTF-8"`} {
			l.deployed(l.deployment("success"), header("Content-Type", good))
		}
		for _, bad := range []string{"text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json", "/", "application/x-ndjson"} {
			for _, path := range posts {
				l.post(path, l.deployment("success"), header("Content-Type", bad)).fails(400, "UNSUPPORTED_MEDIA_TYPE").
					shows(body{"detail": "Invalid JSON in request body", "error.type": "invalid_request_error"})
			}
		}
	})
}

// Decisions of contract 24: C-09.
func TestUnreadableJSONIs400AndEveryOtherFault422(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, path := range posts {
			for _, bad := range []string{"", " ", "{", `{"product_name":}`, `{"a":1}{"b":2}`, `{"a":1},`, "\x00", `{'a':1}`, `{"a":01}`, "nope"} {
				l.post(path, bad).fails(400, "INVALID_JSON").shows(body{"detail": "Invalid JSON in request body", "error.type": "invalid_request_error"})
			}
			for _, odd := range []string{"[]", "null", "1", `"text"`, "true"} {
				differ(t, path+" "+odd, []string{"body"}, l.post(path, odd).faults())
			}
		}
		a := l.post("/deployment-events/", "{}").fails(422, "VALIDATION_ERROR")
		differ(t, "missing fields", []string{"body.product_name", "body.version", "body.environment_name", "body.status"}, a.faults())
		a.shows(body{"detail.0": body{"loc": []any{"body", "product_name"}, "msg": "field required", "type": "value_error.missing"}, "error.type": "invalid_request_error"})
		differ(t, "missing fields", []string{"body.product_name", "body.version"}, l.post("/version-events/", "{}").faults())
	})
}

func TestBodyMayHave262144BytesAndNoMore(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		const limit = 262144
		for _, path := range posts {
			b := l.deployment("success", body{"padding": ""})
			b["padding"] = strings.Repeat("x", limit-len(b.String()))
			over := b.with(body{"padding": b["padding"].(string) + "x"})
			if n := len(b.String()); n != limit {
				t.Fatalf("the body has %d bytes", n)
			}
			for _, o := range []option{chunked, func(*http.Request) {}} {
				l.post(path, b, o).is(200)
				l.post(path, over, o).fails(413, "BODY_TOO_LARGE").shows(body{"detail": "Request body too large", "error.type": "invalid_request_error"})
			}
		}
	})
}

// Contract 1.13: path, declared length, who, may they, method, body, JSON, fields.
func TestChecksComeInTheirOrder(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		long := strings.Repeat("x", 262145)
		text, unknown := header("Content-Type", "text/plain"), as("sk_acme_k99_x")
		m.post("/nothing", long, unknown).fails(404, "NOT_FOUND")
		m.post("/build-events/", long, unknown, text).fails(413, "BODY_TOO_LARGE")
		m.post("/build-events/", long, unknown, text, chunked).fails(401, "AUTH_INVALID_FORMAT")
		m.post("/build-events/", long, as(m.pat), text, chunked).fails(403, "INSUFFICIENT_SCOPE")
		m.send(http.MethodDelete, "/build-events/", "", as(m.pat)).fails(403, "INSUFFICIENT_SCOPE")
		m.send(http.MethodDelete, "/build-events/", "", as(m.admin)).fails(405, "METHOD_NOT_ALLOWED")
		m.post("/build-events/", long, chunked).fails(413, "BODY_TOO_LARGE")
		m.post("/build-events/", "{", header("Idempotency-Key", "1")).fails(400, "INVALID_JSON")

		m.built(m.build("success", body{"scm_sha": "aaaaaaa1"}), header("Idempotency-Key", "1"))
		other := m.build("success", body{"scm_sha": "bbbbbbb1"})
		m.post("/build-events/", other.with(body{"status": "?"}), header("Idempotency-Key", "1")).fails(422, "VALIDATION_ERROR")
		m.post("/build-events/", other, header("Idempotency-Key", "1")).fails(422, "IDEMPOTENCY_KEY_REUSED")
		m.post("/build-events/", other).fails(409, "VERSION_SHA_MISMATCH")
	})
}

// Rows: VR-24, VO-11, VO-12, VO-13, VT-10, VT-11, VT-12, VT-13, VT-16
func TestEveryDeadOrUnknownCredentialIs401AndSaysWhy(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		revoked := m.mintAs("k90", credential.Revoked, time.Time{})
		suspended := m.mintAs("k91", credential.Suspended, time.Time{})
		expired := m.mintAs("k92", credential.Active, startTime)
		unknown := must(credential.Mint(credential.APIKey, acme, "k93", "live", zeros{}))
		stranger := must(credential.Mint(credential.APIKey, "nobody", "k1", "live", zeros{}))
		pat := must(credential.Mint(credential.PAT, "", "abc123", "live", zeros{}))
		wrongSecret := must(credential.Mint(credential.APIKey, acme, "k90", "live", zeros{}))
		const invalid, malformed = "invalid or missing api key", "Missing or malformed Authorization header."
		for _, c := range []struct{ authorization, code, message string }{
			{"", "AUTH_MISSING", malformed},
			{m.key, "AUTH_INVALID_FORMAT", malformed},
			{"Basic " + m.key, "AUTH_INVALID_FORMAT", malformed},
			{"Bearer", "AUTH_INVALID_FORMAT", malformed},
			{"Bearer ", "AUTH_INVALID_FORMAT", malformed},
			{"Bearer xx_" + m.key, "AUTH_INVALID_FORMAT", malformed},
			{"Bearer " + m.key + "!", "AUTH_INVALID_FORMAT", malformed},
			{"Bearer garbled", "AUTH_INVALID_FORMAT", malformed},
			{"Bearer " + m.key[:len(m.key)-1] + flip(m.key), "AUTH_INVALID_KEY", invalid},
			{"Bearer " + unknown, "AUTH_INVALID_KEY", invalid},
			{"Bearer " + stranger, "AUTH_INVALID_KEY", invalid},
			{"Bearer " + pat, "AUTH_INVALID_KEY", invalid},
			{"Bearer " + wrongSecret, "AUTH_INVALID_KEY", invalid},
			{"Bearer " + revoked, "AUTH_REVOKED_KEY", ""},
			{"Bearer " + suspended, "AUTH_SUSPENDED_KEY", ""},
			{"Bearer " + expired, "AUTH_EXPIRED_KEY", ""},
		} {
			for _, path := range []string{"/build-events/", "/deployments/"} {
				method, b := http.MethodPost, m.build("success").String()
				if path == "/deployments/" {
					method, b = http.MethodGet, ""
				}
				a := m.send(method, path, b, as(""), header("Authorization", c.authorization)).fails(401, c.code)
				a.shows(body{"detail": "Invalid authentication credentials", "success": false, "error.type": "authentication_error"})
				if message := a.text("error.message"); c.message != "" && !strings.HasPrefix(message, c.message) {
					t.Errorf("%s: message %q", c.code, message)
				}
				if hint := a.text("error.hint"); c.code == "AUTH_INVALID_KEY" && hint != "Check that the key is correct and active." {
					t.Errorf("%s: hint %q", c.code, hint)
				}
			}
		}
		differ(t, "frames stored", uint64(0), m.frames())
	})
}

type zeros struct{}

// Read gives zeros, as an entropy that makes the same secret each time.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func flip(token string) string {
	if strings.HasSuffix(token, "x") {
		return "y"
	}
	return "x"
}

// Decisions of contract 24: C-07, C-54.
//
// Rows: VR-25
func TestKnownCredentialsWithoutTheRightAre403(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		forbidden := func(method, path, token, code string) {
			t.Helper()
			b := ""
			if method == http.MethodPost {
				b = m.deployment("success").String()
			}
			m.send(method, path, b, as(token)).fails(403, code).
				shows(body{"detail": "You do not have permission to perform this action", "error.type": "permission_error"})
		}
		for _, op := range document.Operations() {
			path := strings.Replace(op.Path, "{id}", "x", 1)
			switch {
			case op.Public:
			case !slices.Contains(op.Kinds, credential.APIKey): // whatever its scope
				for _, grant := range []string{"read", "events:write", "sync-trigger", "write", "admin"} {
					forbidden(op.Method, path, m.token("sk", grant), "WRONG_CREDENTIAL_KIND")
				}
				for _, grant := range []string{"read", "sync-trigger", "write"} {
					switch token := m.token("pat", grant); {
					case !slices.Contains(op.Kinds, credential.PAT):
						forbidden(op.Method, path, token, "WRONG_CREDENTIAL_KIND")
					case !slices.Contains(op.Scopes, credential.Read):
						forbidden(op.Method, path, token, "INSUFFICIENT_SCOPE")
					}
				}
			case op.Method == http.MethodPost:
				forbidden(op.Method, path, m.pat, "INSUFFICIENT_SCOPE")
				forbidden(op.Method, path, m.token("sk", "read"), "INSUFFICIENT_SCOPE")
				forbidden(http.MethodDelete, path, m.pat, "INSUFFICIENT_SCOPE")
			default:
				code := "INSUFFICIENT_SCOPE"
				if !slices.Contains(op.Kinds, credential.APIKey) {
					code = "WRONG_CREDENTIAL_KIND"
				}
				forbidden(op.Method, path, m.key, code)
				if code != "INSUFFICIENT_SCOPE" {
					continue
				}
				forbidden(http.MethodPatch, path, m.key, "INSUFFICIENT_SCOPE")
				forbidden(http.MethodPut, path, m.pat, "INSUFFICIENT_SCOPE")
				for _, grant := range []string{"read", "sync-trigger", "write", "admin"} {
					if a := m.get(path, as(m.token("sk", grant))); a.status == 403 || a.status == 401 {
						t.Errorf("%s: a key with %s gets %d", path, grant, a.status)
					}
				}
			}
		}
		for _, token := range []string{m.key, m.token("sk", "sync-trigger"), m.token("sk", "write"), m.token("sk", "admin"), m.token("pat", "events:write"), m.token("pat", "write"), m.admin} {
			m.deployed(m.deployment("success"), as(token))
		}
		if m.frames() != 7 {
			t.Errorf("%d frames are stored", m.frames())
		}
	})
}

// Rows: VR-14, VO-02
func TestOneHeaderWithOneTokenIsEnoughForEveryRead(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		d, b := l.deployed(l.deployment("success")), l.built(l.build("success"))
		for _, path := range []string{
			"/deployments/", "/deployments/" + d.id(), "/builds/", "/builds/" + b.id(), "/versions/", "/versions/" + d.text("version_id"),
			"/products/", "/products/" + d.text("product_id"), "/environments/", "/environments/" + d.text("environment_id"), "/matrix",
		} {
			l.read(path) // so that the read model is there
			l.patiently(func() answer { return l.send(http.MethodGet, path, "", as(l.pat)) }).is(200)
		}
	})
}

// well gives the health of the system once it is well: others keep the same one busy.
func (l *ledger) well(options ...option) answer {
	l.t.Helper()
	for deadline := time.After(hang); ; {
		a := l.send(http.MethodGet, "/health", "", options...).is(200)
		if a.at("status") == "ok" {
			return a
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			l.t.Fatalf("it is not well: %s", a.raw)
		}
	}
}

// Decisions of contract 24: C-19.
//
// Rows: VR-28
func TestHealthNeedsNoCredentialAndChecksNone(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, token := range []string{"", "sk_acme_k9_garbled", l.key} {
			l.well(as(token)).shows(body{"version": "test", "parts.log": "ok"})
			l.send(http.MethodGet, "/api/v1/health/live", "", as(token)).is(200)
		}
	})
}

// The part of VR-29 about the document: /docs and /redoc are not served yet.
func TestDocumentNeedsNoCredentialAndListsEveryRouteWithItsRequirement(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		a := l.send(http.MethodGet, "/openapi.json", "", as("")).is(200)
		for _, op := range document.Operations() {
			security, ok := at(a.parsed().(map[string]any)["paths"].(map[string]any)[op.Path], strings.ToLower(op.Method)+".security").([]any)
			if !ok || (len(security) == 0) != op.Public {
				t.Errorf("%s %s does not say whether it needs a credential", op.Method, op.Path)
			}
		}
		again := l.send(http.MethodGet, "/openapi.json", "", as(""), header("If-None-Match", a.header.Get("ETag")))
		differ(t, "with the ETag", http.StatusNotModified, again.status)
	})
}

// Decisions of contract 24: C-53.
func TestObjectOfAnotherAccountIs403AndAnUnknownOne404(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		d := m.deployed(m.deployment("success"), as(m.tokenOf(other, "sk", "events:write")))
		b := m.built(m.build("success"), as(m.tokenOf(other, "sk", "events:write")))
		m.shows(other)
		for _, c := range []struct{ path, kind, id, unknown string }{
			{"/deployments/", "deployment", d.id(), "01JW2C5R3V0E6H7Q8S9T0A1B2C"},
			{"/builds/", "build", b.id(), "01JW2C5R3V0E6H7Q8S9T0A1B2C"},
			{"/products/", "product", d.text("product_id"), "2f9cabf2-105e-5671-9b62-5f0a651b0841"},
			{"/environments/", "environment", d.text("environment_id"), "2f9cabf2-105e-5671-9b62-5f0a651b0841"},
			{"/versions/", "version", d.text("version_id"), "2f9cabf2-105e-5671-9b62-5f0a651b0841"},
		} {
			m.get(c.path+c.id).fails(403, "NOT_OWNER").shows(body{
				"detail": "You do not have permission to perform this action", "error.type": "permission_error",
				"error.message": "access denied: this " + c.kind + " does not belong to your account",
			})
			m.read(c.path+c.id, as(m.tokenOf(other, "pat", "read")))
			for _, id := range []string{c.unknown, "x", "1", strings.Repeat("a", 300), "%00", strings.ToUpper(c.id)[:10]} {
				m.get(c.path+id).fails(404, "NOT_FOUND").shows(body{"detail": "Not found", "error.type": "not_found"})
			}
		}
		if items := m.read("/deployments/").list("items"); len(items) != 0 {
			t.Errorf("acme sees %d deployments of other", len(items))
		}
		m.read("/matrix").shows(body{"items": []any{}, "environments": []any{}})
	})
}
