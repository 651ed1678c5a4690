package contract_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// tellsBudget checks what every answer to somebody carries, and when to try
// again only where the contract says so.
func (a answer) tellsBudget() {
	a.t.Helper()
	for _, name := range []string{"Limit", "Remaining", "Reset"} {
		if _, err := strconv.ParseUint(a.header.Get("X-RateLimit-"+name), 10, 63); err != nil {
			a.t.Errorf("%s (%d): X-RateLimit-%s: %v", a.of, a.status, name, err)
		}
	}
	after, err := strconv.Atoi(a.header.Get("Retry-After"))
	switch {
	case a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable:
		if err != nil || after < 1 {
			a.t.Errorf("%s (%d): Retry-After is %q", a.of, a.status, a.header.Get("Retry-After"))
		}
	case a.header.Get("Retry-After") != "":
		a.t.Errorf("%s (%d): Retry-After is %q", a.of, a.status, a.header.Get("Retry-After"))
	}
}

// everyRate gives budgets that are all alike.
func everyRate(text string) ratelimit.Config {
	r := must(ratelimit.ParseRate(text))
	return ratelimit.Config{Ingestion: r, AccountIngestion: r, Read: r, EventsWrite: r, Write: r, Session: r}
}

// somebody gives the operations that somebody is needed for; log-out, which ends
// a session, comes last.
func somebody() []*httpapi.Operation {
	out := slices.DeleteFunc(document.Operations(), func(op *httpapi.Operation) bool { return op.Public })
	slices.SortStableFunc(out, func(a, b *httpapi.Operation) int {
		return strings.Count(a.Path, "logout") - strings.Count(b.Path, "logout")
	})
	return out
}

// Every documented operation is asked by a credential of each kind and scope:
// with a request that cannot be acted upon, and reads also with one that can,
// for what is there, for what is not, and for what has not changed.
//
// Rows: VF-12, VO-X4
func TestEveryAnswerOfEveryOperationTellsTheBudget(t *testing.T) {
	limited(t, everyRate("100000/1m"), func(t *testing.T, m *memory) {
		m.post("/deployment-events/", m.deployment("started", body{"invoke_id": "running"})).is(http.StatusOK)
		run := m.deployed(m.deployment("success", body{"environment_name": "staging"}))
		m.read("/deployments/")
		seen := map[int]int{}
		tells := func(a answer) answer {
			a.tellsBudget()
			seen[a.status]++
			return a
		}
		ids := map[string]string{
			"deployments": run.id(), "products": run.text("product_id"), "environments": run.text("environment_id"), "versions": run.text("version_id"), "events": run.text("event_id"),
		}
		bearers := slices.DeleteFunc(m.bearers(), func(b bearer) bool { return b.dead != "" })
		for _, op := range somebody() {
			for _, b := range bearers {
				path, text := spoiled(op)
				tells(m.send(op.Method, path, text, as(b.token), header("Content-Type", "application/json")))
				if status, _ := b.says(op); op.Method != http.MethodGet || status != 0 {
					continue
				}
				segments := strings.Split(op.Path, "/")
				for _, id := range []string{ids[segments[1]], ulid.Make().String()} {
					a := tells(m.send(op.Method, strings.ReplaceAll(op.Path, "{id}", id), "", as(b.token)))
					if tag := a.header.Get("ETag"); tag != "" {
						tells(m.send(op.Method, strings.ReplaceAll(op.Path, "{id}", id), "", as(b.token), header("If-None-Match", tag))).is(http.StatusNotModified)
					}
				}
			}
		}
		// What the generated requests do not come to.
		tells(m.post("/deployment-events/", m.deployment("started", body{"invoke_id": "second"}))).is(http.StatusConflict)
		environment := tells(m.manage(http.MethodPost, environmentsPath, body{"name": "short-lived"})).is(http.StatusCreated)
		tells(m.manage(http.MethodDelete, environmentsPath+environment.id(), nil)).is(http.StatusNoContent)
		key, _ := m.created(keysPath, wanted("short-lived"))
		tells(m.manage(http.MethodDelete, keysPath+key.id(), nil)).is(http.StatusNoContent)
		tells(m.manage(http.MethodDelete, keysPath+key.id(), nil)).is(http.StatusConflict)
		tells(m.send(http.MethodDelete, "/deployments/", "", as(m.admin))).is(http.StatusMethodNotAllowed)
		tells(m.send(http.MethodPost, "/auth/logout", "", as(m.signedIn(acme, credential.RoleViewer)))).is(http.StatusNoContent)

		// Reads that wait for what does not come, all at once.
		future := m.trackOf(acme) + "." + strconv.FormatUint(m.frames()+1000, 10) + ".0"
		var late []answer
		var mu sync.Mutex
		var all sync.WaitGroup
		for _, path := range []string{"/deployments/", "/matrix", "/events/", "/usage/", "/releases/", "/exports/deployments", "/exports/events"} {
			all.Go(func() {
				a := m.send(http.MethodGet, where(path, "min_position", future), "", as(m.admin))
				mu.Lock()
				defer mu.Unlock()
				late = append(late, a)
			})
		}
		all.Wait()
		for _, a := range late {
			tells(a).is(http.StatusServiceUnavailable)
		}
		for _, status := range []int{200, 201, 204, 304, 400, 403, 404, 405, 409, 422, 503} {
			if seen[status] == 0 {
				t.Errorf("no answer was %d", status)
			}
		}
		t.Logf("answers by status: %s", counted(seen))
	})
}

// Rows: VF-12, VO-X4
func TestEveryOperationRefusesOverTheBudgetAndSaysWhenToComeAgain(t *testing.T) {
	limited(t, everyRate("1/1h"), func(t *testing.T, m *memory) {
		tokens := map[credential.Kind]string{
			credential.APIKey: m.token("sk", "admin"), credential.PAT: m.admin, credential.Session: m.signedIn(acme, credential.RoleAdmin),
		}
		for _, token := range tokens { // their budgets are for what follows
			m.send(http.MethodGet, "/environments/", "", as(token))
			m.send(http.MethodPost, "/build-events/", "{}", as(token))
		}
		refused := map[int]int{}
		for _, op := range somebody() {
			for kind, token := range tokens {
				if op.PerItem || op.Ingestion && kind == credential.Session {
					continue // charged for what is in it; no session sends events
				}
				path, text := spoiled(op)
				a := m.send(op.Method, path, text, as(token), header("Content-Type", "application/json"))
				a.tellsBudget()
				if a.status != http.StatusTooManyRequests {
					t.Errorf("%s: %d", a.of, a.status)
				}
				if got := a.header.Get("X-RateLimit-Remaining"); got != "0" {
					t.Errorf("%s: %s remain", a.of, got)
				}
				refused[a.status]++
			}
		}
		t.Logf("answers by status: %s", counted(refused))
	})
}

func counted(by map[int]int) string {
	var out []string
	for _, status := range slices.Sorted(maps.Keys(by)) {
		out = append(out, fmt.Sprintf("%d: %d", status, by[status]))
	}
	return strings.Join(out, ", ")
}

// Rows: VO-04
func TestOneTokenReadsOverRESTAndMCPAndIsUsedByBoth(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		made, secret := m.created(tokensPath, wanted("both", body{"scope": "read"}))
		m.deployed(m.deployment("success"))
		used := func() (time.Time, string) {
			t.Helper()
			m.usage.Share(t.Context()) // as every 2 seconds
			a := m.manage(http.MethodGet, tokensPath+made.id(), nil).is(http.StatusOK)
			return must(time.Parse(time.RFC3339Nano, a.text("last_used_at"))), a.text("last_used_user_agent")
		}
		before := time.Now().Add(-time.Second)
		for round := range 2 {
			for _, surface := range []struct {
				agent string
				ask   func(options ...option)
			}{
				{"rest/1", func(options ...option) { m.get("/deployments/", options...).is(http.StatusOK) }},
				{"agent/1", func(options ...option) {
					m.tool("get_deployment_status", body{"product": m.product, "environment": "production"}, options...)
				}},
			} {
				surface.ask(as(secret), header("User-Agent", surface.agent))
				at, agent := used()
				if !at.After(before) || at.After(time.Now()) {
					t.Errorf("round %d, %s: last used at %v, before that at %v", round, surface.agent, at, before)
				}
				if surface.agent == "rest/1" {
					differ(t, "last used with", surface.agent, agent)
				}
				before = at
			}
		}
		m.manage(http.MethodDelete, tokensPath+made.id(), nil).is(http.StatusNoContent)
		m.get("/deployments/", as(secret)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
		m.ask(message("tools/list", body{}), as(secret)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
	})
}
