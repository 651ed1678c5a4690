package contract_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A step is something that one of two accounts does. Both use the same names.
type step struct {
	Account, Does                string
	Product, Environment, Status string
	Version, Run                 int
}

var steps = rapid.Custom(func(t *rapid.T) step {
	return step{
		Account:     rapid.SampledFrom([]string{acme, other}).Draw(t, "account"),
		Does:        rapid.SampledFrom([]string{"deploy", "deploy", "deploy", "build", "key", "suspend", "batch"}).Draw(t, "does"),
		Product:     rapid.SampledFrom([]string{"shop", "cart"}).Draw(t, "product"),
		Environment: rapid.SampledFrom([]string{"production", "staging"}).Draw(t, "environment"),
		Status:      rapid.SampledFrom([]string{"started", "completed", "failed"}).Draw(t, "status"),
		Version:     rapid.IntRange(1, 3).Draw(t, "version"),
		Run:         rapid.IntRange(1, 3).Draw(t, "run"),
	}
})

// take does a step and tells how it was answered.
func (m *memory) take(s step) answer {
	key, admin := as(m.tokenOf(s.Account, "sk", "events:write")), as(m.tokenOf(s.Account, "pat", "admin"))
	event := body{
		"product_name": s.Product, "version": strconv.Itoa(s.Version), "status": s.Status, "invoke_id": "run-" + strconv.Itoa(s.Run),
		"scm_sha": strings.Repeat(strconv.Itoa(s.Run), 40),
	}
	switch s.Does {
	case "build":
		return m.post("/build-events/", event, key)
	case "batch":
		deployment := event.with(body{"environment_name": s.Environment})
		return m.post("/events/batch", deployment.String()+"\n"+event.String(), key, header("Content-Type", "application/x-ndjson"))
	case "key":
		a := m.manage(http.MethodPost, keysPath, wanted(s.Product), admin)
		if a.status == http.StatusCreated {
			m.secrets = append(m.secrets, a.text("secret"))
		}
		return a
	case "suspend":
		keys := m.send(http.MethodGet, keysPath+"?name="+s.Product, "", admin).is(http.StatusOK)
		numbers, ids := keys.each("items", "key_id"), keys.each("items", "id")
		if len(ids) == 0 {
			return m.send(http.MethodGet, keysPath, "", admin)
		}
		first := slices.Index(numbers, slices.Min(numbers)) // the same one in both systems, in whichever order they are listed
		return m.manage(http.MethodPost, keysPath+ids[first]+"/suspend", nil, admin)
	}
	return m.post("/deployment-events/", event.with(body{"environment_name": s.Environment}), key)
}

// A view is everything that an account can see, by path, without what names a
// moment, a place in the log that both share, or a random part.
func (m *memory) view(account string) map[string]any {
	m.t.Helper()
	admin := as(m.tokenOf(account, "pat", "admin"))
	// Everything is readable from here on.
	m.read("/deployments/", admin)
	last := must(m.credentials.Last(m.t.Context()))
	m.read("/events/?min_position=c."+strconv.FormatUint(last, 10)+".0", admin)
	seen := map[string]any{}
	for _, op := range document.Operations() {
		if op.Public || op.Method != http.MethodGet || strings.Contains(op.Path, "{") || strings.HasSuffix(op.Path, "/stream") {
			continue
		}
		if op.Service == "projector" || op.Path == "/usage/" {
			continue // of the tables of all; what was used is written down every two seconds
		}
		a := m.send(http.MethodGet, op.Path, "", admin)
		if strings.Contains(a.header.Get("Content-Type"), "json") {
			var v any
			if err := json.Unmarshal(a.raw, &v); err == nil {
				seen[op.Path] = body{"status": a.status, "body": sameInBoth(v)}
			}
		}
	}
	return seen
}

var (
	ulidText    = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`)
	tokenIDText = regexp.MustCompile(`^[0-9A-Za-z]{12}$`)
	momentText  = regexp.MustCompile(`^\d{4}-\d\d-\d\dT`)
)

// sameInBoth takes out of an answer what differs between two systems that were
// told the same.
func sameInBoth(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"as_of", "next_cursor", "position", "positions", "request_id", "token_id", "last4", "last_used_at", "last_used_ip", "last_used_user_agent", "unused_30d"} {
			delete(v, name)
		}
		for _, name := range slices.Collect(maps.Keys(v)) {
			v[name] = sameInBoth(v[name])
		}
	case []any:
		for i := range v {
			v[i] = sameInBoth(v[i])
		}
		// What was made within a millisecond is listed in any order.
		slices.SortFunc(v, func(a, b any) int { return bytes.Compare(must(json.Marshal(a)), must(json.Marshal(b))) })
	case string:
		if ulidText.MatchString(v) || tokenIDText.MatchString(v) || momentText.MatchString(v) {
			return "differs"
		}
	}
	return v
}

// What acme sees and is told beside a busy neighbour of the same names is what
// it sees and is told alone: the neighbour's steps change, show and count nothing.
func TestWhatOneAccountDoesChangesNothingForAnother(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		todo := rapid.SliceOfN(steps, 1, 24).Draw(r, "steps")
		together, alone := onMemory(t), onMemory(t)
		defer together.stop()
		defer alone.stop()
		for i, s := range todo {
			beside := together.take(s)
			if s.Account == acme {
				if by := alone.take(s); by.status != beside.status {
					r.Fatalf("step %d %+v: %d alone, %d beside another account: %s", i, s, by.status, beside.status, beside.raw)
				}
			}
		}
		want, got := alone.view(acme), together.view(acme)
		if len(want) < 10 {
			r.Fatalf("only %d routes were compared", len(want))
		}
		for path := range want {
			if w, g := must(json.Marshal(want[path])), must(json.Marshal(got[path])); string(w) != string(g) {
				r.Fatalf("%s\nalone:  %s\nbeside: %s", path, w, g)
			}
		}
	})
}
