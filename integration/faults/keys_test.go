//go:build linux

package faults_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A manager changes credentials through one process.
type manager struct {
	t     *testing.T
	url   string
	token string
	http  *http.Client
}

func newManager(t *testing.T, srv *server, token string) *manager {
	t.Helper()
	return &manager{t, srv.url, token, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: answerWithin}}
}

// ask may be called from any goroutine.
func (m *manager) ask(method, path, token, body string) (response, error) {
	header := http.Header{"Authorization": {"Bearer " + token}}
	if body != "" {
		header.Set("Content-Type", "application/json")
	}
	return send(m.t.Context(), m.http, method, m.url+path, []byte(body), header)
}

// answered asks until the answer is no 503. On a busy machine a process may not have
// heard of the log, or of the others, for as long as it goes by what it knows.
func (m *manager) answered(method, path, token, body string) (res response, err error) {
	refused := await(func() error {
		res, err = m.ask(method, path, token, body)
		if err == nil && res.status == http.StatusServiceUnavailable {
			return fmt.Errorf("%s %s: %s", method, path, res.body)
		}
		return nil
	})
	return res, errors.Join(err, refused)
}

// propagated returns when every process acts by the last change of a credential that
// this one knows of. An answer waits for that as well, but a second and no longer.
func (m *manager) propagated(path string) {
	m.t.Helper()
	eventually(m.t, "every process acts by the change of "+path, func() error {
		var p struct {
			Propagated bool
			Nodes      json.RawMessage
		}
		m.must(http.StatusOK, http.MethodGet, path+"/propagation", "", &p)
		if !p.Propagated {
			return fmt.Errorf("not all do: %s", p.Nodes)
		}
		return nil
	})
}

// keyAnswer is what answers tell of a key.
type keyAnswer struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Status      string `json:"status"`
	RotatedFrom string `json:"rotated_from"`
	RotatedTo   string `json:"rotated_to"`
	Secret      string `json:"secret"`
}

// must asks as the admin for something that succeeds.
func (m *manager) must(status int, method, path, body string, into any) http.Header {
	m.t.Helper()
	res, err := m.answered(method, path, m.token, body)
	if err != nil || res.status != status {
		m.t.Fatalf("%s %s: answered %d, want %d: %v %s", method, path, res.status, status, err, res.body)
	}
	if into != nil {
		if err := json.Unmarshal(res.body, into); err != nil {
			m.t.Fatalf("%s %s: %v: %s", method, path, err, res.body)
		}
	}
	return res.header
}

// create makes a key that every process knows.
func (m *manager) create(name string) (k keyAnswer) {
	m.t.Helper()
	m.must(http.StatusCreated, http.MethodPost, "/api-keys/", fmt.Sprintf(`{"name":%q,"scope":"events:write","expires":"30d"}`, name), &k)
	m.propagated("/api-keys/" + k.ID)
	return k
}

// letIn tells whether a key may send events, by something that is none.
func (m *manager) letIn(secret string) (bool, error) {
	res, err := m.answered(http.MethodPost, "/deployment-events/", secret, `{}`)
	if err == nil && res.status != http.StatusUnprocessableEntity && res.status != http.StatusUnauthorized {
		err = fmt.Errorf("answered %d: %s", res.status, res.body)
	}
	return res.status == http.StatusUnprocessableEntity, err
}

// successors are the keys that came from one, however they stand.
func (m *manager) successors(of string) (out []keyAnswer) {
	m.t.Helper()
	for next := "/api-keys/?limit=200"; next != ""; {
		var page struct {
			Items      []keyAnswer `json:"items"`
			NextCursor string      `json:"next_cursor"`
		}
		m.must(http.StatusOK, http.MethodGet, next, "", &page)
		for _, k := range page.Items {
			if k.RotatedFrom == of {
				out = append(out, k)
			}
		}
		next = ""
		if page.NextCursor != "" {
			next = "/api-keys/?limit=200&cursor=" + page.NextCursor
		}
	}
	return out
}

// twoManagers runs two processes on one log.
func twoManagers(t *testing.T) [2]*manager {
	t.Helper()
	nats := startNATS(t, natsOptions{Dir: t.TempDir(), SyncAlways: true})
	env := append(nats.env(true), "SHIPLEDGER_PEPPER="+strings.Repeat("5e", 32))
	var out [2]*manager
	var first *server
	for i := range out {
		srv := start(t, setup{dir: t.TempDir(), env: env, logOnly: true})
		if i == 0 {
			first = srv
		}
		out[i] = newManager(t, srv, first.keys(t).AdminPAT)
	}
	return out
}

// atOnce sends the same request, twice through each process, and gives the answers.
func atOnce(t *testing.T, managers [2]*manager, method, path, body string) []response {
	t.Helper()
	const each = 2
	answers := make([]response, each*len(managers))
	errs := make([]error, len(answers))
	gate := make(chan struct{})
	var all sync.WaitGroup
	for i := range answers {
		m := managers[i%len(managers)]
		all.Go(func() {
			<-gate
			answers[i], errs[i] = m.answered(method, path, m.token, body)
		})
	}
	close(gate)
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return answers
}

// winner gives the place of the one answer with a status, where all others are 409.
func winner(t *testing.T, answers []response, status int) int {
	t.Helper()
	won := -1
	for i, a := range answers {
		switch {
		case a.status == status && won < 0:
			won = i
		case a.status == status:
			t.Fatalf("two of %d won", len(answers))
		case a.status != http.StatusConflict:
			t.Fatalf("one is answered %d: %s", a.status, a.body)
		}
	}
	if won < 0 {
		t.Fatalf("nobody won: %s", answers[0].body)
	}
	return won
}

// Rows: VR-23, VO-17
func TestOfSimultaneousRotationsOneWinsAndTheOthersAreTold(t *testing.T) {
	managers := twoManagers(t)
	var through [2]int
	for n := range rounds(40, 5) {
		old := managers[0].create(fmt.Sprintf("rotated %d", n))
		answers := atOnce(t, managers, http.MethodPost, "/api-keys/"+old.ID+"/rotate", `{"grace":"7d"}`)
		won := winner(t, answers, http.StatusCreated)
		through[won%2]++
		var successor keyAnswer
		if err := json.Unmarshal(answers[won].body, &successor); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{successor.ID, old.ID} {
			managers[won%2].propagated("/api-keys/" + id)
		}
		for i, m := range managers {
			var now keyAnswer
			m.must(http.StatusOK, http.MethodGet, "/api-keys/"+old.ID, "", &now)
			if now.RotatedTo != successor.ID || now.Status != "active" {
				t.Fatalf("round %d: process %d has %+v, want a way to %s", n, i+1, now, successor.ID)
			}
			// Whose rotation came too late has withdrawn its successor before it is told so. Other
			// processes hear of that as of any revocation.
			eventually(t, fmt.Sprintf("round %d: process %d has one successor", n, i+1), func() error {
				active := slices.DeleteFunc(m.successors(old.ID), func(k keyAnswer) bool { return k.Status == "revoked" })
				if len(active) != 1 || active[0].ID != successor.ID {
					return fmt.Errorf("it has %+v", active)
				}
				return nil
			})
			for _, secret := range []string{old.Secret, successor.Secret} {
				if in, err := m.letIn(secret); err != nil || !in {
					t.Fatalf("round %d: process %d refuses one of two keys in their grace: %v", n, i+1, err)
				}
			}
		}
	}
	t.Logf("won through process 1: %d, through process 2: %d", through[0], through[1])
}

// Rows: VR-23
func TestOfSimultaneousRevocationsOneWinsAndTheOthersAreTold(t *testing.T) {
	managers := twoManagers(t)
	var through [2]int
	for n := range rounds(100, 10) {
		key := managers[0].create(fmt.Sprintf("revoked %d", n))
		answers := atOnce(t, managers, http.MethodDelete, "/api-keys/"+key.ID, "")
		won := winner(t, answers, http.StatusNoContent) % 2
		through[won]++
		managers[won].propagated("/api-keys/" + key.ID)
		for i, m := range managers {
			if in, err := m.letIn(key.Secret); err != nil || in {
				t.Fatalf("round %d: process %d lets in a revoked key: %v", n, i+1, err)
			}
		}
	}
	t.Logf("won through process 1: %d, through process 2: %d", through[0], through[1])
}

// Rows: VR-23
func TestNoSimultaneousChangeOfAKeyIsLost(t *testing.T) {
	managers := twoManagers(t)
	for n := range rounds(40, 5) {
		key := managers[n%2].create(fmt.Sprintf("changed %d", n))
		path := "/api-keys/" + key.ID
		changes := []struct {
			method, body string
			status       int
		}{
			{http.MethodPatch, fmt.Sprintf(`{"name":"name %d"}`, n), http.StatusOK},
			{http.MethodPatch, fmt.Sprintf(`{"description":"description %d"}`, n), http.StatusOK},
		}
		var both sync.WaitGroup
		var errs [2]error
		gate := make(chan struct{})
		for i, c := range changes {
			both.Go(func() {
				<-gate
				res, err := managers[i].answered(c.method, path, managers[i].token, c.body)
				if err == nil && res.status != c.status {
					err = fmt.Errorf("answered %d: %s", res.status, res.body)
				}
				errs[i] = err
			})
		}
		close(gate)
		both.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		for _, m := range managers { // one of them knows of the later change
			m.propagated(path)
		}
		for i, m := range managers {
			var now keyAnswer
			m.must(http.StatusOK, http.MethodGet, path, "", &now)
			if now.Name != fmt.Sprintf("name %d", n) || now.Description != fmt.Sprintf("description %d", n) {
				t.Fatalf("round %d: process %d lost a change: %+v", n, i+1, now)
			}
		}
	}
}

// Rows: VR-23, VF-20
func TestAProcessThatIsDeafToTheLogRefusesUntilItHearsAgain(t *testing.T) {
	nats := startNATS(t, natsOptions{Dir: t.TempDir(), SyncAlways: true})
	env := []string{"SHIPLEDGER_PEPPER=" + strings.Repeat("5e", 32), "SHIPLEDGER_DEAF_LIMIT=2s"}
	hears := start(t, setup{dir: t.TempDir(), env: append(nats.env(true), env...), logOnly: true})
	wire := newWire(t, fmt.Sprintf("127.0.0.1:%d", nats.Port))
	deaf := start(t, setup{dir: t.TempDir(), env: append(env, "SHIPLEDGER_NATS_URL=nats://"+wire.Addr().String()), logOnly: true})
	token := hears.keys(t).AdminPAT
	m, d := newManager(t, hears, token), newManager(t, deaf, token)
	revoked, kept := m.create("revoked meanwhile"), m.create("kept")
	for _, k := range []keyAnswer{revoked, kept} {
		if in, err := d.letIn(k.Secret); err != nil || !in {
			t.Fatalf("a process that hears refuses a key: %v", err)
		}
	}

	wire.silence()
	m.must(http.StatusNoContent, http.MethodDelete, "/api-keys/"+revoked.ID, "", nil)
	for _, c := range []struct{ what, method, path, token, body string }{
		{"a write", http.MethodPost, "/deployment-events/", kept.Secret, `{}`},
		{"a read", http.MethodGet, "/settings", token, ""},
		{"what was revoked meanwhile", http.MethodPost, "/deployment-events/", revoked.Secret, `{}`},
	} {
		eventually(t, c.what+" is refused", func() error {
			res, err := d.ask(c.method, c.path, c.token, c.body)
			if err != nil {
				return err
			}
			if res.status != http.StatusServiceUnavailable {
				return fmt.Errorf("answered %d: %s", res.status, res.body)
			}
			if _, fault := unavailable(res); fault != nil {
				t.Error(fault)
			}
			return nil
		})
	}
	if in, err := m.letIn(kept.Secret); err != nil || !in {
		t.Errorf("the process that hears refuses too: %v", err)
	}
	health, err := d.ask(http.MethodGet, "/health", "", "")
	if err != nil || health.status != http.StatusServiceUnavailable {
		t.Errorf("the health of a deaf process: %d %v: %s", health.status, err, health.body)
	}

	wire.restore()
	eventually(t, "it answers again", func() error {
		in, err := d.letIn(kept.Secret)
		if err == nil && !in {
			err = errors.New("a key is refused that was never revoked")
		}
		return err
	})
	if in, err := d.letIn(revoked.Secret); err != nil || in {
		t.Errorf("it lets in what was revoked while it was deaf: %v", err)
	}
}

// A setting is decided by the committer of one process, and holds in the API of
// every other as soon as an answer has left that says so.
//
// Rows: VR-15
func TestASettingHoldsInEveryProcessOnceItIsAnswered(t *testing.T) {
	managers := twoManagers(t)
	var token keyAnswer
	managers[0].must(http.StatusCreated, http.MethodPost, "/personal-access-tokens/", `{"name":"writes","scope":"write","expires":"30d"}`, &token)
	managers[0].propagated("/personal-access-tokens/" + token.ID)
	for n := range rounds(100, 10) {
		decides, others := managers[n%2], managers[1-n%2]
		for _, on := range []bool{false, true} {
			eventually(t, "the setting is said to hold everywhere", func() error { // an answer waits for a second
				header := decides.must(http.StatusOK, http.MethodPatch, "/settings", fmt.Sprintf(`{"pat_write":%t}`, on), nil)
				if got := header.Get("X-Shipledger-Propagated"); got != "true" {
					return fmt.Errorf("round %d: propagated: %q", n, got)
				}
				return nil
			})
			for i, m := range []*manager{others, decides} {
				want := map[bool]int{false: http.StatusForbidden, true: http.StatusUnprocessableEntity}[on]
				if res, err := m.answered(http.MethodPost, "/products/", token.Secret, `{}`); err != nil || res.status != want {
					t.Fatalf("round %d, pat_write %t, process %d: a token that writes is answered %d, want %d: %v %s", n, on, i, res.status, want, err, res.body)
				}
				var settings struct {
					PATWrite bool `json:"pat_write"`
				}
				m.must(http.StatusOK, http.MethodGet, "/settings", "", &settings)
				if settings.PATWrite != on {
					t.Fatalf("round %d, process %d: pat_write is shown as %t", n, i, settings.PATWrite)
				}
			}
		}
	}
}

// eventsOf gives the events of a type that the audit log shows, once there are
// that many.
func (m *manager) eventsOf(typ string, least int) (out []auditEvent) {
	m.t.Helper()
	eventually(m.t, "the audit log shows "+typ, func() error {
		res, err := m.ask(http.MethodGet, "/events/?limit=200&type="+typ, m.token, "")
		if err != nil || res.status != http.StatusOK {
			return fmt.Errorf("answered %d: %w %s", res.status, err, res.body)
		}
		var page struct {
			Items []auditEvent `json:"items"`
		}
		if err := json.Unmarshal(res.body, &page); err != nil {
			return err
		}
		if out = page.Items; len(out) < least {
			return fmt.Errorf("%d events", len(out))
		}
		return nil
	})
	return out
}

type auditEvent struct {
	Subject string `json:"subject"`
	Data    struct {
		Credential struct {
			DaysLeft int `json:"days_left"`
			Pepper   int `json:"pepper"`
		} `json:"credential"`
	} `json:"data"`
}

// Rows: VF-18
func TestAKeyThatEndsInThreeDaysIsWarnedOfByTheRunningProduct(t *testing.T) {
	s := setup{dir: t.TempDir()}
	srv := start(t, s)
	m := newManager(t, srv, srv.keys(t).AdminPAT)
	ends := time.Now().Add(3*24*time.Hour + 2*time.Second).UTC()
	var key keyAnswer
	m.must(http.StatusCreated, http.MethodPost, "/api-keys/", fmt.Sprintf(`{"name":"ends soon","scope":"events:write","expires":%q}`, ends.Format(time.RFC3339Nano)), &key)
	srv.interrupt(t)
	eventually(t, "three days are left", func() error { // the product is down on the day
		if left := time.Until(ends); left > 3*24*time.Hour {
			return fmt.Errorf("%s are", left)
		}
		return nil
	})
	for range 2 { // once, however often the product is started
		srv = start(t, s)
		m = newManager(t, srv, srv.keys(t).AdminPAT)
		warned := m.eventsOf("credential.expiring", 1)
		if len(warned) != 1 || warned[0].Subject != key.ID || warned[0].Data.Credential.DaysLeft != 3 {
			t.Fatalf("warned of %+v, want the key %s once", warned, key.ID)
		}
		srv.interrupt(t)
	}
}

func TestDigestsAreRewrittenUnderANewPepperByTheRunningProduct(t *testing.T) {
	before, after := "1:"+strings.Repeat("5e", 32), "2:"+strings.Repeat("a7", 32)
	s := setup{dir: t.TempDir(), env: []string{"SHIPLEDGER_PEPPER=" + before}}
	srv := start(t, s)
	k := srv.keys(t)
	srv.interrupt(t)

	s.env = []string{"SHIPLEDGER_PEPPER=" + before + "," + after}
	srv = start(t, s)
	m := newManager(t, srv, k.AdminPAT)
	if in, err := m.letIn(k.APIKey); err != nil || !in {
		t.Fatalf("a key with an old digest is refused: %v", err)
	}
	for _, e := range m.eventsOf("credential.rehashed", 2) { // the key, and the token that asks
		if e.Data.Credential.Pepper != 2 {
			t.Errorf("rewritten as %+v", e)
		}
	}
	srv.interrupt(t)

	s.env = []string{"SHIPLEDGER_PEPPER=" + after}
	srv = start(t, s)
	m = newManager(t, srv, k.AdminPAT)
	if in, err := m.letIn(k.APIKey); err != nil || !in {
		t.Errorf("a key whose digest was rewritten needs the old pepper: %v", err)
	}
	if res, err := m.answered(http.MethodGet, "/settings", k.PAT, ""); err != nil || res.status != http.StatusUnauthorized {
		t.Errorf("a token that was never used under both peppers is answered %d: %v %s", res.status, err, res.body)
	}
}
