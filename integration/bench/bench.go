// Package bench measures the real binary on the machine at hand, beside a
// handler that does nothing but decode the same bodies: what a figure is worth
// depends on the machine, a ratio of the same run does much less.
//
//	bench ──┬─ raw connections ─► decode-only handler    (process of its own)
//	        ├─ raw connections ─► shipledger up          (process of its own, with its ClickHouse)
//	        ├─ cli.Load ────────► shipledger up
//	        └─ revocations ─────► shipledger up, three processes on one NATS (a process of its own)
//
// Both sides get the same bytes from the same client in turns (A B A B …), and
// a figure is the median of its rounds. It prints, it does not judge: there is
// no timed test in this repository.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/shipledger/shipledger/services/cli"
)

// Config is what to measure, and for how long.
type Config struct {
	Binary          string        // the shipledger binary
	Dir             string        // where data directories are made; they are removed at the end
	History         string        // a file to import; empty: none
	Connections     []int         // of the closed loop
	Rounds          int           // of each side
	Round           time.Duration // how long a round is measured
	Batch           time.Duration // how long batches are measured
	Paced           time.Duration // how long a fixed rate is kept up
	Reads           int           // samples of accepted → readable
	MaxRequests     int           // bound of a round
	MaxItems        int           // bound of an import
	MaxImport       time.Duration // bound of an import
	Revocations     int           // keys revoked, quiet and under load each
	SideConnections []int         // of the other ways to store an event
	Flood           time.Duration // how long an overload lasts
	Floods          int           // how often it is tried
	Ledgers         []Ledger      // that starts and growth are measured on
	Soak            time.Duration // how long half of the maximum is kept up; 0: not at all
	Only            string        // one section by its name; empty: all of them
	Events          []int         // that the questions of readers are asked on, one run each
	Wide            int           // the same where the big account has 1,500 environments; 0: none are
	Samples         int           // of each question
	Question        string        // of readers: those with this in their names; empty: all of them
	Rebuilt         int           // events posted before the tables are rebuilt; 0: they are not
	Log             io.Writer     // progress, for people
}

// Full takes less than ten minutes, Quick less than three.
var (
	Full = Config{
		Connections: []int{1, 16, 64, 256}, Rounds: 5, Round: 3 * time.Second, Batch: 8 * time.Second, Paced: 6 * time.Second,
		Reads: 300, MaxRequests: 200_000, MaxItems: 1_000_000, MaxImport: 40 * time.Second, Revocations: 200,
		Events: []int{1_000_000}, Samples: 200, Rebuilt: 1_000_000, SideConnections: []int{1, 64, 256}, Flood: 8 * time.Second, Floods: 5, Ledgers: []Ledger{{1_000_000, 5_001}},
	}
	Quick = Config{
		Connections: []int{1, 16, 64, 256}, Rounds: 3, Round: 800 * time.Millisecond, Batch: 2 * time.Second, Paced: 2 * time.Second,
		Reads: 20, MaxRequests: 50_000, MaxItems: 200_000, MaxImport: 5 * time.Second, Revocations: 20,
		Events: []int{100_000}, Samples: 15, Rebuilt: 100_000, SideConnections: []int{64}, Flood: 2 * time.Second, Floods: 1, Ledgers: []Ledger{{50_000, 5_001}},
	}
)

const (
	warmUp      = 200 * time.Millisecond
	settleLimit = 60 * time.Second // until everything accepted is readable
	pacedRate   = 5_000            // events a second, where the figures name a rate
	pacedOn     = 16               // connections that keep up a rate
	// The log compresses a block when it is full, so that fewer events say little.
	enoughStored = 50_000
)

// Run measures and gives the figures. What it has by the time of an error is in them.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	report := &Report{Rounds: cfg.Rounds, RoundSeconds: cfg.Round.Seconds()}
	dir, err := os.MkdirTemp(cfg.Dir, "shipledger-bench-")
	if err != nil {
		return report, fmt.Errorf("make a data directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what it held is measured
	if report.Machine, err = describeMachine(ctx, cfg.Binary, dir); err != nil {
		return report, err
	}
	b := &bench{Config: cfg, report: report, dir: dir, began: time.Now(), runs: &atomic.Int64{}}
	for _, section := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"singles", b.singles},
		{"sides", b.allSides},
		{"partitions", b.partitions},
		{"mixed", b.mixed},
		{"overload", b.overload},
		{"sizes", b.sizes},
		{"verifications", b.verified},
		{"revocations", b.revocations},
		{"rebuild", b.rebuilds},
		{"imports", b.imports},
		{"reads", b.allReads},
		{"soak", b.soak},
	} {
		if cfg.Only != "" && cfg.Only != section.name {
			continue
		}
		if err := section.run(ctx); err != nil {
			return report, err
		}
	}
	return report, nil
}

func (b *bench) allReads(ctx context.Context) error {
	type run struct {
		shape
		events int
	}
	var runs []run
	for _, events := range b.Events {
		runs = append(runs, run{readShape, events})
	}
	if b.Wide > 0 {
		runs = append(runs, run{wideShape, b.Wide})
	}
	for _, r := range runs {
		b.logf("reads on %d events", r.events)
		if err := b.reads(ctx, r.shape, r.events); err != nil {
			return fmt.Errorf("reads on %d events: %w", r.events, err)
		}
	}
	return nil
}

// imports measures histories.
func (b *bench) imports(ctx context.Context) error {
	if err := b.imported(ctx, "generated history of two years", "demo", demoItems); err != nil {
		return err
	}
	if b.History != "" {
		return b.imported(ctx, "history "+filepath.Base(b.History), "history", fileItems(b.History))
	}
	return nil
}

type bench struct {
	Config
	report *Report
	dir    string
	began  time.Time
	runs   *atomic.Int64 // the last run that any side was given
}

// logf tells how far it is, and since when.
func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(b.Log, "%6s  "+format+"\n", append([]any{time.Since(b.began).Truncate(time.Second)}, args...)...)
}

// singles measures all that needs a ledger of reference events.
func (b *bench) singles(ctx context.Context) (err error) {
	decoder, err := startDecoder(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, decoder.stop()) }()
	ledger, err := startLedger(ctx, b.Binary, filepath.Join(b.dir, "singles"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.stop()) }()
	empty := ledger.stored()

	events := newEvents(ledger.apiKey)
	for _, connections := range b.Connections {
		row, err := b.sideBySide(ctx, decoder, ledger, events, connections)
		if err != nil {
			return err
		}
		b.report.Singles = append(b.report.Singles, row)
	}
	b.report.Stored = append(b.report.Stored, storedPer("reference events, posted alone", empty, ledger.stored(), int(ledger.accepted.Load())))

	if err := b.paced(ctx, decoder, ledger, events); err != nil {
		return err
	}
	if err := b.readable(ctx, ledger, events); err != nil {
		return err
	}
	return b.batches(ctx, ledger, events)
}

// sideBySide gives the medians of interleaved rounds of both.
func (b *bench) sideBySide(ctx context.Context, decoder *server, ledger *ledger, events *events, connections int) (Single, error) {
	var decode, ingest []sample
	for round := range b.Rounds {
		b.logf("%d connections, round %d of %d", connections, round+1, b.Rounds)
		a, err := b.round(ctx, decoder, events, connections)
		if err != nil {
			return Single{}, err
		}
		s, err := b.round(ctx, &ledger.server, events, connections)
		if err != nil {
			return Single{}, err
		}
		// The projector's rest is not the next round's load.
		if _, err := ledger.settle(ctx, events); err != nil {
			return Single{}, err
		}
		decode, ingest = append(decode, a), append(ingest, s)
	}
	row := Single{Connections: connections, Decode: medians(decode), Ingest: medians(ingest)}
	ratios := make([]float64, b.Rounds)
	for i := range ratios {
		ratios[i] = ingest[i].perSecond / decode[i].perSecond
	}
	row.Ratio = median(ratios)
	return row, nil
}

// round is one closed loop of single events.
func (b *bench) round(ctx context.Context, s *server, events *events, connections int) (sample, error) {
	before := s.cpu()
	out, err := drive(ctx, s, events, load{connections: connections, warmUp: warmUp, measured: b.Round, max: b.MaxRequests})
	if err != nil {
		return sample{}, err
	}
	return out.sample(before, s.cpu()), nil
}

// paced keeps up half of what each side can at 64 connections: a closed loop
// says little of the time an answer takes below saturation.
func (b *bench) paced(ctx context.Context, decoder *server, ledger *ledger, events *events) error {
	for _, row := range b.report.Singles {
		if row.Connections != 64 {
			continue
		}
		for _, side := range []struct {
			name string
			*server
			rate float64
		}{{"decode-only handler", decoder, row.Decode.PerSecond}, {"single-event ingest", &ledger.server, row.Ingest.PerSecond}} {
			b.logf("%s at half of its requests", side.name)
			out, err := drive(ctx, side.server, events, load{connections: 64, perSecond: side.rate / 2, warmUp: warmUp, measured: b.Paced, max: b.MaxRequests})
			if err != nil {
				return err
			}
			b.report.Paced = append(b.report.Paced, Paced{Name: side.name, PerSecond: side.rate / 2, Times: times(out.times)})
		}
		_, err := ledger.settle(ctx, events)
		return err
	}
	return nil
}

// readable measures from an answer to the first read that shows what it accepted.
func (b *bench) readable(ctx context.Context, ledger *ledger, events *events) error {
	b.logf("accepted → readable")
	quiet, err := ledger.untilReadable(ctx, events, b.Reads)
	if err != nil {
		return err
	}
	b.report.Readable = append(b.report.Readable, Readable{Name: "one event at a time", Times: quiet})

	busy, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := drive(busy, &ledger.server, events, load{connections: pacedOn, perSecond: pacedRate, measured: 10 * b.Paced, max: pacedRate * 30})
		done <- err
	}()
	loaded, err := ledger.untilReadable(ctx, events, b.Reads)
	cancel()
	if driveErr := <-done; !errors.Is(driveErr, context.Canceled) {
		err = errors.Join(err, driveErr)
	}
	if err != nil {
		return err
	}
	b.report.Readable = append(b.report.Readable, Readable{Name: fmt.Sprintf("beside %d events a second", pacedRate), Times: loaded})
	_, err = ledger.settle(ctx, events)
	return err
}

// batches measures NDJSON of a thousand reference events a request.
func (b *bench) batches(ctx context.Context, ledger *ledger, events *events) error {
	for _, connections := range []int{1, 4} {
		b.logf("batches on %d connections", connections)
		before, had := ledger.stored(), ledger.accepted.Load()
		cpu, began := ledger.cpu(), time.Now()
		accepted, err := ledger.postBatches(ctx, events, connections, b.Batch, b.MaxItems)
		if err != nil {
			return err
		}
		took, used := time.Since(began), ledger.cpu().minus(cpu)
		behind, err := ledger.settle(ctx, events)
		if err != nil {
			return err
		}
		b.report.Batches = append(b.report.Batches, Batch{
			Connections: connections, Events: accepted, PerSecond: float64(accepted) / took.Seconds(),
			CPUMicros: used.process.Seconds() * 1e6 / float64(accepted), ReadableSeconds: behind.Seconds(),
		})
		if connections == 1 && accepted >= enoughStored {
			b.report.Stored = append(b.report.Stored, storedPer("reference events, in batches", before, ledger.stored(), int(ledger.accepted.Load()-had)))
		}
	}
	return nil
}

// imported measures the import of a history into an empty ledger.
func (b *bench) imported(ctx context.Context, name, dir string, items source) (err error) {
	b.logf("import of the %s", name)
	ledger, err := startLedger(ctx, b.Binary, filepath.Join(b.dir, dir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.stop()) }()
	empty := ledger.stored()
	all, err := items(b.MaxItems)
	if err != nil {
		return err
	}
	loading, cancel := context.WithTimeout(ctx, b.MaxImport)
	defer cancel()
	sum, err := cli.Load(loading, http.DefaultClient, "http://"+ledger.addr, ledger.adminPAT, slices.Values(all), cli.Options{})
	if err != nil && (ctx.Err() != nil || loading.Err() == nil) {
		return fmt.Errorf("import the %s: %w", name, err)
	}
	if sum.Accepted == 0 {
		return fmt.Errorf("import the %s: %d of %d events were refused, none accepted", name, sum.Refused, sum.Events())
	}
	behind, err := ledger.waitFor(ctx, ledger.pat, sum.Position)
	if err != nil {
		return err
	}
	b.report.Imports = append(b.report.Imports, Import{
		Name: name, Accepted: sum.Accepted, Refused: sum.Refused, Whole: sum.Events() == len(all),
		PerSecond: sum.Rate(), ReadableSeconds: behind.Seconds(),
	})
	b.report.Stored = append(b.report.Stored, storedPer(name, empty, ledger.stored(), sum.Accepted))
	return nil
}
