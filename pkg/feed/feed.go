// Package feed hands the events of an account to whoever listens, as soon as the
// log has them, from any place in the log on.
//
//	log ─► follower, one per stream ─► listener's buffer ─┐
//	 └──► what the listener has missed ───────────────────┴─► Listener.Items
//
// A stream is followed and decoded once for all listeners, and only while there
// are any. A listener that begins in the past first reads the log itself, up to
// where it was registered: so nothing is lost and nothing comes twice. Buffers
// are bounded. Who does not keep up is dropped, and can go on from the place it
// came to. Services import this package; it knows no HTTP.
package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
)

// Why a listener hears no more.
var (
	ErrSlow    = errors.New("the listener does not keep up")
	ErrStopped = errors.New("the feed stops")
)

// ErrAhead refuses a place that the log has not reached.
var ErrAhead = errors.New("the log has not reached this position")

// errFull refuses one listener too many.
var errFull = fault.New(fault.Unavailable, "TOO_MANY_STREAMS", "Too many streams are open right now.")

// Config bounds a feed. Zero values are replaced by the defaults.
type Config struct {
	Listeners int // at the same time; default 1000
	Buffer    int // events that wait for a listener, by stream; default 1024
	CatchUps  int // listeners that read the log at the same time; default 4
	// Patience is how long a listener may take for one event while more are
	// waiting than its buffer holds; default 10 s.
	Patience time.Duration
}

func (c Config) withDefaults() Config {
	set := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	set(&c.Listeners, 1000)
	set(&c.Buffer, 1024)
	set(&c.CatchUps, 4)
	if c.Patience <= 0 {
		c.Patience = 10 * time.Second
	}
	return c
}

// An Item is an event as listeners get it.
type Item struct {
	Event event.Recorded
	Body  []byte // what render made of it; shared, so not to be changed
}

// Feed is a lifecycle.Service and safe for concurrent use.
type Feed struct {
	cfg       Config
	followers map[string]*follower
	render    func(*event.Recorded) []byte
	logger    *slog.Logger
	catching  chan struct{} // holds a token for each listener that reads the log

	mu        sync.Mutex
	running   context.Context //nolint:containedctx // the life of followers, which listeners start
	listeners int
	wg        sync.WaitGroup
}

// New returns a feed of these streams, by short name. Of every event that
// somebody listens to, render makes what listeners pass on.
func New(cfg Config, streams map[string]eventlog.Reader, render func(*event.Recorded) []byte, logger *slog.Logger) *Feed {
	cfg = cfg.withDefaults()
	f := &Feed{cfg: cfg, followers: map[string]*follower{}, render: render, logger: logger, catching: make(chan struct{}, cfg.CatchUps)}
	for name, log := range streams {
		f.followers[name] = &follower{feed: f, stream: name, log: log, buffers: map[string]map[*buffer]struct{}{}}
	}
	return f
}

// Run lets others listen until ctx is done; then all of them hear ErrStopped.
func (f *Feed) Run(ctx context.Context, ready func()) error {
	f.mu.Lock()
	f.running = ctx
	f.mu.Unlock()
	ready()
	<-ctx.Done()
	f.mu.Lock()   // nobody begins to listen after this
	f.mu.Unlock() //nolint:staticcheck // only to be behind whoever was about to
	f.wg.Wait()
	return nil
}

// Listen gives the events of an account, which stand in these streams, that come
// after from; in a stream that from does not name, those that are yet to come. It
// fails with ErrAhead or with a fault of kind Unavailable. The caller must Close the
// listener.
func (f *Feed) Listen(ctx context.Context, account string, streams []string, from map[string]event.Offset) (*Listener, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.running == nil || f.running.Err() != nil:
		return nil, fault.New(fault.Unavailable, "", "This process is stopping.").Because(ErrStopped)
	case f.listeners >= f.cfg.Listeners:
		return nil, errFull
	}
	for _, name := range streams {
		if f.followers[name] == nil {
			return nil, fmt.Errorf("listen to %s: the feed has no such stream", name)
		}
	}
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	l := &Listener{feed: f, life: life, cancel: cancel, items: make(chan Item), at: map[string]event.Offset{}}
	begins := map[string]*buffer{}
	for _, name := range streams {
		follower := f.followers[name]
		b, err := follower.register(ctx, f.running, account)
		if err == nil {
			begins[name] = b
			l.at[name], err = follower.begin(ctx, b.after, from, name)
		}
		if err != nil {
			for name, b := range begins {
				f.followers[name].leave(b)
			}
			cancel(err)
			return nil, err
		}
	}
	f.listeners++
	f.wg.Add(1)
	stop := context.AfterFunc(f.running, func() { cancel(ErrStopped) })
	var pumps sync.WaitGroup
	for name, b := range begins {
		after := l.at[name]
		pumps.Go(func() { l.pump(f.followers[name], account, after, b) })
	}
	go func() {
		defer f.wg.Done()
		pumps.Wait()
		stop()
		f.mu.Lock()
		f.listeners--
		f.mu.Unlock()
	}()
	return l, nil
}

// A Listener hears the events of an account. It is for one goroutine.
type Listener struct {
	feed   *Feed
	life   context.Context //nolint:containedctx // ends with the listener
	cancel context.CancelCauseFunc
	items  chan Item
	at     map[string]event.Offset
}

// Items gives events: those of one stream in the order of the log, those of
// several as they come. It never closes; Done does.
func (l *Listener) Items() <-chan Item { return l.items }

// Done is closed when the listener hears no more; Err then says why.
func (l *Listener) Done() <-chan struct{} { return l.life.Done() }

// Err says why the listener hears no more: ErrSlow, ErrStopped, or that the log
// could not be read.
func (l *Listener) Err() error { return context.Cause(l.life) }

// Heard takes note that an item was passed on, and gives where the listener
// then is in every stream: whoever listens from there hears what follows it.
func (l *Listener) Heard(i *Item) map[string]event.Offset {
	l.at[i.Event.Position.Stream] = i.Event.Position.Offset
	return l.at
}

// At gives where the listener is in every stream.
func (l *Listener) At() map[string]event.Offset { return l.at }

// Close ends the listener.
func (l *Listener) Close() { l.cancel(context.Canceled) }

// pump passes on what a stream has after a place: what stood in the log when b
// was registered, then what b gets. When more is written than the buffer holds,
// it goes on in the log.
func (l *Listener) pump(f *follower, account string, after event.Offset, b *buffer) {
	defer func() { f.leave(b) }()
	for {
		var err error
		if after, err = l.catchUp(f, account, after, b.after); err != nil {
			l.cancel(fmt.Errorf("read the log: %w", err))
			return
		}
		if after, err = l.live(after, b); err != nil {
			l.cancel(err)
			return
		}
		next, err := f.register(l.life, l.feed.running, account)
		if err != nil {
			l.cancel(err)
			return
		}
		f.leave(b)
		b = next
	}
}

// live passes on what b gets until it overflows.
func (l *Listener) live(after event.Offset, b *buffer) (event.Offset, error) {
	for {
		select {
		case i := <-b.items:
			if i.Event.Position.Offset <= after {
				continue
			}
			if err := l.patiently(i, b); err != nil {
				return after, err
			}
			after = i.Event.Position.Offset
		case <-b.full:
			return after, nil
		case <-l.life.Done():
			return after, context.Cause(l.life)
		}
	}
}

// patiently passes on an item. Whoever takes longer for it than is reasonable is
// dropped once the buffer behind it is full.
func (l *Listener) patiently(i Item, b *buffer) error {
	select {
	case l.items <- i: // without a timer, which is the rule
		return nil
	default:
	}
	patience := time.NewTimer(l.feed.cfg.Patience)
	defer patience.Stop()
	var full <-chan struct{}
	for {
		select {
		case l.items <- i:
			return nil
		case <-patience.C:
			full = b.full
		case <-full:
			return ErrSlow
		case <-l.life.Done():
			return context.Cause(l.life)
		}
	}
}

func (l *Listener) pass(i Item) bool {
	select {
	case l.items <- i:
		return true
	case <-l.life.Done():
		return false
	}
}

const (
	chunkItems = 256
	chunkBytes = 4 << 20
)

// catchUp passes on what the log has of an account after a place, up to the
// frame at last, a chunk at a time: only the reading of one needs a turn, so
// that a listener who takes long holds up nobody.
func (l *Listener) catchUp(f *follower, account string, after event.Offset, last uint64) (event.Offset, error) {
	next := after.Seq() // a part of this frame may be left
	if next > 0 && next <= last {
		next--
	}
	for next < last {
		var chunk []Item
		var err error
		if chunk, next, err = l.chunk(f, account, after, next, last); err != nil {
			return after, err
		}
		for _, i := range chunk {
			if !l.pass(i) {
				return after, context.Cause(l.life)
			}
			after = i.Event.Position.Offset
		}
	}
	return after, nil
}

// chunk reads frames behind one, and gives the last it has read.
func (l *Listener) chunk(f *follower, account string, after event.Offset, behind, last uint64) ([]Item, uint64, error) {
	select {
	case l.feed.catching <- struct{}{}:
		defer func() { <-l.feed.catching }()
	case <-l.life.Done():
		return nil, behind, context.Cause(l.life)
	}
	var out []Item
	size := 0
	mark := sourceOf(account)
	for r, err := range f.log.Read(l.life, behind) {
		if err != nil {
			return nil, behind, err
		}
		behind = r.Seq
		if bytes.Contains(r.Body, mark) {
			for _, e := range f.decode(l.life, r) {
				if e.Account == account && e.Position.Offset > after {
					out = append(out, Item{e, l.feed.render(&e)})
					size += len(out[len(out)-1].Body) + len(r.Body)/len(mark)
				}
			}
		}
		if r.Seq >= last || len(out) >= chunkItems || size >= chunkBytes {
			break
		}
	}
	if l.life.Err() != nil {
		return nil, behind, context.Cause(l.life)
	}
	return out, behind, nil
}

// sourceOf is what the events of an account hold, so that frames without any
// need not be decoded.
func sourceOf(account string) []byte { return []byte(`"/accounts/` + account + `"`) }

// askTimeout bounds how long the log may take to say where it ends.
const askTimeout = 5 * time.Second
