package cli_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/services/cli"
)

// events gives n items of one service, versions v1 to vn.
func events(n int) iter.Seq[cli.Item] {
	return func(yield func(cli.Item) bool) {
		for i := 1; i <= n; i++ {
			b := fmt.Sprintf(`{"product_name":"svc","version":"v%d","environment_name":"production","status":"success","invoke_id":"run-%d"}`, i, i)
			if !yield(cli.Item{Line: i, Body: []byte(b)}) {
				return
			}
		}
	}
}

func versionsTo(n int) []string {
	var out []string
	for i := 1; i <= n; i++ {
		out = append(out, fmt.Sprintf("v%d", i))
	}
	return out
}

// clock moves only when it is slept on.
type clock struct {
	now   time.Time
	slept []time.Duration
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)} }

func (c *clock) options(o cli.Options) cli.Options {
	o.Now = func() time.Time { return c.now }
	o.Sleep = func(ctx context.Context, d time.Duration) error {
		c.now = c.now.Add(d)
		c.slept = append(c.slept, d)
		return ctx.Err()
	}
	return o
}

func TestEveryItemIsSentOnceInOrder(t *testing.T) {
	l := newLedger(t)
	sum, err := cli.Load(t.Context(), l.Client(), l.URL+"/", adminToken, events(2345), newClock().options(cli.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cli.Summary{Accepted: 2345, Position: "t0.3.0"}, sum); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(versionsTo(2345), versions(l.seen)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{1000, 1000, 345}, l.sizes); diff != "" {
		t.Error(diff)
	}
}

func TestNothingIsSentForNothing(t *testing.T) {
	l := newLedger(t)
	sum, err := cli.Load(t.Context(), l.Client(), l.URL, adminToken, events(0), cli.Options{})
	if err != nil || sum.Events() != 0 || l.calls != 0 {
		t.Errorf("got %+v, %v after %d calls", sum, err, l.calls)
	}
}

func TestABatchStaysUnderTheLimitOfBytes(t *testing.T) {
	l := newLedger(t)
	big := func(yield func(cli.Item) bool) {
		for i := range 100 {
			b := fmt.Sprintf(`{"product_name":"svc","version":"v%d","invoke_id":"r","deploy_url":%q}`, i+1, strings.Repeat("x", 200_000))
			if !yield(cli.Item{Line: i + 1, Body: []byte(b)}) {
				return
			}
		}
	}
	sum, err := cli.Load(t.Context(), l.Client(), l.URL, adminToken, big, cli.Options{})
	if err != nil || sum.Accepted != 100 || len(l.sizes) != 3 {
		t.Errorf("got %+v, %v in calls of %v", sum, err, l.sizes)
	}
}

func TestWhatTheServerCannotTakeNowIsSentAgainBeforeTheRest(t *testing.T) {
	l := newLedger(t)
	l.instead = func(call int, e body) (int, string) {
		switch {
		case call == 1 && e.Version >= "v6": // the log failed part-way
			return 503, `"detail":"Service temporarily unavailable"`
		case call == 2 && e.Version == "v7":
			return 429, `"detail":"Rate limit exceeded. Try again in 60 seconds."`
		}
		return 0, ""
	}
	c := newClock()
	sum, err := cli.Load(t.Context(), l.Client(), l.URL, adminToken, events(9), c.options(cli.Options{BatchSize: 8}))
	if err != nil {
		t.Fatal(err)
	}
	if sum.Accepted != 9 || sum.Duplicate != 0 || sum.Refused != 0 || sum.Retries != 2 {
		t.Errorf("got %+v", sum)
	}
	want := append(versionsTo(8), "v6", "v7", "v8", "v7", "v9")
	if diff := cmp.Diff(want, versions(l.seen)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]time.Duration{500 * time.Millisecond, 500 * time.Millisecond}, c.slept); diff != "" {
		t.Errorf("a call that settled something starts the waits anew: %s", diff)
	}
}

func TestARefusedCallIsRepeatedWithGrowingWaits(t *testing.T) {
	l := newLedger(t)
	l.before = func(call int, w http.ResponseWriter, _ *http.Request) bool {
		switch call {
		case 1, 2, 4:
			fail(w, http.StatusServiceUnavailable, "", "busy")
			return true
		case 3:
			w.Header().Set("Retry-After", "7")
			fail(w, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED", "slow down")
			return true
		case 5:
			w.Header().Set("Retry-After", "86400")
			fail(w, http.StatusBadGateway, "", "no upstream")
			return true
		}
		return false
	}
	var reasons []string
	c := newClock()
	sum, err := cli.Load(t.Context(), l.Client(), l.URL, adminToken, events(3), c.options(cli.Options{
		Waiting: func(reason string, _ time.Duration) { reasons = append(reasons, reason) },
	}))
	if err != nil || sum.Accepted != 3 || sum.Retries != 5 {
		t.Errorf("got %+v, %v", sum, err)
	}
	want := []time.Duration{500 * time.Millisecond, time.Second, 7 * time.Second, 4 * time.Second, 30 * time.Second}
	if diff := cmp.Diff(want, c.slept); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"503 busy", "503 busy", "429 slow down", "503 busy", "502 no upstream"}, reasons); diff != "" {
		t.Error(diff)
	}
}

func TestALostAnswerIsFoundOutByRepeating(t *testing.T) {
	l := newLedger(t)
	lost := false
	client := doerFunc(func(r *http.Request) (*http.Response, error) {
		res, err := l.Client().Do(r)
		if l.calls == 2 && !lost {
			lost = true
			_ = res.Body.Close()
			return nil, errors.New("connection reset by peer")
		}
		return res, err
	})
	sum, err := cli.Load(t.Context(), client, l.URL, adminToken, events(30), newClock().options(cli.Options{BatchSize: 10}))
	if err != nil || sum.Accepted != 20 || sum.Duplicate != 10 {
		t.Errorf("got %+v, %v", sum, err)
	}
	if diff := cmp.Diff(versionsTo(30), versions(l.kept)); diff != "" {
		t.Error(diff)
	}
}

func TestALoadGivesUpWhenTheServerStaysAway(t *testing.T) {
	l := newLedger(t)
	l.before = func(call int, w http.ResponseWriter, _ *http.Request) bool {
		if call > 1 {
			fail(w, http.StatusServiceUnavailable, "", "busy")
		}
		return call > 1
	}
	c := newClock()
	began := c.now
	sum, err := cli.Load(t.Context(), l.Client(), l.URL, adminToken, events(30), c.options(cli.Options{BatchSize: 10, RetryFor: time.Minute}))
	if err == nil || !strings.Contains(err.Error(), "has taken nothing for 1m0s: 503 busy") {
		t.Errorf("got %v", err)
	}
	if sum.Accepted != 10 || c.now.Sub(began) > time.Minute {
		t.Errorf("got %+v after %s", sum, c.now.Sub(began))
	}
}

func TestRefusedItemsAreToldAndTheRestIsLoaded(t *testing.T) {
	l := newLedger(t)
	l.instead = func(_ int, e body) (int, string) {
		switch e.Version {
		case "v2":
			return 422, `"detail":[{"loc":["body","product_name"],"msg":"field required"},{"loc":["body","extra_metadata","a"],"msg":"too deep"}],
				"error":{"type":"invalid_request_error","code":"VALIDATION_ERROR","message":"2 fields are wrong"}`
		case "v4":
			return 409, `"detail":"Version v4 already exists with different SHA","message":"Version v4 already exists with different SHA",` +
				`"error":"version_conflict","code":"VERSION_SHA_MISMATCH"`
		case "v5":
			return 428, `"detail":{"error":"deployment_blocked","message":"needs approval","code":"APPROVAL_REQUIRED"},"error":"deployment_blocked"`
		case "v7":
			return 413, `"detail":"Request body too large"`
		}
		return 0, ""
	}
	var got []cli.Refusal
	source := func(yield func(cli.Item) bool) {
		if !yield(cli.Item{Line: 100, Fault: "not a JSON object"}) {
			return
		}
		for i := range events(8) {
			if !yield(i) {
				return
			}
		}
	}
	sum, err := cli.Load(t.Context(), l.Client(), l.URL, adminToken, source,
		newClock().options(cli.Options{BatchSize: 3, Refused: func(r cli.Refusal) { got = append(got, r) }}))
	if err != nil || sum.Accepted != 4 || sum.Refused != 5 || sum.Events() != 9 {
		t.Errorf("got %+v, %v", sum, err)
	}
	want := []cli.Refusal{
		{Line: 100, Status: 400, Message: "not a JSON object"},
		{
			Line: 2, Status: 422, Code: "VALIDATION_ERROR", Fields: []string{"product_name", "extra_metadata.a"},
			Message: "product_name: field required; extra_metadata.a: too deep",
		},
		{Line: 4, Status: 409, Code: "VERSION_SHA_MISMATCH", Message: "Version v4 already exists with different SHA"},
		{Line: 5, Status: 428, Code: "APPROVAL_REQUIRED", Message: "needs approval"},
		{Line: 7, Status: 413, Message: "Request body too large"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"v1", "v3", "v6", "v8"}, versions(l.kept)); diff != "" {
		t.Error(diff)
	}
}

func TestASmallerLimitOfAProxyIsFound(t *testing.T) {
	l := newLedger(t)
	l.before = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.ContentLength > 1000 {
			http.Error(w, "<html>too large</html>", http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	}
	source := func(yield func(cli.Item) bool) {
		for i := range events(60) {
			if i.Line == 20 {
				i.Body = fmt.Appendf(nil, `{"product_name":"svc","version":"v20","invoke_id":%q}`, strings.Repeat("x", 1000))
			}
			if !yield(i) {
				return
			}
		}
	}
	sum, err := cli.Load(t.Context(), l.Client(), l.URL, adminToken, source, newClock().options(cli.Options{BatchSize: 50}))
	if err != nil || sum.Accepted != 59 || sum.Refused != 1 || sum.Retries != 0 {
		t.Errorf("got %+v, %v", sum, err)
	}
	want := versionsTo(60)
	want = append(want[:19], want[20:]...)
	if diff := cmp.Diff(want, versions(l.seen)); diff != "" {
		t.Error(diff)
	}
}

func TestAnInterruptedLoadIsCompletedByRepeatingIt(t *testing.T) {
	l := newLedger(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	sum, err := cli.Load(ctx, l.Client(), l.URL, adminToken, events(100), newClock().options(cli.Options{
		BatchSize: 10,
		Progress: func(s cli.Summary) {
			if s.Accepted == 40 {
				interrupt()
			}
		},
	}))
	if !errors.Is(err, context.Canceled) || sum.Accepted != 40 {
		t.Errorf("got %+v, %v", sum, err)
	}
	sum, err = cli.Load(t.Context(), l.Client(), l.URL, adminToken, events(100), newClock().options(cli.Options{}))
	if err != nil || sum.Duplicate != 40 || sum.Accepted != 60 {
		t.Errorf("got %+v, %v", sum, err)
	}
	if diff := cmp.Diff(versionsTo(100), versions(l.kept)); diff != "" {
		t.Error(diff)
	}
}

// noServer is where nobody listens: the kernel gives that port to nobody.
const noServer = "http://127.0.0.1:1"

func TestAnErrorNamesTheNextStepAndNeverTheToken(t *testing.T) {
	answer := func(status int, code, message string) func(int, http.ResponseWriter, *http.Request) bool {
		return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Location", "https://other.example.com/")
			fail(w, status, code, message)
			return true
		}
	}
	tests := []struct {
		name    string
		url     string
		before  func(int, http.ResponseWriter, *http.Request) bool
		instead func(int, body) (int, string)
		want    []string
	}{
		{"unknown token", "", answer(401, "AUTH_EXPIRED_KEY", "the key has expired"), nil, []string{"AUTH_EXPIRED_KEY", "set SHIPLEDGER_TOKEN"}},
		{"narrow token", "", answer(403, "INSUFFICIENT_SCOPE", "needs admin"), nil, []string{"INSUFFICIENT_SCOPE", "scope admin", "admin_pat"}},
		{"token revoked on the way", "", nil, func(int, body) (int, string) {
			return 401, `"error":{"code":"AUTH_REVOKED_KEY","message":"revoked"}`
		}, []string{"AUTH_REVOKED_KEY"}},
		{"other server", "", answer(404, "", "nothing here"), nil, []string{"SHIPLEDGER_URL"}},
		{"redirect", "", answer(308, "", ""), nil, []string{"https://other.example.com/", "SHIPLEDGER_URL"}},
		{"web page", "", func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte("<html>welcome</html>"))
			return true
		}, nil, []string{"did not answer as a Shipledger server"}},
		{"unreadable batch", "", answer(400, "INVALID_JSON", "Invalid JSON in request body"), nil, []string{"400", "INVALID_JSON"}},
		{"no server", noServer, nil, nil, []string{"no server at", "connection refused", "shipledger up"}},
		{"no address", "localhost:8080", nil, nil, []string{"no address of a server", "SHIPLEDGER_URL"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t)
			l.before, l.instead = tt.before, tt.instead
			if tt.url == "" {
				tt.url = l.URL
			}
			client := l.Client()
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			c := newClock()
			_, err := cli.Load(t.Context(), client, tt.url, adminToken, events(2), c.options(cli.Options{}))
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if strings.Contains(err.Error(), adminToken) || len(c.slept) > 0 {
				t.Errorf("got %q after %v", err, c.slept)
			}
		})
	}
}

type doerFunc func(*http.Request) (*http.Response, error)

func (f doerFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }
