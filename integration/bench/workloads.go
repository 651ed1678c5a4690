package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// readEvery is how often a connection of the mixed workload reads: after so many
// events one list, and after twice as many the matrix.
const readEvery = 4

// mixed has readers and writers on the same connections: of five requests one
// reads. Times of the two are told apart.
func (b *bench) mixed(ctx context.Context) (err error) {
	l, err := startMeasured(ctx, b.Binary, filepath.Join(b.dir, "mixed"), "SHIPLEDGER_RATE_LIMIT=off")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	events := newEvents(l.apiKey)
	if _, err := l.settle(ctx, events); err != nil {
		return err
	}
	for _, connections := range b.Connections {
		b.logf("mixed reads and writes on %d connections", connections)
		row, err := b.mix(ctx, l, events, connections)
		if err != nil {
			return err
		}
		b.report.Mixed = append(b.report.Mixed, row)
		if _, err := l.settle(ctx, events); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) mix(ctx context.Context, l *ledger, events *events, connections int) (Mixed, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var refused atomic.Int64
	reads, writes := hdr.New(1, maxMicros, significant), hdr.New(1, maxMicros, significant)
	began := time.Now()
	until := began.Add(b.Round * time.Duration(b.Rounds))
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() {
			for n := i; time.Now().Before(until) && ctx.Err() == nil; n++ {
				start, into := time.Now(), writes
				var err error
				switch {
				case n%(2*readEvery+2) == 0:
					into, err = reads, l.ask(ctx, client, "/matrix")
				case n%(readEvery+1) == 0:
					into, err = reads, l.ask(ctx, client, "/deployments/?limit=10")
				default:
					err = l.postOne(ctx, client, events)
				}
				if errors.Is(err, errBusy) {
					refused.Add(1)
					continue
				}
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				err = into.RecordValue(max(1, time.Since(start).Microseconds()))
				mu.Unlock()
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return Mixed{}, context.Cause(ctx)
	}
	took := time.Since(began).Seconds()
	return Mixed{
		Connections: connections, WritesPerSecond: float64(writes.TotalCount()) / took, ReadsPerSecond: float64(reads.TotalCount()) / took,
		Writes: times(writes), Reads: times(reads), ReadsRefused: int(refused.Load()),
	}, nil
}

// errBusy says that a read was refused for now: ClickHouse has no core left for it.
var errBusy = errors.New("the read model is busy")

func (l *ledger) ask(ctx context.Context, client *http.Client, path string) error {
	status, body, _, err := l.do(ctx, client, http.MethodGet, path, l.pat, "", nil)
	if err == nil && status == http.StatusServiceUnavailable {
		return errBusy
	}
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("GET %s: answered %d: %.300s", path, status, body)
	}
	return err
}

func (l *ledger) postOne(ctx context.Context, client *http.Client, events *events) error {
	status, body, _, err := l.do(ctx, client, http.MethodPost, "/deployment-events/", l.apiKey, "application/json", bytes.TrimSpace(events.lines(1)))
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("post an event: answered %d: %.300s", status, body)
	}
	l.accepted.Add(1)
	return err
}

func (l *ledger) do(ctx context.Context, client *http.Client, method, path, token, media string, body []byte) (int, []byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+l.addr+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, text, res.Header, err
}

// The overload: batches of a hundred, because what may wait for the log is
// bounded by events, and a client machine has fewer connections than that.
const (
	overBatch       = 100
	overConnections = 512
	calmConnections = 64 // that find out the maximum
	recovered       = 50 * time.Millisecond
)

// overload posts as much as the ledger takes, then twice of that, then nothing, in turns.
// Each overload is compared with the maximum before it and the one after it, as the
// machine and the tables are not the same later.
func (b *bench) overload(ctx context.Context) (err error) {
	l, err := startMeasured(ctx, b.Binary, filepath.Join(b.dir, "overload"), "SHIPLEDGER_RATE_LIMIT=off")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	events := newEvents(l.apiKey)
	out := &Overload{}
	var calm, over []flooded
	answers, refusals := hdr.New(1, maxMicros, significant), hdr.New(1, maxMicros, significant)
	maximum := func() error {
		b.logf("overload: the maximum, %d of %d", len(calm)+1, b.Floods+1)
		most, err := b.flood(ctx, l, events, calmConnections, 0)
		if err != nil {
			return err
		}
		calm = append(calm, most)
		_, err = l.settle(ctx, events)
		return err
	}
	if err := maximum(); err != nil {
		return err
	}
	for round := range b.Floods {
		b.logf("overload: twice of it, %d of %d", round+1, b.Floods)
		twice, err := b.flood(ctx, l, events, overConnections, 2*calm[round].perSecond)
		if err != nil {
			return err
		}
		took, err := b.calm(ctx, l, events)
		if err != nil {
			return err
		}
		out.RecoverySeconds = max(out.RecoverySeconds, took.Seconds())
		if _, err := l.settle(ctx, events); err != nil {
			return err
		}
		over = append(over, twice)
		out.Refused, out.WithoutRetryAfter = out.Refused+twice.refused, out.WithoutRetryAfter+twice.unsaid
		answers.Merge(twice.answers)
		refusals.Merge(twice.refusals)
		if err := maximum(); err != nil {
			return err
		}
	}
	for i, twice := range over {
		out.Ratios = append(out.Ratios, 2*twice.perSecond/(calm[i].perSecond+calm[i+1].perSecond))
	}
	held, err := l.deployments(ctx)
	if err != nil {
		return err
	}
	out.Lost = int(l.accepted.Load()) - held
	out.Maximum, out.MaximumCost = medianFlood(calm)
	out.Accepted, out.OverCost = medianFlood(over)
	out.Offered, out.Ratio = 2*out.Maximum, median(out.Ratios)
	out.Refusals, out.Answers = times(refusals), times(answers)
	b.report.Overload = out
	return nil
}

func medianFlood(of []flooded) (perSecond float64, cost FloodCost) {
	values := func(value func(flooded) float64) float64 {
		all := make([]float64, len(of))
		for i, f := range of {
			all[i] = value(f)
		}
		return median(all)
	}
	return values(func(f flooded) float64 { return f.perSecond }), FloodCost{
		Process: values(func(f flooded) float64 { return f.cost.Process }),
		Engine:  values(func(f flooded) float64 { return f.cost.Engine }),
		Client:  values(func(f flooded) float64 { return f.cost.Client }),
	}
}

// calm gives how long it takes until single events are answered soon again.
func (b *bench) calm(ctx context.Context, l *ledger, events *events) (time.Duration, error) {
	ended := time.Now()
	for soon := 0; soon < 3; soon++ {
		start := time.Now()
		if err := l.postOne(ctx, http.DefaultClient, events); err != nil {
			return 0, fmt.Errorf("after the overload: %w", err)
		}
		if time.Since(start) > recovered {
			soon = -1
		}
	}
	return time.Since(ended), nil
}

// deployments counts what the read model holds of the events that were posted,
// which the ledger itself says to be all that was accepted.
func (l *ledger) deployments(ctx context.Context) (int, error) {
	status, body, err := l.get(ctx, "/ledger/balance", l.pat)
	if err != nil {
		return 0, err
	}
	var balance struct {
		Balanced bool `json:"balanced"`
		Items    []struct {
			Type      string `json:"type"`
			Projected int    `json:"projected"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &balance); err != nil || status != http.StatusOK || !balance.Balanced {
		return 0, fmt.Errorf("the ledger does not balance: %d, %w: %.500s", status, err, body)
	}
	n := 0
	for _, i := range balance.Items {
		if i.Type == "deployment.completed" {
			n += i.Projected
		}
	}
	return n, nil
}

type flooded struct {
	perSecond         float64 // events accepted
	refused, unsaid   int     // requests; of them those without Retry-After
	answers, refusals *hdr.Histogram
	cost              FloodCost
}

// flood posts batches; at a rate, from when each was due, or as fast as answers come.
func (b *bench) flood(ctx context.Context, l *ledger, events *events, connections int, eventsPerSecond float64) (flooded, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	out := flooded{answers: hdr.New(1, maxMicros, significant), refusals: hdr.New(1, maxMicros, significant)}
	var mu sync.Mutex
	var next, accepted atomic.Int64
	server, own := l.cpu(), processTime(os.Getpid())
	began := time.Now()
	until := began.Add(b.Flood)
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				if eventsPerSecond > 0 {
					start = began.Add(time.Duration(float64(next.Add(1)*overBatch) / eventsPerSecond * float64(time.Second)))
					time.Sleep(time.Until(start))
				}
				if start.After(until) {
					return
				}
				sent := time.Now()
				status, body, header, err := l.do(ctx, client, http.MethodPost, "/events/batch", l.apiKey, "application/x-ndjson", events.lines(overBatch))
				if err != nil {
					cancel(fmt.Errorf("post a batch: %w", err))
					return
				}
				mu.Lock()
				switch n := bytes.Count(body, []byte(`"status":200`)); {
				case status == http.StatusOK && n == overBatch:
					accepted.Add(int64(n))
					err = out.answers.RecordValue(max(1, time.Since(start).Microseconds()))
				case status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests:
					out.refused++
					if header.Get("Retry-After") == "" {
						out.unsaid++
					}
					err = out.refusals.RecordValue(max(1, time.Since(sent).Microseconds())) // how soon it is told
				default:
					err = fmt.Errorf("post a batch: answered %d, %d of %d accepted: %.300s", status, n, overBatch, body)
				}
				mu.Unlock()
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	l.accepted.Add(accepted.Load())
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	out.perSecond = float64(accepted.Load()) / time.Since(began).Seconds()
	spent, n := l.cpu().minus(server), float64(max(1, accepted.Load()))
	out.cost = FloodCost{
		Process: spent.process.Seconds() * 1e6 / n, Engine: spent.children.Seconds() * 1e6 / n,
		Client: (processTime(os.Getpid()) - own).Seconds() * 1e6 / n,
	}
	return out, nil
}

// What a soak is judged by: the last quarter against the second one, since the
// first fills caches.
const (
	soakSample     = 10 * time.Second
	soakMaximum    = time.Minute // at most, that find out the maximum; of a short while the tables are merged later
	mostGrowth     = 1.25        // of memory
	mostSlower     = 2.0         // of the median answer: the machine has other work, too
	mostGoroutines = 1.10
	mostParts      = 1.5
)

// soak keeps up half of the maximum for a long time, and looks whether anything
// grows.
func (b *bench) soak(ctx context.Context) (err error) {
	if b.Soak == 0 {
		return nil
	}
	l, err := startMeasured(ctx, b.Binary, filepath.Join(b.dir, "soak"), "SHIPLEDGER_RATE_LIMIT=off")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	events := newEvents(l.apiKey)
	fast, err := drive(ctx, &l.server, events, load{connections: 64, warmUp: warmUp, measured: min(soakMaximum, b.Soak/10), max: 1 << 30})
	if err != nil {
		return err
	}
	rate := float64(fast.requests) / fast.took.Seconds() / 2
	s := &Soak{Minutes: b.Soak.Minutes(), PerSecond: rate}
	b.report.Soak = s
	began := time.Now()
	engine := l.children()
	for time.Since(began) < b.Soak {
		before, merged := cpuWith(l.cmd.Process.Pid, engine), mergeTime(engine)
		out, err := drive(ctx, &l.server, events, load{connections: 64, perSecond: rate, measured: soakSample, max: 1 << 30})
		if err != nil {
			return err
		}
		sample := SoakSample{Minute: time.Since(began).Minutes(), Times: times(out.times), Parts: parts(filepath.Join(l.data, "clickhouse"))}
		spent, each := cpuWith(l.cmd.Process.Pid, engine).minus(before), float64(max(1, out.requests))/1e6
		sample.CPUMicros, sample.EngineCPUMicros = spent.process.Seconds()/each, spent.children.Seconds()/each
		sample.MergeCPUMicros = (mergeTime(engine) - merged).Seconds() / each
		if sample.Goroutines, err = l.metric(ctx, "go_goroutines"); err != nil {
			return err
		}
		if sample.HeapMB, err = l.metric(ctx, "go_memstats_heap_inuse_bytes"); err != nil {
			return err
		}
		sample.HeapMB /= 1e6
		if sample.Checkpoints, err = l.metric(ctx, "shipledger_log_checkpoints_total"); err != nil {
			return err
		}
		sample.MemoryMB = resident(l.cmd.Process.Pid)
		for _, child := range engine {
			sample.EngineMB += resident(child)
		}
		s.Samples = append(s.Samples, sample)
		b.logf("soak, minute %.1f: p50 %.2f ms, p99 %.1f ms, %.0f + %.0f µs an event, %.0f of merges, %.0f MB, engine %.0f MB, %.0f goroutines, %d parts",
			sample.Minute, sample.P50, sample.P99, sample.CPUMicros, sample.EngineCPUMicros, sample.MergeCPUMicros,
			sample.MemoryMB, sample.EngineMB, sample.Goroutines, sample.Parts)
	}
	s.judge()
	return nil
}

// judge compares the last quarter of the samples with the second one.
func (s *Soak) judge() {
	early, late := s.quarters()
	if len(early) == 0 {
		s.Faults = append(s.Faults, "it was too short to be judged")
		return
	}
	for _, of := range []struct {
		name  string
		most  float64
		value func(SoakSample) float64
	}{
		{"memory of the process", mostGrowth, func(x SoakSample) float64 { return x.MemoryMB }},
		{"memory of ClickHouse", mostGrowth, func(x SoakSample) float64 { return x.EngineMB }},
		{"the median answer", mostSlower, func(x SoakSample) float64 { return x.P50 }},
		{"goroutines", mostGoroutines, func(x SoakSample) float64 { return x.Goroutines }},
		{"parts", mostParts, func(x SoakSample) float64 { return float64(x.Parts) }},
	} {
		if before, after := medianOf(early, of.value), medianOf(late, of.value); after > of.most*before {
			s.Faults = append(s.Faults, fmt.Sprintf("%s grew from %.1f to %.1f", of.name, before, after))
		}
	}
}

// quarters gives the second and the last quarter of the samples.
func (s *Soak) quarters() (early, late []SoakSample) {
	n := len(s.Samples) / 4
	return s.Samples[n : 2*n], s.Samples[len(s.Samples)-n:]
}

func medianOf(samples []SoakSample, value func(SoakSample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = value(s)
	}
	return median(values)
}

// metric gives the sum of a process's metric over its labels; name may go on
// with an opening brace and labels.
func (s *server) metric(ctx context.Context, name string) (sum float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask for metrics: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' && !strings.Contains(name, "{") {
			continue
		}
		fields := strings.Fields(line)
		n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// mallocs is how often a process of ours asked for memory; 0 where it does not say.
func (s *server) mallocs(ctx context.Context) float64 {
	if s.metrics == "" {
		return 0
	}
	n, _ := s.metric(ctx, "go_memstats_mallocs_total") // 0 shows
	return n
}

// resident is how much memory a process has, in MB. It is zero where there is no /proc.
func resident(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(fields[1])
	return float64(pages*os.Getpagesize()) / 1e6
}

// partName is that of a part's directory: partition, first and last block, level.
var partName = regexp.MustCompile(`^[0-9a-z-]+_\d+_\d+_\d+(_\d+)?$`)

// parts counts those on disk, merged ones that are not yet removed included.
func parts(dir string) (n int) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // it vanished
		}
		if partName.MatchString(d.Name()) {
			n++
			return fs.SkipDir
		}
		return nil
	})
	return n
}
