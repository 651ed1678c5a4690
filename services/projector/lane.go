package projector

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/quarantine"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// RebuildRows is how many rows a rebuild stores at a time, of all tables together:
// 50,000 reference events. An event cost ClickHouse 9 µs in such blocks, 13 µs in
// blocks of a third.
const RebuildRows = 150_000

// rebuildConfig is for a lane that has the whole log before it.
var rebuildConfig = projection.Config{MaxRows: RebuildRows, MaxBytes: projection.MaxBytes, Decoders: 2, Ahead: 8}

// share is the part of the time in which a rebuild stores while events arrive;
// the rest is for inserts of the live version.
const share = 0.85

// turnFrames is from how many frames on a rebuild reads a partition in its turn: fewer
// are read at the pace of the live version, beside the others.
const turnFrames = 400

// lane projects the log into one version of the tables.
type lane struct {
	version uint32
	stream  string
	log     eventlog.Reader
	sink    finishing
	first   event.Offset      // where it begins if nothing is stored; 0: with the log
	config  projection.Config // but for how it stores
	// rebuilding says that it stores as fast as it may, in blocks of its own size.
	rebuilding atomic.Bool
	// searching says that it keeps rows, for the store has refused some.
	searching bool
	// turn, if set, is held by the one lane of a rebuild that reads what it lacks of its
	// partition.
	turn chan struct{}
	// pause, if set, is the least time between two stores of the live version.
	pause time.Duration
	gate  gate
	// wanted tells whether anything has arrived since it was asked last.
	wanted    func() bool
	decisions func() quarantine.Book
	moved     func()
	observe   func(upTo readmodel.Progress, events, unknown int)
	logger    *slog.Logger

	mu       sync.Mutex
	state    State
	shelf    *projection.Shelf // nil before the lane has begun
	failures int               // in a row that are not the store's absence
	heeded   uint64            // the last decision that it has done
	stop     context.CancelFunc
}

// run projects until ctx is done.
func (l *lane) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		before := l.State().Progress
		err := l.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil { // the gate ended it
			l.gate.park(ctx)
			continue
		}
		if errors.Is(err, readmodel.ErrRefused) && !l.searching {
			l.searching = true
			continue
		}
		if l.State().Progress.Offset > before.Offset {
			pause = firstPause
		}
		l.stopped(err)
		level := slog.LevelError // it stays so until somebody looks
		if fault.KindOf(err) == fault.Unavailable {
			level = slog.LevelWarn
		}
		l.logger.Log(ctx, level, "projection stopped, trying again", "stream", l.stream, "version", l.version, "pause", pause, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

func (l *lane) follow(ctx context.Context) error {
	from, err := l.sink.Progress(ctx, l.stream)
	if err != nil {
		return err
	}
	l.resumed(from)
	after := from.Offset.Seq()
	if after == 0 && l.first > 0 {
		after = l.first.Seq() - 1
	}
	l.gate.heed() // before the pace and the book are read, so that nothing is missed
	last, err := l.log.Last(ctx)
	if err != nil {
		return fault.New(fault.Unavailable, "", "the log does not answer").Because(err)
	}
	rebuilding, upTo := l.rebuilding.Load(), uint64(0) // 0: it follows the log
	if rebuilding && l.turn != nil {
		if rebuilding = last > after+turnFrames; rebuilding {
			select {
			case l.turn <- struct{}{}:
				defer func() { <-l.turn }()
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			upTo = last
		}
	}
	cfg, sink := projection.DefaultConfig, readmodel.Sink(l.sink)
	cfg.Pause = max(cfg.Pause, l.pause)
	if rebuilding {
		cfg, sink = rebuildConfig, sharing{sink, l.wanted}
		if batch := l.sink.batches(); batch != nil && !l.searching {
			cfg.Batch = func() readmodel.Batch { return sharingBatch{batch(), l.wanted} }
		}
	}
	cfg.Backlog = last
	cfg.Project, cfg.CodeVersion, cfg.Now = l.config.Project, l.config.CodeVersion, l.config.Now
	book := decisions{l.decisions()}
	cfg.Decisions = &book
	if cfg.Shelf, err = projection.Redrive(ctx, l.stream, l.log, l.sink, cfg); err != nil {
		return err
	}
	l.shelved(cfg.Shelf, book.Last())
	source := func(ctx context.Context) iter.Seq2[eventlog.Recorded, error] {
		return until(upTo, l.gate.through(ctx, l.log, after))
	}
	_, err = projection.Pump(ctx, l.stream, source, sink, cfg, l)
	return err
}

// until yields frames up to and with the one at a sequence; 0: all of them.
func until(upTo uint64, frames iter.Seq2[eventlog.Recorded, error]) iter.Seq2[eventlog.Recorded, error] {
	if upTo == 0 {
		return frames
	}
	return func(yield func(eventlog.Recorded, error) bool) {
		for r, err := range frames {
			if !yield(r, err) || err == nil && r.Seq >= upTo {
				return
			}
		}
	}
}

// livePause is the least time between two stores of a partition of n: from four
// partitions on the store gets as many inserts a second as of four, down to one a
// second of each.
func livePause(n int) time.Duration {
	return projection.DefaultConfig.Pause * time.Duration(min(max(n, 4), 16)) / 4
}

func (l *lane) resumed(from readmodel.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Progress, l.state.Err = from, nil
}

// shelved says what counts the events that are set aside from now on, and up to
// which decision it has done what was decided.
func (l *lane) shelved(s *projection.Shelf, decision uint64) {
	l.mu.Lock()
	l.shelf, l.state.Quarantined, l.heeded = s, s.Open(), decision
	l.mu.Unlock()
	l.moved()
}

// hear lets the lane do what was decided, once it has stored what it has read.
func (l *lane) hear(decision uint64) {
	if !l.heard(decision) {
		l.gate.nudge()
	}
}

// heard tells whether the lane has done what was decided.
func (l *lane) heard(decision uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heeded >= decision
}

// decisions are those about events that are set aside, as the projection asks.
type decisions struct{ quarantine.Book }

// Asked implements projection.Decisions.
func (d *decisions) Asked(r *readmodel.QuarantineRow) uint64 {
	return d.Book.Asked(r.Position, r.Account)
}

func (l *lane) stopped(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Err = err
	if fault.KindOf(err) != fault.Unavailable {
		l.failures++
	}
}

// Projected implements projection.Observer.
func (l *lane) Projected(_ string, upTo readmodel.Progress, events, unknown int) {
	l.mu.Lock()
	l.state.Progress, l.state.Err, l.failures = upTo, nil, 0
	l.state.Events += uint64(events)
	l.state.Unknown += uint64(unknown)
	l.state.Quarantined = l.shelf.Open()
	l.mu.Unlock()
	l.observe(upTo, events, unknown)
}

// oldest gives since when the oldest event is set aside that is so now; the zero
// time: none is.
func (l *lane) oldest() time.Time {
	l.mu.Lock()
	shelf := l.shelf
	l.mu.Unlock()
	if shelf == nil {
		return time.Time{}
	}
	return shelf.Oldest()
}

// State gives how far the lane is.
func (l *lane) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// broken gives why the lane does not get on whatever it tries, nil while it may.
func (l *lane) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failures >= maxFailures || fault.KindOf(l.state.Err) == fault.Precondition {
		return l.state.Err
	}
	return nil
}

// finishing lets a block that has begun be stored when the lane is to end: one that
// is broken off leaves the connection useless, and is stored all the same for all that
// anybody knows.
type finishing struct{ readmodel.Sink }

// finishWithin bounds that, where the store does not answer.
const finishWithin = 2 * time.Second

// Store implements readmodel.Sink.
func (f finishing) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	return finish(ctx, func(ctx context.Context) error { return f.Sink.Store(ctx, rows, upTo) })
}

// batches gives what makes batches; nil where the store takes rows only.
func (f finishing) batches() func() readmodel.Batch {
	b, ok := f.Sink.(readmodel.Batcher)
	if !ok {
		return nil
	}
	return func() readmodel.Batch { return finishingBatch{b.Batch()} }
}

// finishingBatch does the same.
type finishingBatch struct{ readmodel.Batch }

// Store implements readmodel.Batch.
func (f finishingBatch) Store(ctx context.Context, upTo readmodel.Progress) error {
	return finish(ctx, func(ctx context.Context) error { return f.Batch.Store(ctx, upTo) })
}

func finish(ctx context.Context, store func(context.Context) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		late := time.NewTimer(finishWithin)
		defer late.Stop()
		select {
		case <-late.C:
			cancel(context.Cause(ctx))
		case <-work.Done():
		}
	})
	defer stop()
	return store(work)
}

// sharing leaves the store some time after each block, where others want it.
type sharing struct {
	readmodel.Sink
	wanted func() bool
}

// Store implements readmodel.Sink.
func (s sharing) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	return shared(ctx, s.wanted, func() error { return s.Sink.Store(ctx, rows, upTo) })
}

// sharingBatch does the same.
type sharingBatch struct {
	readmodel.Batch
	wanted func() bool
}

// Store implements readmodel.Batch.
func (s sharingBatch) Store(ctx context.Context, upTo readmodel.Progress) error {
	return shared(ctx, s.wanted, func() error { return s.Batch.Store(ctx, upTo) })
}

func shared(ctx context.Context, wanted func() bool, store func() error) error {
	began := time.Now()
	if err := store(); err != nil {
		return err
	}
	if !wanted() {
		return nil
	}
	took := time.Since(began)
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(float64(took) * (1 - share) / share)):
	}
	return nil
}

// gate lets frames through up to a limit, if there is one. The source of a lane
// ends at the limit, so the pump stores what came through and ends as well: that
// is how lanes come to stand between the same two frames without the pump
// knowing of it.
type gate struct {
	mu     sync.Mutex
	armed  bool
	limit  uint64
	nudged bool               // the source has to begin anew
	given  uint64             // the last sequence that came through
	wake   context.CancelFunc // ends the wait for the next frame
	parked chan struct{}      // closed while the lane stands at the limit
	lifted chan struct{}      // closed when the limit is lifted or raised
}

// arm sets a limit, which is at least what came through and what was asked for
// before, and gives it.
func (g *gate) arm(at uint64) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	limit := max(at, g.given)
	if g.armed {
		limit = max(limit, g.limit)
	}
	if !g.armed || limit > g.limit {
		g.lift()
		g.armed, g.limit = true, limit
		g.parked, g.lifted = make(chan struct{}), make(chan struct{})
	}
	if g.wake != nil && g.given >= g.limit {
		g.wake()
	}
	return g.limit
}

// disarm lifts the limit.
func (g *gate) disarm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lift()
	g.armed = false
}

func (g *gate) lift() {
	if g.lifted != nil {
		close(g.lifted)
		g.lifted = nil
	}
}

// await returns when the lane stands at the limit.
func (g *gate) await(ctx context.Context) error {
	g.mu.Lock()
	parked := g.parked
	g.mu.Unlock()
	select {
	case <-parked:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the projection to stand still: %w", context.Cause(ctx))
	}
}

// park tells that all that came through is stored, and returns when more may.
func (g *gate) park(ctx context.Context) {
	g.mu.Lock()
	if !g.armed || g.given < g.limit {
		g.mu.Unlock()
		return
	}
	lifted := g.lifted
	select {
	case <-g.parked:
	default:
		close(g.parked)
	}
	g.mu.Unlock()
	select {
	case <-lifted:
	case <-ctx.Done():
	}
}

// through yields the frames after a sequence, up to the limit.
func (g *gate) through(ctx context.Context, log eventlog.Reader, after uint64) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if !g.begin(after, cancel) {
			return
		}
		for r, err := range log.Follow(ctx, after) {
			if err == nil && !g.pass(r.Seq) {
				return
			}
			if !yield(r, err) || err == nil && g.reached() {
				return
			}
		}
	}
}

func (g *gate) begin(after uint64, wake context.CancelFunc) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.given, g.wake = after, wake
	return !g.nudged && (!g.armed || g.given < g.limit)
}

// nudge ends the source, now or when it begins, until heed.
func (g *gate) nudge() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nudged = true
	if g.wake != nil {
		g.wake()
	}
}

func (g *gate) heed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nudged = false
}

func (g *gate) pass(seq uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.armed && seq > g.limit {
		return false
	}
	g.given = seq
	return true
}

func (g *gate) reached() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.armed && g.given >= g.limit
}
