package contract_test

import (
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// limited runs a script with budgets, which fill by the script's clock. They
// are leased as services/all does.
func limited(t *testing.T, cfg ratelimit.Config, script func(t *testing.T, m *memory)) {
	t.Helper()
	inMemory(t, func(t *testing.T, m *memory) {
		bank := ratelimit.NewLeased(ratelimit.LeasedConfig{Owner: "test"}, ratelimit.NewMemoryStore(), slog.New(slog.DiscardHandler))
		m.limiter = ratelimit.NewLimiter(cfg, bank, m.clock.read)
		m.restart()
		script(t, m)
	})
}

// roots are where every route is, in turn.
func roots(i int) string { return []string{"", "/api/v1"}[i%2] }

// budget checks what an answer says of the budget, whose state after it is
// known: left of limit, and full at a time.
func (a answer) budget(limit, left int, full time.Time) answer {
	a.t.Helper()
	for name, want := range map[string]int64{"Limit": int64(limit), "Remaining": int64(left), "Reset": full.Unix()} {
		if got := a.header.Get("X-RateLimit-" + name); got != strconv.FormatInt(want, 10) {
			a.t.Fatalf("%s (%d): X-RateLimit-%s is %q, want %d", a.of, a.status, name, got, want)
		}
	}
	return a
}

// overBudget checks a 429 and tells how long it asks to wait.
func (a answer) overBudget() time.Duration {
	a.t.Helper()
	a.fails(http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED").shows(body{"error.type": "rate_limit_error", "success": false})
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		a.t.Fatalf("%s: Retry-After is %q", a.of, a.header.Get("Retry-After"))
	}
	if want := "Rate limit exceeded. Try again in " + strconv.Itoa(seconds) + " seconds."; a.at("detail") != want {
		a.t.Errorf("%s: detail is %v, want %q", a.of, a.at("detail"), want)
	}
	return time.Duration(seconds) * time.Second
}

// look asks something that every credential with read may.
func (m *memory) look(token string, i int) answer {
	m.t.Helper()
	return m.send(http.MethodGet, roots(i)+"/environments/", "", as(token))
}

// Rows: VR-30, VR-32
func TestAThousandEventsOfAKeyPassAndNotOneMore(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		text := m.deployment("success", body{"invoke_id": "1"}).String()
		for i := range 1000 {
			full := startTime.Add(time.Duration(i+1)*60*time.Millisecond + time.Second - 1)
			m.post(roots(i)+posts[i%len(posts)], text).is(http.StatusOK).budget(1000, 999-i, full)
		}
		for i := range 4 {
			m.post(roots(i)+"/deployment-events/", text).budget(1000, 0, startTime.Add(time.Minute)).overBudget()
		}
		m.post("/deployment-events/", text, as(m.token("sk", "sync-trigger"))).is(http.StatusOK)
		m.look(m.token("sk", "sync-trigger"), 0).is(http.StatusOK).budget(60, 59, startTime.Add(time.Second))
	})
}

// Rows: VR-31
func TestTenThousandEventsOfAnAccountPassAndNotOneMore(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		keys := []string{m.key}
		for i := range 10 {
			keys = append(keys, m.mintAs("k"+strconv.Itoa(100+i), credential.Active, time.Time{}))
		}
		text := m.build("success", body{"invoke_id": "1"}).String()
		for i := range 10_000 {
			m.post(roots(i)+"/build-events/", text, as(keys[i%len(keys)])).is(http.StatusOK)
		}
		for i, key := range append(keys, m.token("sk", "write")) { // one that asked for nothing yet, too
			m.post(roots(i)+"/build-events/", text, as(key)).budget(10_000, 0, startTime.Add(time.Hour)).overBudget()
		}
		m.post("/build-events/", text, as(m.tokenOf(other, "sk", "events:write"))).is(http.StatusOK).budget(1000, 999, startTime.Add(time.Second))
		m.post("/build-events/", text, as(m.token("pat", "sync-trigger"))).is(http.StatusOK) // not an API key
		m.clock.pass(time.Second)
		m.post("/build-events/", text).is(http.StatusOK) // 10,000 an hour are 2.7 a second
	})
}

// Rows: VF-12
func TestEveryAnswerToSomebodyTellsTheBudget(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		unknown := ulid.Make().String()
		for _, class := range []struct {
			token string
			limit int
			asks  []func(root string) answer
		}{
			{m.pat, 120, []func(string) answer{
				func(root string) answer { return m.get(root + "/deployments/").is(http.StatusOK) },
				func(root string) answer {
					return m.get(root+"/deployments/"+unknown).fails(http.StatusNotFound, "NOT_FOUND")
				},
				func(root string) answer {
					return m.get(root + "/deployments/?limit=many").is(http.StatusUnprocessableEntity)
				},
				func(root string) answer {
					return m.send(http.MethodPost, root+"/deployments/", "{}", as(m.pat)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
				},
			}},
			{m.token("sk", "sync-trigger"), 1000, []func(string) answer{
				func(root string) answer {
					return m.post(root+"/build-events/", m.build("success"), as(m.token("sk", "sync-trigger"))).is(http.StatusOK)
				},
				func(root string) answer {
					return m.post(root+"/build-events/", body{}, as(m.token("sk", "sync-trigger"))).is(http.StatusUnprocessableEntity)
				},
			}},
			{m.key, 60, []func(string) answer{
				func(root string) answer {
					return m.get(root+"/deployments/", as(m.key)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
				},
			}},
		} {
			each := time.Minute / time.Duration(class.limit)
			for i := range class.limit {
				full := startTime.Add(time.Duration(i+1)*each + time.Second - 1)
				class.asks[i%len(class.asks)](roots(i/2)).budget(class.limit, class.limit-1-i, full)
			}
			over := "/deployments/"
			if class.limit == 1000 {
				over = "/build-events/"
			}
			for i := range 2 {
				m.send(http.MethodPost, roots(i)+over, "{}", as(class.token)).budget(class.limit, 0, startTime.Add(time.Minute)).overBudget()
			}
		}
	})
}

// Rows: VF-13
func TestTheHighestScopeDecidesTheBudgetOutsideIngestion(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		for _, class := range []struct {
			kind, grant string
			limit       int
		}{
			{"pat", "read", 120},
			{"sk", "read", 120},
			{"pat", "events:write", 60},
			{"pat", "sync-trigger", 60},
			{"sk", "sync-trigger", 60},
			{"pat", "write", 30},
			{"sk", "write", 30},
			{"pat", "admin", 30},
			{"sk", "admin", 30},
		} {
			token := m.token(class.kind, class.grant)
			for minute := range 2 {
				for i := range class.limit {
					a := m.look(token, i).is(http.StatusOK)
					if a.header.Get("X-RateLimit-Limit") != strconv.Itoa(class.limit) {
						t.Fatalf("%s %s: the limit is %s, want %d", class.kind, class.grant, a.header.Get("X-RateLimit-Limit"), class.limit)
					}
				}
				m.look(token, minute).overBudget()
				m.clock.pass(time.Minute)
			}
		}
	})
}

// Rows: VF-14
func TestTokensOfOneUserHaveBudgetsOfTheirOwn(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		a, b := m.pat, m.token("pat", "sync-trigger")
		m.look(b, 0).budget(60, 59, startTime.Add(time.Second))
		for i := range 120 {
			m.look(a, i).is(http.StatusOK)
		}
		m.look(a, 0).overBudget()
		m.look(b, 1).is(http.StatusOK).budget(60, 58, startTime.Add(2*time.Second))
	})
}

// Rows: VF-15
func TestARequestPassesAfterAsLongAsItWasToldToWait(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		for _, ask := range []struct {
			n    int
			send func(i int) answer
		}{
			{120, func(i int) answer { return m.look(m.pat, i) }},
			{30, func(i int) answer { return m.look(m.admin, i) }},
			{1000, func(i int) answer { return m.post(roots(i)+"/build-events/", m.build("success")) }},
		} {
			for i := range ask.n {
				ask.send(i).is(http.StatusOK)
			}
			for i := range 3 {
				a := ask.send(i)
				for a.status == http.StatusOK { // what came beside the one that was waited for
					a = ask.send(i)
				}
				m.clock.pass(a.overBudget())
				ask.send(i).is(http.StatusOK)
			}
		}
	})
}

// Rows: VO-X3
func TestABucketOfSixtyThenPassesOneASecond(t *testing.T) {
	cfg := ratelimit.Default()
	cfg.Read = must(ratelimit.ParseRate("60/1m"))
	cfg.Ingestion = cfg.Read
	limited(t, cfg, func(t *testing.T, m *memory) {
		for name, send := range map[string]func(i int) answer{
			"read":      func(i int) answer { return m.look(m.pat, i) },
			"ingestion": func(i int) answer { return m.post(roots(i)+"/build-events/", m.build("success")) },
		} {
			for i := range 60 {
				send(i).is(http.StatusOK)
			}
			for i := range 5 {
				if wait := send(i).overBudget(); wait != time.Second {
					t.Errorf("%s: wait %v, want a second", name, wait)
				}
				m.clock.pass(time.Second)
				send(i).is(http.StatusOK)
			}
		}
	})
}

// Rows: VT-X2
func TestABurstAboveTheRateHolds(t *testing.T) {
	cfg := ratelimit.Default()
	cfg.Read, cfg.EventsWrite = must(ratelimit.ParseRate("60/1m,burst=100")), must(ratelimit.ParseRate("300/1m,burst=500"))
	limited(t, cfg, func(t *testing.T, m *memory) {
		for _, class := range []struct {
			token            string
			burst, perSecond int
		}{{m.pat, 100, 1}, {m.token("pat", "sync-trigger"), 500, 5}} {
			for range 2 {
				now := m.clock.read()
				for i := range class.burst {
					m.look(class.token, i).is(http.StatusOK)
				}
				m.look(class.token, 0).budget(class.burst, 0, now.Add(100*time.Second)).overBudget()
				m.clock.pass(3 * time.Second)
				for i := range 3 * class.perSecond {
					m.look(class.token, i).is(http.StatusOK)
				}
				m.look(class.token, 1).overBudget()
				m.clock.pass(time.Hour)
			}
		}
	})
}

// Rows: VO-X4
func TestErrorsTellTheBudgetAndOnlySomeWhenToTryAgain(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		m.post("/deployment-events/", m.deployment("started", body{"invoke_id": "1"})).is(http.StatusOK)
		m.built(m.build("success", body{"scm_sha": shaA}))
		for i := range 2 {
			root := roots(i)
			for want, a := range map[int]answer{
				400: m.post(root+"/build-events/", "{"),
				403: m.get(root+"/deployments/", as(m.key)),
				404: m.get(root + "/deployments/" + ulid.Make().String()),
				405: m.send(http.MethodDelete, root+"/deployments/", "", as(m.admin)),
				409: m.post(root+"/deployment-events/", m.deployment("started", body{"invoke_id": "2"})),
				413: m.post(root+"/build-events/", `{"product_name":"`+strings.Repeat("x", 256<<10)+`"}`, chunked),
				422: m.post(root+"/build-events/", body{}),
				200: m.get(root + "/matrix"),
			} {
				a.is(want)
				for _, name := range []string{"Limit", "Remaining", "Reset"} {
					if _, err := strconv.ParseUint(a.header.Get("X-RateLimit-"+name), 10, 63); err != nil {
						t.Errorf("%d: X-RateLimit-%s: %v", want, name, err)
					}
				}
				if after := a.header.Get("Retry-After"); after != "" {
					t.Errorf("%d: Retry-After is %s", want, after)
				}
			}
			m.post(root+"/build-events/", m.build("success", body{"scm_sha": shaB})).fails(409, "VERSION_SHA_MISMATCH")
		}
		for _, token := range []string{"", "sk_acme_k1_x"} { // nobody has no budget
			if a := m.get("/deployments/", as(token)).is(http.StatusUnauthorized); a.header.Get("X-RateLimit-Limit") != "" {
				t.Errorf("401 tells a budget: %v", a.header)
			}
		}
	})
}

func TestABatchCountsItsEventsAndTakesTheRefusedOnesAgain(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		items := make([]any, 1200)
		for i := range items {
			items[i] = m.build("success", body{"invoke_id": strconv.Itoa(i)})
		}
		m.array(items[:600]).shows(body{"accepted": 600, "refused": 0}).budget(1000, 400, startTime.Add(36*time.Second))
		a := m.lines(items[600:]).is(http.StatusOK).shows(body{
			"accepted": 400, "refused": 200, "results.399.status": 200,
			"results.400.status": 429, "results.400.error.code": "RATE_LIMIT_EXCEEDED", "results.400.error.type": "rate_limit_error",
			"results.599.status": 429,
		}).budget(1000, 0, startTime.Add(time.Minute))
		if after := a.header.Get("Retry-After"); after != "" {
			t.Errorf("an accepted batch says Retry-After: %s", after)
		}
		m.post("/build-events/", m.build("success")).overBudget()
		m.array(items[1000:]).is(http.StatusOK).shows(body{"accepted": 0, "refused": 200})
		m.clock.pass(12 * time.Second)
		m.array(items[1000:]).is(http.StatusOK).shows(body{"accepted": 200, "refused": 0}).budget(1000, 0, startTime.Add(72*time.Second))
		for _, refused := range []string{`[`, `{}`} { // what is not read costs nothing, and says what is left
			m.batch(refused).is(http.StatusBadRequest).budget(1000, 0, startTime.Add(72*time.Second))
		}
	})
}

func TestLoadingHistoryIsNotCounted(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		items := make([]any, 1000)
		for i := range items {
			items[i] = m.build("success", body{"invoke_id": strconv.Itoa(i), "completed_at": "2025-01-01T00:00:00Z"})
		}
		for range 2 {
			m.load(items).is(http.StatusOK).shows(body{"refused": 0}).budget(1000, 1000, startTime)
		}
		m.post("/build-events/", m.build("success"), as(m.admin)).is(http.StatusOK).budget(1000, 999, startTime.Add(time.Second))
	})
}
