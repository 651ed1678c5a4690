package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

// A 404 would be taken for a fact by whoever asks for a deployment.
func TestAProcessThatDoesNotAnswerAnOperationSaysSo(t *testing.T) {
	s := spec(t)
	handlers := httpapi.Handlers{"getHealth": httpapi.ServeHealth(func(*httpapi.Request) httpapi.Health {
		return httpapi.Health{Status: httpapi.HealthOK, Parts: map[string]string{}}
	})}
	for _, op := range s.Operations() {
		if op.Service == "query" {
			handlers[op.ID] = func(w http.ResponseWriter, _ *httpapi.Request) error { w.WriteHeader(http.StatusOK); return nil }
		}
	}
	api, err := httpapi.New(httpapi.Config{Spec: s, Services: []string{"query"}, Authenticator: known()}, handlers)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string) (int, string, http.Header) {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest(method, path, http.NoBody))
		var body common
		_ = json.Unmarshal(w.Body.Bytes(), &body)
		return w.Code, body.Error.Code, w.Header()
	}
	for _, op := range s.Operations() {
		path := strings.NewReplacer("{", "", "}", "").Replace(op.Path)
		status, code, _ := ask(op.Method, path)
		foreign := op.Service != "query" && op.Service != httpapi.Everywhere
		if foreign != (status == http.StatusMisdirectedRequest && code == "MISDIRECTED") {
			t.Errorf("%s %s of %s: %d %s", op.Method, op.Path, op.Service, status, code)
		}
	}
	if status, _, _ := ask("GET", "/nowhere"); status != http.StatusNotFound {
		t.Errorf("a path that nobody answers: %d", status)
	}
	status, _, header := ask("TRACE", "/products/x")
	if allow := header.Get("Allow"); status != http.StatusUnauthorized && (status != http.StatusMethodNotAllowed || !strings.Contains(allow, "PATCH")) {
		t.Errorf("a method that nobody answers: %d, allowed: %s", status, allow)
	}
}

func TestTheTableOfRoutesNamesTheServiceOfEveryOperation(t *testing.T) {
	s := spec(t)
	routes := httpapi.NewRoutes(s)
	for _, op := range s.Operations() {
		for _, prefix := range []string{"", "/api/v1", "//"} {
			path := prefix + strings.NewReplacer("{", "", "}", "").Replace(op.Path)
			r := httptest.NewRequest(op.Method, "http://ledger"+path, http.NoBody)
			if got := routes.Service(r); got != op.Service {
				t.Errorf("%s %s: %q, want %q", op.Method, path, got, op.Service)
			}
		}
	}
	if got := routes.Service(httptest.NewRequest(http.MethodGet, "/nowhere", http.NoBody)); got != "" {
		t.Errorf("a path that is not there: %q", got)
	}
}
