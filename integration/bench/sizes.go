package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/tracking"
	"github.com/shipledger/shipledger/services/ingest"
)

// A Ledger is the size of one that starts and growth are measured on.
type Ledger struct{ Events, Accounts int }

// ParseLedgers reads sizes such as 1000000 or 1000000:1, events and accounts, joined by commas.
// Without accounts there are as many as reads are measured on.
func ParseLedgers(text string) (out []Ledger, err error) {
	for size := range strings.SplitSeq(text, ",") {
		events, accounts, told := strings.Cut(size, ":")
		l := Ledger{Accounts: readShape.small + 1}
		l.Events, err = strconv.Atoi(events)
		if err == nil && told {
			l.Accounts, err = strconv.Atoi(accounts)
		}
		if err != nil || l.Events < 1 || l.Accounts < 1 {
			return nil, fmt.Errorf("%q: not a number of events, or events:accounts, joined by commas", text)
		}
		out = append(out, l)
	}
	return out, nil
}

// sizes measures ledgers of different sizes.
func (b *bench) sizes(ctx context.Context) error {
	for _, size := range b.Ledgers {
		b.logf("a ledger of %d events of %d accounts", size.Events, size.Accounts)
		row, err := b.size(ctx, size)
		if err != nil {
			return fmt.Errorf("a ledger of %d events of %d accounts: %w", size.Events, size.Accounts, err)
		}
		b.report.StartUps = append(b.report.StartUps, row)
	}
	return nil
}

// size writes a log as ingest would, starts the binary on it, which folds it and
// projects it, and starts it once more, from what it left.
func (b *bench) size(ctx context.Context, size Ledger) (row StartUp, err error) {
	data := filepath.Join(b.dir, fmt.Sprintf("size-%d-%d", size.Events, size.Accounts))
	last, err := writeHistory(ctx, filepath.Join(data, "nats"), size)
	if err != nil {
		return row, fmt.Errorf("write the log: %w", err)
	}
	row = StartUp{Events: size.Events, Accounts: size.Accounts}
	began := time.Now()
	l, err := b.startSize(ctx, data)
	if err != nil {
		return row, err
	}
	row.FoldSeconds = time.Since(began).Seconds()
	b.logf("folded in %.1f s; projecting", row.FoldSeconds)
	took, err := l.projected(ctx, last, began)
	if err != nil {
		return row, errors.Join(err, l.stop())
	}
	row.ProjectedPerSecond = float64(size.Events) / took.Seconds()
	row.PeakMB, row.EngineMB = peakMB(l.cmd.Process.Pid), l.engineMB()
	if err := l.stop(); err != nil {
		return row, err
	}
	held := l.stored()
	row.LogBytes, row.ReadModelBytes = float64(held.log)/float64(size.Events), float64(held.readModel)/float64(size.Events)
	began = time.Now()
	if l, err = b.startSize(ctx, data); err != nil {
		return row, err
	}
	row.Seconds = time.Since(began).Seconds()
	row.MemoryMB = resident(l.cmd.Process.Pid)
	posted, err := drive(ctx, &l.server, newEvents(l.apiKey), load{connections: 64, warmUp: warmUp, measured: b.Round, max: b.MaxRequests})
	if err == nil {
		row.PerSecond, row.Times = float64(posted.requests)/posted.took.Seconds(), times(posted.times)
	}
	return row, errors.Join(err, l.stop())
}

// sizeLimit is until a ledger of any size is ready, and until it is projected.
const sizeLimit = 2 * time.Hour

func (b *bench) startSize(ctx context.Context, data string) (*ledger, error) {
	l, err := startProcessWithin(ctx, sizeLimit, b.Binary, data)
	if err != nil {
		return nil, err
	}
	if err := l.readCredentials(); err != nil {
		return nil, errors.Join(err, l.stop())
	}
	return l, nil
}

// projected waits until the read model is as far as position, and gives how long
// that was after began.
func (l *ledger) projected(ctx context.Context, position event.Position, began time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, sizeLimit)
	defer cancel()
	for {
		status, body, err := l.get(ctx, "/deployments/?limit=1&min_position="+url.QueryEscape(position.String()), l.pat)
		switch {
		case err != nil:
			return 0, err
		case status == http.StatusOK:
			return time.Since(began), nil
		case status != http.StatusServiceUnavailable:
			return 0, fmt.Errorf("wait until %s is projected: answered %d: %.300s", position, status, body)
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// engineMB is what the processes below this one hold.
func (l *ledger) engineMB() (sum float64) {
	for _, child := range l.children() {
		sum += resident(child)
	}
	return sum
}

// writeHistory has a committer decide a history over two years and write its log,
// and gives the last position.
func writeHistory(ctx context.Context, dir string, size Ledger) (last event.Position, err error) {
	js, closed, err := openLog(ctx, dir)
	if err != nil {
		return last, err
	}
	defer closed()
	log, err := natslog.Open(ctx, js, natslog.Track(0, 1))
	if err != nil {
		return last, err
	}
	shape := readShape
	shape.small = size.Accounts - 1
	h := newHistory(shape, size.Events, time.Now().UTC())
	newID := func(uint64) ulid.ULID { return h.newID() } // of the same moment: the clock is the history's
	committer := ingest.NewCommitter(log, event.TrackStream(0), func() time.Time { return h.now }, newID, slog.New(slog.DiscardHandler))
	stop, err := lifecycle.Start(ctx, committer)
	if err != nil {
		return last, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for h.events < size.Events {
		commands := make([]tracking.Input, 0, event.MaxFrameEvents)
		for range min(cap(commands), size.Events-h.events) {
			h.seq++ // what runs are told apart by
			commands = append(commands, h.next())
		}
		results, err := committer.Submit(ctx, commands, func() error { return nil })
		if err != nil {
			return last, err
		}
		for i := range results {
			if results[i].Err != nil {
				return last, results[i].Err
			}
			h.events += len(results[i].Decision.Events)
			last = results[i].Position
		}
	}
	return last, nil
}

func (r *Report) printSizes(b *strings.Builder) {
	heading(b, len(r.StartUps), "Ledgers of different sizes; ready from a snapshot and without one, then single events on 64 connections; times in ms")
	if len(r.StartUps) == 0 {
		return
	}
	fmt.Fprintf(b, "  %10s %8s │ %7s %9s %11s │ %7s %7s %9s │ %7s %10s │ %7s %7s %7s\n", "events", "accounts", "ready s", "folding s", "projected/s",
		"idle MB", "peak MB", "engine MB", "log B", "read m. B", "req/s", "p50", "p99")
	for _, s := range r.StartUps {
		fmt.Fprintf(b, "  %10d %8d │ %7.2f %9.2f %11.0f │ %7.0f %7.0f %9.0f │ %7.1f %10.1f │ %7.0f %7.2f %7.2f\n", s.Events, s.Accounts, s.Seconds, s.FoldSeconds, s.ProjectedPerSecond,
			s.MemoryMB, s.PeakMB, s.EngineMB, s.LogBytes, s.ReadModelBytes, s.PerSecond, s.P50, s.P99)
	}
	r.printSizeGrowth(b, "grows with events", func(a, z *StartUp) (float64, bool) {
		return float64(z.Events) / float64(a.Events), a.Accounts == z.Accounts && a.Events < z.Events
	})
	r.printSizeGrowth(b, "with accounts", func(a, z *StartUp) (float64, bool) {
		return float64(z.Accounts) / float64(a.Accounts), a.Events == z.Events && a.Accounts < z.Accounts
	})
}

// printSizeGrowth shows the exponent e of cost ~ size^e between the two rows that lie
// farthest apart, of those that times compares.
func (r *Report) printSizeGrowth(b *strings.Builder, name string, times func(a, z *StartUp) (float64, bool)) {
	var from, to *StartUp
	var widest float64
	for i := range r.StartUps {
		for j := range r.StartUps {
			if n, ok := times(&r.StartUps[i], &r.StartUps[j]); ok && n > widest {
				from, to, widest = &r.StartUps[i], &r.StartUps[j], n
			}
		}
	}
	if from == nil {
		return
	}
	of := func(cost func(*StartUp) float64) float64 { return math.Log(cost(to)/cost(from)) / math.Log(widest) }
	fmt.Fprintf(b, "  %19s │ %7.2f %9.2f %11.2f │ %7.2f %7.2f %9.2f │ %7.2f %10.2f │ %7.2f %7.2f %7.2f\n", name,
		of(func(s *StartUp) float64 { return s.Seconds }), of(func(s *StartUp) float64 { return s.FoldSeconds }), of(func(s *StartUp) float64 { return s.ProjectedPerSecond }),
		of(func(s *StartUp) float64 { return s.MemoryMB }), of(func(s *StartUp) float64 { return s.PeakMB }), of(func(s *StartUp) float64 { return s.EngineMB }),
		of(func(s *StartUp) float64 { return s.LogBytes }), of(func(s *StartUp) float64 { return s.ReadModelBytes }),
		of(func(s *StartUp) float64 { return s.PerSecond }), of(func(s *StartUp) float64 { return s.P50 }), of(func(s *StartUp) float64 { return s.P99 }))
}
