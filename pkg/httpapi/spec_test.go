package httpapi_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/schemas"
)

func spec(tb testing.TB) *httpapi.Spec {
	tb.Helper()
	s, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestEveryOperationSaysWhoMayCallItAndWhoAnswers(t *testing.T) {
	for _, op := range spec(t).Operations() {
		if op.Service == "" || !op.Public && (len(op.Kinds) == 0 || len(op.Scopes) == 0) {
			t.Errorf("%s %s leaves it open", op.Method, op.Path)
		}
		if op.Ingestion && (op.Service != "ingest" || !slices.Equal(op.Scopes, []credential.Scopes{credential.EventsWrite})) {
			t.Errorf("%s %s: not what a key for events may do", op.Method, op.Path)
		}
	}
}

// Rows: VR-35
func TestNoIngestionOperationTakesAWebSession(t *testing.T) {
	var d struct {
		Paths map[string]map[string]struct {
			Security []map[string]any `json:"security"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(schemas.OpenAPI, &d); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, nil)
	for _, op := range f.spec.Operations() {
		var cookie bool
		for _, scheme := range d.Paths[op.Path][strings.ToLower(op.Method)].Security {
			_, has := scheme["cookie"]
			cookie = cookie || has
		}
		if session := slices.Contains(op.Kinds, credential.Session); cookie != session || op.Ingestion && session {
			t.Errorf("%s %s: the document says session %t, cookie %t", op.Method, op.Path, session, cookie)
		}
		if !op.Ingestion {
			continue
		}
		if a := f.send(op.Method, op.Path, "eyJ.admin", "{}"); a.status != 403 || a.code(t) != "WRONG_CREDENTIAL_KIND" {
			t.Errorf("%s %s with a session: %d %s", op.Method, op.Path, a.status, a.body)
		}
		if a := f.send(op.Method, op.Path, "", "{}", "Cookie", "__session=eyJ.admin", "Origin", "http://example.com"); a.status != 403 {
			t.Errorf("%s %s with the cookie: %d %s", op.Method, op.Path, a.status, a.body)
		}
	}
}

func TestADocumentThatLeavesPermissionOpenIsRefused(t *testing.T) {
	broken := strings.Replace(string(schemas.OpenAPI), `"x-shipledger-scope": "read"`, `"x-unknown": "read"`, 1)
	if _, err := httpapi.ParseSpec([]byte(broken)); err == nil {
		t.Error("an operation without a scope was accepted")
	}
}

// A body can be wrong in very many places. Neither the answer nor the time that
// it takes may grow with them.
func TestABodyWithManyFaultsIsToldSomeOfThem(t *testing.T) {
	items := `{"value":"v","name":"n","expires":"30d","scopes":[` + strings.Repeat("1,", 100_000) + `1]}`
	faults, err := spec(t).CheckBody("ImportAPIKey", []byte(items))
	if err != nil || len(faults) != 1000 {
		t.Errorf("%d faults, %v", len(faults), err)
	}
}
