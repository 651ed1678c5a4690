package ingest_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/ingest"
)

// anyone is an authenticator that costs nothing: verification has its own benchmark.
type anyone struct{}

func (anyone) Verify(string) (credential.Identity, error) {
	return credential.Identity{
		Kind: credential.APIKey, Account: "acme", PublicID: "k1", Name: "ci", Mode: event.Live, Scopes: credential.EventsWrite,
	}, nil
}

func handler(tb testing.TB, c *ingest.Committer) http.Handler {
	tb.Helper()
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		tb.Fatal(err)
	}
	service := ingest.New(spec, c)
	api, err := httpapi.New(httpapi.Config{Spec: spec, Services: []string{"ingest"}, Authenticator: anyone{}, Logger: slog.New(slog.DiscardHandler)},
		service.Handlers(), httpapi.Handlers{"getHealth": func(http.ResponseWriter, *httpapi.Request) error { return nil }})
	if err != nil {
		tb.Fatal(err)
	}
	return api
}

// reference is what the action sends for a deployment when nobody configured
// anything, as the benchmark of the whole system posts it.
func reference(i int) []byte {
	return fmt.Appendf(nil, `{"product_name":"checkout-service","version":"v2.14.%d","environment_name":"production","status":"success",`+
		`"scm_repository":"acme/checkout-service","scm_sha":"8d1c0a7b2e4f5061728394a5b6c7d8e9f0a1b2c3","source_system":"github",`+
		`"build_number":"%d","invoke_id":"1745%d","deploy_url":"https://github.com/acme/checkout-service/actions/runs/9876543210",`+
		`"deployed_by":"ada","deployed_by_email":"ada@users.noreply.example.com","deployed_by_name":"Ada","completed_at":"2026-05-04T09:00:00Z",`+
		`"extra_metadata":{"vi_gh_workflow":"Deploy","vi_gh_job":"deploy","vi_gh_run_attempt":"1","vi_gh_event_name":"push","vi_gh_ref":"refs/heads/main"}}`, i%50, i, i)
}

// reportCPU tells the processor time of the whole process per operation, which
// holds on a busy machine too; the time of the clock does not.
func reportCPU(b *testing.B) func() {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64((used()-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

// BenchmarkSingleEvents is the whole way of an event but for the network, the
// credential and the disk, 64 at a time.
func BenchmarkSingleEvents(b *testing.B) {
	h := handler(b, run(b, memlog.New(), time.Now))
	b.ReportAllocs()
	b.SetParallelism(32)
	defer reportCPU(b)()
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := httptest.NewRequest(http.MethodPost, "/deployment-events/", bytes.NewReader(reference(int(n.Add(1)))))
			r.Header.Set("Authorization", "Bearer x")
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				b.Error(w.Code, w.Body.String())
				return
			}
		}
	})
}

// BenchmarkBatches posts 1,000 events a request; the figures are per event.
func BenchmarkBatches(b *testing.B) {
	h := handler(b, run(b, memlog.New(), time.Now))
	b.ReportAllocs()
	defer reportCPU(b)()
	n := 0
	for b.Loop() {
		if n++; n%1000 != 0 {
			continue
		}
		var body bytes.Buffer
		for i := range 1000 {
			body.Write(reference(n + i))
			body.WriteByte('\n')
		}
		r := httptest.NewRequest(http.MethodPost, "/events/batch", &body)
		r.Header.Set("Authorization", "Bearer x")
		r.Header.Set("Content-Type", "application/x-ndjson")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body.String())
		}
	}
}
