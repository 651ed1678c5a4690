package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/httpapi/httpapitest"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/console"
)

// hang is no expectation: only a run that hangs reaches it.
const hang = time.Minute

var names = []string{"ingest", "query", "accounts", "projector", "mcp"}

func document(t *testing.T) *httpapi.Spec {
	t.Helper()
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// On these addresses nobody listens. The kernel gives such ports to nobody, as it might
// one that was free a moment ago.
const nowhere, nowhereElse = "127.0.0.1:1", "127.0.0.1:2"

// street is a door with a service behind each name.
func street(t *testing.T, answer func(service string, w http.ResponseWriter, r *http.Request), change ...func(*console.Config)) string {
	t.Helper()
	cfg := console.Config{Spec: document(t), At: map[string][]string{}, Version: "test", Logger: slog.New(slog.DiscardHandler)}
	for _, name := range names {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(name, w, r) }))
		t.Cleanup(srv.Close)
		cfg.At[name] = []string{srv.Listener.Addr().String()}
	}
	for _, c := range change {
		c(&cfg)
	}
	door, err := console.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(door.CloseIdle)
	srv := httptest.NewServer(door)
	t.Cleanup(srv.Close)
	return srv.URL
}

// answer is what came back, but for its body.
type answer struct {
	StatusCode int
	Header     http.Header
}

func get(t *testing.T, url string, headers ...string) (answer, []byte) {
	t.Helper()
	return send(t, http.MethodGet, url, "", headers...)
}

func send(t *testing.T, method, url, body string, headers ...string) (answer, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header}, text
}

func TestTheDoorForwardsEveryOperationToItsService(t *testing.T) {
	url := street(t, func(service string, w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %s", service, r.Method, r.URL.RequestURI(), r.Host)
	})
	host := strings.TrimPrefix(url, "http://")
	for _, op := range document(t).Operations() {
		if op.Service == httpapi.Everywhere {
			continue
		}
		path := "/api/v1" + strings.NewReplacer("{", "a%20b", "}", "").Replace(op.Path) + "?q=a;b&&x=%zz"
		_, body := send(t, op.Method, url+path, "")
		if want := fmt.Sprintf("%s %s %s %s", op.Service, op.Method, path, host); string(body) != want {
			t.Errorf("%s: forwarded as %q, want %q", op.ID, body, want)
		}
	}
}

// The services hold what a key promises. A request that one of them may have heard is
// sent to nobody again.
func TestAnIdempotencyKeyReachesTheServiceAndIsNoReasonToAskTwice(t *testing.T) {
	var cut atomic.Bool
	var heard atomic.Int64
	url := street(t, func(_ string, w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err != nil || len(body) > 0 {
			t.Errorf("%s: a body %q, %v", r.Method, body, err)
		}
		if r.Header.Get("Idempotency-Key") != "once" {
			t.Errorf("%s: the key is %q", r.Method, r.Header.Get("Idempotency-Key"))
		}
		if !cut.Load() {
			return
		}
		heard.Add(1)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close() // in the middle, on a connection that was used before
	})
	for _, c := range []struct{ method, path string }{
		{http.MethodDelete, "/products/7f1b1a04-5c7c-4c1c-8f6e-000000000000"}, {http.MethodPost, "/api-keys/k2/rotate"},
	} {
		cut.Store(false)
		if res, body := send(t, c.method, url+c.path, "", "Idempotency-Key", "once"); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", c.method, res.StatusCode, body)
		}
		cut.Store(true)
		heard.Store(0)
		if res, body := send(t, c.method, url+c.path, "", "Idempotency-Key", "once"); res.StatusCode != http.StatusServiceUnavailable || heard.Load() != 1 {
			t.Errorf("%s, cut off: %d after %d requests: %s", c.method, res.StatusCode, heard.Load(), body)
		}
	}
}

func TestTheDoorAnswersItselfWhatNoServiceDoes(t *testing.T) {
	url := street(t, func(_ string, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	res, body := get(t, url+"/nowhere")
	var said struct {
		Error struct{ Code string } `json:"error"`
	}
	if err := json.Unmarshal(body, &said); err != nil || res.StatusCode != http.StatusNotFound || said.Error.Code != "NOT_FOUND" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if res, body := get(t, url+"/openapi.json"); res.StatusCode != http.StatusOK || string(body) != string(schemas.OpenAPI) {
		t.Errorf("the document: %d", res.StatusCode)
	}
}

// Only the door's own word tells where a client is: what the client says counts
// for nothing.
func TestTheDoorHandsOnTheAddressOfTheClientAndNoOther(t *testing.T) {
	show := func(_ string, w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Proto"], r.Header["Forwarded"], r.Header["X-Forwarded-Host"])
	}
	lies := []string{"X-Forwarded-For", "10.9.8.7", "X-Forwarded-For", "10.9.8.6", "Forwarded", "for=10.9.8.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil"}
	if _, body := get(t, street(t, show)+"/matrix", lies...); string(body) != "[127.0.0.1] [http] [] []" {
		t.Errorf("from anybody: %s", body)
	}
	behind := street(t, show, func(c *console.Config) {
		c.TrustedProxies, c.ForwardedProto = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, true
	})
	if _, body := get(t, behind+"/matrix", lies...); string(body) != "[10.9.8.6] [https] [] []" {
		t.Errorf("from a trusted proxy: %s", body)
	}
	if _, body := get(t, behind+"/matrix", "X-Forwarded-For", "10.1.1.1, nonsense"); !strings.HasPrefix(string(body), "[unknown]") {
		t.Errorf("from a trusted proxy that tells nonsense: %s", body)
	}
}

func TestAServiceThatIsAwayIsAnsweredForAsDocumented(t *testing.T) {
	url := street(t, func(_ string, w http.ResponseWriter, _ *http.Request) {
		panic(http.ErrAbortHandler) // cut off in the middle
	}, func(c *console.Config) { c.At["query"] = []string{nowhere} })
	res, body := get(t, url+"/matrix")
	if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "nothing was done") || res.Header.Get("Retry-After") == "" {
		t.Errorf("away: %d %s", res.StatusCode, body)
	}
	httpapitest.CheckResponse(t, document(t), http.MethodGet, "/matrix", res.StatusCode, res.Header, body)
	res, body = send(t, http.MethodPost, url+"/deployment-events/", "{}")
	if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "may have been done") {
		t.Errorf("cut off: %d %s", res.StatusCode, body)
	}
	httpapitest.CheckResponse(t, document(t), http.MethodPost, "/deployment-events/", res.StatusCode, res.Header, body)
}

func TestARequestGoesToAProcessThatIsThere(t *testing.T) {
	var asked atomic.Int64
	url := street(t, func(_ string, w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(w, r.Body)
	}, func(c *console.Config) { c.At["ingest"] = append([]string{nowhere, nowhereElse}, c.At["ingest"]...) })
	for range 20 {
		res, body := send(t, http.MethodPost, url+"/deployment-events/", "said")
		if res.StatusCode != http.StatusOK || string(body) != "said" {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	if asked.Load() != 20 {
		t.Errorf("%d requests arrived of 20", asked.Load())
	}
}

func TestHealthAtTheDoorIsThatOfAllServices(t *testing.T) {
	part := map[string]string{"ingest": "log", "query": "read_model", "accounts": "keys", "projector": "ledger", "mcp": "keys"}
	for name, c := range map[string]struct {
		say    map[string]string // by service
		away   string
		status string
		code   int
		parts  map[string]string
	}{
		"all well": {status: "ok", code: 200, parts: map[string]string{"log": "ok", "read_model": "ok", "keys": "ok"}},
		"one is degraded": {
			say: map[string]string{"projector": "degraded"}, status: "degraded", code: 200, parts: map[string]string{"ledger": "degraded", "log": "ok"},
		},
		"reads are away":         {away: "query", status: "degraded", code: 200, parts: map[string]string{"read_model": "unavailable", "query": "unavailable"}},
		"keys are not known":     {say: map[string]string{"mcp": "unavailable"}, status: "unavailable", code: 503, parts: map[string]string{"keys": "unavailable"}},
		"no writes and no reads": {say: map[string]string{"ingest": "unavailable"}, away: "query", status: "unavailable", code: 503},
	} {
		t.Run(name, func(t *testing.T) {
			url := street(t, func(service string, w http.ResponseWriter, _ *http.Request) {
				word := c.say[service]
				if word == "" {
					word = "ok"
				}
				_ = json.NewEncoder(w).Encode(httpapi.Health{Status: word, Parts: map[string]string{part[service]: word}})
			}, func(cfg *console.Config) {
				if c.away != "" {
					cfg.At[c.away] = []string{nowhere}
				}
			})
			// A service that does not answer within two seconds counts as away: on a busy
			// machine that may be any of them, once.
			spec, again := document(t), time.NewTicker(100*time.Millisecond)
			defer again.Stop()
			for deadline := time.Now().Add(hang); ; <-again.C {
				res, body := get(t, url+"/health")
				httpapitest.CheckResponse(t, spec, http.MethodGet, "/health", res.StatusCode, res.Header, body)
				var h httpapi.Health
				if err := json.Unmarshal(body, &h); err != nil {
					t.Fatalf("%v: %s", err, body)
				}
				as := h.Status == c.status && res.StatusCode == c.code
				for part, word := range c.parts {
					as = as && h.Parts[part] == word
				}
				if as {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d %s, want %d %q and %v", res.StatusCode, body, c.code, c.status, c.parts)
				}
			}
		})
	}
}

// A stream passes as it comes, and ends when the door stops: it would go on for ever.
func TestAStreamPassesAsItComesAndEndsWithTheDoor(t *testing.T) {
	next := make(chan string)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case line := <-next:
				fmt.Fprintln(w, line)
				w.(http.Flusher).Flush() //nolint:forcetypeassert // as every server's is
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer backend.Close()
	cfg := console.Config{Spec: document(t), At: map[string][]string{}, Logger: slog.New(slog.DiscardHandler)}
	for _, name := range names {
		cfg.At[name] = []string{backend.Listener.Addr().String()}
	}
	door, err := console.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var addr net.Addr
	stop, err := lifecycle.Start(context.Background(), &httpapi.Server{
		Addr: "127.0.0.1:0", Handler: door, Grace: hang, Listening: func(a net.Addr) { addr = a },
	})
	if err != nil {
		t.Fatal(err)
	}
	res, lines := stream(t, "http://"+addr.String()+"/events/stream", next)
	defer res.Body.Close()
	for _, word := range []string{"one", "two"} {
		next <- word
		if !lines.Scan() || lines.Text() != word {
			t.Fatalf("%q: %v", lines.Text(), lines.Err())
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("the stream goes on: %q, %v", lines.Text(), lines.Err())
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func stream(t *testing.T, url string, next chan<- string) (*http.Response, *bufio.Scanner) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	go func() { next <- "" }() // an answer begins with its first byte
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Scan()
	return res, lines
}
