package settings_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/kv"
	"github.com/shipledger/shipledger/pkg/kv/memkv"
	"github.com/shipledger/shipledger/pkg/settings"
)

// opened runs a book until the test ends or stop is called.
func opened(t *testing.T, table kv.Table) (b *settings.Book, stop func()) {
	t.Helper()
	b = settings.New(table, event.DefaultSettings(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = b.Run(ctx, func() { close(ready) })
	}()
	<-ready
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return b, stop
}

// off is a decision against writing tokens, on one for them.
func off(seq uint64) map[string]settings.Decided { return decided(seq, false) }
func on(seq uint64) map[string]settings.Decided  { return decided(seq, true) }

func decided(seq uint64, write bool) map[string]settings.Decided {
	s := event.DefaultSettings()
	s.PATWrite = write
	return map[string]settings.Decided{"acme": {Settings: s, Offset: event.At(seq, 0)}}
}

func TestWhatAnAccountDecidedIsKnownToEveryProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := memkv.New()
		committer, stopCommitter := opened(t, table)
		other, stopOther := opened(t, table)
		committer.Offer(off(3))
		if committer.Of("acme").PATWrite {
			t.Error("who decided it does not act by it at once")
		}
		revision, err := committer.Share(t.Context(), "acme")
		if err != nil || revision == 0 {
			t.Fatal(revision, err)
		}
		synctest.Wait()
		if other.Applied() < revision || other.Of("acme").PATWrite || !other.Of("other").PATWrite {
			t.Errorf("the other process is at %d of %d and knows %+v", other.Applied(), revision, other.Of("acme"))
		}
		later, stopLater := opened(t, table)
		if later.Of("acme").PATWrite {
			t.Error("a process that starts later is ready before it knows")
		}
		stopCommitter()
		stopOther()
		stopLater()
	})
}

func TestTheLaterDecisionWinsInWhateverOrderTheyArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := memkv.New()
		a, stopA := opened(t, table)
		b, stopB := opened(t, table)
		a.Offer(off(9))
		b.Offer(on(4)) // a fold that is behind
		synctest.Wait()
		for _, book := range []*settings.Book{a, b} {
			if _, err := book.Share(t.Context(), "acme"); err != nil {
				t.Fatal(err)
			}
			if err := book.CatchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			if book.Of("acme").PATWrite {
				t.Error("the earlier decision won")
			}
		}
		stopA()
		stopB()
	})
}

// lossy is a table that takes nothing for a while.
type lossy struct {
	*memkv.Table
	broken atomic.Bool
}

// Swap implements kv.Table.
func (l *lossy) Swap(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if l.broken.Load() {
		return 0, context.DeadlineExceeded
	}
	return l.Table.Swap(ctx, key, value, revision)
}

func TestWhatCouldNotBeSharedIsSharedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &lossy{Table: memkv.New()}
		table.broken.Store(true)
		committer, stopCommitter := opened(t, table)
		other, stopOther := opened(t, table)
		committer.Offer(off(3))
		if _, err := committer.Share(t.Context(), "acme"); err == nil {
			t.Error("a table that takes nothing is no error")
		}
		synctest.Wait()
		if !other.Of("acme").PATWrite {
			t.Error("the other process knows what nobody told it")
		}
		table.broken.Store(false)
		time.Sleep(time.Minute) // of the bubble
		synctest.Wait()
		if other.Of("acme").PATWrite {
			t.Error("it was never shared")
		}
		// A table that was lost is filled again from a fold.
		fresh := memkv.New()
		stopCommitter()
		stopOther()
		again, stopAgain := opened(t, fresh)
		again.Offer(off(3))
		synctest.Wait()
		reader, stopReader := opened(t, fresh)
		if reader.Of("acme").PATWrite {
			t.Error("a lost table was not filled")
		}
		stopAgain()
		stopReader()
	})
}
