package ratelimit

import (
	"context"
	"slices"
	"sync"
)

// MemoryStore is a Store that does not outlive its process.
type MemoryStore struct {
	mu       sync.Mutex
	states   map[string]memoryState
	revision uint64
}

type memoryState struct {
	data     []byte
	revision uint64
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return &MemoryStore{states: map[string]memoryState{}} }

// Load implements Store.
func (m *MemoryStore) Load(_ context.Context, name string) ([]byte, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.states[name]
	return s.data, s.revision, nil
}

// Swap implements Store.
func (m *MemoryStore) Swap(_ context.Context, name string, state []byte, revision uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.states[name].revision != revision {
		return 0, ErrConflict
	}
	m.revision++
	m.states[name] = memoryState{slices.Clone(state), m.revision}
	return m.revision, nil
}
