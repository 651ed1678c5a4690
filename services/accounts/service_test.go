package accounts_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/kv"
	"github.com/shipledger/shipledger/pkg/kv/memkv"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/accounts"
)

// process is one of several that manage credentials on one log.
type process struct {
	t      *testing.T
	api    *httpapi.API
	ring   *keyring.Ring
	admin  string
	logs   *lockedBuffer
	flight *keyring.Flight
	warn   *accounts.Warnings
	later  atomic.Int64 // how much later than noon it is
}

// lockedBuffer is read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newProcess starts a process whose changes are stored through its own way to
// the log.
func newProcess(t *testing.T, log eventlog.Log, admin string) *process {
	t.Helper()
	return newNode(t, log, memkv.New(), admin)
}

// newNode starts a process that tells the others how far it is.
func newNode(t *testing.T, log eventlog.Log, table kv.Table, admin string, change ...func(*accounts.Config)) *process {
	t.Helper()
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, admin: admin, logs: &lockedBuffer{}}
	logger := slog.New(slog.NewTextHandler(p.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	now := func() time.Time { return noon }
	peppers := newPeppers(t, 1)
	sessions := sessionKeys(t)
	p.ring = keyring.New(keyring.Config{Sessions: sessions}, log, peppers, now, logger)
	p.flight = &keyring.Flight{}
	nodes := keyring.NewNodes(keyring.NodesConfig{Service: "accounts", ID: rand.Text(), Flights: []*keyring.Flight{p.flight}}, p.ring, table, now, logger)
	cfg := accounts.Config{Attempts: ratelimit.NewMemory(), Nodes: nodes, Flight: p.flight}
	for _, c := range change {
		c(&cfg)
	}
	nothing := httpapi.ServeHealth(func(*httpapi.Request) httpapi.Health { return httpapi.Health{} })
	service := accounts.New(cfg, spec, log, p.ring, peppers, sessions, func() time.Time { return noon.Add(time.Duration(p.later.Load())) }, rand.Reader)
	p.warn = service.Warnings(logger)
	p.api, err = httpapi.New(
		httpapi.Config{Spec: spec, Services: []string{"accounts"}, Authenticator: p.ring, Logger: logger},
		service.Handlers(), httpapi.Handlers{"getHealth": nothing},
	)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- lifecycle.Seq(p.ring, nodes).Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-ready
	return p
}

// founded gives a log with an account, and the secret of its admin.
func founded(t *testing.T) (log eventlog.Log, admin string) {
	t.Helper()
	dir, log := t.TempDir(), memlog.New()
	mustStart(t, dir, log)
	return log, readFile(t, dir)["admin_pat"]
}

type reply struct {
	status       int
	ID, Secret   string
	Code, Status string
	KeyID        string `json:"key_id"`
}

func (p *process) send(method, path, body string) reply {
	p.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+p.admin)
	w := httptest.NewRecorder()
	p.api.ServeHTTP(w, r)
	got := reply{status: w.Code}
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			p.t.Errorf("%s %s: %v: %s", method, path, err, w.Body)
		}
	}
	return got
}

const order = `{"name":"ci","expires":"30d"}`

func (p *process) create() reply {
	p.t.Helper()
	got := p.send(http.MethodPost, "/api-keys/", order)
	if got.status != http.StatusCreated {
		p.t.Fatalf("%+v", got)
	}
	return got
}

func TestOfRevocationsInSeveralProcessesOneWins(t *testing.T) {
	log, admin := founded(t)
	processes := []*process{newProcess(t, log, admin), newProcess(t, log, admin), newProcess(t, log, admin)}
	for range 20 {
		key := processes[0].create()
		last, _ := log.Last(t.Context())
		replies := make([]reply, len(processes))
		var wg sync.WaitGroup
		for i, p := range processes {
			wg.Go(func() {
				if err := p.ring.Await(t.Context(), last); err != nil {
					t.Error(err)
				}
				replies[i] = p.send(http.MethodDelete, "/api-keys/"+key.ID, "")
				if _, err := p.ring.Verify(key.Secret); err == nil {
					t.Error("a process that answered still lets the key in")
				}
			})
		}
		wg.Wait()
		made := 0
		for _, r := range replies {
			switch {
			case r.status == http.StatusNoContent:
				made++
			case r.status != http.StatusConflict || r.Code != "CREDENTIAL_REVOKED":
				t.Errorf("%+v", r)
			}
		}
		if now, _ := log.Last(t.Context()); made != 1 || now != last+1 {
			t.Fatalf("%d revocations were made, %d events stored", made, now-last)
		}
	}
}

func TestKeysMadeInSeveralProcessesHaveIDsOfTheirOwn(t *testing.T) {
	log, admin := founded(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[string]bool{"k1": true} // the first start's
	for range 3 {
		p := newProcess(t, log, admin)
		wg.Go(func() {
			for range 5 {
				key := p.create()
				if id, err := p.ring.Verify(key.Secret); err != nil || id.PublicID != key.KeyID {
					t.Errorf("key %s: %+v, %v", key.KeyID, id, err)
				}
				mu.Lock()
				if seen[key.KeyID] {
					t.Errorf("%s was made twice", key.KeyID)
				}
				seen[key.KeyID] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for n := 1; n <= 16; n++ {
		if !seen[fmt.Sprintf("k%d", n)] {
			t.Errorf("k%d was left out", n)
		}
	}
}

// A change whose answer from the log was lost is made once, and answered as made.
func TestALostAnswerOfTheLogNeitherLosesNorDoublesAChange(t *testing.T) {
	for _, stored := range []bool{false, true} {
		log, admin := founded(t)
		shaky := &dying{Log: forgetsRepeats{log}, after: stored, err: eventlog.ErrAmbiguous}
		p := newProcess(t, shaky, admin)
		shaky.at = shaky.n + 1
		key := p.create()
		if key.KeyID != "k2" {
			t.Errorf("the key is %s: its first event was taken for another's", key.KeyID)
		}
		shaky.at = shaky.n + 1
		if got := p.send(http.MethodDelete, "/api-keys/"+key.ID, ""); got.status != http.StatusNoContent {
			t.Errorf("stored %v: %+v", stored, got)
		}
		if all := frames(t, log); len(all) != 7 {
			t.Errorf("stored %v: %d events, want the five of the first start and two", stored, len(all))
		}
	}
}

// forgetsRepeats answers a repeated frame with a conflict, as a server on one
// replica does.
type forgetsRepeats struct{ eventlog.Log }

func (l forgetsRepeats) AppendToSubject(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	for r, err := range l.Read(ctx, 0) {
		if err != nil {
			return 0, err
		}
		if r.Subject == f.Subject && r.Seq > after {
			return 0, eventlog.ErrConflict
		}
	}
	return l.Log.AppendToSubject(ctx, f, after)
}

func TestALogThatRefusesIsToldAndNothingIsMade(t *testing.T) {
	for _, err := range []error{eventlog.ErrRefused, eventlog.ErrAmbiguous} {
		log, admin := founded(t)
		p := newProcess(t, refusing{log, err}, admin)
		if got := p.send(http.MethodPost, "/api-keys/", order); got.status != http.StatusServiceUnavailable || got.Secret != "" {
			t.Errorf("%v: %+v", err, got)
		}
		if all := frames(t, log); len(all) != 5 {
			t.Errorf("%v: %d events", err, len(all))
		}
	}
}

type refusing struct {
	eventlog.Log

	err error
}

func (l refusing) AppendToSubject(context.Context, eventlog.Frame, uint64) (uint64, error) {
	return 0, l.err
}

func TestNoSecretReachesALog(t *testing.T) {
	log, admin := founded(t)
	p := newProcess(t, log, admin)
	secrets := []string{admin}
	for _, path := range []string{"/api-keys/", "/personal-access-tokens/"} {
		made := p.send(http.MethodPost, path, order)
		secrets = append(secrets, made.Secret)
		p.send(http.MethodPost, path+made.ID+"/suspend", "")
		p.send(http.MethodDelete, path+made.ID, "")
		p.send(http.MethodDelete, path+made.Secret, "")
		broken := newProcess(t, refusing{log, eventlog.ErrRefused}, admin)
		if got := broken.send(http.MethodPost, path, order); got.status != http.StatusServiceUnavailable {
			t.Errorf("%+v", got)
		}
		if broken.logs.String() == "" {
			t.Error("operators are not told that the log refuses")
		}
		for _, secret := range secrets {
			for what, text := range map[string]string{"a working": p.logs.String(), "a failing": broken.logs.String()} {
				if strings.Contains(text, random(secret)) {
					t.Errorf("the logs of %s process hold %s", what, credential.Redact(secret))
				}
			}
		}
	}
	for _, f := range frames(t, log) {
		for _, secret := range secrets {
			if bytes.Contains(f.Body, []byte(random(secret))) {
				t.Errorf("%s holds %s", f.Subject, credential.Redact(secret))
			}
		}
	}
}

func TestOfRotationsInSeveralProcessesOneWinsAndNoOtherSuccessorLives(t *testing.T) {
	log, admin := founded(t)
	processes := []*process{newProcess(t, log, admin), newProcess(t, log, admin), newProcess(t, log, admin)}
	for range 20 {
		key := processes[0].create()
		last, _ := log.Last(t.Context())
		replies := make([]reply, len(processes))
		var wg sync.WaitGroup
		for i, p := range processes {
			wg.Go(func() {
				if err := p.ring.Await(t.Context(), last); err != nil {
					t.Error(err)
				}
				replies[i] = p.send(http.MethodPost, "/api-keys/"+key.ID+"/rotate", `{"grace":"1d"}`)
			})
		}
		wg.Wait()
		successor := ""
		for _, r := range replies {
			switch {
			case r.status == http.StatusCreated && successor == "":
				successor = r.ID
			case r.status != http.StatusConflict || r.Code != "CREDENTIAL_ROTATED":
				t.Errorf("%+v", r)
			}
		}
		end, _ := log.Last(t.Context())
		if err := processes[0].ring.Await(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		held, _ := processes[0].ring.Record(key.ID)
		if successor == "" || held.RotatedTo != successor {
			t.Fatalf("the successor is %q, the key names %q", successor, held.RotatedTo)
		}
		all, _ := processes[0].ring.Records("acme", credential.APIKey)
		for _, h := range all {
			if h.RotatedFrom == key.ID && (h.Status == credential.Active) != (h.ID == successor) {
				t.Errorf("successor %s is %s", h.PublicID, h.Status)
			}
		}
	}
}

// The old key is changed between the two events of its rotation.
func TestARotationThatARevocationOvertakesLeavesNothingAlive(t *testing.T) {
	log, admin := founded(t)
	second := newProcess(t, log, admin)
	key := second.create()
	first := newProcess(t, overtaken{log, func() { second.send(http.MethodDelete, "/api-keys/"+key.ID, "") }, new(sync.Once)}, admin)
	if got := first.send(http.MethodPost, "/api-keys/"+key.ID+"/rotate", `{"grace":"1d"}`); got.status != http.StatusConflict || got.Code != "CREDENTIAL_REVOKED" || got.Secret != "" {
		t.Errorf("%+v", got)
	}
	all, _ := first.ring.Records("acme", credential.APIKey)
	for _, h := range all {
		if h.PublicID != "k1" && h.Status != credential.Revoked {
			t.Errorf("%s is %s", h.PublicID, h.Status)
		}
	}
}

// overtaken lets something happen right after its first append.
type overtaken struct {
	eventlog.Log

	then func()
	once *sync.Once
}

func (l overtaken) AppendToSubject(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	seq, err := l.Log.AppendToSubject(ctx, f, after)
	l.once.Do(l.then)
	return seq, err
}
