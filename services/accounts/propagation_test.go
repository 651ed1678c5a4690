package accounts_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/kv/memkv"
)

// ask sends a request and gives the whole answer.
func (p *process) ask(method, path, body string) *httptest.ResponseRecorder {
	p.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+p.admin)
	w := httptest.NewRecorder()
	p.api.ServeHTTP(w, r)
	return w
}

type progress struct {
	Position   string
	Propagated bool
	Nodes      []struct {
		Service, ID, Position string
		Applied               bool
		SeenAt                *time.Time `json:"seen_at"`
	}
}

func (p *process) propagation(path string) progress {
	p.t.Helper()
	w := p.ask(http.MethodGet, path+"/propagation", "")
	var got progress
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		p.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return got
}

// Rows: VR-23, VF-20
func TestWhenARevocationIsAnsweredEveryProcessRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where the second that an answer waits at most is none of this machine's
		log, admin := founded(t)
		table := memkv.New()
		processes := []*process{newNode(t, log, table, admin), newNode(t, log, table, admin), newNode(t, log, table, admin)}
		for _, path := range []string{"/api-keys/", "/personal-access-tokens/"} {
			for range 20 {
				var made reply
				w := processes[0].ask(http.MethodPost, path, order)
				if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Header().Get("X-Shipledger-Propagated") != "true" {
					t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
				}
				for _, p := range processes {
					if _, err := p.ring.Verify(made.Secret); err != nil {
						t.Fatalf("a process does not know a credential whose creation is answered: %v", err)
					}
				}
				w = processes[1].ask(http.MethodDelete, path+made.ID, "")
				if w.Code != http.StatusNoContent || w.Header().Get("X-Shipledger-Propagated") != "true" {
					t.Fatalf("%d %v", w.Code, w.Header())
				}
				for _, p := range processes {
					if _, err := p.ring.Verify(made.Secret); err == nil {
						t.Fatal("a process lets in what was revoked")
					}
				}
				got := processes[1].propagation(path + made.ID)
				if !got.Propagated || got.Position != w.Header().Get("X-Shipledger-Position") || len(got.Nodes) != len(processes) {
					t.Fatalf("%+v", got)
				}
				for _, n := range got.Nodes {
					if !n.Applied || n.Service != "accounts" || n.ID == "" || n.Position != got.Position || n.SeenAt == nil {
						t.Errorf("%+v", n)
					}
				}
			}
		}
	})
}

func TestAnAnswerSaysThatAProcessMayNotHaveHeardOfTheRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, admin := founded(t)
		table := memkv.New()
		one, two := newNode(t, log, table, admin), newNode(t, log, table, admin)
		key := one.create()
		landed := two.flight.Begin() // something decided while the key was good, that takes its time
		began := time.Now()
		w := one.ask(http.MethodDelete, "/api-keys/"+key.ID, "")
		if took := time.Since(began); w.Code != http.StatusNoContent || w.Header().Get("X-Shipledger-Propagated") != "false" || took != time.Second {
			t.Errorf("%d %v after %v", w.Code, w.Header(), took)
		}
		got := one.propagation("/api-keys/" + key.ID)
		applied := 0
		for _, n := range got.Nodes {
			if n.Applied {
				applied++
			}
		}
		if got.Propagated || len(got.Nodes) != 2 || applied != 1 {
			t.Errorf("%+v", got)
		}
		landed()
		time.Sleep(10 * time.Second) // of the bubble
		synctest.Wait()
		if got := one.propagation("/api-keys/" + key.ID); !got.Propagated {
			t.Errorf("ten seconds later it is not everywhere: %+v", got)
		}
	})
}
