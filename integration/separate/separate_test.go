package separate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/integration/separate"
	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
)

func TestMain(m *testing.M) {
	chserver.MaybeRunChild()
	code := m.Run()
	if programsDir != "" {
		_ = os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

// patience bounds every wait. It is no expectation: only a run that hangs reaches it.
const patience = 5 * time.Minute

// town is a system of separate processes, with what is sent to it.
type town struct {
	*separate.System
	t        *testing.T
	key, pat string

	mu       sync.Mutex
	accepted int
	failed   []string // writes that were refused
	position string   // of the last batch
}

func start(t *testing.T, counts map[string]int) *town {
	t.Helper()
	return startWith(t, separate.Config{Counts: counts, Metrics: true})
}

// programsDir holds what is run, which is built once for all tests.
var programsDir string

var programs = sync.OnceValue(func() (err error) {
	if programsDir, err = os.MkdirTemp("", "separate-programs-"); err == nil {
		err = separate.Build(programsDir)
	}
	return err
})

func startWith(t *testing.T, cfg separate.Config) *town {
	t.Helper()
	if testing.Short() {
		t.Skip("eight programs are built and run")
	}
	chservertest.Engine(t)
	if err := programs(); err != nil {
		t.Fatal(err)
	}
	cfg.Programs, cfg.Data, cfg.Addr = programsDir, filepath.Join(t.TempDir(), "data"), "127.0.0.1:0"
	cfg.Env = []string{"SHIPLEDGER_RATE_LIMIT=off", "SHIPLEDGER_LOG_LEVEL=warn"}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	system, err := separate.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := system.Stop(); err != nil {
			t.Error(err)
		}
	})
	text, err := os.ReadFile(filepath.Join(cfg.Data, "bootstrap-credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	var keys struct {
		APIKey string `json:"api_key"`
		PAT    string `json:"pat"`
	}
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	return &town{System: system, t: t, key: keys.APIKey, pat: keys.PAT}
}

func (w *town) eventually(what string, done func() error) {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			w.t.Fatalf("%s: %v", what, err)
		case <-poll.C:
		}
	}
}

func (w *town) ask(method, path, token, body string, into any) (int, error) {
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.URL+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	switch {
	case path == "/events/batch":
		r.Header.Set("Content-Type", "application/x-ndjson")
	case body != "":
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := w.Client.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	if res.StatusCode == http.StatusOK {
		w.mu.Lock()
		if at := res.Header.Get("X-Shipledger-Position"); at != "" {
			w.position = at
		}
		w.mu.Unlock()
		err = json.Unmarshal(text, into)
	} else {
		err = fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	return res.StatusCode, err
}

const (
	batch   = 20
	perTick = 20 * time.Millisecond // 1,000 events a second, where the machine has the time
)

// load sends batches until the function it gives is called.
func (w *town) load() (stop func()) {
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		ticks := time.NewTicker(perTick)
		defer ticks.Stop()
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-ticks.C:
				w.send(n)
			}
		}
	})
	return func() { close(done); group.Wait() }
}

func (w *town) send(n int) {
	var body bytes.Buffer
	for i := range batch {
		fmt.Fprintf(&body, `{"product_name":"svc-%d","version":"1.%d.%d","environment_name":"production","status":"success","invoke_id":"%d-%d"}`+"\n", i, n, i, n, i)
	}
	var answer struct {
		Results []struct {
			Status int `json:"status"`
		} `json:"results"`
	}
	_, err := w.ask(http.MethodPost, "/events/batch", w.key, body.String(), &answer)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed = append(w.failed, err.Error())
	}
	for _, r := range answer.Results {
		if r.Status == http.StatusOK {
			w.accepted++
		} else {
			w.failed = append(w.failed, strconv.Itoa(r.Status))
		}
	}
}

// metric gives a metric of a process, all streams together; false where it says nothing.
func (w *town) metric(p *separate.Process, name string) (sum float64, ok bool) {
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Get(p.Metrics + "/metrics") //nolint:noctx // it has a timeout
	if err != nil {
		return 0, false
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if head, value, found := strings.Cut(strings.TrimSpace(line), " "); found && (head == name || strings.HasPrefix(head, name+"{")) {
			if n, err := strconv.ParseFloat(value, 64); err == nil {
				sum += n
			}
		}
	}
	return sum, true
}

// reads gives a metric of a process that runs.
func (w *town) reads(p *separate.Process, name string) (value float64) {
	w.t.Helper()
	w.eventually("its metrics are read", func() (err error) {
		var ok bool
		if value, ok = w.metric(p, name); !ok {
			err = errors.New("they are not")
		}
		return err
	})
	return value
}

// leader gives who projects, and who stands by.
func (w *town) leader() (leads, stands *separate.Process) {
	w.t.Helper()
	w.eventually("one projector leads", func() error {
		leads, stands = nil, nil
		for _, p := range w.Processes("projector") {
			switch n, ok := w.metric(p, "shipledger_projector_leads"); {
			case !ok:
			case n == 1 && leads != nil:
				return errors.New("two lead")
			case n == 1:
				leads = p
			default:
				stands = p
			}
		}
		if leads == nil || stands == nil {
			return errors.New("not one leads and one stands by")
		}
		return nil
	})
	return leads, stands
}

// exact holds the balance and the read model to what was acknowledged.
func (w *town) exact() {
	w.t.Helper()
	w.mu.Lock()
	position, accepted := w.position, w.accepted
	w.mu.Unlock()
	var balance struct {
		Balanced            bool
		Accepted, Projected uint64
		Items               []struct {
			Type     string
			Accepted uint64
		}
	}
	w.eventually("the read model reaches "+position, func() error {
		_, err := w.ask(http.MethodGet, "/ledger/balance?min_position="+position, w.pat, "", &balance)
		return err
	})
	if !balance.Balanced || balance.Accepted != balance.Projected {
		w.t.Errorf("the balance is off: %+v", balance)
	}
	completed := 0
	for _, item := range balance.Items {
		if item.Type == "deployment.completed" {
			completed = int(item.Accepted)
		}
	}
	if completed != accepted {
		w.t.Errorf("%d events were acknowledged, %d are in the ledger", accepted, completed)
	}
	w.equalsMemory()
}

// equalsMemory holds the tables to a model in memory over the whole log.
func (w *town) equalsMemory() {
	w.t.Helper()
	nc, err := nats.Connect(w.NATS, nats.Timeout(patience))
	if err != nil {
		w.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(patience))
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := natslog.Track(0, 1)
	cfg.Foreign = true
	track, err := natslog.Open(w.t.Context(), js, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	memory := memmodel.New()
	var rows readmodel.Rows
	var end readmodel.Progress
	for f, err := range track.Read(w.t.Context(), 0) {
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
	dsn, err := chmodel.ParseDSN(w.DSN)
	if err != nil {
		w.t.Fatal(err)
	}
	dsn.DialTimeout, dsn.QueryTimeout = patience, patience // a busy machine is no finding
	tables, err := chmodel.Open(w.t.Context(), dsn, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	defer tables.Close()
	page := readmodel.Page{Limit: 1_000_000}
	want, err := memory.Deployments(w.t.Context(), "main", readmodel.RunFilter{}, page)
	if err != nil {
		w.t.Fatal(err)
	}
	got, err := tables.Deployments(w.t.Context(), "main", readmodel.RunFilter{}, page)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		w.t.Errorf("deployments differ: %v\n%.2000s", err, diff)
	}
	wantCells, err := memory.Matrix(w.t.Context(), "main", readmodel.MatrixFilter{}, page)
	if err != nil {
		w.t.Fatal(err)
	}
	gotCells, err := tables.Matrix(w.t.Context(), "main", readmodel.MatrixFilter{}, page)
	if diff := cmp.Diff(wantCells, gotCells); diff != "" || err != nil {
		w.t.Errorf("the matrix differs: %v\n%.2000s", err, diff)
	}
	_, wantCounts, err := memory.EventCounts(w.t.Context(), "main", "t0")
	if err != nil {
		w.t.Fatal(err)
	}
	_, gotCounts, err := tables.EventCounts(w.t.Context(), "main", "t0")
	if diff := cmp.Diff(wantCounts, gotCounts); diff != "" || err != nil {
		w.t.Errorf("events differ: %v\n%s", err, diff)
	}
}

// splits bounds how often the projectors are split until one of them was stopped in
// the middle of a block, which it then finishes while the other leads.
const splits = 40

// One projector is stopped by the kernel in the middle of its work, the other one takes
// over, and the first goes on where it was. Every restart of ingest loses no write.
func TestTwoProjectorsAtOnceHaveNoDoubleEffect(t *testing.T) {
	w := start(t, map[string]int{"projector": 2, "ingest": 2})
	stop := w.load()
	var late float64
	split := 0
	for ; late == 0 && split < splits; split++ {
		first, second := w.leader()
		w.eventually("the first has projected", func() error { return w.more(first, 0) })
		before := w.reads(second, "shipledger_events_projected_total")
		if err := first.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w.eventually("the second takes over", func() error { return w.more(second, before) })
		t.Logf("taken over after %s", time.Since(began).Round(time.Millisecond))
		if err := first.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		// On a busy machine the second may lose the lead to it again by then.
		w.eventually("the first steps down", func() error {
			for _, p := range []*separate.Process{first, second} {
				if n, ok := w.metric(p, "shipledger_projector_leads"); ok && n == 0 {
					return nil
				}
			}
			return errors.New("both lead")
		})
		late = w.reads(first, "shipledger_events_projected_late_total")
	}
	t.Logf("after %d splits the first has stored %v events while the second led", split, late)
	if late == 0 {
		t.Error("not both have inserted after a split")
	}
	leads, _ := w.leader()
	leads.Kill()
	began := time.Now()
	var other *separate.Process
	for _, p := range w.Processes("projector") {
		if p != leads {
			other = p
		}
	}
	w.eventually("the other takes over from the dead one", func() error {
		if n, ok := w.metric(other, "shipledger_projector_leads"); !ok || n != 1 {
			return errors.New("it stands by")
		}
		return nil
	})
	t.Logf("taken over from the dead one after %s", time.Since(began).Round(time.Millisecond))
	for _, p := range w.Processes("ingest") {
		if err := w.Restart(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	stop()
	if len(w.failed) > 0 {
		t.Errorf("%d writes failed, the first: %s", len(w.failed), w.failed[0])
	}
	t.Logf("%d events were acknowledged", w.accepted)
	w.exact()
	w.closed()
}

// closed holds the files of a run to their owner alone. What the backends keep is
// behind folders that nobody else enters.
func (w *town) closed() {
	w.t.Helper()
	err := filepath.WalkDir(w.Data(), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			w.t.Errorf("%s has mode %s", path, info.Mode())
		}
		if d.IsDir() && path != w.Data() {
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// more tells whether a projector has stored more events.
func (w *town) more(p *separate.Process, than float64) error {
	if n, ok := w.metric(p, "shipledger_events_projected_total"); !ok || n <= than {
		return fmt.Errorf("it has stored %v", n)
	}
	return nil
}
