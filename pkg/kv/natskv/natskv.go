// Package natskv keeps a kv.Table in a NATS key-value bucket.
package natskv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/kv"
)

// Config says how a bucket is kept.
type Config struct {
	Bucket      string
	Description string
	Replicas    int           // 0 means 1
	Life        time.Duration // of an entry that is not stored again; 0: for ever
	Volatile    bool          // in memory: gone with its NATS, and no change waits for a disk
}

// Table is a kv.Table.
type Table struct {
	js  jetstream.JetStream
	cfg jetstream.KeyValueConfig

	mu sync.RWMutex
	kv jetstream.KeyValue // nil while it must be opened again
}

var _ kv.Table = (*Table)(nil)

// Open makes the bucket, or opens it.
func Open(ctx context.Context, js jetstream.JetStream, cfg Config) (*Table, error) {
	storage := jetstream.FileStorage
	if cfg.Volatile {
		storage = jetstream.MemoryStorage
	}
	t := &Table{js: js, cfg: jetstream.KeyValueConfig{
		Bucket: cfg.Bucket, Description: cfg.Description, Storage: storage, History: 1, Replicas: max(cfg.Replicas, 1), TTL: cfg.Life,
	}}
	_, err := t.bucket(ctx)
	return t, err
}

// Put implements kv.Table.
func (t *Table) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	bucket, err := t.bucket(ctx)
	if err != nil {
		return 0, err
	}
	revision, err := bucket.Put(ctx, key, value)
	if err != nil {
		return 0, t.failed("put", key, err)
	}
	return revision, nil
}

// Swap implements kv.Table.
func (t *Table) Swap(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	bucket, err := t.bucket(ctx)
	if err != nil {
		return 0, err
	}
	var stored uint64
	if revision == 0 {
		stored, err = bucket.Create(ctx, key, value) // a key that was deleted too
	} else {
		stored, err = bucket.Update(ctx, key, value, revision)
	}
	switch {
	case err == nil:
		return stored, nil
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch), errors.Is(err, jetstream.ErrKeyExists):
		return 0, kv.ErrConflict
	}
	return 0, t.failed("swap", key, err)
}

// Delete implements kv.Table.
func (t *Table) Delete(ctx context.Context, key string) error {
	bucket, err := t.bucket(ctx)
	if err != nil {
		return err
	}
	if err := bucket.Delete(ctx, key); err != nil {
		return t.failed("delete", key, err)
	}
	return nil
}

var errWatchEnded = errors.New("the watch has ended")

// Watch implements kv.Table.
func (t *Table) Watch(ctx context.Context) iter.Seq2[kv.Entry, error] {
	return func(yield func(kv.Entry, error) bool) {
		fail := func(err error) {
			if ctx.Err() == nil {
				yield(kv.Entry{}, t.failed("watch", ">", err))
			}
		}
		bucket, err := t.bucket(ctx)
		if err != nil {
			fail(err)
			return
		}
		watcher, err := bucket.WatchAll(ctx)
		if err != nil {
			fail(err)
			return
		}
		defer func() { _ = watcher.Stop() }()
		standing := true
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-watcher.Updates():
				switch {
				case !ok:
					fail(errWatchEnded)
					return
				case e == nil:
					standing = false
					if !yield(kv.Entry{}, nil) {
						return
					}
				case e.Operation() == jetstream.KeyValuePut:
					if !yield(kv.Entry{Key: e.Key(), Value: append([]byte{}, e.Value()...), Revision: e.Revision()}, nil) {
						return
					}
				case !standing:
					if !yield(kv.Entry{Key: e.Key(), Revision: e.Revision()}, nil) {
						return
					}
				}
			}
		}
	}
}

// bucket gives the open bucket. One in memory does not outlive a NATS that is
// started again, so that after a failure it is made where it is missing.
func (t *Table) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	t.mu.RLock()
	bucket := t.kv
	t.mu.RUnlock()
	if bucket != nil {
		return bucket, nil
	}
	bucket, err := t.js.CreateOrUpdateKeyValue(ctx, t.cfg)
	if err != nil {
		return nil, fmt.Errorf("open the bucket %s: %w", t.cfg.Bucket, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kv = bucket
	return bucket, nil
}

func (t *Table) failed(what, key string, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kv = nil
	return fmt.Errorf("%s %s in the bucket %s: %w", what, key, t.cfg.Bucket, err)
}
