// Package natsbank keeps the shared states of ratelimit.Leased in a NATS
// key-value bucket. The states are in memory there: budgets need not outlive a
// NATS, and no request waits for a disk because of them.
package natsbank

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// Bucket is the name of the key-value bucket.
const Bucket = "BUDGETS"

// spare is added to the time after which a budget that nobody uses is full:
// leases must be over too.
const spare = time.Minute

// Config says how the states are kept.
type Config struct {
	// Replicas of the bucket.
	Replicas int
	// Slowest is how long the slowest budget takes to be full. A state that is
	// older vanishes, because a bucket nobody knows is full too.
	Slowest time.Duration
}

// Store is a ratelimit.Store.
type Store struct {
	js  jetstream.JetStream
	cfg jetstream.KeyValueConfig

	mu sync.RWMutex
	kv jetstream.KeyValue // nil while it must be opened again
}

var _ ratelimit.Store = (*Store)(nil)

// Open makes the bucket, or opens it.
func Open(ctx context.Context, js jetstream.JetStream, cfg Config) (*Store, error) {
	s := &Store{js: js, cfg: jetstream.KeyValueConfig{
		Bucket: Bucket, Description: "Budgets of credentials and accounts", Storage: jetstream.MemoryStorage,
		History: 1, Replicas: cfg.Replicas, TTL: cfg.Slowest + spare,
	}}
	_, err := s.bucket(ctx)
	return s, err
}

// Load implements ratelimit.Store.
func (s *Store) Load(ctx context.Context, name string) ([]byte, uint64, error) {
	kv, err := s.bucket(ctx)
	if err != nil {
		return nil, 0, err
	}
	entry, err := kv.Get(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, s.failed("load", name, err)
	}
	return entry.Value(), entry.Revision(), nil
}

// Swap implements ratelimit.Store.
func (s *Store) Swap(ctx context.Context, name string, state []byte, revision uint64) (uint64, error) {
	kv, err := s.bucket(ctx)
	if err != nil {
		return 0, err
	}
	stored, err := kv.Update(ctx, name, state, revision)
	switch {
	case err == nil:
		return stored, nil
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return 0, ratelimit.ErrConflict
	}
	return 0, s.failed("swap", name, err)
}

// bucket gives the open bucket. It does not outlive a NATS that is started
// again, so that after a failure it is made where it is missing.
func (s *Store) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	s.mu.RLock()
	kv := s.kv
	s.mu.RUnlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := s.js.CreateOrUpdateKeyValue(ctx, s.cfg)
	if err != nil {
		return nil, fmt.Errorf("open the bucket %s: %w", Bucket, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kv = kv
	return kv, nil
}

func (s *Store) failed(what, name string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kv = nil
	return fmt.Errorf("%s the budget %s: %w", what, name, err)
}
