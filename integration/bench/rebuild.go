package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/services/projector"
)

// portions is how many blocks are made ready at a time before they are inserted.
const portions = 3

// rebuilds measures a rebuild of all tables, and native inserts of the same rows
// in blocks of the same size into a ClickHouse of its own.
func (b *bench) rebuilds(ctx context.Context) error {
	if b.Rebuilt == 0 {
		return nil
	}
	dir := filepath.Join(b.dir, "rebuild")
	row, err := b.rebuild(ctx, dir)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	b.logf("native inserts of the same rows")
	raw, err := insertRaw(ctx, dir, filepath.Join(b.dir, "raw"))
	if err != nil {
		return fmt.Errorf("insert without a log: %w", err)
	}
	if raw.events == 0 || raw.took == 0 {
		return errors.New("insert without a log: the log is empty")
	}
	row.RawPerSecond = float64(raw.events) / raw.took.Seconds()
	row.RawCPUSeconds, row.RawEngineCPUSeconds = raw.spent.process.Seconds(), raw.spent.children.Seconds()
	row.Ratio = row.PerSecond / row.RawPerSecond
	b.report.Rebuilds = append(b.report.Rebuilds, row)
	return nil
}

// rebuild fills a ledger, leaves it alone until all is readable and rebuilds it.
func (b *bench) rebuild(ctx context.Context, dir string) (row Rebuild, err error) {
	b.logf("rebuild of %d reference events", b.Rebuilt)
	ledger, err := startLedger(ctx, b.Binary, dir)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, ledger.stop()) }()
	events := newEvents(ledger.apiKey)
	if _, err := ledger.postBatches(ctx, events, 1, time.Hour, b.Rebuilt); err != nil {
		return row, err
	}
	if _, err := ledger.settle(ctx, events); err != nil {
		return row, err
	}
	engine := ledger.children()
	for _, pid := range append(engine, ledger.cmd.Process.Pid) {
		// From here on the peak counts. Where it cannot be set back, it is that of all.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	}
	row.Load = loadNow()
	var r struct {
		ID, State, Verdict string
		Events, Total      int
		Reason             *string
	}
	before, began := ledger.cpu(), time.Now()
	if err := ledger.admin(ctx, http.MethodPost, "/replays/", &r); err != nil {
		return row, err
	}
	for r.State == "running" || r.State == "verifying" {
		if r.State == "verifying" && row.Seconds == 0 {
			row.Seconds = time.Since(began).Seconds()
			spent := ledger.cpu().minus(before)
			row.CPUSeconds, row.EngineCPUSeconds = spent.process.Seconds(), spent.children.Seconds()
			row.Peak = peakMB(ledger.cmd.Process.Pid)
		}
		select {
		case <-ctx.Done():
			return row, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
		if err := ledger.admin(ctx, http.MethodGet, "/replays/"+r.ID, &r); err != nil {
			return row, err
		}
	}
	var c struct {
		Events     int
		StoodStill float64 `json:"stood_still_seconds"`
	}
	if r.State != "ready" || r.Verdict != "equal" || row.Seconds == 0 {
		return row, fmt.Errorf("the replay is %s, %s", r.State, r.Verdict)
	}
	if err := ledger.admin(ctx, http.MethodGet, "/replays/"+r.ID+"/certificate", &c); err != nil {
		return row, err
	}
	row.Events, row.StoodStillMillis = c.Events, c.StoodStill*1000
	row.CompareSeconds = time.Since(began).Seconds() - row.Seconds
	row.PerSecond = float64(c.Events) / row.Seconds
	for _, pid := range engine {
		row.EnginePeak = max(row.EnginePeak, peakMB(pid))
	}
	return row, ledger.admin(ctx, http.MethodPost, "/replays/"+r.ID+"/cancel", nil)
}

// admin asks with the operator's token and wants success.
func (l *ledger) admin(ctx context.Context, method, path string, into any) error {
	var body []byte
	if method == http.MethodPost {
		body = []byte("{}")
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+l.addr+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+l.adminPAT)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s is answered %d", method, path, res.StatusCode)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// inserted is what inserting alone took.
type inserted struct {
	events int
	took   time.Duration
	spent  used
}

// insertRaw stores what a ledger's log holds through the same writer, in the same
// blocks, one gathered while another is sent, and like a rebuild without merges
// meanwhile. The rows are at hand.
func insertRaw(ctx context.Context, ledger, dir string) (raw inserted, err error) {
	quiet := slog.New(slog.DiscardHandler)
	nats, err := natsserver.New(natsserver.Config{Dir: filepath.Join(ledger, "nats")}, quiet)
	if err != nil {
		return raw, err
	}
	located, err := chserver.Locate(chserver.LocateConfig{Library: os.Getenv("SHIPLEDGER_CLICKHOUSE_LIB"), CacheDir: os.Getenv("SHIPLEDGER_ENGINE_CACHE")})
	if err != nil {
		return raw, err
	}
	engine, err := chserver.New(chserver.Config{Dir: dir, Engine: located}, quiet)
	if err != nil {
		return raw, err
	}
	for _, run := range []func(context.Context, func()) error{nats.Run, engine.Run} {
		stop, runErr := runService(ctx, run)
		defer func() { err = errors.Join(err, stop()) }()
		if runErr != nil {
			return raw, runErr
		}
	}
	conn, err := nats.Connect()
	if err != nil {
		return raw, err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return raw, err
	}
	log, err := natslog.Open(ctx, js, natslog.Track(0, 1))
	if err != nil {
		return raw, err
	}
	auth := engine.Auth()
	model, err := chmodel.Open(ctx, chmodel.Config{DialContext: engine.DialContext, User: auth.User, Password: auth.Password, Database: auth.Database}, quiet)
	if err != nil {
		return raw, err
	}
	defer model.Close()
	if err := model.Migrate(ctx); err != nil {
		return raw, err
	}
	writer := model.Writer(model.Active())
	defer writer.Close()

	if err := model.DeferMerges(ctx, model.Active()); err != nil {
		return raw, err
	}
	held, n := make([]readmodel.Rows, portions), 0
	batches := [2]readmodel.Batch{writer.Batch(), writer.Batch()}
	store := func() error {
		began, before := time.Now(), cpuOf(os.Getpid())
		stored := make(chan error, 1)
		stored <- nil
		for i := range held[:n] {
			batch := batches[i%2]
			batch.Add(&held[i])
			if err := <-stored; err != nil {
				return err
			}
			go func() { stored <- batch.Store(ctx, readmodel.Progress{}) }()
		}
		if err := <-stored; err != nil {
			return err
		}
		raw.took += time.Since(began)
		spent := cpuOf(os.Getpid()).minus(before)
		raw.spent.process += spent.process
		raw.spent.children += spent.children
		for i := range held[:n] {
			raw.events += len(held[i].Events)
			held[i].Reset()
		}
		n = 0
		return nil
	}
	for f, err := range log.Read(ctx, 0) {
		if err != nil {
			return raw, err
		}
		decoded, err := event.DecodeFrame(event.TrackStream(0), f.Seq, f.Body)
		if err != nil {
			return raw, err
		}
		for _, e := range decoded {
			projection.Project(e, &held[n])
		}
		if held[n].Len() < projector.RebuildRows {
			continue
		}
		if n++; n == portions {
			if err := store(); err != nil {
				return raw, err
			}
		}
	}
	if held[min(n, portions-1)].Len() > 0 {
		n++
	}
	return raw, store()
}

// runService runs a service until stop is called.
func runService(ctx context.Context, run func(context.Context, func()) error) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- run(ctx, func() { close(ready) }) }()
	stop = func() error {
		cancel()
		return <-ended
	}
	select {
	case <-ready:
		return stop, nil
	case err := <-ended:
		cancel()
		return func() error { return nil }, errors.Join(errors.New("a server of its own did not start"), err)
	}
}

// peakMB is the most memory that a process has held, in MB; 0 where there is no /proc.
func peakMB(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); name == "VmHWM" {
			kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			return float64(kb) / 1024
		}
	}
	return 0
}

func loadNow() string {
	text, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(text), " ")
	return load
}
