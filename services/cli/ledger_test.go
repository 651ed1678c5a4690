package cli_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
)

// ledger is a server as the batch contract describes it: it keeps runs, answers
// what it has as duplicates, and refuses what lacks a required field.
type ledger struct {
	*httptest.Server

	// before may answer a call in the ledger's place by returning true; call counts from 1.
	before func(call int, w http.ResponseWriter, r *http.Request) bool
	// instead may answer an item of a call in the ledger's place: status and members.
	instead func(call int, e body) (int, string)

	mu    sync.Mutex
	calls int
	sizes []int  // items in each call that was read
	seen  []body // items as they arrived, repeats included
	kept  []body // what is stored, in order
	runs  map[string]bool
}

const adminToken = "pat_adm1n_secret"

// body is an event as the server reads it.
type body struct {
	Kind            string            `json:"kind"`
	Product         string            `json:"product_name"`
	Version         string            `json:"version"`
	Environment     string            `json:"environment_name"`
	Status          string            `json:"status"`
	Source          string            `json:"source_system"`
	BuildNumber     string            `json:"build_number"`
	SHA             string            `json:"scm_sha"`
	Branch          string            `json:"scm_branch"`
	Repository      string            `json:"scm_repository"`
	BuildURL        string            `json:"build_url"`
	DeployURL       string            `json:"deploy_url"`
	InvokeID        string            `json:"invoke_id"`
	BuiltBy         string            `json:"built_by"`
	BuiltByEmail    string            `json:"built_by_email"`
	BuiltByName     string            `json:"built_by_name"`
	DeployedBy      string            `json:"deployed_by"`
	DeployedByEmail string            `json:"deployed_by_email"`
	DeployedByName  string            `json:"deployed_by_name"`
	StartedAt       string            `json:"started_at"`
	CompletedAt     string            `json:"completed_at"`
	ErrorMessage    string            `json:"error_message"`
	Extra           map[string]string `json:"extra_metadata"`
}

func newLedger(t *testing.T) *ledger {
	l := &ledger{runs: map[string]bool{}}
	l.Server = httptest.NewServer(http.HandlerFunc(l.serve))
	t.Cleanup(l.Close)
	return l
}

func (l *ledger) serve(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.before != nil && l.before(l.calls, w, r) {
		return
	}
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/events/batch" || r.URL.Query().Get("backfill") != "true":
		fail(w, http.StatusNotFound, "NOT_FOUND", "Not found")
		return
	case r.Header.Get("Authorization") != "Bearer "+adminToken:
		fail(w, http.StatusUnauthorized, "AUTH_INVALID_KEY", "invalid or missing api key")
		return
	case r.Header.Get("Content-Type") != "application/x-ndjson":
		fail(w, http.StatusBadRequest, "UNSUPPORTED_MEDIA_TYPE", "wrong media type")
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8<<20))
	items := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if err != nil || len(items) > 1000 {
		fail(w, http.StatusRequestEntityTooLarge, "BATCH_TOO_LARGE", "too large")
		return
	}
	l.sizes = append(l.sizes, len(items))
	var accepted, duplicate, refused int
	var results []string
	for i, line := range items {
		var e body
		status, members := 0, ""
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			status, members = http.StatusBadRequest, `"detail":"Invalid JSON in request body"`
		}
		l.seen = append(l.seen, e)
		if status == 0 && l.instead != nil {
			status, members = l.instead(l.calls, e)
		}
		run := strings.Join([]string{e.Kind, e.Product, e.Environment, e.Version, e.InvokeID, e.Status}, "\x00")
		switch {
		case status != 0:
			refused++
		case e.Product == "" || e.InvokeID == "":
			status = http.StatusUnprocessableEntity
			members = `"detail":[{"loc":["body","product_name"],"msg":"field required","type":"value_error.missing"}],` +
				`"error":{"code":"VALIDATION_ERROR","message":"one field is wrong"}`
			refused++
		case l.runs[run]:
			status, members = http.StatusOK, `"id":"01"`
			duplicate++
		default:
			status, members = http.StatusOK, `"id":"01"`
			accepted++
			l.runs[run] = true
			l.kept = append(l.kept, e)
		}
		results = append(results, fmt.Sprintf(`{"index":%d,"status":%d,%s}`, i, status, members))
	}
	w.Header().Set("X-Shipledger-Position", fmt.Sprintf("t0.%d.0", l.calls))
	out := bufio.NewWriter(w)
	_, _ = fmt.Fprintf(out, `{"accepted":%d,"duplicate":%d,"refused":%d,"results":[%s]}`,
		accepted, duplicate, refused, strings.Join(results, ","))
	_ = out.Flush()
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"detail":%q,"success":false,"error":{"type":"api_error","code":%q,"message":%q}}`,
		http.StatusText(status), code, message)
}

// versions gives the versions of events, in order.
func versions(events []body) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.Version)
	}
	return out
}
