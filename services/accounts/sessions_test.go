package accounts_test

import (
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
)

func sessionKeys(t testing.TB) *credential.SessionKeys {
	t.Helper()
	k, err := credential.NewSessionKeys(map[int][]byte{1: make([]byte, ed25519.SeedSize)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// logIn signs in from an address, and gives the status and the token.
func (p *process) logIn(email, password, from string) (int, string) {
	p.t.Helper()
	body, err := json.Marshal(map[string]string{"email": email, "password": password})
	if err != nil {
		p.t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/auth/login", strings.NewReader(string(body)))
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	p.api.ServeHTTP(w, r)
	var got struct{ Token string }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		p.t.Error(err)
	}
	return w.Code, got.Token
}

// The password of the first start opens a session, which every process lets in
// and one ends for all.
func TestASessionIsKnownAndEndedInEveryProcess(t *testing.T) {
	dir, log := t.TempDir(), memlog.New()
	mustStart(t, dir, log)
	made := readFile(t, dir)
	one, two := newProcess(t, log, ""), newProcess(t, log, "")
	status, token := one.logIn(made["admin_email"], made["admin_password"], "192.0.2.1:1000")
	if status != http.StatusOK {
		t.Fatal(status)
	}
	last, _ := log.Last(t.Context())
	if err := two.ring.Await(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if _, err := two.ring.Verify(token); err != nil {
		t.Fatal(err)
	}
	two.admin = token
	if got := two.send(http.MethodPost, "/auth/logout", ""); got.status != http.StatusNoContent {
		t.Fatalf("%+v", got)
	}
	if err := one.ring.Await(t.Context(), last+1); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*process{one, two} {
		if _, err := p.ring.Verify(token); err == nil {
			t.Error("a session that has ended is let in")
		}
		if logs := p.logs.String(); strings.Contains(logs, token) || strings.Contains(logs, made["admin_password"]) {
			t.Error("the log lines hold a secret")
		}
	}
}

func TestOfLogOutsAtTheSameTimeOneIsRecorded(t *testing.T) {
	dir, log := t.TempDir(), memlog.New()
	mustStart(t, dir, log)
	made := readFile(t, dir)
	p := newProcess(t, log, "")
	_, p.admin = p.logIn(made["admin_email"], made["admin_password"], "192.0.2.1:1000")
	last, _ := log.Last(t.Context())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := p.send(http.MethodPost, "/auth/logout", ""); got.status != http.StatusNoContent && got.status != http.StatusUnauthorized {
				t.Errorf("%+v", got)
			}
		})
	}
	wg.Wait()
	if now, _ := log.Last(t.Context()); now != last+1 {
		t.Errorf("%d events were stored", now-last)
	}
}

func TestAttemptsAreCountedByNetworkAndUser(t *testing.T) {
	log, _ := founded(t)
	p := newProcess(t, log, "")
	try := func(email, from string) int {
		status, _ := p.logIn(email, "wrong", from)
		return status
	}
	// Neighbours of one IPv6 network share a budget; another network has its own.
	neighbours := []string{"[2001:db8::1]:1", "[2001:db8::2:3]:1"}
	refused := 0
	for i := range 32 {
		if try(strings.Repeat("x", i+1)+"@acme.example", neighbours[i%2]) == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("%d of 32 attempts of one network were refused, want 2", refused)
	}
	if got := try("y@acme.example", "[2001:db8:0:1::1]:1"); got != http.StatusUnauthorized {
		t.Errorf("another network: %d", got)
	}
	if got := try("y@acme.example", "@"); got != http.StatusUnauthorized { // a socket without an address
		t.Errorf("no address: %d", got)
	}
}
