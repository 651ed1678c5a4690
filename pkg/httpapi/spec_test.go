package httpapi_test

import (
	"strings"
	"testing"

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
		if op.Ingestion != (op.Service == "ingest") {
			t.Errorf("%s %s: ingestion and service disagree", op.Method, op.Path)
		}
	}
}

func TestADocumentThatLeavesPermissionOpenIsRefused(t *testing.T) {
	broken := strings.Replace(string(schemas.OpenAPI), `"x-shipledger-scope": "read"`, `"x-unknown": "read"`, 1)
	if _, err := httpapi.ParseSpec([]byte(broken)); err == nil {
		t.Error("an operation without a scope was accepted")
	}
}
