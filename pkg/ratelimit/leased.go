package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// ErrConflict says that a shared state was changed by somebody else.
var ErrConflict = errors.New("the bucket was changed by another process")

// A Store keeps the shared states of buckets, which change by compare-and-set.
//
// Implementations must be safe for concurrent use and must answer, or fail,
// when ctx is done. They may forget a state once its bucket is full.
type Store interface {
	// Load gives what is stored under a name and its revision, or nothing and zero.
	Load(ctx context.Context, name string) (state []byte, revision uint64, err error)
	// Swap stores a state in place of the revision given, zero for none, and
	// gives the new revision. Where another one is stored the error is ErrConflict.
	Swap(ctx context.Context, name string, state []byte, revision uint64) (uint64, error)
}

// LeasedConfig says how a process draws on shared buckets.
type LeasedConfig struct {
	// Owner is the name of this process, which no other one has. No spaces.
	Owner string
	// Now is the clock of Run. Default: time.Now.
	Now func() time.Time
	// Timeout is how long a request may wait for the store. Default: 250 ms.
	Timeout time.Duration
}

const (
	leasePercent = 2               // of the burst, so much a process may hold
	leaseFor     = 5 * time.Second // then what is left of it returns
	// forgetAfter is when others count a lease as spent whose process does not
	// return it. It leaves room for clocks that differ.
	forgetAfter = 2 * leaseFor
	// trustFor is how long a process refuses by what it saw last.
	trustFor = time.Second
	// deafFor is how long a store that did not answer is not asked again.
	deafFor = time.Second
	// attempts is how often another process may be faster.
	attempts = 100
)

// Leased is the Bank of several processes, over buckets that stand in a Store.
//
//	store    ├─ tokens ─────────────┼ lease of A ┼ lease of B ┤ ≤ burst
//	                                   │ 2 %        │ 2 %
//	requests                        A: most       B: most
//	                                without the store
//
// A process takes 2 % of the burst at a time, or what a request needs if that is
// more, and gives it out without asking anybody. What it did not use within 5
// seconds it returns. Leases count against the burst, so that n processes
// together never let through more than the rate allows, and at least 100 - 2n %
// of it.
//
// While the store does not answer, a process counts alone, from what it saw
// last: requests are neither refused nor delayed because of it, and n processes
// may let through n budgets. Then they count together again, from the lower of
// what the store and each process say.
type Leased struct {
	cfg    LeasedConfig
	store  Store
	logger *slog.Logger

	mu     sync.RWMutex
	leases map[string]*lease

	deafUntil atomic.Int64
	deaf      atomic.Bool // as was logged last
}

// lease is what a process holds and knows of a bucket.
type lease struct {
	mu     sync.Mutex
	name   string
	rate   Rate
	tokens int   // not given out yet
	held   int   // tokens, as the store has it
	until  int64 // then tokens return
	used   int64 // when somebody asked last
	gone   bool  // no longer the lease of its name

	seen     state  // the bucket as it is in the store, without our lease; kept filled
	revision uint64 // of seen
	current  bool   // seen may be what is stored, as far as is known
	loadedAt int64  // when that was sure; zero for never
	apart    bool   // counted alone since
}

// NewLeased returns the bank of one of the processes that share store.
func NewLeased(cfg LeasedConfig, store Store, logger *slog.Logger) *Leased {
	cfg.Timeout = cmp.Or(cfg.Timeout, 250*time.Millisecond)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Leased{cfg: cfg, store: store, logger: logger, leases: map[string]*lease{}}
}

// Take implements Bank.
func (b *Leased) Take(name string, r Rate, n int, now time.Time) (int, float64) {
	at := now.UnixNano()
	l := b.locked(name, r, at)
	defer l.mu.Unlock()
	l.rate, l.used = r, max(l.used, at)
	l.seen.fill(r, at)
	granted := n
	switch {
	case n == 0:
		b.look(l, at)
	case n <= l.tokens && l.tokens-n <= l.held && at < l.until:
		l.tokens -= n
	default:
		granted = b.exchange(l, n, at)
	}
	// A lease that is forgotten makes room for tokens that come beside what is left of it:
	// with both the bucket would hold more than it can, and whoever asks gets no more.
	return granted, min(float64(l.tokens)+l.seen.tokens, float64(r.Burst))
}

// locked gives the lease of a name, which nobody else has in hand.
func (b *Leased) locked(name string, r Rate, at int64) *lease {
	for {
		b.mu.RLock()
		l := b.leases[name]
		b.mu.RUnlock()
		if l == nil {
			b.mu.Lock()
			if l = b.leases[name]; l == nil {
				l = &lease{name: name, seen: full(r, at)}
				b.leases[name] = l
			}
			b.mu.Unlock()
		}
		l.mu.Lock()
		if !l.gone {
			return l
		}
		l.mu.Unlock()
	}
}

// look reads the shared state unless it was seen a moment ago.
func (b *Leased) look(l *lease, at int64) {
	if l.fresh(at) || at < b.deafUntil.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Timeout)
	defer cancel()
	if err := b.load(ctx, l, at); err != nil {
		b.hears(at, err)
	}
}

func (l *lease) fresh(at int64) bool {
	return l.loadedAt != 0 && at-l.loadedAt < int64(trustFor)
}

func (b *Leased) load(ctx context.Context, l *lease, at int64) error {
	data, revision, err := b.store.Load(ctx, l.name)
	if err != nil {
		return err
	}
	known := l.loadedAt != 0
	stored, ok := decode(data)
	if !ok { // nothing, or nothing of ours
		stored = full(l.rate, at)
	}
	stored.fill(l.rate, at)
	if l.apart || !ok && known { // the store knows nothing of what was let through meanwhile
		stored.tokens = min(stored.tokens, l.seen.tokens)
	}
	l.seen, l.revision, l.current, l.loadedAt, l.apart = stored, revision, true, at, false
	b.hears(at, nil)
	return nil
}

// exchange returns what is left of the lease and takes n tokens and a new lease
// in its place; with n = 0 it only returns, with n below zero it returns more.
func (b *Leased) exchange(l *lease, n int, at int64) (granted int) {
	if at < b.deafUntil.Load() {
		return b.alone(l, n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Timeout)
	defer cancel()
	for range attempts {
		if !l.current {
			if err := b.load(ctx, l, at); err != nil {
				b.hears(at, err)
				return b.alone(l, n)
			}
		}
		next := l.seen.copied()
		next.release(b.cfg.Owner, l.tokens-min(n, 0), l.rate)
		granted = min(n, int(next.tokens))
		keep := 0
		if n != 0 {
			chunk := l.rate.Burst * leasePercent / 100
			keep = min(max(0, chunk-max(n, 0)), int(next.tokens)-max(granted, 0))
		}
		if granted == 0 && keep == 0 && l.tokens == 0 { // nothing to write
			if l.fresh(at) || n == 0 {
				return 0
			}
			l.current = false // refuse by what is true now
			continue
		}
		next.tokens -= float64(max(granted, 0) + keep)
		next.hold(b.cfg.Owner, keep, at+int64(forgetAfter))
		var buffer [128]byte
		revision, err := b.store.Swap(ctx, l.name, next.append(buffer[:0]), l.revision)
		switch {
		case errors.Is(err, ErrConflict):
			l.current = false
			continue
		case err != nil:
			b.hears(at, err)
			return b.alone(l, n)
		}
		l.seen, l.revision, l.loadedAt = next, revision, at
		l.tokens, l.held, l.until = keep, keep, at+int64(leaseFor)
		b.hears(at, nil)
		return granted
	}
	return b.alone(l, n)
}

// alone counts by what was seen last.
func (b *Leased) alone(l *lease, n int) int {
	l.seen.release(b.cfg.Owner, l.tokens-min(n, 0), l.rate)
	l.tokens, l.held, l.current, l.apart = 0, 0, false, true
	granted := min(n, int(l.seen.tokens))
	l.seen.tokens -= float64(max(granted, 0))
	return granted
}

// hears remembers whether the store answers, and says when that changes.
func (b *Leased) hears(at int64, err error) {
	if err != nil {
		b.deafUntil.Store(at + int64(deafFor))
	}
	if deaf := err != nil; b.deaf.CompareAndSwap(!deaf, deaf) {
		if deaf {
			b.logger.Warn("shared budgets do not answer, counting alone", "err", err)
		} else {
			b.logger.Info("budgets are shared again")
		}
	}
}

// Run returns what is not used, until ctx is done and then at once. It
// implements lifecycle.Service.
func (b *Leased) Run(ctx context.Context, ready func()) error {
	ready()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			b.giveBack(b.cfg.Now(), true)
			return nil
		case <-ticker.C:
			b.giveBack(b.cfg.Now(), false)
		}
	}
}

// giveBack returns leases that are over, or all, and forgets buckets that must
// be full.
func (b *Leased) giveBack(now time.Time, all bool) {
	at := now.UnixNano()
	b.mu.RLock()
	leases := make([]*lease, 0, len(b.leases))
	for _, l := range b.leases {
		leases = append(leases, l)
	}
	b.mu.RUnlock()
	for _, l := range leases {
		l.mu.Lock()
		l.seen.fill(l.rate, at)
		over := l.tokens > 0 && (all || at >= l.until)
		if over && at >= b.deafUntil.Load() {
			b.exchange(l, 0, at)
		}
		l.gone = l.tokens == 0 && at-l.used > int64(l.rate.FillTime()+forgetAfter)
		if l.gone {
			b.mu.Lock()
			delete(b.leases, l.name)
			b.mu.Unlock()
		}
		l.mu.Unlock()
	}
}
