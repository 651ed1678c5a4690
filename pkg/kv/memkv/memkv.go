// Package memkv keeps a kv.Table in memory, for one process.
package memkv

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"

	"github.com/shipledger/shipledger/pkg/kv"
)

// Table is a kv.Table that never forgets.
type Table struct {
	mu      sync.Mutex
	entries map[string]kv.Entry // deleted ones too, for those that watch
	last    uint64
	changed chan struct{} // closed and replaced at every change
}

var _ kv.Table = (*Table)(nil)

// New returns an empty table.
func New() *Table {
	return &Table{entries: map[string]kv.Entry{}, changed: make(chan struct{})}
}

// Put implements kv.Table.
func (t *Table) Put(_ context.Context, key string, value []byte) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.store(key, append([]byte{}, value...)), nil
}

// Swap implements kv.Table.
func (t *Table) Swap(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := t.entries[key]
	if held.Value == nil {
		held.Revision = 0
	}
	if held.Revision != revision {
		return 0, kv.ErrConflict
	}
	return t.store(key, append([]byte{}, value...)), nil
}

// Delete implements kv.Table.
func (t *Table) Delete(_ context.Context, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.store(key, nil)
	return nil
}

// store is for whoever holds t.mu.
func (t *Table) store(key string, value []byte) uint64 {
	t.last++
	t.entries[key] = kv.Entry{Key: key, Value: value, Revision: t.last}
	close(t.changed)
	t.changed = make(chan struct{})
	return t.last
}

// Watch implements kv.Table.
func (t *Table) Watch(ctx context.Context) iter.Seq2[kv.Entry, error] {
	return func(yield func(kv.Entry, error) bool) {
		seen := uint64(0)
		for first := true; ; first = false {
			news, changed := t.since(seen)
			for _, e := range news {
				seen = e.Revision
				if first && e.Value == nil {
					continue
				}
				e.Value = bytes.Clone(e.Value)
				if !yield(e, nil) {
					return
				}
			}
			if first && !yield(kv.Entry{}, nil) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// since gives what changed after a revision, and what is closed when more does.
func (t *Table) since(revision uint64) ([]kv.Entry, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var news []kv.Entry
	for _, e := range t.entries {
		if e.Revision > revision {
			news = append(news, e)
		}
	}
	slices.SortFunc(news, func(a, b kv.Entry) int { return cmp.Compare(a.Revision, b.Revision) })
	return news, t.changed
}
