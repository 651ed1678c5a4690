package apidocs_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/apidocs"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/httpapi/httpapitest"
	"github.com/shipledger/shipledger/schemas"
)

// pages serves the operations of this package and nothing else of the document.
func pages(t *testing.T) (*httpapi.Spec, http.Handler) {
	t.Helper()
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	handlers := apidocs.Handlers()
	for _, op := range spec.Operations() {
		if handlers[op.ID] == nil && op.Service == "query" {
			handlers[op.ID] = func(http.ResponseWriter, *httpapi.Request) error { return httpapi.NotFound("page") }
		}
	}
	handlers["getHealth"] = httpapi.ServeHealth(func(*httpapi.Request) httpapi.Health { return httpapi.Health{} })
	api, err := httpapi.New(httpapi.Config{
		Spec: spec, Services: []string{"query"}, Logger: slog.New(slog.DiscardHandler),
	}, handlers)
	if err != nil {
		t.Fatal(err)
	}
	return spec, api
}

func get(api http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	return w
}

var loaded = regexp.MustCompile(`(?:src|href)="([^"]*)"`)

// Rows: VR-29
func TestThePagesLoadFromThisServerAlone(t *testing.T) {
	spec, api := pages(t)
	for _, page := range []string{"/docs", "/redoc", "/api/v1/docs", "/docs/"} {
		w := get(api, page)
		httpapitest.CheckResponse(t, spec, http.MethodGet, page, w.Code, w.Header(), w.Body.Bytes())
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d", page, w.Code)
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; script-src 'self';") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", page, csp)
		}
		found := 0
		for _, m := range loaded.FindAllStringSubmatch(w.Body.String(), -1) {
			if m[1] == "data:," {
				continue // no icon
			}
			if !strings.HasPrefix(m[1], "/docs/") {
				t.Errorf("%s loads %s", page, m[1])
				continue
			}
			found++
			part := get(api, m[1])
			httpapitest.CheckResponse(t, spec, http.MethodGet, m[1], part.Code, part.Header(), part.Body.Bytes())
			if part.Code != http.StatusOK || part.Body.Len() == 0 {
				t.Errorf("%s: %d, %d bytes", m[1], part.Code, part.Body.Len())
			}
			again := get(api, m[1], "If-None-Match", part.Header().Get("ETag"))
			if again.Code != http.StatusNotModified {
				t.Errorf("%s with its ETag: %d", m[1], again.Code)
			}
		}
		if found < 2 {
			t.Errorf("%s loads %d files", page, found)
		}
	}
}

func TestAFileThatNoPageLoadsIsNotFound(t *testing.T) {
	spec, api := pages(t)
	for _, path := range []string{"/docs/docs.html", "/docs/redoc.LICENSE", "/docs/nothing"} {
		w := get(api, path)
		httpapitest.CheckResponse(t, spec, http.MethodGet, path, w.Code, w.Header(), w.Body.Bytes())
		if w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
