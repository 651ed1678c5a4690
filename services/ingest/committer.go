package ingest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/tally"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// Limits of a frame and of the way to it (architecture 4).
const (
	maxFrameBytes  = 512 << 10
	maxQueued      = 16 << 10         // commands being read or waiting; more are refused with 503
	longestWait    = 30 * time.Second // that a refusal asks for
	attemptTimeout = 3 * time.Second  // one try to append
	appendBudget   = 12 * time.Second // all tries: longer than the election of a new leader
	retryPause     = 50 * time.Millisecond
	catchUpTimeout = 5 * time.Second  // all tries to catch up with a log that has failed
	fewFrames      = 64               // so many are asked for one by one
	resyncPause    = time.Second      // between tries to reach a log that did not answer
	failureCounts  = 10 * time.Second // how long a failure makes the service unwell
	cachedFrames   = 16               // decoded frames kept for repeats of closed runs
)

// When a frame waits for others to join it; see gather.
const (
	fewCommands    = 4  // that wait together: too few for a frame to wait for them
	enoughCommands = 32 // in a frame: it waits for no more
	longestGather  = time.Millisecond
)

// A Committer decides commands of one partition and appends what follows.
//
//	handlers ──► queue (bounded) ──► decide ─► frame ─► log ─► apply ──► waiters
//	                                    ▲                │ conflict
//	                                    └── catch up ◄───┘
//
// It has one frame in flight. A lone command pays one write to the disk and waits
// for nothing else; under load a frame is whatever came in during the last write, and
// within a millisecond behind it (gather). The log's expected sequence decides between
// several processes; nothing else does.
type Committer struct {
	log       eventlog.Log
	stream    string
	clock     func() time.Time
	newID     func(ms uint64) ulid.ULID
	logger    *slog.Logger
	queue     chan *group
	waiting   atomic.Int64            // commands in the queue or being decided, and places held for some
	pace      atomic.Int64            // nanoseconds that an event of the last frame took
	appending atomic.Int64            // when the frame under way was handed to the log, in ns since 1970; 0: none is
	failing   atomic.Pointer[failure] // the last frame that could not be stored; nil since one could
	metrics   metrics
	// settings are for those who do not decide; see Settings.
	settings atomic.Pointer[settings]
	shared   SharedBook // nil: no other process is told
	flight   keyring.Flight

	// What follows belongs to the goroutine of Run.
	state   *tracking.State
	book    tally.Book   // how many events were accepted so far
	counts  tally.Counts // of the frame under construction; kept for its memory
	lastID  string       // the id of the last frame applied
	last    uint64       // sequence of the last frame applied
	synced  bool         // the state is known to be at the log's end as this process last saw it
	fresh   bool         // it was brought to the log's end after what is being decided was handed in
	company int          // commands that waited when the last ones were answered, these among them
	pass    uint64       // how often it decided, counted from 1
	unread  error        // why the log could not be read in this pass; nil while it could
	body    []byte       // of the last frame, for its memory
	backlog []*item      // taken from the queue and not yet decided for good
	frames  *lru.Cache[uint64, []event.Recorded]

	sealed    tracking.Sealed // the closed runs that the state does not hold
	blinded   sync.Once       // tells that they cannot be read
	snapshots keeper
}

// A group is what one request hands in: its commands are decided in order, and
// it is answered when all are.
type group struct {
	items []item
	one   [1]item // what items is of where there is one: most requests hold one event
	left  int
	done  chan struct{}
	// alive tells whether the credential still holds, right before the commit
	// (contract 3.3). It is asked once a frame: a frame is decided at one moment.
	alive   func() error
	askedAt uint64 // the pass of the committer that asked it last
	dead    error  // what it said
}

type item struct {
	group   *group
	command tracking.Input
	result  Result
}

// Result is what became of a command.
type Result struct {
	Decision tracking.Decision
	Position event.Position
	Err      error
}

// NewCommitter returns a committer for the stream with that short name. The
// clock and the source of ids are arguments, so that tests can hold them.
func NewCommitter(log eventlog.Log, stream string, clock func() time.Time, newID func(ms uint64) ulid.ULID, logger *slog.Logger) *Committer {
	frames, err := lru.New[uint64, []event.Recorded](cachedFrames)
	if err != nil {
		panic(err) // only a size below one fails
	}
	c := &Committer{
		log: log, stream: stream, clock: clock, newID: newID, logger: logger,
		queue: make(chan *group, maxQueued), state: tracking.NewState(), counts: tally.Counts{}, frames: frames,
		sealed: tracking.Nothing{},
	}
	c.metrics = newMetrics(c)
	c.publishSettings()
	return c
}

var (
	errBusy = fault.New(fault.Unavailable, "QUEUE_FULL", "the log is busy; nothing was stored").
		WithHint("Send the event again after the time in Retry-After.")
	errNoLog = fault.New(fault.Unavailable, "LOG_UNAVAILABLE", "the event log does not store at the moment; the event is not acknowledged").
			WithHint("Send the event again, byte for byte, after the time in Retry-After.")
)

// Submit is Reserve and Places.Submit at once, for commands that cost nothing to
// read.
func (c *Committer) Submit(ctx context.Context, commands []tracking.Input, alive func() error) ([]Result, error) {
	places, err := c.Reserve(len(commands))
	if err != nil {
		return nil, err
	}
	defer places.Release()
	return places.Submit(ctx, commands, alive)
}

// Places are places in the queue.
type Places struct {
	committer *Committer
	free      int // of those reserved, not yet taken by a command
}

// Reserve holds places for n commands that are about to be read, or tells that
// there is no room and when to come again. What is refused has then cost no more
// than its body: otherwise a flood is read first and takes the time of what could
// be stored. Whoever reserves calls Release.
func (c *Committer) Reserve(n int) (Places, error) {
	if waiting := c.waiting.Add(int64(n)); waiting > maxQueued {
		c.waiting.Add(-int64(n))
		return Places{}, httpapi.RetryLater{Err: errBusy, After: c.wait(waiting)}
	}
	return Places{c, n}, nil
}

// wait is how long so many commands will take, by the pace of the last frame,
// and at least as long as the frame under way has been waiting for the log.
func (c *Committer) wait(commands int64) time.Duration {
	wait := time.Duration(c.pace.Load() * commands)
	if began := c.appending.Load(); began != 0 {
		wait = max(wait, time.Since(time.Unix(0, began)))
	}
	return min(max(wait, time.Second), longestWait)
}

// Release gives back the places that no command has taken.
func (p *Places) Release() {
	p.committer.waiting.Add(-int64(p.free))
	p.free = 0
}

// Submit hands in commands, for which places must have been reserved, and waits
// until each is decided and, where events follow from it, durable. Results are in
// the order of the commands. When ctx ends first the commands may be committed all
// the same.
func (p *Places) Submit(ctx context.Context, commands []tracking.Input, alive func() error) ([]Result, error) {
	g := &group{left: len(commands), done: make(chan struct{}), alive: alive}
	if g.items = g.one[:]; len(commands) != 1 {
		g.items = make([]item, len(commands))
	}
	for i, cmd := range commands {
		g.items[i].group, g.items[i].command = g, cmd
	}
	p.free -= len(commands) // each gives its own back when it is decided
	p.committer.queue <- g  // never blocks: a group holds at least one of the maxQueued places
	select {
	case <-g.done:
	case <-ctx.Done():
		return nil, errNoLog.Because(ctx.Err())
	}
	results := make([]Result, len(g.items))
	for i := range g.items {
		results[i] = g.items[i].result
	}
	return results, nil
}

type failure struct {
	err error
	at  time.Time
}

// Healthy tells why the log cannot be written to, nil while it can. A failure
// counts for ten seconds: then traffic is let in again, which will tell.
func (c *Committer) Healthy() error {
	if f := c.failing.Load(); f != nil && c.clock().Sub(f.at) < failureCounts {
		return f.err
	}
	return nil
}

// Flight is the frame that is decided and not yet stored.
func (c *Committer) Flight() *keyring.Flight { return &c.flight }

// Run folds the log and then commits until ctx is done and the queue is empty.
// It is ready once the state stands at the log's end.
func (c *Committer) Run(ctx context.Context, ready func()) error {
	work := context.WithoutCancel(ctx) // what was taken from the queue is finished
	c.snapshots.open(work)
	defer c.snapshots.close()
	started := c.clock()
	c.restore(ctx)
	if err := c.catchUp(ctx); err != nil {
		return fmt.Errorf("fold the log %s: %w", c.stream, err)
	}
	c.logger.InfoContext(ctx, "log folded", "stream", c.stream, "sequence", c.last, "took", c.clock().Sub(started))
	ready()
	c.snapshots.calm()
	defer c.lastSnapshot()
	c.snapshot() // of what was just folded
	for {
		if len(c.backlog) == 0 {
			var retry <-chan time.Time
			if !c.synced {
				retry = time.After(resyncPause)
			}
			select {
			case g := <-c.queue:
				c.take(g)
			case <-retry:
			case <-ctx.Done():
				select {
				case g := <-c.queue:
					c.take(g)
				default:
					return nil
				}
			}
		}
		c.drain()
		c.gather()
		c.fresh = !c.synced
		if !c.synced && !c.resync(work) {
			continue
		}
		c.commit(work)
		c.seal()
		c.snapshot()
	}
}

func (c *Committer) take(g *group) {
	for i := range g.items {
		c.backlog = append(c.backlog, &g.items[i])
	}
}

// drain takes what else is queued, as far as a frame can hold it.
func (c *Committer) drain() {
	for len(c.backlog) < event.MaxFrameEvents {
		select {
		case g := <-c.queue:
			c.take(g)
		default:
			return
		}
	}
}

// gather waits until as many commands are there as waited when the last ones were
// answered: these, whose senders may have the next one ready, and those behind them.
//
// A frame takes 0.5 ms of processor time, whatever it holds: the write to the disk, and a
// dozen goroutines that wake each other. At 7,500 events a second, half of what two cores
// take, 930 frames of 8 left them 7 % to rest, and whatever else ran for a moment was a
// queue. In turns on the same machine, without this and with it: 135 and 93 µs of
// processor time an event, p50 2.5 and 3.6 ms, p99 46 and 24; of 4, 10, 24 and 64
// connections that post as fast as they are answered 3,400, 6,400, 10,300 and 14,400
// requests a second, and 4,600, 8,000, 12,100 and 14,200. A frame that waited for its
// millisecond whoever was there would take a third of their requests from 16 of them.
func (c *Committer) gather() {
	expected := min(c.company, enoughCommands)
	if expected < fewCommands || len(c.backlog) >= expected {
		return
	}
	timer := time.NewTimer(longestGather)
	defer timer.Stop()
	for len(c.backlog) < expected {
		select {
		case g := <-c.queue:
			c.take(g)
		case <-timer.C:
			return
		}
	}
}

// resync brings the state to the log's end after a conflict, or an append whose
// outcome is not known. Like an append it outlasts an election, unless the log
// has failed before; then whoever waits is told.
func (c *Committer) resync(ctx context.Context) bool {
	budget := appendBudget
	if c.failing.Load() != nil {
		budget = catchUpTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := c.catchUp(attempt)
		cancel()
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			c.fail(ctx, len(c.backlog), err)
			return false
		case <-time.After(retryPause):
		}
	}
}

// catchUp folds the frames after the last one applied.
func (c *Committer) catchUp(ctx context.Context) error {
	for r, err := range c.unseen(ctx) {
		if err != nil {
			return err
		}
		events, err := event.DecodeFrame(c.stream, r.Seq, r.Body)
		if err != nil {
			return err
		}
		for _, e := range events {
			c.state.Apply(e)
		}
		c.book.Enter(r.Seq, tally.Of(events), r.Headers)
		c.last, c.lastID = r.Seq, r.ID
		c.snapshots.events += len(events)
		c.seal()
		c.snapshots.keepPace(ctx)
	}
	c.publishSettings()
	c.metrics.sequence.Set(float64(c.last))
	c.synced = true
	return nil
}

// unseen yields the frames after the last one applied. Behind a conflict they are
// few, and asked for one by one: a reader needs a consumer, which a cluster is
// slow to make, and around an election does not make at all.
func (c *Committer) unseen(ctx context.Context) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		for range fewFrames {
			r, err := c.log.At(ctx, c.last+1)
			if errors.Is(err, eventlog.ErrNoFrame) || !yield(r, err) {
				return
			}
		}
		c.log.Read(ctx, c.last)(yield)
	}
}

// frame is one under construction.
type frame struct {
	seq     uint64
	now     time.Time
	events  []event.Event
	body    []byte
	newID   func() ulid.ULID
	decided int // how many items of the backlog are in it or answered by it
}

// commit decides as much of the backlog as fits a frame, appends it, and
// releases the waiters.
func (c *Committer) commit(ctx context.Context) {
	defer c.flight.Begin()()
	now := c.clock().UTC().Truncate(time.Millisecond)
	if last := c.state.LastTime(); last.After(now) {
		now = last // receipt never falls along a partition
	}
	c.state.Expire(now)
	c.state.Begin()
	start := c.state.Mark()
	c.pass++
	c.unread = nil
	f := frame{seq: c.last + 1, now: now, body: c.body[:0], newID: func() ulid.ULID { return c.newID(ulid.Timestamp(now)) }}
	for f.decided < len(c.backlog) && c.decide(ctx, &f, c.backlog[f.decided]) {
		f.decided++
	}
	if len(f.events) == 0 {
		c.state.Commit()
		// No append tells whether another process has written meanwhile, which may have
		// made what was missed, or ended what stood in the way.
		if !c.fresh && c.byState(f.decided) && !c.atEnd(ctx) {
			c.synced = false // catch up, and decide the same commands again
			return
		}
		c.release(f.decided)
		return
	}
	f.body = append(f.body, ']')
	c.body = f.body
	headers := c.tally(&f)
	began := time.Now()
	c.appending.Store(began.UnixNano())
	id := f.newID().String()
	err := c.append(ctx, eventlog.Frame{ID: id, ContentType: event.ContentType, Headers: headers, Body: f.body})
	c.appending.Store(0)
	switch {
	case err == nil:
		c.pace.Store(int64(time.Since(began)) / int64(len(f.events)))
		c.state.Commit()
		c.book.Enter(f.seq, c.counts, headers)
		c.last, c.lastID = f.seq, id
		c.snapshots.events += len(f.events)
		if slices.ContainsFunc(f.events, func(e event.Event) bool { return e.Type == event.SettingChanged }) {
			c.publishSettings() // before anybody is answered
		}
		c.failing.Store(nil)
		c.metrics.stored(&f, time.Since(began))
		c.release(f.decided)
	case errors.Is(err, eventlog.ErrConflict):
		c.state.RollbackTo(start)
		c.state.Commit()
		c.synced = false // catch up, and decide the same commands again
		c.metrics.conflicts.Inc()
	default:
		c.state.RollbackTo(start)
		c.state.Commit()
		c.synced = false
		c.fail(ctx, f.decided, err)
	}
}

// byState tells whether any of the first n items was decided by the state.
func (c *Committer) byState(n int) bool {
	return slices.ContainsFunc(c.backlog[:n], func(it *item) bool { return it.group.dead == nil })
}

// atEnd tells whether the log ends where the state does. What cannot be asked for does not.
func (c *Committer) atEnd(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	_, err := c.log.At(ctx, c.last+1)
	return errors.Is(err, eventlog.ErrNoFrame)
}

// tally counts the frame's events, and gives the headers that say so. What a
// frame has no room for waits for a smaller one.
func (c *Committer) tally(f *frame) map[string]string {
	clear(c.counts)
	for i := range f.events {
		c.counts.Count(&f.events[i])
	}
	return c.book.Headers(f.seq, c.counts, maxFrameBytes+tally.MaxTotals-len(f.body))
}

// decide adds what follows from a command to the frame. It is false where the
// frame has no room for it.
func (c *Committer) decide(ctx context.Context, f *frame, it *item) bool {
	it.result = Result{}
	if it.group.askedAt != c.pass {
		it.group.askedAt, it.group.dead = c.pass, it.group.alive()
	}
	if it.group.dead != nil {
		it.result.Err = it.group.dead
		return true
	}
	needs, err := c.state.Needs(it.command, c.sealed)
	if err != nil {
		c.blind(ctx, err)
		it.result.Err = errNoIndex.Because(err)
		return true
	}
	past, err := c.past(ctx, f, needs.Events)
	if err != nil {
		it.result.Err = errNoLog.Because(err)
		return true
	}
	d, err := tracking.Decide(c.state, it.command, tracking.Context{
		Now: f.now, Next: event.At(f.seq, len(f.events)), Past: past, Runs: needs.Runs,
		NewID: f.newID,
	})
	if err != nil {
		it.result.Err = err
		return true
	}
	if !f.add(d.Events) {
		return false
	}
	for i := range d.Events {
		at := event.At(f.seq, len(f.events)-len(d.Events)+i)
		c.state.Apply(event.Recorded{Event: d.Events[i], Position: event.Position{Stream: c.stream, Offset: at}})
	}
	it.result = Result{Decision: d, Position: event.Position{Stream: c.stream, Offset: d.Offset}}
	return true
}

// add appends events to the body, unless a frame that holds others would grow
// over its limits by them.
func (f *frame) add(events []event.Event) bool {
	if len(f.events)+len(events) > event.MaxFrameEvents {
		return false
	}
	size := len(f.body)
	for i := range events {
		if len(f.body) == 0 {
			f.body = append(f.body, '[')
		} else {
			f.body = append(f.body, ',')
		}
		f.body = event.AppendEvent(f.body, &events[i], event.At(f.seq, len(f.events)+i))
	}
	if len(f.events) > 0 && len(f.body) > maxFrameBytes {
		f.body = f.body[:size]
		return false
	}
	f.events = append(f.events, events...)
	return true
}

// past reads events back: from the frame under construction, from memory, or
// from the log.
func (c *Committer) past(ctx context.Context, f *frame, offsets []event.Offset) (tracking.PastEvents, error) {
	if len(offsets) == 0 {
		return nil, nil
	}
	out := make(tracking.PastEvents, len(offsets))
	for _, o := range offsets {
		if o.Seq() == f.seq {
			out[o] = event.Recorded{Event: f.events[o.Index()], Position: event.Position{Stream: c.stream, Offset: o}}
			continue
		}
		events, ok := c.frames.Get(o.Seq())
		if !ok {
			r, err := c.readBack(ctx, o.Seq())
			if err != nil {
				return nil, err
			}
			if events, err = event.DecodeFrame(c.stream, r.Seq, r.Body); err != nil {
				return nil, err
			}
			c.frames.Add(o.Seq(), events)
		}
		out[o] = events[o.Index()]
	}
	return out, nil
}

// readBack reads a frame. Where the log does not give one, no other is asked for in this
// pass: each would take as long to be refused, and everybody waits.
func (c *Committer) readBack(ctx context.Context, seq uint64) (eventlog.Recorded, error) {
	if c.unread != nil {
		return eventlog.Recorded{}, c.unread
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	r, err := c.log.At(ctx, seq)
	c.unread = err
	return r, err
}

// append stores a frame at the log's end. A silence is ambiguous: the same bytes
// with the same id are sent again, and where the log then says that it has moved
// on, the frame is looked for, because it may be what moved it.
func (c *Committer) append(ctx context.Context, f eventlog.Frame) error {
	ctx, cancel := context.WithTimeout(ctx, appendBudget)
	defer cancel()
	ambiguous := false
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		_, err := c.log.AppendFrame(attempt, f, c.last)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, eventlog.ErrConflict) && ambiguous:
			stored, lookErr := c.stored(ctx, f.ID)
			if lookErr == nil && stored {
				return nil
			}
			if lookErr == nil {
				return err
			}
		case errors.Is(err, eventlog.ErrConflict):
			return err
		case errors.Is(err, eventlog.ErrRefused) && !ambiguous:
			return err // ErrUnreachable is not: an election or a restart may be under way
		case errors.Is(err, eventlog.ErrAmbiguous):
			if !ambiguous {
				c.logger.WarnContext(ctx, "append unanswered, asking again", "stream", c.stream, "frame", f.ID, "err", err)
			}
			ambiguous = true
		}
		select {
		case <-ctx.Done():
			if ambiguous {
				err = fmt.Errorf("%w: %w", eventlog.ErrAmbiguous, err)
			}
			return fmt.Errorf("append frame %s: gave up after %s: %w", f.ID, appendBudget, err)
		case <-time.After(retryPause):
		}
	}
}

// stored tells whether the frame stands right behind the last one applied. The
// log has said that something does; while that cannot be read, as in a cluster
// whose leader has taken it and not yet stored it, nothing is known.
func (c *Committer) stored(ctx context.Context, id string) (bool, error) {
	r, err := c.log.At(ctx, c.last+1)
	return err == nil && r.ID == id, err
}

// fail answers the first n items of the backlog with 503, those too that were
// refused: what they contradicted may be what was not stored. Only a dead
// credential stays the reason.
func (c *Committer) fail(ctx context.Context, n int, err error) {
	c.logger.ErrorContext(ctx, "log not writable", "stream", c.stream, "err", err)
	c.failing.Store(&failure{err, c.clock()})
	c.metrics.failures.Inc()
	for _, it := range c.backlog[:n] {
		if fault.KindOf(it.result.Err) != fault.Unauthenticated {
			it.result = Result{Err: errNoLog.Because(err)}
		}
	}
	c.release(n)
}

// release lets go of the first n items of the backlog.
func (c *Committer) release(n int) {
	c.company = int(c.waiting.Load())
	for _, it := range c.backlog[:n] {
		c.waiting.Add(-1)
		c.metrics.outcomes[it.result.outcome()].Inc()
		if it.group.left--; it.group.left == 0 {
			close(it.group.done)
		}
	}
	left := copy(c.backlog, c.backlog[n:])
	clear(c.backlog[left:])
	c.backlog = c.backlog[:left]
}

// Waiting tells how many commands are queued or being decided, or have a place
// reserved.
func (c *Committer) Waiting() int { return int(c.waiting.Load()) }
