package feed

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
)

// follower follows one stream while somebody listens to it.
type follower struct {
	feed   *Feed
	stream string
	log    eventlog.Reader

	mu      sync.Mutex
	buffers map[string]map[*buffer]struct{} // by account
	at      uint64                          // the last frame that was handed out
	stop    context.CancelFunc              // of the following; nil: nobody listens
	session int                             // which following it is, so that an old one hands out nothing
}

// buffer is what waits for one listener. What stands after the frame at after
// comes through it, unless it is full: then nothing more does.
type buffer struct {
	account string
	after   uint64
	items   chan Item
	full    chan struct{} // closed once an item did not fit
	over    bool          // it was; the follower's
}

// register begins to fill a buffer with an account's events.
func (f *follower) register(ctx, life context.Context, account string) (*buffer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stop == nil {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		last, err := f.log.Last(ask)
		if err != nil {
			return nil, unavailable(err)
		}
		following, stop := context.WithCancel(life)
		f.at, f.stop = last, stop
		f.session++
		session := f.session
		f.feed.wg.Go(func() { f.follow(following, session) })
	}
	b := &buffer{account: account, after: f.at, items: make(chan Item, f.feed.cfg.Buffer), full: make(chan struct{})}
	if f.buffers[account] == nil {
		f.buffers[account] = map[*buffer]struct{}{}
	}
	f.buffers[account][b] = struct{}{}
	return b, nil
}

// begin gives the place that a listener begins behind, when the stream's frames
// up to last are handed out.
func (f *follower) begin(ctx context.Context, last uint64, from map[string]event.Offset, stream string) (event.Offset, error) {
	if at, ok := from[stream]; ok {
		if at.Seq() > last {
			return 0, fmt.Errorf("%w: %s", ErrAhead, event.Position{Stream: stream, Offset: at})
		}
		return at, nil
	}
	if last == 0 {
		return 0, nil
	}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, err := f.log.At(ask, last)
	if err != nil {
		return 0, unavailable(err)
	}
	return event.At(last, max(0, len(f.decode(ctx, r))-1)), nil
}

// leave stops filling a buffer. The last one ends the following.
func (f *follower) leave(b *buffer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.buffers[b.account], b)
	if len(f.buffers[b.account]) == 0 {
		delete(f.buffers, b.account)
	}
	if len(f.buffers) == 0 && f.stop != nil {
		f.stop()
		f.stop = nil
	}
}

// The pauses after the log could not be read.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
)

// follow hands out frames until ctx is done, and begins anew where it was when
// the log fails.
func (f *follower) follow(ctx context.Context, session int) {
	f.mu.Lock()
	at := f.at
	f.mu.Unlock()
	pause := firstPause
	for ctx.Err() == nil {
		for r, err := range f.log.Follow(ctx, at) {
			if err != nil {
				if ctx.Err() == nil {
					f.feed.logger.WarnContext(ctx, "the feed cannot follow the log", "stream", f.stream, "after", at, "err", err)
				}
				break
			}
			if !f.handOut(ctx, r, session) {
				return
			}
			at, pause = r.Seq, firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// handOut puts the events of a frame into the buffers of those who listen. Who
// registers meanwhile waits, so that a frame is either before or after them.
func (f *follower) handOut(ctx context.Context, r eventlog.Recorded, session int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session != session || f.stop == nil {
		return false
	}
	f.at = r.Seq
	if !f.concerns(r.Body) {
		return true
	}
	for _, e := range f.decode(ctx, r) {
		listening := f.buffers[e.Account]
		if len(listening) == 0 {
			continue
		}
		item := Item{e, f.feed.render(&e)}
		for b := range listening {
			if b.over {
				continue
			}
			select {
			case b.items <- item:
			default:
				b.over = true
				close(b.full)
			}
		}
	}
	return true
}

// fewAccounts is up to how many accounts a frame is searched for before it is
// decoded.
const fewAccounts = 16

func (f *follower) concerns(body []byte) bool {
	if len(f.buffers) > fewAccounts {
		return true
	}
	for account := range f.buffers {
		if bytes.Contains(body, sourceOf(account)) {
			return true
		}
	}
	return false
}

// decode gives the events of a frame. One that cannot be read is left out: it
// stands in the log, and the projection tells of it.
func (f *follower) decode(ctx context.Context, r eventlog.Recorded) []event.Recorded {
	events, err := event.DecodeFrame(f.stream, r.Seq, r.Body)
	if err != nil {
		f.feed.logger.ErrorContext(ctx, "the feed leaves out a frame that it cannot read", "stream", f.stream, "seq", r.Seq, "err", err)
		return nil
	}
	return events
}

func unavailable(cause error) error {
	return fault.New(fault.Unavailable, "", "The log does not answer right now.").WithHint("Try again in a moment.").Because(cause)
}
