package contract_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/feed"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/kv/memkv"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
	"github.com/shipledger/shipledger/pkg/logarchive"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
	"github.com/shipledger/shipledger/pkg/replay"
	"github.com/shipledger/shipledger/pkg/usage"
	"github.com/shipledger/shipledger/services/accounts"
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/compose/projectorpart"
	"github.com/shipledger/shipledger/services/ingest"
	"github.com/shipledger/shipledger/services/mcp"
	"github.com/shipledger/shipledger/services/projector"
	"github.com/shipledger/shipledger/services/query"
)

// The accounts of the system on memory.
const (
	acme  = "acme"
	other = "other"
)

// heartbeat is how often a stream without news says that it is alive.
const heartbeat = 50 * time.Millisecond

// startTime is when the system on memory starts. Its clock stands still unless a script
// moves it, so that what a time became can be told exactly.
var startTime = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

// memory is the real services on logs and a read model in memory: everything
// that survives a restart, and what a test may move.
type memory struct {
	*ledger
	tracks      []*memlog.Log // the partitions
	track       *memlog.Log   // that of acme
	credentials *memlog.Log
	model       *memmodel.Model
	uses        *memkv.Table
	usage       *usage.Book
	peppers     *credential.Peppers
	sessionKeys *credential.SessionKeys
	people      *lag // the clock of whoever signs people in
	ring        *keyring.Ring
	clock       *clock
	gate        *gate
	ops         *memlog.Log
	project     atomic.Pointer[projection.Func] // what projects, if not the usual
	metrics     []prometheus.Collector          // of the projector
	limiter     httpapi.Limiter                 // none, unless a script sets one and restarts
	tokens      map[string]string               // by account, kind and grant, such as "acme/sk/read"
	stop        func()
}

// onMemory starts a system whose two accounts have a credential of each sort.
func onMemory(t *testing.T) *memory { return onPartitions(t, *partitionsFlag) }

// onPartitions starts one on a log of so many partitions.
func onPartitions(t *testing.T, partitions int) *memory {
	t.Helper()
	peppers, err := credential.NewPeppers(map[int][]byte{1: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	sessionKeys, err := credential.NewSessionKeys(map[int][]byte{1: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{
		sessionKeys: sessionKeys, people: &lag{},
		credentials: memlog.New(), ops: memlog.New(), model: memmodel.New(), uses: memkv.New(), peppers: peppers,
		clock: &clock{now: startTime}, gate: newGate(), tokens: map[string]string{},
	}
	for range partitions {
		m.tracks = append(m.tracks, memlog.New())
	}
	m.track = m.tracks[event.PartitionOf(acme, len(m.tracks))]
	for _, account := range []string{acme, other} {
		m.populate(t, account)
	}
	m.start(t)
	return m
}

// start wires the services as services/all does, on what is there already.
func (m *memory) start(t *testing.T) {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	m.ring = keyring.New(keyring.Config{Sessions: m.sessionKeys}, m.credentials, m.peppers, time.Now, logger)
	m.usage = usage.New(m.uses, time.Now, logger)
	var committers []*ingest.Committer
	var committing []lifecycle.Service
	var names []string
	var audits []*projector.Audit
	var streams []projector.Stream
	logs, tracks := map[string]eventlog.Reader{event.CredentialStream: m.credentials, replay.Stream: m.ops}, map[string]eventlog.Reader{}
	for i, track := range m.tracks {
		name := event.TrackStream(i)
		names, streams = append(names, name), append(streams, projector.Stream{Name: name, Log: track})
		logs[name], tracks[name] = track, track
		c := ingest.NewCommitter(track, name, m.clock.read, newIDs(), logger)
		committers, committing = append(committers, c), append(committing, c)
		audits = append(audits, projector.NewAudit(track, m.model, name, 0, logger))
	}
	streams = append(streams, projector.Stream{Name: event.CredentialStream, Log: m.credentials}, projector.Stream{Name: replay.Stream, Log: m.ops})
	settings := func(account string) event.Settings {
		return committers[event.PartitionOf(account, len(committers))].Settings(account)
	}
	live := feed.New(feed.Config{}, logs, query.Render, logger)
	sink := func(context.Context) (readmodel.Sink, error) { return gatedSink{m.model, m.gate}, nil }
	project := projector.New(projector.Config{
		Streams: streams, Tracks: len(m.tracks), Operator: m.ring.Operator, Entropy: rand.Reader,
		Project: func(r event.Recorded, rows *readmodel.Rows) (bool, error) {
			if p := m.project.Load(); p != nil {
				return (*p)(r, rows)
			}
			return projection.Project(r, rows), nil
		},
	}, m.ops, projector.Single(sink), document, logger)
	m.metrics = project.Collectors()
	var api *httpapi.API
	agents := mcp.New(mcp.Config{
		API: "http://ledger", Version: "test",
		Transport: httpapi.InProcess(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { api.ServeHTTP(w, r) })),
	}, logger)
	var err error
	api, err = httpapi.New(
		httpapi.Config{Spec: document, Services: []string{"ingest", "query", "accounts", "projector", "mcp"}, Authenticator: m.ring, Limiter: m.limiter, Meter: m.usage, Logger: logger, Settings: settings},
		ingest.New(document, committers...).Handlers(),
		project.Handlers(),
		query.New(m.model, names...).Auditing(event.CredentialStream, replay.Stream).Keys(m.ring.Record).Counting(m.ring, m.usage).Streaming(live, heartbeat).Accounting(tracks).
			Exporting(m.keeper(t, logs), m.ring.Operator, append([]string{event.CredentialStream}, names...)...).Handlers(),
		accounts.New(
			accounts.Config{Usage: m.usage, Settings: settings, Attempts: ratelimit.NewMemory()}, document, m.credentials, m.ring, m.peppers, m.sessionKeys, m.people.read, rand.Reader,
		).Handlers(),
		agents.Handlers(),
		httpapi.Handlers{"getHealth": compose.ServeHealth("test", "", append(projectorpart.Checks(project, audits...),
			compose.Check{Part: httpapi.PartLog, Ask: func(context.Context) error {
				var errs []error
				for _, c := range committers {
					errs = append(errs, c.Healthy())
				}
				return errors.Join(errs...)
			}})...)},
	)
	if err != nil {
		t.Fatal(err)
	}
	stop := lifecycletest.Run(t, lifecycle.Seq(lifecycle.Par(m.ring, m.usage), lifecycle.Par(committing...), lifecycle.Par(project, live)))
	server := httptest.NewServer(api)
	m.stop = sync.OnceFunc(func() {
		server.Close()
		stop()
	})
	t.Cleanup(m.stop)
	m.ledger = newLedger(t, server.URL, acme)
	m.partitions = len(m.tracks)
	m.secrets = slices.Collect(maps.Values(m.tokens))
	m.key, m.pat, m.admin = m.token("sk", "events:write"), m.token("pat", "read"), m.token("pat", "admin")
}

// restart stops the services and starts new ones on the same logs and model.
func (m *memory) restart() {
	m.t.Helper()
	before := m.ledger
	m.stop()
	m.start(m.t)
	m.product, m.seen, m.others = before.product, before.seen, before.others
}

// frames gives how many frames the log of acme holds: a test that nothing was stored.
func (m *memory) frames() uint64 {
	n, _ := m.track.Last(context.Background()) // never fails
	return n
}

// shows returns when the read model shows what an account wrote, to everybody: one
// who lives in another partition cannot wait for it.
func (m *memory) shows(account string) {
	m.t.Helper()
	m.read("/deployments/", as(m.tokenOf(account, "pat", "read")))
}

// keeper signs the logs with a key of its own.
func (m *memory) keeper(t *testing.T, logs map[string]eventlog.Reader) *logarchive.Keeper {
	t.Helper()
	signer, err := logarchive.NewSigner(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return logarchive.NewKeeper(logs, memlog.New(), signer, 0, slog.New(slog.DiscardHandler))
}

// token gives a credential of the account acme.
func (m *memory) token(kind, grant string) string { return m.tokenOf(acme, kind, grant) }

func (m *memory) tokenOf(account, kind, grant string) string {
	token, ok := m.tokens[account+"/"+kind+"/"+grant]
	if !ok {
		m.t.Fatalf("%s has no %s with %s", account, kind, grant)
	}
	return token
}

// grants are the scopes that each account has a key and a token of; "test" is a
// key in test mode.
var grants = []string{"events:write", "read", "sync-trigger", "write", "admin", "test"}

// populate makes the credentials of an account, in the way they are always
// made: by events.
func (m *memory) populate(t *testing.T, account string) {
	t.Helper()
	m.recorded(t, &credential.Account{ID: account, Name: account, CreatedAt: startTime}, credential.AccountCreated)
	user := credential.User{ID: ulid.Make().String(), Account: account, Email: "admin@" + account + ".example", Role: credential.RoleAdmin, CreatedAt: startTime}
	m.recorded(t, &user, credential.UserJoined)
	live := 0
	for _, kind := range []credential.Kind{credential.APIKey, credential.PAT} {
		for _, grant := range grants {
			r := credential.Record{Kind: kind, Account: account, Name: account + " " + grant, Mode: event.Live}
			scope := grant
			switch {
			case grant == "test" && kind == credential.PAT:
				continue
			case grant == "test":
				r.Mode, scope = event.Test, "events:write"
				r.PublicID = credential.KeyID(event.Test, 1)
			case kind == credential.APIKey:
				live++
				r.PublicID = credential.KeyID(event.Live, live)
			default:
				r.PublicID = must(credential.NewTokenID(rand.Reader))
				r.UserID = user.ID
			}
			r.Scopes = must(credential.ParseScopes(kind, []string{scope}))
			m.tokens[account+"/"+kind.String()+"/"+grant] = m.mint(t, r)
		}
	}
}

// mint makes a secret for r and records it.
func (m *memory) mint(t *testing.T, r credential.Record) string {
	t.Helper()
	named := r.Account
	if r.Kind == credential.PAT {
		named = ""
	}
	secret := must(credential.Mint(r.Kind, named, r.PublicID, r.Mode, rand.Reader))
	r.ID, r.Status, r.CreatedAt = ulid.Make().String(), credential.Active, startTime
	r.Digest, r.Pepper = m.peppers.Digest(secret)
	r.LastFour = credential.LastFour(secret)
	m.recorded(t, &r, credential.Created)
	return secret
}

// mintAs makes one more key of the account acme, in some state, and waits until
// it is known.
func (m *memory) mintAs(id string, status credential.Status, expires time.Time) string {
	m.t.Helper()
	r := credential.Record{
		Kind: credential.APIKey, Account: acme, PublicID: id, Name: string(status), Mode: event.Live,
		Scopes: credential.EventsWrite, ExpiresAt: expires,
	}
	secret := m.mint(m.t, r)
	r.ID, r.Status = ulid.Make().String(), status
	if status != credential.Active {
		m.change(id, func(r *credential.Record) { r.Status = status })
	}
	last, _ := m.credentials.Last(m.t.Context())
	if err := m.ring.Await(m.t.Context(), last); err != nil {
		m.t.Fatal(err)
	}
	return secret
}

// change records what became of the key of acme with a public id.
func (m *memory) change(id string, to func(*credential.Record)) {
	m.t.Helper()
	for f, err := range m.credentials.Read(m.t.Context(), 0) {
		if err != nil {
			m.t.Fatal(err)
		}
		e := must(event.DecodeEvent(event.Position{Stream: event.CredentialStream, Offset: event.At(f.Seq, 0)}, f.Body))
		if r, ok := must(credential.Decode(&e.Event)).(*credential.Record); ok && r.Account == acme && r.PublicID == id {
			to(r)
			m.recordedAfter(m.t, r, credential.Updated, f.Seq)
			return
		}
	}
	m.t.Fatalf("acme has no key %s", id)
}

type recordable interface {
	LogSubject() string
	Event(id ulid.ULID, t event.Type, at time.Time, by event.Author) (event.Event, error)
}

func (m *memory) recorded(t *testing.T, r recordable, typ event.Type) { m.recordedAfter(t, r, typ, 0) }

func (m *memory) recordedAfter(t *testing.T, r recordable, typ event.Type, after uint64) {
	t.Helper()
	e := must(r.Event(ulid.Make(), typ, startTime, event.Author{CredentialName: "test"}))
	frame := eventlog.Frame{
		ID: e.ID.String(), Subject: r.LogSubject(), ContentType: credential.ContentType, Body: event.AppendEvent(nil, &e, 0),
	}
	if _, err := m.credentials.AppendToSubject(t.Context(), frame, after); err != nil {
		t.Fatal(err)
	}
}

// must is for calls of the fixture that fail only where the fixture is wrong.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("the fixture: %v", err))
	}
	return v
}

// newIDs gives rising ids, as services/all does.
func newIDs() func(ms uint64) ulid.ULID {
	entropy := ulid.Monotonic(rand.Reader, 0)
	return func(ms uint64) ulid.ULID { return ulid.MustNew(ms, entropy) }
}

// clock is the committer's: it stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// pass lets time pass.
func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// lag is a clock that runs, late by as much as it is told: what it made ends
// that much sooner.
type lag struct {
	by   atomic.Int64
	held atomic.Pointer[time.Time] // where it stands still; nil: it runs
}

func (l *lag) read() time.Time {
	if at := l.held.Load(); at != nil {
		return *at
	}
	return time.Now().Add(-time.Duration(l.by.Load()))
}

// hold stops the clock: what is so often a minute is then no matter of how fast a
// machine is.
func (l *lag) hold() {
	now := l.read()
	l.held.Store(&now)
}

func (l *lag) set(d time.Duration) { l.by.Store(int64(d)) }

// gate holds the projector back while it is shut.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while the gate is open
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}

func (g *gate) pass(ctx context.Context) error {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type gatedSink struct {
	readmodel.Sink
	gate *gate
}

// Store implements readmodel.Sink.
func (s gatedSink) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	if err := s.gate.pass(ctx); err != nil {
		return err
	}
	return s.Sink.Store(ctx, rows, upTo)
}
