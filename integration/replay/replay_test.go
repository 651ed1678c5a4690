// Package replay_test rebuilds read models in a real ClickHouse through the
// public interface, while others read and write.
package replay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/httpapi/httpapitest"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/ingest"
	"github.com/shipledger/shipledger/services/projector"
	"github.com/shipledger/shipledger/services/query"
)

func TestMain(m *testing.M) { chservertest.Main(m) }

const (
	account = "acme"
	patient = 5 * time.Minute // for what takes seconds: machines that run tests are slow in their own ways
)

type projectFunc = func(event.Recorded, *readmodel.Rows) bool

// world is a ledger whose log is in memory and whose tables are real.
type world struct {
	t        *testing.T
	srv      *chserver.Server
	database string

	spec   *httpapi.Spec
	track  *memlog.Log
	ops    *memlog.Log
	model  *chmodel.Model
	api    http.Handler
	commit *ingest.Committer
	n      atomic.Int64

	project atomic.Pointer[projectFunc] // the code of the projection
	stop    func()                      // of the projector

	snapshots string // the folder that replays may read

	other bool // requests are of another account
}

func newWorld(t *testing.T) *world {
	t.Helper()
	srv := chservertest.Start(t)
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	auth, reads := srv.Auth(), srv.ReadAuth()
	w := &world{t: t, srv: srv, database: auth.Database, spec: spec, track: memlog.New(), ops: memlog.New()}
	w.model, err = chmodel.Open(t.Context(), chmodel.Config{
		DialContext: srv.DialContext, User: auth.User, Password: auth.Password, Database: w.database,
		Reader:         &chmodel.Login{User: reads.User, Password: reads.Password}, // as in every way of running
		FollowInterval: 20 * time.Millisecond,
		DialTimeout:    patient, QueryTimeout: patient, StoreTimeout: patient, // a busy machine is no finding
	}, w.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.model.Close() })
	w.code(projection.Project)
	ids := &ulid.LockedMonotonicReader{MonotonicReader: ulid.Monotonic(rand.Reader, 0)}
	w.commit = ingest.NewCommitter(w.track, "t0", time.Now, func(ms uint64) ulid.ULID { return ulid.MustNew(ms, ids) }, w.logger())
	run(t, w.commit.Run)
	return w
}

func (w *world) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w.t.Output(), nil)) }

func (w *world) code(p projectFunc) { w.project.Store(&p) }

// run runs a service until the test ends or stop is called.
func run(t *testing.T, service func(context.Context, func()) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- service(ctx, func() { close(ready) }) }()
	<-ready
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// start starts a projector, and the API in front of it.
func (w *world) start(tables projector.Tables) {
	w.t.Helper()
	service := projector.New(projector.Config{
		Streams: []projector.Stream{{Name: "t0", Log: w.track}}, CodeVersion: "test", Entropy: rand.Reader, Snapshots: w.snapshots,
		Project: func(r event.Recorded, rows *readmodel.Rows) (bool, error) { return (*w.project.Load())(r, rows), nil },
	}, w.ops, tables, w.spec, w.logger())
	w.stop = run(w.t, service.Run)
	api, err := httpapi.New(
		httpapi.Config{Spec: w.spec, Services: []string{"ingest", "query", "projector"}, Authenticator: admin{}, Logger: w.logger()},
		ingest.New(w.spec, w.commit).Handlers(), query.New(w.model, "t0").Accounting(map[string]eventlog.Reader{"t0": w.track}).Handlers(), service.Handlers(),
		httpapi.Handlers{"getHealth": func(http.ResponseWriter, *httpapi.Request) error { return nil }},
	)
	if err != nil {
		w.t.Fatal(err)
	}
	w.api = api
}

// admin lets everybody in.
type admin struct{}

// otherAccount is whose requests are that come with otherToken.
const otherAccount, otherToken = "globex", "token-of-globex"

func (admin) Verify(token string) (credential.Identity, error) {
	whose := account
	if token == otherToken {
		whose = otherAccount
	}
	return credential.Identity{
		Kind: credential.PAT, Account: whose, RecordID: "r1", PublicID: "p1", Name: "ada's", UserID: "ada", Role: "admin", Mode: event.Live,
		Scopes: credential.Admin | credential.Write | credential.EventsWrite | credential.Read,
	}, nil
}

// ask sends a request and holds the answer to the document.
func (w *world) ask(method, path, body string, into any) int {
	w.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	token := "token"
	if w.other {
		token = otherToken
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if strings.HasPrefix(path, "/events/batch") {
		r.Header.Set("Content-Type", "application/x-ndjson")
	}
	a := httptest.NewRecorder()
	w.api.ServeHTTP(a, r)
	httpapitest.CheckResponse(w.t, w.spec, method, r.URL.Path, a.Code, a.Header(), a.Body.Bytes())
	if into != nil {
		if err := json.Unmarshal(a.Body.Bytes(), into); err != nil {
			w.t.Errorf("%s %s: %v: %s", method, path, err, a.Body)
		}
	}
	return a.Code
}

var environments = []string{"dev", "staging", "production"}

const products = 5

// post stores n events more, of every kind that makes rows.
func (w *world) post(n int) {
	w.t.Helper()
	var b bytes.Buffer
	for range n {
		i := int(w.n.Add(1))
		product, version := fmt.Sprintf("svc-%d", i%products), fmt.Sprintf("1.%d", i)
		status := []string{"success", "failed", "aborted"}[i%3]
		if i%4 == 0 {
			fmt.Fprintf(&b, `{"type":"build","product_name":%q,"version":%q,"status":%q,"scm_sha":"%040x","build_number":"%d"}`+"\n", product, version, "success", i, i)
		} else {
			fmt.Fprintf(&b, `{"type":"deployment","product_name":%q,"version":%q,"environment_name":%q,"status":%q,"invoke_id":"%d","deployed_by":"ada"}`+"\n",
				product, version, environments[i/products%len(environments)], status, i)
		}
	}
	var got struct {
		Accepted int
		Results  []json.RawMessage
	}
	if code := w.ask(http.MethodPost, "/events/batch", b.String(), &got); code != http.StatusOK || got.Accepted != n {
		w.t.Errorf("of %d events %d are accepted: %d %s", n, got.Accepted, code, got.Results)
	}
}

// plan makes a release, and gives a product another name: neither comes of a run.
func (w *world) plan() {
	w.t.Helper()
	if code := w.ask(http.MethodPost, "/releases/", fmt.Sprintf(`{"name":"release %d"}`, w.n.Add(1)), nil); code != http.StatusCreated {
		w.t.Fatalf("a release is answered %d", code)
	}
	var products struct{ Items []struct{ ID string } }
	w.ask(http.MethodGet, "/products/?limit=1", "", &products)
	if len(products.Items) == 0 {
		w.t.Fatal("there is no product")
	}
	if code := w.ask(http.MethodPatch, "/products/"+products.Items[0].ID, fmt.Sprintf(`{"name":"renamed-%d"}`, w.n.Add(1)), nil); code != http.StatusOK {
		w.t.Fatalf("a new name is answered %d", code)
	}
}

// projected returns when reads show all that was posted.
func (w *world) projected() {
	w.t.Helper()
	last, _ := w.track.Last(w.t.Context())
	w.until("the live tables are up to date", func() bool {
		progress, err := w.model.AsOf(w.t.Context())
		return err == nil && len(progress) == 1 && progress[0].Offset.Seq() >= last
	})
}

func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	deadline, tick := time.After(patient), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("not after %s: %s", patient, what)
		}
	}
}

type replayState struct {
	ID, State, Code string
	Version         uint32
	Verdict         *string
	Reason          *string
}

func (w *world) startReplay(body string) replayState {
	w.t.Helper()
	var r replayState
	if code := w.ask(http.MethodPost, "/replays/", body, &r); code != http.StatusCreated {
		w.t.Fatalf("%d %+v", code, r)
	}
	return r
}

func (w *world) state(id string) (r replayState) {
	w.t.Helper()
	if code := w.ask(http.MethodGet, "/replays/"+id, "", &r); code != http.StatusOK {
		w.t.Fatalf("%d", code)
	}
	return r
}

// reaches returns when a replay is in a state.
func (w *world) reaches(id, state string) replayState {
	w.t.Helper()
	var r replayState
	w.until("the replay is "+state, func() bool {
		r = w.state(id)
		if r.State == "failed" && state != "failed" {
			w.t.Fatalf("it failed: %s", *r.Reason)
		}
		return r.State == state
	})
	return r
}

type certificate struct {
	Verdict        string
	Reason         string
	QuarantinedOld int `json:"quarantined_old"`
	QuarantinedNew int `json:"quarantined_new"`

	To     string
	Events int
	Tables []struct {
		Name    string
		Rows    int
		HashOld string `json:"hash_old"`
		HashNew string `json:"hash_new"`
	}
	First *struct {
		Table   string
		Key     map[string]string
		Columns []string
		Event   *struct{ Position string }
	} `json:"first_difference"`
	StoodStill float64 `json:"stood_still_seconds"`
}

func (w *world) certificate(id string) (c certificate) {
	w.t.Helper()
	if code := w.ask(http.MethodGet, "/replays/"+id+"/certificate", "", &c); code != http.StatusOK {
		w.t.Fatalf("%d", code)
	}
	return c
}

// refused holds a request to be a conflict with a code.
func (w *world) refused(path, body, code string) {
	w.t.Helper()
	if status, got := w.decide(path, body); status != http.StatusConflict || got != code {
		w.t.Errorf("%s: %d %s, want %s", path, status, got, code)
	}
}

// decide asks for a change of a replay, and again while the tables are not level: on a
// busy machine that may take them longer than an answer waits.
func (w *world) decide(path, body string) (status int, code string) {
	w.t.Helper()
	w.until("the tables to switch to are level", func() bool {
		var got struct {
			Code  string
			Error json.RawMessage
		}
		status = w.ask(http.MethodPost, path, body, &got)
		code = got.Code
		if status == http.StatusServiceUnavailable {
			var e struct{ Code string }
			if err := json.Unmarshal(got.Error, &e); err != nil {
				w.t.Fatalf("%s: %v: %s", path, err, got.Error)
			}
			code = e.Code
		}
		return code != "READ_MODEL_BEHIND"
	})
	return status, code
}

// cancelled, switched and undone return when the decision is in force. Its answer may
// leave before that, which it says.
func (w *world) cancelled(id string) { w.t.Helper(); w.decided(id, "cancel", "", w.model.Active()) }

func (w *world) switched(r replayState, body string) {
	w.t.Helper()
	w.decided(r.ID, "switch", body, r.Version)
}

func (w *world) undone(id string, live uint32) { w.t.Helper(); w.decided(id, "undo", "", live) }

func (w *world) decided(id, what, body string, live uint32) {
	w.t.Helper()
	if status, code := w.decide("/replays/"+id+"/"+what, body); status != http.StatusOK && (status != http.StatusServiceUnavailable || code != "READ_MODEL_UNAVAILABLE") {
		w.t.Fatalf("%s: %d %s", what, status, code)
	}
	w.live(live)
}

// live returns when a version is the one that answers.
func (w *world) live(version uint32) {
	w.t.Helper()
	w.until(fmt.Sprintf("version %d is live", version), func() bool { return w.model.Active() == version })
}

type matrix struct {
	Items []struct {
		ProductName string `json:"product_name"`
		Cells       []struct {
			EnvironmentName string `json:"environment_name"`
			Version         *string
			DeploymentID    *string `json:"deployment_id"`
		}
	}
}

// cells gives what the matrix shows, product/environment → version.
func (w *world) cells() map[string]string {
	w.t.Helper()
	var m matrix
	if code := w.ask(http.MethodGet, "/matrix", "", &m); code != http.StatusOK {
		w.t.Errorf("a read of the matrix is answered %d", code)
	}
	out := map[string]string{}
	for _, p := range m.Items {
		for _, c := range p.Cells {
			if c.Version != nil {
				out[p.ProductName+" in "+c.EnvironmentName] = *c.Version
			}
		}
	}
	return out
}

// equalsMemory holds the live answers to those of a model in memory over the
// whole log.
func (w *world) equalsMemory() {
	w.t.Helper()
	w.projected()
	memory := memmodel.New()
	var rows readmodel.Rows
	var end readmodel.Progress
	for f, err := range w.track.Read(w.t.Context(), 0) {
		if err != nil {
			w.t.Fatal(err)
		}
		events, err := event.DecodeFrame("t0", f.Seq, f.Body)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range events {
			projection.Project(e, &rows)
			end = readmodel.Progress{Stream: "t0", Offset: e.Position.Offset, Time: e.Time}
		}
	}
	if err := memory.Store(w.t.Context(), &rows, end); err != nil {
		w.t.Fatal(err)
	}
	page := readmodel.Page{Limit: 1_000_000}
	want, err := memory.Matrix(w.t.Context(), account, readmodel.MatrixFilter{}, page)
	if err != nil {
		w.t.Fatal(err)
	}
	got, err := w.model.Matrix(w.t.Context(), account, readmodel.MatrixFilter{}, page)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		w.t.Error(diff, err)
	}
	wantRuns, _ := memory.Deployments(w.t.Context(), account, readmodel.RunFilter{}, page)
	gotRuns, err := w.model.Deployments(w.t.Context(), account, readmodel.RunFilter{}, page)
	if diff := cmp.Diff(wantRuns, gotRuns); diff != "" || err != nil {
		w.t.Error(diff, err)
	}
}

// keepsUp waits for the live tables where they are far behind what was posted, and
// up to as long again. Whoever posts faster than a busy machine projects would have a
// rebuild run after the end of the log for ever.
func (w *world) keepsUp() {
	const frames = 20 // that may be on their way
	began := time.Now()
	last, _ := w.track.Last(w.t.Context())
	for time.Since(began) < patient {
		progress, err := w.model.AsOf(w.t.Context())
		if err == nil && len(progress) == 1 && progress[0].Offset.Seq()+frames >= last {
			return
		}
		<-time.After(max(time.Since(began), 10*time.Millisecond))
	}
}

// busily runs each until the function it returns is called, which may be called again.
func busily(each ...func()) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for _, f := range each {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					f()
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

func TestARebuildIsEqualAndSwitchedToWhileOthersReadAndWrite(t *testing.T) {
	w := newWorld(t)
	w.start(w.model)
	for range 20 {
		w.post(200)
	}
	w.projected()
	w.plan()
	var reads, writes atomic.Int64
	pace := time.NewTicker(40 * time.Millisecond)
	defer pace.Stop()
	stop := busily(
		func() { w.cells(); reads.Add(1) },
		func() { <-pace.C; w.post(50); writes.Add(50); w.keepsUp() }, // up to 1,250 events a second
	)
	defer stop()
	r := w.startReplay(`{"switch":"when_equal"}`)
	w.refused("/replays/", `{}`, "REPLAY_IN_PROGRESS")
	w.reaches(r.ID, "switched")
	stop()
	c := w.certificate(r.ID)
	t.Logf("%d reads and %d events beside it; live stood %.0f ms; %+v", reads.Load(), writes.Load(), c.StoodStill*1000, c)
	if c.Verdict != "equal" || c.First != nil || c.Events == 0 || len(c.Tables) == 0 {
		t.Errorf("%+v", c)
	}
	for _, table := range c.Tables {
		if table.HashOld != table.HashNew || table.Rows == 0 {
			t.Errorf("%+v", table)
		}
	}
	if reads.Load() == 0 || writes.Load() == 0 {
		t.Errorf("%d reads, %d writes", reads.Load(), writes.Load())
	}
	w.live(r.Version)
	w.equalsMemory()
	w.post(100)
	w.undone(r.ID, 1)
	w.equalsMemory() // what arrived after the switch is in both
	w.refused("/replays/"+r.ID+"/undo", "", "REPLAY_STATE")
}

// changed is the projection with a version that shows differently, of two products.
func changed(r event.Recorded, rows *readmodel.Rows) bool {
	n := len(rows.Cells)
	known := projection.Project(r, rows)
	for i := range rows.Cells[n:] {
		if c := &rows.Cells[n+i]; c.Record.ProductName == "svc-1" || c.Record.ProductName == "svc-3" {
			c.Record.Version += "+"
		}
	}
	return known
}

func TestADeliberateChangeIsPreviewedSwitchedToWithConsentAndUndone(t *testing.T) {
	w := newWorld(t)
	w.start(w.model)
	w.post(600)
	w.projected()
	before := w.cells()
	w.code(changed)
	r := w.startReplay(`{"switch":"when_equal"}`)
	w.reaches(r.ID, "ready")
	if c := w.certificate(r.ID); c.Verdict != "different" || c.First == nil || c.First.Table != "cells" || !slices.Equal(c.First.Columns, []string{"version"}) {
		t.Errorf("%+v", c)
	}
	var diff struct {
		Items []struct {
			ProductName     string `json:"product_name"`
			EnvironmentName string `json:"environment_name"`
			From, To        *struct{ Version string }
		}
		NextCursor *string `json:"next_cursor"`
		Tables     []struct {
			Name                    string
			Added, Removed, Changed int
		}
		Metrics *changedMetrics
	}
	want, got, cursor := map[string]string{}, map[string]string{}, ""
	for pages := 0; ; pages++ { // small pages, so that they are walked
		if code := w.ask(http.MethodGet, "/replays/"+r.ID+"/diff?limit=2"+cursor, "", &diff); code != http.StatusOK {
			t.Fatal(code)
		}
		if m := diff.Metrics; (m != nil) != (pages == 0) || m != nil && (m.Reason != nil || len(m.Overall)+m.Changed > 0) {
			t.Errorf("page %d: %+v", pages, m) // other versions, and the same failures at the same times
		}
		diff.Metrics = nil
		for _, i := range diff.Items {
			got[i.ProductName+" in "+i.EnvironmentName] = i.From.Version + " -> " + i.To.Version
		}
		if diff.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *diff.NextCursor
		diff.NextCursor = nil
	}
	after := map[string]string{}
	for cell, version := range before {
		after[cell] = version
		if strings.HasPrefix(cell, "svc-1 ") || strings.HasPrefix(cell, "svc-3 ") {
			after[cell] = version + "+"
			want[cell] = version + " -> " + version + "+"
		}
	}
	if d := cmp.Diff(want, got); d != "" || len(want) == 0 {
		t.Error(d)
	}
	for _, table := range diff.Tables {
		touched := table.Name == "cells" || table.Name == "current" || table.Name == "cell_periods"
		if (table.Changed > 0) != touched || table.Added+table.Removed > 0 {
			t.Errorf("%+v", table)
		}
	}
	w.refused("/replays/"+r.ID+"/switch", `{}`, "REPLAY_DIFFERS")
	if d := cmp.Diff(before, w.cells()); d != "" {
		t.Error("without consent the answers are others:", d)
	}
	var mixed atomic.Int64
	stop := busily(func() {
		plus := map[bool]int{}
		for cell, version := range w.cells() {
			if want[cell] != "" {
				plus[strings.HasSuffix(version, "+")]++
			}
		}
		if len(plus) != 1 {
			mixed.Add(1)
		}
	})
	defer stop()
	w.switched(r, `{"consent":true}`)
	if d := cmp.Diff(after, w.cells()); d != "" {
		t.Error("after the switch:", d)
	}
	w.undone(r.ID, 1)
	if d := cmp.Diff(before, w.cells()); d != "" {
		t.Error("after undoing it:", d)
	}
	stop()
	if mixed.Load() > 0 {
		t.Errorf("%d answers were drawn from both versions", mixed.Load())
	}
}

// defective is the projection with a fault in one column of one row of a kind,
// of the run that a body names.
func defective(spoil func(rows *readmodel.Rows, from *readmodel.Rows) bool) projectFunc {
	var done atomic.Bool
	return func(r event.Recorded, rows *readmodel.Rows) bool {
		before := *rows
		known := projection.Project(r, rows)
		if !done.Load() && spoil(rows, &before) {
			done.Store(true)
		}
		return known
	}
}

// What one row makes stands in several tables; faults of the others (dep_by_env,
// current, attempts) are planted in the tables themselves, in package chmodel.
func TestADefectOfTheProjectionIsRefusedAndNamedWhereverItIs(t *testing.T) {
	w := newWorld(t)
	w.start(w.model)
	w.post(120)
	w.projected()
	w.plan()
	w.projected()
	for _, d := range []struct {
		table, column string
		spoil         func(rows, before *readmodel.Rows) bool
	}{
		{"events", "flag", func(r, b *readmodel.Rows) bool {
			return last(r.Events, b.Events, func(e *readmodel.EventRow) { e.Flag = "odd" })
		}},
		{"deployments", "error_code", func(r, b *readmodel.Rows) bool {
			return last(r.Deployments, b.Deployments, func(d *readmodel.RunRow) { d.Record.Attributes[event.ErrorCode] = "E7" })
		}},
		{"builds", "build_number", func(r, b *readmodel.Rows) bool {
			return last(r.Builds, b.Builds, func(d *readmodel.RunRow) { d.Record.Attributes[event.BuildNumber] = "7777" })
		}},
		{"cells", "url", func(r, b *readmodel.Rows) bool {
			return last(r.Cells, b.Cells, func(c *readmodel.Cell) { c.Record.Attributes[event.URL] = "http://elsewhere" })
		}},
		{"past_attempts", "done_by", func(r, b *readmodel.Rows) bool {
			return last(r.Attempts, b.Attempts, func(a *readmodel.Attempt) { a.Record.Attributes[event.By] = "mallory" })
		}},
		{"products", "name", func(r, b *readmodel.Rows) bool {
			return last(r.Products, b.Products, func(p *readmodel.ProductRow) { p.Name = "ship" })
		}},
		{"environments", "class", func(r, b *readmodel.Rows) bool {
			return last(r.Environments, b.Environments, func(e *readmodel.EnvironmentRow) { e.Class = event.Testing })
		}},
		{"versions", "sha_fixed", func(r, b *readmodel.Rows) bool {
			return last(r.Versions, b.Versions, func(v *readmodel.VersionRow) { v.SHAFixed = !v.SHAFixed })
		}},
		{"releases", "description", func(r, b *readmodel.Rows) bool {
			return last(r.Releases, b.Releases, func(v *readmodel.ReleaseRow) { v.Description = "odd" })
		}},
		{"names", "id", func(r, b *readmodel.Rows) bool {
			return last(r.Names, b.Names, func(n *readmodel.NameRow) { n.ID[0]++ })
		}},
	} {
		t.Run(d.table, func(t *testing.T) {
			w.code(defective(d.spoil))
			r := w.startReplay(`{"switch":"when_equal"}`)
			w.reaches(r.ID, "ready")
			c := w.certificate(r.ID)
			if c.Verdict != "different" || c.First == nil || c.First.Table != d.table || !slices.Equal(c.First.Columns, []string{d.column}) {
				t.Errorf("%+v %+v", c, c.First)
			}
			if c.First != nil && (c.First.Key["account"] != account || c.First.Event == nil) {
				t.Errorf("%+v", c.First)
			}
			w.refused("/replays/"+r.ID+"/switch", `{}`, "REPLAY_DIFFERS")
			w.cancelled(r.ID)
		})
	}
	w.code(projection.Project)
	w.equalsMemory()
}

// last changes the last of what was appended.
func last[R any](rows, before []R, change func(*R)) bool {
	if len(rows) == len(before) {
		return false
	}
	change(&rows[len(rows)-1])
	return true
}

// halting are tables whose version 2 stops storing after the first time.
type halting struct {
	*chmodel.Model
	halt   bool
	once   sync.Once
	stored chan struct{} // closed after the first time
	events atomic.Int64  // stored in version 2
}

func (h *halting) OpenSink(ctx context.Context, version uint32) (readmodel.Sink, func() error, error) {
	sink, closeSink, err := h.Model.OpenSink(ctx, version)
	if version == 2 {
		sink = haltingSink{sink, h}
	}
	return sink, closeSink, err
}

type haltingSink struct {
	readmodel.Sink
	h *halting
}

func (s haltingSink) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	if err := s.Sink.Store(ctx, rows, upTo); err != nil {
		return err
	}
	s.h.count(ctx, len(rows.Events))
	return nil
}

func (s haltingSink) Batch() readmodel.Batch {
	return &haltingBatch{Batch: s.Sink.(readmodel.Batcher).Batch(), h: s.h}
}

type haltingBatch struct {
	readmodel.Batch
	h      *halting
	events int
}

func (b *haltingBatch) Add(rows *readmodel.Rows) {
	b.events += len(rows.Events)
	b.Batch.Add(rows)
}

func (b *haltingBatch) Store(ctx context.Context, upTo readmodel.Progress) error {
	if err := b.Batch.Store(ctx, upTo); err != nil {
		return err
	}
	b.h.count(ctx, b.events)
	b.events = 0
	return nil
}

func (h *halting) count(ctx context.Context, events int) {
	h.events.Add(int64(events))
	h.once.Do(func() { close(h.stored) })
	if h.halt {
		<-ctx.Done()
	}
}

func TestARebuildThatWasInterruptedGoesOnWhereItStood(t *testing.T) {
	w := newWorld(t)
	first := &halting{Model: w.model, halt: true, stored: make(chan struct{})}
	w.start(first)
	for range 150 {
		w.post(10)
	}
	w.projected()
	r := w.startReplay(`{}`)
	<-first.stored
	w.stop()
	if err := w.model.Clone(t.Context(), 1); err != nil { // as a crash within a comparison leaves them
		t.Fatal(err)
	}
	w.post(10) // a first block takes all that is there before it
	second := &halting{Model: w.model, stored: make(chan struct{})}
	w.start(second)
	w.reaches(r.ID, "ready")
	c := w.certificate(r.ID)
	if c.Verdict != "equal" || first.events.Load()+second.events.Load() != int64(c.Events) || second.events.Load() == 0 {
		t.Errorf("%d events were stored before and %d after, of %d; %s", first.events.Load(), second.events.Load(), c.Events, c.Verdict)
	}
	// Switched and started again, both versions are kept up to date.
	w.switched(r, "")
	w.stop()
	w.start(w.model)
	w.post(50)
	w.equalsMemory()
	if w.model.Active() != 2 {
		t.Errorf("version %d is live", w.model.Active())
	}
	w.undone(r.ID, 1)
	w.equalsMemory()
}

func TestCancelledAndCheckedVersionsAreDropped(t *testing.T) {
	w := newWorld(t)
	w.start(w.model)
	w.post(300)
	w.projected()
	only := func(want ...uint32) {
		t.Helper()
		w.until("what is not needed is dropped", func() bool {
			got, err := w.model.TableVersions(t.Context())
			return err == nil && slices.Equal(got, want)
		})
	}
	r := w.startReplay(`{}`)
	w.cancelled(r.ID)
	only(1)
	w.refused("/replays/"+r.ID+"/cancel", "", "REPLAY_STATE")
	for _, body := range []string{`{"account":"acme"}`, `{"from":"t0.2.0"}`, `{"from":"t0.1.7","account":"acme"}`} {
		w.post(100)
		check := w.startReplay(body)
		if check.Version <= r.Version {
			t.Errorf("version %d is used again", check.Version)
		}
		w.reaches(check.ID, "ready")
		if c := w.certificate(check.ID); c.Verdict != "equal" || c.Events == 0 {
			t.Errorf("%s: %+v", body, c)
		}
		w.refused("/replays/"+check.ID+"/switch", `{"consent":true}`, "REPLAY_IS_CHECK")
		only(1)
	}
	for body, want := range map[string]int{
		`{"account":"other"}`: http.StatusForbidden, `{"from":"t0.9999.0"}`: http.StatusUnprocessableEntity, `{"from":"x"}`: http.StatusUnprocessableEntity,
		`{"switch":"never"}`: http.StatusUnprocessableEntity, `{"projection":"other"}`: http.StatusUnprocessableEntity, `[`: http.StatusBadRequest,
	} {
		if code := w.ask(http.MethodPost, "/replays/", body, nil); code != want {
			t.Errorf("%s: %d, want %d", body, code, want)
		}
	}
	var projections struct {
		Items []struct {
			State         string
			ActiveVersion int `json:"active_version"`
			LagEvents     int `json:"lag_events"`
		}
	}
	if code := w.ask(http.MethodGet, "/projections/", "", &projections); code != http.StatusOK || len(projections.Items) != 1 || projections.Items[0].ActiveVersion != 1 {
		t.Errorf("%d %+v", code, projections)
	}
	var page struct {
		Items      []replayState
		NextCursor *string `json:"next_cursor"`
	}
	if w.ask(http.MethodGet, "/replays/?limit=3", "", &page); len(page.Items) != 3 || page.NextCursor == nil {
		t.Fatalf("%+v", page)
	}
	if w.ask(http.MethodGet, "/replays/?limit=3&cursor="+*page.NextCursor, "", &page); len(page.Items) != 1 || page.Items[0].ID != r.ID {
		t.Errorf("%+v", page)
	}
}
