package usage_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/kv"
	"github.com/shipledger/shipledger/pkg/kv/memkv"
	"github.com/shipledger/shipledger/pkg/usage"
)

var (
	k1   = &credential.Identity{Kind: credential.APIKey, RecordID: "01K1"}
	home = netip.MustParseAddr("192.0.2.7")
)

// run runs a book until the test ends or stop is called.
func run(t *testing.T, table kv.Table) (b *usage.Book, stop func()) {
	t.Helper()
	b = usage.New(table, time.Now, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, func() {}) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	synctest.Wait()
	return b, stop
}

// Rows: VF-24
func TestAUseIsKnownEverywhereWithinFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := memkv.New()
		one, _ := run(t, table)
		two, _ := run(t, table)
		first := time.Now()
		one.Used(k1, home, "curl/8", "", true)
		<-time.After(time.Second)
		last := time.Now()
		two.Used(k1, home, "curl/8", "", false)
		<-time.After(5 * time.Second)
		synctest.Wait()
		for _, b := range []*usage.Book{one, two} {
			s := b.Of("01K1")
			got, ok := s.Latest()
			if !ok || !got.Last.Equal(last) || !got.First.Equal(first) || got.Count != 2 || got.Addr != home || got.UserAgent != "curl/8" || len(s.Callers) != 1 {
				t.Errorf("%+v", s)
			}
			if day := first.UTC().Format(time.DateOnly); s.Accepted[day] != 1 {
				t.Errorf("%v", s.Accepted)
			}
		}
		unused := one.Of("01K2")
		if _, ok := unused.Latest(); ok {
			t.Error("what was never used has a last use")
		}
	})
}

func TestNoUseIsLostWhenProcessesShareAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := memkv.New()
		var books []*usage.Book
		for range 4 {
			b, _ := run(t, table)
			books = append(books, b)
		}
		const rounds = 20
		for i := range rounds {
			for j, b := range books {
				b.Used(k1, home, fmt.Sprint("agent", j), "", true)
			}
			<-time.After(time.Duration(i) * 100 * time.Millisecond)
		}
		<-time.After(10 * time.Second)
		s := books[0].Of("01K1")
		total := uint64(0)
		for _, u := range s.Callers {
			total += u.Count
		}
		if len(s.Callers) != 4 || total != 4*rounds {
			t.Errorf("%d uses of %d callers", total, len(s.Callers))
		}
	})
}

func TestTheLatestHundredCallersAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := run(t, memkv.New())
		for i := range 250 {
			b.Used(k1, home, fmt.Sprint("agent", i), "", true)
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(5 * time.Second)
		s := b.Of("01K1")
		if len(s.Callers) != usage.MaxCallers || s.Callers[0].UserAgent != "agent249" || s.Callers[99].UserAgent != "agent150" {
			t.Errorf("%d callers", len(s.Callers))
		}
	})
}

func TestWhatIsCountedOutlivesAStopAndATableThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &failing{Table: memkv.New()}
		b, stop := run(t, table)
		table.fails.Store(true)
		b.Used(k1, home, "curl/8", "github", true)
		<-time.After(3 * time.Second)
		b.Used(k1, home, "curl/8", "github", true)
		<-time.After(3 * time.Second)
		table.fails.Store(false)
		b.Used(k1, home, "curl/8", "github", true)
		stop()
		again, _ := run(t, table)
		s := again.Of("01K1")
		if got, _ := s.Latest(); got.Count != 3 || got.SourceSystem != "github" {
			t.Errorf("%+v", s)
		}
	})
}

type failing struct {
	*memkv.Table

	fails atomic.Bool
}

var errDown = errors.New("the table is down")

func (f *failing) Swap(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if f.fails.Load() {
		return 0, errDown
	}
	return f.Table.Swap(ctx, key, value, revision)
}

func TestSecretsAndBrokenTextAreNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret, err := credential.Mint(credential.APIKey, "acme", "k1", "live", zeros{})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := run(t, memkv.New())
		b.Used(k1, home, "agent "+secret+" \xff", strings.Repeat("x", 500), true)
		<-time.After(3 * time.Second)
		s := b.Of("01K1")
		got, ok := s.Latest()
		if !ok || strings.Contains(got.UserAgent, secret) || !strings.HasPrefix(got.UserAgent, "agent ") || len(got.SourceSystem) != 50 {
			t.Errorf("%+v", got)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What a request pays.
func BenchmarkUsed(b *testing.B) {
	book := usage.New(memkv.New(), time.Now, slog.New(slog.DiscardHandler))
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			book.Used(k1, home, "actions/1", "github", true)
		}
	})
}
