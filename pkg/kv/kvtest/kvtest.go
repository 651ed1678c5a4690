// Package kvtest states the contract of kv.Table as tests.
package kvtest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/kv"
)

// Open gives n ways to one new table, as n processes have them.
type Open func(t *testing.T, n int) []kv.Table

// Run holds the tables made by open to the contract.
func Run(t *testing.T, open Open) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Open){
		"WhatIsPutIsSeenByThoseWhoComeLater":     standing,
		"ChangesReachThoseWhoWatchInOrder":       order,
		"ASwapTakesOnlyTheRevisionThatIsStored":  swap,
		"OfSwapsAtTheSameTimeNoneIsLost":         race,
		"WhatIsDeletedIsToldAndMayBeMadeAgain":   deleted,
		"AWatchEndsWithItsContextWithoutAnError": ends,
		"ValuesBelongToWhoeverHoldsThem":         apart,
		"AnEmptyValueIsAValue":                   empty,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

const patience = time.Minute

// watched collects what a table yields.
type watched struct {
	t       *testing.T
	entries chan kv.Entry
}

func watch(t *testing.T, table kv.Table) watched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	w := watched{t, make(chan kv.Entry, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e, err := range table.Watch(ctx) {
			if err != nil {
				t.Error(err)
				return
			}
			w.entries <- e
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

func (w watched) next() kv.Entry {
	w.t.Helper()
	select {
	case e := <-w.entries:
		return e
	case <-time.After(patience):
		w.t.Fatal("nothing is yielded")
		return kv.Entry{}
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func standing(t *testing.T, open Open) {
	tables := open(t, 2)
	must[uint64](t)(tables[0].Put(t.Context(), "a.x", []byte("1")))
	last := must[uint64](t)(tables[0].Put(t.Context(), "a.x", []byte("2")))
	other := must[uint64](t)(tables[0].Put(t.Context(), "b.y", []byte("3")))
	w := watch(t, tables[1])
	if e := w.next(); e.Key != "a.x" || string(e.Value) != "2" || e.Revision != last {
		t.Errorf("%+v", e)
	}
	if e := w.next(); e.Key != "b.y" || e.Revision != other || other <= last {
		t.Errorf("%+v", e)
	}
	if e := w.next(); e.Key != "" {
		t.Errorf("%+v comes before the end of what stood", e)
	}
}

// order is what a barrier rests on: who sees a later change has seen the earlier ones.
func order(t *testing.T, open Open) {
	tables := open(t, 3)
	w := watch(t, tables[2])
	if e := w.next(); e.Key != "" {
		t.Fatalf("%+v", e)
	}
	const rounds = 50
	for i := range rounds {
		must[uint64](t)(tables[i%2].Put(t.Context(), fmt.Sprint("k.", i%3), fmt.Append(nil, i)))
	}
	must[uint64](t)(tables[0].Put(t.Context(), "end", nil))
	newest, before := map[string]string{}, uint64(0)
	for e := w.next(); e.Key != "end"; e = w.next() {
		if e.Revision <= before {
			t.Fatalf("revision %d comes after %d", e.Revision, before)
		}
		before, newest[e.Key] = e.Revision, string(e.Value)
	}
	for i := rounds - 3; i < rounds; i++ {
		if key := fmt.Sprint("k.", i%3); newest[key] != strconv.Itoa(i) {
			t.Errorf("%s is %q, want %d", key, newest[key], i)
		}
	}
}

func swap(t *testing.T, open Open) {
	table := open(t, 1)[0]
	first := must[uint64](t)(table.Swap(t.Context(), "a.b", []byte("one"), 0))
	for _, wrong := range []uint64{0, first + 1} {
		if _, err := table.Swap(t.Context(), "a.b", []byte("two"), wrong); !errors.Is(err, kv.ErrConflict) {
			t.Errorf("a swap of %d while %d is stored: %v", wrong, first, err)
		}
	}
	if second := must[uint64](t)(table.Swap(t.Context(), "a.b", []byte("two"), first)); second <= first {
		t.Errorf("revision %d follows %d", second, first)
	}
}

func race(t *testing.T, open Open) {
	const processes, rounds = 4, 20
	var won atomic.Int64
	var group sync.WaitGroup
	for _, table := range open(t, processes) {
		group.Go(func() {
			for i := range rounds {
				_, err := table.Swap(t.Context(), fmt.Sprint("k", i), []byte("x"), 0)
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, kv.ErrConflict):
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if won.Load() != rounds {
		t.Errorf("%d swaps of %d keys were made", won.Load(), rounds)
	}
}

func deleted(t *testing.T, open Open) {
	tables := open(t, 2)
	must[uint64](t)(tables[0].Put(t.Context(), "a", []byte("1")))
	w := watch(t, tables[1])
	w.next()
	w.next()
	if err := tables[0].Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if e := w.next(); e.Key != "a" || e.Value != nil {
		t.Errorf("%+v", e)
	}
	if e := watch(t, tables[1]).next(); e.Key != "" {
		t.Errorf("%+v stands", e)
	}
	must[uint64](t)(tables[0].Swap(t.Context(), "a", []byte("2"), 0))
	if e := w.next(); string(e.Value) != "2" {
		t.Errorf("%+v", e)
	}
}

func ends(t *testing.T, open Open) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for e, err := range open(t, 1)[0].Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Key == "" {
			cancel()
		}
	}
}

func apart(t *testing.T, open Open) {
	table := open(t, 1)[0]
	value := []byte("1")
	must[uint64](t)(table.Put(t.Context(), "a", value))
	value[0] = '2'
	e := watch(t, table).next()
	if string(e.Value) != "1" {
		t.Fatalf("%+v", e)
	}
	e.Value[0] = '3'
	if e := watch(t, table).next(); string(e.Value) != "1" {
		t.Errorf("%+v", e)
	}
}

func empty(t *testing.T, open Open) {
	table := open(t, 1)[0]
	must[uint64](t)(table.Put(t.Context(), "a", nil))
	if e := watch(t, table).next(); e.Key != "a" || e.Value == nil || len(e.Value) != 0 {
		t.Errorf("%+v", e)
	}
}
