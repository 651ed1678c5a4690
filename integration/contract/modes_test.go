package contract_test

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// A told is what an operation was answered with.
type told struct {
	operation, grant string
	status           int
	body             string
}

// keysOf makes a key of each scope, in a mode.
func (m *memory) keysOf(mode event.Mode) map[string]string {
	m.t.Helper()
	out := map[string]string{}
	for i, grant := range apiGrants {
		out[grant] = m.mint(m.t, credential.Record{
			Kind: credential.APIKey, Account: acme, Name: grant, Mode: mode, PublicID: credential.KeyID(mode, 100+i),
			Scopes: must(credential.ParseScopes(credential.APIKey, []string{grant})),
		})
	}
	m.caughtUp()
	return out
}

var apiGrants = []string{"events:write", "read", "sync-trigger", "write", "admin"}

// ofAPIKeys gives the documented operations that an API key may call.
func ofAPIKeys(wanted func(*httpapi.Operation) bool) []*httpapi.Operation {
	return slices.DeleteFunc(document.Operations(), func(op *httpapi.Operation) bool {
		return op.Public || !slices.Contains(op.Kinds, credential.APIKey) || !wanted(op)
	})
}

// An example is a ledger with one object of each kind.
type example struct {
	*memory
	ids     map[string]string // by the first segment of its path
	version string
}

func newExample(t *testing.T) example {
	t.Helper()
	m := onMemory(t)
	m.product = "compared" // by names, not by whose script it is
	run := m.deployed(m.deployment("success", body{"scm_sha": shaA}))
	built := m.built(m.build("success", body{"scm_sha": shaA}))
	release := m.manage(http.MethodPost, releasesPath, body{"name": "planned"}).is(http.StatusCreated)
	m.read("/deployments/")
	return example{m, map[string]string{
		"deployments": run.id(), "builds": built.id(), "products": run.text("product_id"), "environments": run.text("environment_id"),
		"versions": run.text("version_id"), "events": run.text("event_id"), "releases": release.id(),
	}, run.text("version_id")}
}

func (e *example) path(op *httpapi.Operation) string {
	return strings.NewReplacer("{id}", e.ids[strings.Split(op.Path, "/")[1]], "{version_id}", e.version).Replace(op.Path)
}

// The requests are generated from the document: every read that an API key may
// make, with a key of each scope in each mode, on one ledger.
//
// Rows: VT-05
func TestALiveAndATestKeyReadTheSame(t *testing.T) {
	t.Parallel()
	e := newExample(t)
	parameters := map[string]string{
		"getMatrixDiff": "?from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z", "getDora": "?from=2026-01-01T00:00:00Z&to=2026-06-01T00:00:00Z",
		"getCellHistory": "?product=compared&environment=production",
	}
	live, test := e.keysOf(event.Live), e.keysOf(event.Test)
	position := e.deployed(e.deployment("success", body{"environment_name": "last"})).header.Get("X-Shipledger-Position")
	keys := "c." + strconv.FormatUint(must(e.credentials.Last(t.Context())), 10) + ".0"
	e.get(where(eventsPath, "min_position", keys)).is(http.StatusOK) // all that was made is readable
	byStatus := map[int]int{}
	for _, op := range ofAPIKeys(func(op *httpapi.Operation) bool { return op.Method == http.MethodGet }) {
		for _, grant := range apiGrants {
			var got [2]told
			for i, key := range []string{live[grant], test[grant]} {
				options := []option{as(key)}
				if op.Service == "query" {
					options = append(options, header("X-Shipledger-Position", position))
				}
				a := e.send(op.Method, e.path(op)+parameters[op.ID], "", options...)
				text := strings.ReplaceAll(string(a.raw), a.header.Get("X-Request-Id"), "")
				got[i] = told{op.Method + " " + op.Path, grant, a.status, text}
				byStatus[a.status]++
			}
			if got[0] != got[1] {
				t.Errorf("%s with %s\nlive: %d %s\ntest: %d %s", got[0].operation, grant, got[0].status, got[0].body, got[1].status, got[1].body)
			}
		}
	}
	if byStatus[http.StatusOK] < 150 {
		t.Errorf("only %d answers were 200", byStatus[http.StatusOK])
	}
	t.Logf("answers by status: %s", counted(byStatus))
}

// sameForBoth takes out of an answer what tells which credential asked.
func sameForBoth(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"credential_id", "credential_name", "mode"} {
			delete(v, name)
		}
		for name := range v {
			v[name] = sameForBoth(v[name])
		}
	case []any:
		for i := range v {
			v[i] = sameForBoth(v[i])
		}
	}
	return v
}

// bodies are what operations take, beside those of events, by their ids.
var bodies = map[string]body{
	"createProduct": {"name": "made"}, "updateProduct": {"name": "renamed"},
	"createEnvironment": {"name": "made"}, "updateEnvironment": {"name": "renamed"},
	"createRelease": {"name": "made"}, "updateRelease": {"name": "renamed"},
	"updateSettings": {"preflight_strict": true},
}

// writesEverything sends a request to every operation that changes something and
// that API keys may call, with a key of each scope in a mode, on a ledger of its own.
func writesEverything(t *testing.T, mode event.Mode) (out []told) {
	t.Helper()
	e := newExample(t)
	keys := e.keysOf(mode)
	operations := ofAPIKeys(func(op *httpapi.Operation) bool { return op.Method != http.MethodGet })
	slices.SortStableFunc(operations, func(a, b *httpapi.Operation) int { // what is deleted is changed before
		return cmp.Or(cmp.Compare(strings.Count(a.Method, http.MethodDelete), strings.Count(b.Method, http.MethodDelete)), cmp.Compare(a.ID, b.ID))
	})
	for _, grant := range apiGrants {
		for _, op := range operations {
			text, contentType := "", "application/json"
			b, known := bodies[op.ID]
			switch {
			case op.ID == "postEventBatch":
				text, contentType = e.build("success", body{"invoke_id": "batch " + grant, "kind": "build"}).String()+"\n", "application/x-ndjson"
			case op.Ingestion:
				text = e.deployment("success", body{"invoke_id": grant, "environment_name": "env " + grant}).String()
			case op.ID == "addReleaseVersion":
				text = body{"version_id": e.version}.String()
			case known && b["name"] != nil:
				text = body{"name": b["name"].(string) + " " + grant}.String()
			case known:
				text = b.String()
			case op.Body != "":
				t.Errorf("%s %s: this test knows no body for it", op.Method, op.Path)
			}
			a := e.send(op.Method, e.path(op), text, as(keys[grant]), header("Content-Type", contentType))
			said := ""
			if len(a.raw) > 0 {
				said = string(must(json.Marshal(sameForBoth(sameInBoth(a.parsed())))))
			}
			out = append(out, told{op.Method + " " + op.Path, grant, a.status, said})
		}
	}
	return out
}

// Two ledgers are told the same by every write of the document, one of them by
// live keys and the other by test keys.
//
// Rows: VT-05
func TestALiveAndATestKeyWriteTheSame(t *testing.T) {
	t.Parallel()
	live, test := writesEverything(t, event.Live), writesEverything(t, event.Test)
	if len(live) != len(test) {
		t.Fatalf("%d and %d answers", len(live), len(test))
	}
	byStatus := map[int]int{}
	for i := range live {
		byStatus[live[i].status]++
		if live[i] != test[i] {
			t.Errorf("%s with %s\nlive: %d %s\ntest: %d %s", live[i].operation, live[i].grant, live[i].status, live[i].body, test[i].status, test[i].body)
		}
	}
	for _, status := range []int{http.StatusOK, http.StatusCreated, http.StatusNoContent, http.StatusForbidden} {
		if byStatus[status] == 0 {
			t.Errorf("no answer was %d", status)
		}
	}
	t.Logf("answers by status: %s", counted(byStatus))
}
