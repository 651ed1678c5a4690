package lease_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/kv"
	"github.com/shipledger/shipledger/pkg/kv/memkv"
	"github.com/shipledger/shipledger/pkg/lease"
)

// member is one process that asks for the lease.
type member struct {
	*lease.Lease
	leads, stood atomic.Int64 // how often it came to lead, and found that another does
	leading      atomic.Bool
	stop         func()
}

func join(t *testing.T, table kv.Table, name string) *member {
	t.Helper()
	m := &member{Lease: lease.New(lease.Config{Key: "projector", Owner: name, Value: "at " + name}, table, slog.New(slog.DiscardHandler))}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Lead(ctx, func(ctx context.Context) {
			m.leads.Add(1)
			m.leading.Store(true)
			<-ctx.Done()
			m.leading.Store(false)
		}, func() { m.stood.Add(1) })
	}()
	m.stop = func() { cancel(); <-done }
	t.Cleanup(m.stop)
	return m
}

func TestOneLeadsAndTheOtherTakesOverAtOnceWhenItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := memkv.New()
		a := join(t, table, "a")
		synctest.Wait()
		b := join(t, table, "b")
		time.Sleep(time.Minute) // of the test's own clock
		synctest.Wait()
		if !a.Held() || !a.leading.Load() || b.Held() || b.leading.Load() || b.stood.Load() == 0 {
			t.Fatal("not one leads and one stands by")
		}
		if value, ok := b.Holder(); !ok || value != "at a" {
			t.Errorf("the holder is %q, %v", value, ok)
		}
		began := time.Now()
		a.stop()
		synctest.Wait()
		if !b.Held() || !b.leading.Load() || time.Since(began) != 0 {
			t.Error("what was given back was not taken at once")
		}
		if a.leads.Load() != 1 || b.leads.Load() != 1 {
			t.Errorf("they led %d and %d times", a.leads.Load(), b.leads.Load())
		}
	})
}

// cut is a table that one process does not reach for a while.
type cut struct {
	kv.Table

	off atomic.Bool
}

var errCut = errors.New("cut off")

func (c *cut) Swap(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if c.off.Load() {
		return 0, errCut
	}
	return c.Table.Swap(ctx, key, value, revision)
}

func (c *cut) Watch(ctx context.Context) iter.Seq2[kv.Entry, error] {
	return func(yield func(kv.Entry, error) bool) {
		for e, err := range c.Table.Watch(ctx) {
			if c.off.Load() {
				yield(kv.Entry{}, errCut)
				return
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func TestWhoCannotRenewIsOverBeforeAnotherBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := memkv.New()
		line := &cut{Table: shared}
		a := join(t, line, "a")
		synctest.Wait()
		b := join(t, shared, "b")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		line.off.Store(true)
		began := time.Now()
		for !b.leading.Load() {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if a.Held() && b.Held() {
				t.Fatal("both hold it")
			}
			if time.Since(began) > 5*time.Second {
				t.Fatal("nobody took over")
			}
		}
		if a.Held() || a.leading.Load() {
			t.Error("who was cut off still leads")
		}
		line.off.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if a.leading.Load() || !b.leading.Load() || a.leads.Load() != 1 {
			t.Error("who came back took it away")
		}
	})
}

// forgetful is a table in memory whose server is started again: what stood in it
// is gone, and whoever listened hears no more.
type forgetful struct{ now atomic.Pointer[memkv.Table] }

func (f *forgetful) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return f.now.Load().Put(ctx, key, value)
}

func (f *forgetful) Swap(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return f.now.Load().Swap(ctx, key, value, revision)
}

func (f *forgetful) Delete(ctx context.Context, key string) error {
	return f.now.Load().Delete(ctx, key)
}

func (f *forgetful) Watch(ctx context.Context) iter.Seq2[kv.Entry, error] {
	return f.now.Load().Watch(ctx)
}

func TestOneLeadsAgainSoonAfterTheTableLostItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &forgetful{}
		table.now.Store(memkv.New())
		a, b := join(t, table, "a"), join(t, table, "b")
		time.Sleep(time.Minute) // of the test's own clock
		table.now.Store(memkv.New())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if a.Held() == b.Held() || a.leading.Load() != a.Held() || b.leading.Load() != b.Held() {
			t.Errorf("a holds the lease: %v, and b: %v", a.Held(), b.Held())
		}
	})
}
