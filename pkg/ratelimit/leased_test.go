package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// process is a bank over store, as the i-th process has it.
func process(t *testing.T, i int, store ratelimit.Store) *ratelimit.Leased {
	t.Helper()
	return ratelimit.NewLeased(ratelimit.LeasedConfig{Owner: fmt.Sprint("p", i)}, store, slog.New(slog.DiscardHandler))
}

// line is a store that counts who asks, and that can be cut.
type line struct {
	ratelimit.Store
	calls atomic.Int64
	cut   atomic.Bool
}

var errCut = errors.New("the line is cut")

func (l *line) Load(ctx context.Context, name string) ([]byte, uint64, error) {
	l.calls.Add(1)
	if l.cut.Load() {
		return nil, 0, errCut
	}
	return l.Store.Load(ctx, name)
}

func (l *line) Swap(ctx context.Context, name string, state []byte, revision uint64) (uint64, error) {
	l.calls.Add(1)
	if l.cut.Load() {
		return 0, errCut
	}
	return l.Store.Swap(ctx, name, state, revision)
}

func newLine() *line { return &line{Store: ratelimit.NewMemoryStore()} }

var thousand = ratelimit.Rate{Tokens: 1000, Per: time.Minute, Burst: 1000}

// drain takes what a bank gives of the bucket b, token by token.
func drain(b ratelimit.Bank, r ratelimit.Rate, now time.Time) (through int) {
	for {
		granted, _ := b.Take("b", r, 1, now)
		if granted == 0 {
			return through
		}
		through++
	}
}

func TestOfFiftyRequestsOneAsksTheStore(t *testing.T) {
	store := newLine()
	bank := process(t, 1, store)
	for range 20 {
		bank.Take("b", thousand, 1, epoch)
	}
	if n := store.calls.Load(); n != 2 {
		t.Errorf("20 requests asked %d times, want a load and a swap", n)
	}
	drain(bank, thousand, epoch)
	if n := store.calls.Load(); n > 1+50 {
		t.Errorf("a thousand requests and a refusal asked %d times", n)
	}
	before := store.calls.Load()
	for range 100 {
		bank.Take("b", thousand, 1, epoch)
	}
	if n := store.calls.Load() - before; n != 0 {
		t.Errorf("100 refusals in the same moment asked %d times", n)
	}
}

func TestWhatAProcessDoesNotUseReturnsAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := ratelimit.NewMemoryStore()
		idle, busy := process(t, 1, store), process(t, 2, store)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- idle.Run(ctx, func() {}) }()
		slow := ratelimit.Rate{Tokens: 1000, Per: 240 * time.Hour, Burst: 1000} // nothing comes while the test looks
		idle.Take("b", slow, 1, time.Now())
		if n := drain(busy, slow, time.Now()); n != 980 {
			t.Errorf("%d went through beside a lease of 20", n)
		}
		time.Sleep(4900 * time.Millisecond)
		if n := drain(busy, slow, time.Now()); n != 0 {
			t.Errorf("%d went through before the lease was over", n)
		}
		time.Sleep(1200 * time.Millisecond)
		if n := drain(busy, slow, time.Now()); n != 19 {
			t.Errorf("%d went through after the lease was over, want the 19 that were left of it", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAProcessThatStopsReturnsEverythingAtOnce(t *testing.T) {
	store := ratelimit.NewMemoryStore()
	stopping, other := process(t, 1, store), process(t, 2, store)
	now := time.Now()
	stopping.Take("b", ratelimit.Rate{Tokens: 1, Per: time.Hour, Burst: 500}, 1, now)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := stopping.Run(ctx, func() {}); err != nil {
		t.Fatal(err)
	}
	if n := drain(other, ratelimit.Rate{Tokens: 1, Per: time.Hour, Burst: 500}, now); n != 499 {
		t.Errorf("%d of 499 were left", n)
	}
}

// A killed process takes its lease with it: that is lost, and only that.
func TestALeaseOfAKilledProcessIsForgotten(t *testing.T) {
	store := ratelimit.NewMemoryStore()
	process(t, 1, store).Take("b", thousand, 1, epoch)
	left := process(t, 2, store)
	left.Take("b", thousand, 1000, epoch)
	if _, tokens := left.Take("b", thousand, 0, epoch.Add(time.Hour)); tokens != 1000 {
		t.Errorf("%.0f tokens an hour later, want a full bucket", tokens)
	}
}

// A bucket that fills while tokens are leased must not give burst and lease.
func TestLeasesCountAgainstTheBurst(t *testing.T) {
	store := ratelimit.NewMemoryStore()
	first, second := process(t, 1, store), process(t, 2, store)
	first.Take("b", thousand, 1, epoch)
	now := epoch.Add(4 * time.Second) // enough to fill what was taken
	if n := drain(second, thousand, now) + drain(first, thousand, now); n > 1000 {
		t.Errorf("%d went through at once, the burst is 1000", n)
	}
}

// What is left of a lease that others have forgotten is still there, and the bucket
// has filled beside it.
func TestNeverMoreIsLeftThanABucketHolds(t *testing.T) {
	bank := process(t, 1, ratelimit.NewMemoryStore())
	bank.Take("b", thousand, 1, epoch)
	now := epoch.Add(time.Hour)
	if _, left := bank.Take("b", thousand, 0, now); left != 1000 {
		t.Errorf("%.2f are left of 1000", left)
	}
	if n := drain(bank, thousand, now); n != 1000 {
		t.Errorf("%d went through, the burst is 1000", n)
	}
}

func TestASilentStoreRefusesNobodyAndIsNotAskedEveryTime(t *testing.T) {
	store := newLine()
	bank := process(t, 1, store)
	bank.Take("b", thousand, 400, epoch)
	store.cut.Store(true)
	before := store.calls.Load()
	if n := drain(bank, thousand, epoch); n != 600 {
		t.Errorf("%d went through alone, want the 600 that were left", n)
	}
	if n := store.calls.Load() - before; n != 1 {
		t.Errorf("a silent store was asked %d times in a moment", n)
	}
	if granted, _ := bank.Take("unseen", thousand, 1, epoch); granted != 1 {
		t.Error("a bucket that was never seen is full")
	}
	if n := drain(bank, thousand, epoch.Add(30*time.Second)); n != 500 {
		t.Errorf("%d went through alone half a minute later, want 500", n)
	}
}

func TestWhatWasLetThroughAloneCountsAfterwards(t *testing.T) {
	store := newLine()
	first, second := process(t, 1, store), process(t, 2, store.Store)
	first.Take("b", thousand, 1, epoch)
	store.cut.Store(true)
	drain(first, thousand, epoch)
	store.cut.Store(false)
	now := epoch.Add(1200 * time.Millisecond) // 20 tokens later
	if n := drain(first, thousand, now); n != 20 {
		t.Errorf("%d went through where 20 came", n)
	}
	if n := drain(second, thousand, now); n != 0 {
		t.Errorf("another process let through %d of what is gone", n)
	}
}

// A store that forgot everything makes nobody's budget whole again.
func TestAStoreThatForgotIsToldWhatIsGone(t *testing.T) {
	store := newLine()
	bank := process(t, 1, store)
	bank.Take("b", thousand, 1000, epoch)
	store.Store = ratelimit.NewMemoryStore()
	if n := drain(bank, thousand, epoch.Add(2*time.Second)); n != 33 {
		t.Errorf("%d went through, want the 33 that came", n)
	}
}

func TestWhatIsNoStateCountsAsNone(t *testing.T) {
	for _, text := range []string{"", "x", "1", "nan 1", "inf 1", "-1 1", "1e300 1", "5 x", "5 1 a", "5 1 a 1", "5 1 a x 1", "5 1 a 1 x", "5 1 a -1 1"} {
		store := ratelimit.NewMemoryStore()
		if _, err := store.Swap(t.Context(), "b", []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		if n := drain(process(t, 1, store), thousand, epoch); n != 1000 {
			t.Errorf("%q: %d went through", text, n)
		}
	}
}

func TestATokenOfALeaseCostsNoAllocation(t *testing.T) {
	bank := process(t, 1, ratelimit.NewMemoryStore())
	r := ratelimit.Rate{Tokens: 1 << 20, Per: time.Minute, Burst: 1 << 20}
	if n := testing.AllocsPerRun(1000, func() { bank.Take("b", r, 1, epoch) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLeased(b *testing.B) {
	bank := ratelimit.NewLeased(ratelimit.LeasedConfig{Owner: "p"}, ratelimit.NewMemoryStore(), slog.New(slog.DiscardHandler))
	r := ratelimit.Rate{Tokens: 1 << 29, Per: time.Second, Burst: 1 << 29}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Microsecond)
		bank.Take("b", r, 1, now)
	}
}
