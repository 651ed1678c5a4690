package feed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/feed"
)

// streams are those of the ledger that its accounts are in.
var streams = []string{"t0", "c"}

// ledger is two logs that a test writes, and a feed of them.
type ledger struct {
	t    *testing.T
	logs map[string]*memlog.Log
	feed *feed.Feed
	made int // how many events were made for listeners
}

// open starts a feed inside a bubble, until the test ends.
func open(t *testing.T, cfg feed.Config) *ledger {
	l := &ledger{t: t, logs: map[string]*memlog.Log{"t0": memlog.New(), "c": memlog.New()}}
	readers := map[string]eventlog.Reader{}
	for name, log := range l.logs {
		readers[name] = log
	}
	var mu sync.Mutex
	l.feed = feed.New(cfg, readers, func(e *event.Recorded) []byte {
		mu.Lock()
		defer mu.Unlock()
		l.made++
		return []byte(e.Position.String())
	}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() { ended <- l.feed.Run(ctx, func() { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

// write stores a frame with an event of each account.
func (l *ledger) write(stream string, accounts ...string) {
	l.t.Helper()
	log := l.logs[stream]
	last, _ := log.Last(l.t.Context())
	var events []event.Event
	for i, account := range accounts {
		name := fmt.Sprint(stream, last, i)
		events = append(events, event.Event{
			ID: ulid.Make(), Account: account, Type: event.ProductCreated, Subject: name, Time: time.Now(),
			Payload: &event.Product{ID: event.ProductIDOf(account, name), Name: name, CreatedAt: time.Now()},
		})
	}
	if _, err := log.AppendFrame(l.t.Context(), eventlog.Frame{ID: fmt.Sprint(stream, last), Body: event.AppendFrame(nil, last+1, events)}, last); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ledger) listen(account string, from map[string]event.Offset) *feed.Listener {
	l.t.Helper()
	listener, err := l.feed.Listen(l.t.Context(), account, streams, from)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(listener.Close)
	return listener
}

// heard gives what a listener hears until nothing more comes, by stream.
func heard(listener *feed.Listener, most int) []string {
	var out []string
	for len(out) < most {
		synctest.Wait()
		select {
		case i := <-listener.Items():
			listener.Heard(&i)
			out = append(out, string(i.Body))
			continue
		default:
		}
		break
	}
	slices.SortStableFunc(out, func(a, b string) int { return int(a[0]) - int(b[0]) })
	return out
}

func same(t *testing.T, what string, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestListenerHearsItsAccountFromNowOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, feed.Config{})
		l.write("t0", "acme", "acme")
		listener := l.listen("acme", nil)
		if at := listener.At(); at["t0"] != event.At(1, 1) || at["c"] != 0 {
			t.Errorf("it begins at %v", at)
		}
		l.write("t0", "other", "acme")
		l.write("c", "acme")
		l.write("t0", "other")
		same(t, "heard", []string{"c.1.0", "t0.2.1"}, heard(listener, 100))
	})
}

// A listener may go away at any event: whoever goes on from there hears the rest
// once, however much was written meanwhile and however small the buffers are.
func TestResumingLosesNothingAndDoublesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, feed.Config{Buffer: 2, CatchUps: 1})
		var want, got []string
		write := func() {
			for range 7 {
				seq, _ := l.logs["t0"].Last(t.Context())
				l.write("t0", "other", "acme", "acme")
				want = append(want, fmt.Sprintf("t0.%d.1", seq+1), fmt.Sprintf("t0.%d.2", seq+1))
			}
		}
		at := map[string]event.Offset{"t0": 0, "c": 0}
		for most := 1; len(got) < 200; most = most%5 + 1 {
			write()
			listener := l.listen("acme", at)
			write()
			got = append(got, heard(listener, most)...)
			write()
			got = append(got, heard(listener, 4*most)...)
			at = listener.At()
			listener.Close()
			synctest.Wait()
		}
		listener := l.listen("acme", at)
		got = append(got, heard(listener, 10_000)...)
		same(t, "heard", want, got)
	})
}

func TestEventIsMadeOnceForAllListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, feed.Config{})
		listeners := []*feed.Listener{l.listen("acme", nil), l.listen("acme", nil), l.listen("acme", nil)}
		l.write("t0", "acme", "other")
		for _, listener := range listeners {
			same(t, "heard", []string{"t0.1.0"}, heard(listener, 100))
		}
		if l.made != 1 {
			t.Errorf("%d were made", l.made)
		}
	})
}

func TestWhoDoesNotKeepUpIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, feed.Config{Buffer: 2, Patience: time.Second})
		slow, other := l.listen("acme", nil), l.listen("acme", nil)
		for range 10 {
			l.write("t0", "acme")
			heard(other, 1)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := slow.Err(); !errors.Is(err, feed.ErrSlow) {
			t.Errorf("the slow one ended with %v", err)
		}
		if other.Err() != nil {
			t.Errorf("the other one ended with %v", other.Err())
		}
	})
}

func TestPlaceBehindTheEndIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, feed.Config{})
		l.write("t0", "acme")
		if _, err := l.feed.Listen(t.Context(), "acme", streams, map[string]event.Offset{"t0": event.At(2, 0)}); !errors.Is(err, feed.ErrAhead) {
			t.Errorf("got %v", err)
		}
	})
}

func TestListenersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, feed.Config{Listeners: 1})
		first := l.listen("acme", nil)
		if _, err := l.feed.Listen(t.Context(), "acme", streams, nil); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("the second: %v", err)
		}
		first.Close()
		synctest.Wait()
		l.listen("acme", nil)
	})
}

func TestStoppingEndsEveryListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(feed.Config{}, map[string]eventlog.Reader{"t0": memlog.New()}, func(*event.Recorded) []byte { return nil }, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx, func() {}) }()
		synctest.Wait()
		listener, err := f.Listen(t.Context(), "acme", []string{"t0"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		<-listener.Done()
		if !errors.Is(listener.Err(), feed.ErrStopped) {
			t.Errorf("it ended with %v", listener.Err())
		}
		if _, err := f.Listen(t.Context(), "acme", []string{"t0"}, nil); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestListenersAreNotHeldUpByStreamsThatTheyAreNotIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, feed.Config{})
		l.write("c", "acme")
		listener, err := l.feed.Listen(t.Context(), "acme", []string{"t0"}, map[string]event.Offset{"t0": 0})
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		l.write("t0", "acme")
		l.write("c", "acme")
		if got, want := heard(listener, 9), []string{"t0.1.0"}; !cmp.Equal(got, want) {
			t.Errorf("heard %v, want %v", got, want)
		}
		if _, ok := listener.At()["c"]; ok {
			t.Errorf("it stands at %v", listener.At())
		}
		if _, err := l.feed.Listen(t.Context(), "acme", []string{"t1"}, nil); err == nil {
			t.Error("a stream that there is not is listened to")
		}
	})
}
