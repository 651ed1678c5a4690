package keyring_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/kv"
	"github.com/shipledger/shipledger/pkg/kv/memkv"
)

// node is one process that verifies credentials.
type node struct {
	ring   *keyring.Ring
	nodes  *keyring.Nodes
	flight *keyring.Flight
	stop   func()
}

func runNode(t *testing.T, id string, log eventlog.Reader, table kv.Table) node {
	t.Helper()
	n := node{ring: run(t, log, newPeppers(t)), flight: &keyring.Flight{}}
	n.nodes = keyring.NewNodes(
		keyring.NodesConfig{Service: "all", ID: id, Flights: []*keyring.Flight{n.flight}}, n.ring, table, time.Now, slog.New(slog.DiscardHandler),
	)
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- n.nodes.Run(ctx, func() { close(ready) }) }()
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(n.stop)
	<-ready
	return n
}

// within waits for an event to be everywhere, and tells how long that took.
func (n node) within(t *testing.T, seq uint64) (bool, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	return n.nodes.Await(ctx, seq), time.Since(began)
}

func TestAnEventIsEverywhereAtOnceWhenEveryNodeHasAppliedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, table := memlog.New(), memkv.New()
		one, two := runNode(t, "a", log, table), runNode(t, "b", log, table)
		token, rec := newKey(t, newPeppers(t), 1)
		rec.Status = credential.Revoked
		seq := store(t, log, rec, 0)
		for _, n := range []node{one, two} {
			if everywhere, took := n.within(t, seq); !everywhere || took > 0 { // nobody waits for a clock
				t.Errorf("everywhere: %v after %v", everywhere, took)
			}
			if live := n.nodes.Live(); len(live) != 2 || live[0].ID != "a" || live[1].Applied != seq {
				t.Errorf("%+v", live)
			}
			if _, err := n.ring.Verify(token); err == nil {
				t.Error("the key is let in")
			}
		}
		if everywhere, took := one.within(t, seq+1); everywhere || took != time.Second {
			t.Errorf("what was never stored is everywhere: %v after %v", everywhere, took)
		}
	})
}

// What a process decided before it heard of the event may still reach the log.
func TestAnEventIsNotEverywhereWhileWhatWasDecidedBeforeIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, table := memlog.New(), memkv.New()
		one, two := runNode(t, "a", log, table), runNode(t, "b", log, table)
		landed := two.flight.Begin()
		_, rec := newKey(t, newPeppers(t), 1)
		seq := store(t, log, rec, 0)
		synctest.Wait()
		if two.ring.Applied() != seq {
			t.Fatal("the second node has not applied the event")
		}
		if everywhere, _ := one.within(t, seq); everywhere {
			t.Error("the event is everywhere")
		}
		landed()
		landed = two.flight.Begin() // decided by what now is known
		defer landed()
		if everywhere, took := one.within(t, seq); !everywhere || took > 0 {
			t.Errorf("everywhere: %v after %v", everywhere, took)
		}
	})
}

// A node that is held up goes on letting in for as long as it trusts what it
// knows, and nobody can tell whether it is held up or dead.
func TestANodeThatFallsSilentCountsForAsLongAsItTrustsItsKeysAndOneThatStopsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, table := memlog.New(), memkv.New()
		one, two := runNode(t, "a", log, table), runNode(t, "b", log, table)
		if _, err := table.Put(t.Context(), "ingest.silent", []byte(`{"applied":0,"trusts_ms":20000}`)); err != nil {
			t.Fatal(err)
		}
		_, rec := newKey(t, newPeppers(t), 1)
		seq := store(t, log, rec, 0)
		if everywhere, took := one.within(t, seq); everywhere || took != time.Second {
			t.Errorf("everywhere: %v after %v, though a node says nothing", everywhere, took)
		}
		<-time.After(18 * time.Second)
		if everywhere, _ := one.within(t, seq); everywhere {
			t.Error("the event is everywhere, though a node that says nothing may still let in")
		}
		<-time.After(2 * time.Second)
		if everywhere, took := one.within(t, seq); !everywhere || took > 0 {
			t.Errorf("everywhere: %v after %v, though the silent node is gone", everywhere, took)
		}
		two.stop()
		synctest.Wait()
		if live := one.nodes.Live(); len(live) != 1 || live[0].ID != "a" {
			t.Errorf("%+v", live)
		}
	})
}

// The others cease to wait for a node that they do not hear of.
func TestANodeWhoseReportsAreLostStopsToLetInThoughItHearsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, table := memlog.New(), &muteTable{Table: memkv.New()}
		token, rec := newKey(t, newPeppers(t), 1)
		store(t, log, rec, 0)
		one := runNode(t, "a", log, table)
		lets := func() error { _, err := one.ring.Verify(token); return err }
		table.mute.Store(true)
		<-time.After(29 * time.Second)
		if err := lets(); err != nil {
			t.Errorf("29 s after its last report: %v", err)
		}
		<-time.After(3 * time.Second)
		if err := lets(); !errors.Is(err, keyring.ErrDeaf) {
			t.Errorf("32 s after its last report: %v, want ErrDeaf", err)
		}
		table.mute.Store(false)
		<-time.After(3 * time.Second)
		if err := lets(); err != nil {
			t.Errorf("heard of again: %v", err)
		}
	})
}

// muteTable takes nothing in at times.
type muteTable struct {
	*memkv.Table

	mute atomic.Bool
}

func (m *muteTable) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if m.mute.Load() {
		return 0, errors.New("the table is away")
	}
	return m.Table.Put(ctx, key, value)
}

// A process that starts while something is revoked may have looked at the log
// just before: it is waited for from before that look on.
func TestANodeIsHeardOfBeforeItLetsAnybodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, table := memlog.New(), memkv.New()
		one := runNode(t, "a", log, table)
		held := &heldLog{Log: log, look: make(chan struct{}), answer: make(chan struct{})}
		nodes := keyring.NewNodes(keyring.NodesConfig{Service: "all", ID: "b"}, keyringOn(t, held), table, time.Now, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- nodes.Run(ctx, func() { close(ready) }) }()
		<-held.look
		synctest.Wait()
		select {
		case <-ready:
			t.Error("the node lets somebody in before it has looked where the log ends")
		default:
		}
		if live := one.nodes.Live(); len(live) != 2 {
			t.Errorf("%+v: the new node is not heard of", live)
		}
		close(held.answer)
		<-ready
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// heldLog holds the look for its end, once its ring is ready.
type heldLog struct {
	*memlog.Log

	holds        bool
	look, answer chan struct{}
}

func (l *heldLog) Last(ctx context.Context) (uint64, error) {
	if l.holds {
		l.holds = false
		close(l.look)
		<-l.answer
	}
	return l.Log.Last(ctx)
}

func keyringOn(t *testing.T, log *heldLog) *keyring.Ring {
	t.Helper()
	r := run(t, log, newPeppers(t))
	log.holds = true
	return r
}

// A watch may end without a word: then a node listens anew.
func TestANodeThatDoesNotHearItselfListensAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, table := memlog.New(), &deafTable{Table: memkv.New()}
		one := runNode(t, "a", log, table)
		_, rec := newKey(t, newPeppers(t), 1)
		seq := store(t, log, rec, 0)
		if everywhere, _ := one.within(t, seq); everywhere {
			t.Fatal("a deaf node knows that the event is everywhere")
		}
		<-time.After(10 * time.Second)
		if everywhere, _ := one.within(t, seq); !everywhere {
			t.Error("the node did not listen anew")
		}
	})
}

// deafTable hears nothing the first time.
type deafTable struct {
	*memkv.Table

	asked bool
}

func (d *deafTable) Watch(ctx context.Context) iter.Seq2[kv.Entry, error] {
	if d.asked {
		return d.Table.Watch(ctx)
	}
	d.asked = true
	return func(func(kv.Entry, error) bool) { <-ctx.Done() }
}
