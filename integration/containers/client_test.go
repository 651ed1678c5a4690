package containers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

const answerWithin = 60 * time.Second

// credentials are those that the first start of a system made.
type credentials struct {
	APIKey string `json:"api_key"`
	PAT    string `json:"pat"`
}

func (s *system) credentials(holder string) credentials {
	s.t.Helper()
	file, err := s.parts[holder].CopyFileFromContainer(s.t.Context(), "/data/bootstrap-credentials.json")
	s.must("read the first credentials", err)
	defer file.Close()
	var c credentials
	s.must("read the first credentials", json.NewDecoder(file).Decode(&c))
	return c
}

// answer sends a request and gives what came, or that nothing did.
func (s *system) answer(ctx context.Context, method, path, token, body string) (status int, position, text string, err error) {
	base, err := s.url(ctx)
	if err != nil {
		return 0, "", "", err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader(body))
	if err != nil {
		return 0, "", "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header.Get("X-Shipledger-Position"), string(raw), err
}

// away tells whether an answer means that a part is away, not that the request is bad.
func away(status int, err error) bool {
	return err != nil || status == http.StatusServiceUnavailable || status == http.StatusBadGateway || status == http.StatusGatewayTimeout
}

// reporter is a pipeline that reports deployments one after the other, each until
// it is acknowledged, and keeps what was.
type reporter struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	acked    map[string]string // run → id of its deployment
	position string
	refused  int
	grown    chan struct{} // closed and replaced with each acknowledgement
}

// report starts one. product tells its deployments from those of others.
func (s *system) report(product, key string) *reporter {
	ctx, cancel := context.WithCancel(s.t.Context())
	r := &reporter{stop: cancel, acked: map[string]string{}, grown: make(chan struct{})}
	s.t.Cleanup(func() { cancel(); r.done.Wait() })
	r.done.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			r.one(ctx, s, fmt.Sprintf("%s-%d", product, n), key, product)
		}
	})
	return r
}

func (r *reporter) one(ctx context.Context, s *system, run, key, product string) {
	body := fmt.Sprintf(`{"product_name":%q,"version":%q,"environment_name":"production","status":"success","source_system":"github","invoke_id":%q}`, product, run, run)
	for {
		status, position, text, err := s.answer(ctx, http.MethodPost, "/deployment-events/", key, body)
		switch {
		case ctx.Err() != nil:
			return
		case status == http.StatusOK && err == nil:
			var made struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal([]byte(text), &made); err != nil {
				s.t.Errorf("an acknowledgement is %q", text)
			}
			r.mu.Lock()
			r.acked[run], r.position = made.ID, position
			close(r.grown)
			r.grown = make(chan struct{})
			r.mu.Unlock()
			return
		case away(status, err):
			r.mu.Lock()
			r.refused++
			r.mu.Unlock()
		default:
			s.t.Errorf("a good report is answered %d: %s", status, text)
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// goesOn waits for more acknowledgements, and gives how long they took.
func (r *reporter) goesOn(t *testing.T, more int) time.Duration {
	t.Helper()
	began := time.Now()
	hang := time.After(5 * time.Minute)
	r.mu.Lock()
	want := len(r.acked) + more
	r.mu.Unlock()
	for {
		r.mu.Lock()
		have, grown := len(r.acked), r.grown
		r.mu.Unlock()
		if have >= want {
			return time.Since(began)
		}
		select {
		case <-grown:
		case <-hang:
			t.Fatalf("no %d reports are acknowledged any more, only %d", more, have-want+more)
		}
	}
}

// settles ends a reporter and holds the system to all that it acknowledged: each
// run is read once, with the id that the acknowledgement gave, and the balance is
// exact.
func (s *system) settles(r *reporter, product, token string) {
	s.t.Helper()
	r.stop()
	r.done.Wait()
	seen := map[string]int{}
	for cursor, first := "", true; first || cursor != ""; first = false {
		q := url.Values{"product": {product}, "limit": {"100"}, "min_position": {r.position}}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		var page struct {
			Items []struct {
				ID     string `json:"id"`
				Invoke string `json:"invoke_id"`
			} `json:"items"`
			Next string `json:"next_cursor"`
		}
		s.read("/deployments/?"+q.Encode(), token, &page)
		for _, d := range page.Items {
			seen[d.Invoke]++
			if want, ok := r.acked[d.Invoke]; ok && want != d.ID {
				s.t.Errorf("run %s has the id %s, %s was acknowledged", d.Invoke, d.ID, want)
			}
		}
		cursor = page.Next
	}
	for run := range r.acked {
		if seen[run] != 1 {
			s.t.Errorf("run %s was acknowledged and is read %d times", run, seen[run])
		}
	}
	for run, n := range seen {
		if n != 1 {
			s.t.Errorf("run %s is read %d times", run, n)
		}
	}
	var balance struct {
		Balanced bool  `json:"balanced"`
		Accepted int64 `json:"accepted"`
	}
	s.read("/ledger/balance?"+url.Values{"min_position": {r.position}}.Encode(), token, &balance)
	if !balance.Balanced || balance.Accepted < int64(len(r.acked)) {
		s.t.Errorf("balance: %+v after %d acknowledgements", balance, len(r.acked))
	}
	s.t.Logf("%d reports acknowledged, %d refused or unanswered and sent again; %d deployments are read", len(r.acked), r.refused, len(seen))
}

// read asks until the part that answers is well.
func (s *system) read(path, token string, into any) {
	s.t.Helper()
	hang := time.After(5 * time.Minute)
	for {
		status, _, text, err := s.answer(s.t.Context(), http.MethodGet, path, token, "")
		if err == nil && status == http.StatusOK {
			s.must("read "+path, json.Unmarshal([]byte(text), into))
			return
		}
		if !away(status, err) {
			s.t.Fatalf("%s is answered %d: %s", path, status, text)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-hang:
			s.t.Fatalf("%s is not answered any more: %d %s %v", path, status, text, err)
		}
	}
}
