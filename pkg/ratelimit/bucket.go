package ratelimit

import (
	"sync"
	"time"
)

// sweepEvery is how many new buckets are made between two looks for full ones.
const sweepEvery = 4096

// Memory is the Bank of one process.
type Memory struct {
	mu      sync.Mutex
	buckets map[string]*bucket
	made    int
}

type bucket struct {
	tokens float64
	at     time.Time
	rate   Rate
}

// NewMemory returns a bank of full buckets.
func NewMemory() *Memory { return &Memory{buckets: map[string]*bucket{}} }

// Take implements Bank.
func (m *Memory) Take(name string, r Rate, n int, now time.Time) (int, float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.buckets[name]
	if b == nil {
		b = &bucket{tokens: float64(r.Burst), at: now}
		m.buckets[name] = b
		m.sweep(now)
	}
	b.rate = r
	b.fill(now)
	granted := min(n, int(b.tokens))
	b.tokens = min(b.tokens-float64(granted), float64(r.Burst))
	return granted, b.tokens
}

// fill adds what came since the last time. A clock that went back adds nothing.
func (b *bucket) fill(now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens += passed.Seconds() * b.rate.PerSecond()
		b.at = now
	}
	b.tokens = min(b.tokens, float64(b.rate.Burst))
}

// sweep forgets buckets that are full: they are what a new one would be.
func (m *Memory) sweep(now time.Time) {
	if m.made++; m.made%sweepEvery != 0 {
		return
	}
	for name, b := range m.buckets {
		b.fill(now)
		if b.tokens >= float64(b.rate.Burst) {
			delete(m.buckets, name)
		}
	}
}
