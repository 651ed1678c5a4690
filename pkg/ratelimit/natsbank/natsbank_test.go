package natsbank_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/pkg/ratelimit/banktest"
	"github.com/shipledger/shipledger/pkg/ratelimit/natsbank"
)

// start runs a server on dir until stop is called or the test ends.
func start(t *testing.T, dir string) (srv *natsserver.Server, stop func()) {
	t.Helper()
	srv, err := natsserver.New(natsserver.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return srv, lifecycletest.Run(t, srv)
}

// connect gives what one process has.
func connect(t *testing.T, srv *natsserver.Server) jetstream.JetStream {
	t.Helper()
	nc, err := srv.Connect(nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func open(t *testing.T, js jetstream.JetStream) *natsbank.Store {
	t.Helper()
	store, err := natsbank.Open(t.Context(), js, natsbank.Config{Replicas: 1, Slowest: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func process(i int, store ratelimit.Store) *ratelimit.Leased {
	return ratelimit.NewLeased(ratelimit.LeasedConfig{Owner: fmt.Sprint("p", i), Timeout: time.Minute}, store, slog.New(slog.DiscardHandler))
}

func TestLeasesOnNATSKeepTheContract(t *testing.T) {
	banktest.Run(t, func(t *testing.T, n int) []ratelimit.Bank {
		srv, _ := start(t, t.TempDir())
		banks := make([]ratelimit.Bank, n)
		for i := range banks {
			banks[i] = process(i, open(t, connect(t, srv)))
		}
		return banks
	})
}

func TestSwapTakesOnlyTheRevisionThatIsStored(t *testing.T) {
	srv, _ := start(t, t.TempDir())
	store := open(t, connect(t, srv))
	ctx := t.Context()
	if data, revision, err := store.Load(ctx, "a.b"); data != nil || revision != 0 || err != nil {
		t.Fatalf("nothing is %q, %d, %v", data, revision, err)
	}
	first, err := store.Swap(ctx, "a.b", []byte("one"), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []uint64{0, first + 1} {
		if _, err := store.Swap(ctx, "a.b", []byte("two"), wrong); !errors.Is(err, ratelimit.ErrConflict) {
			t.Errorf("a swap of %d while %d is stored: %v", wrong, first, err)
		}
	}
	if _, err := store.Swap(ctx, "a.b", []byte("two"), first); err != nil {
		t.Fatal(err)
	}
	if data, revision, err := store.Load(ctx, "a.b"); string(data) != "two" || revision <= first || err != nil {
		t.Errorf("%q, %d, %v are stored, want two", data, revision, err)
	}
}

func TestStatesAreInMemoryAndVanishOnceTheirBucketIsFull(t *testing.T) {
	srv, _ := start(t, t.TempDir())
	js := connect(t, srv)
	open(t, js)
	bucket, err := js.KeyValue(t.Context(), natsbank.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	status, err := bucket.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := status.Config(); c.Storage != jetstream.MemoryStorage || c.History != 1 || c.TTL <= time.Hour || c.TTL > 2*time.Hour {
		t.Errorf("the bucket is %+v", c)
	}
}

// A bucket in memory is gone when its NATS is: it is made again, and budgets go on.
func TestBudgetsOutliveTheirBucket(t *testing.T) {
	srv, _ := start(t, t.TempDir())
	js := connect(t, srv)
	bank := process(1, open(t, js))
	r := ratelimit.Rate{Tokens: 60, Per: time.Minute, Burst: 60}
	now := time.Now()
	if granted, _ := bank.Take("b", r, 50, now); granted != 50 {
		t.Fatalf("%d granted", granted)
	}
	if err := js.DeleteKeyValue(t.Context(), natsbank.Bucket); err != nil {
		t.Fatal(err)
	}
	if granted, _ := bank.Take("b", r, 5, now); granted != 5 {
		t.Errorf("%d of 5 granted without a bucket", granted)
	}
	now = now.Add(2 * time.Second)
	if granted, left := bank.Take("b", r, 5, now); granted != 5 || int(left) != 2 {
		t.Errorf("%d granted and %.2f left, want 5 and the 2 that are", granted, left)
	}
	if _, err := js.KeyValue(t.Context(), natsbank.Bucket); err != nil {
		t.Errorf("the bucket was not made again: %v", err)
	}
}

func TestWithoutNATSThereIsNoStore(t *testing.T) {
	srv, stop := start(t, t.TempDir())
	js := connect(t, srv)
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := natsbank.Open(ctx, js, natsbank.Config{Replicas: 1, Slowest: time.Hour}); err == nil {
		t.Error("a store was opened")
	}
}

// What a request costs that needs the store: compare ratelimit.BenchmarkLeased.
func BenchmarkTakeWithoutALease(b *testing.B) {
	srv, err := natsserver.New(natsserver.Config{Dir: b.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	up, down := make(chan struct{}), make(chan error, 1)
	go func() { down <- srv.Run(ctx, func() { close(up) }) }()
	defer func() {
		cancel()
		if err := <-down; err != nil {
			b.Error(err)
		}
	}()
	<-up
	nc, err := srv.Connect()
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	store, err := natsbank.Open(ctx, js, natsbank.Config{Replicas: 1, Slowest: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	bank, now := process(1, store), time.Now()
	r := ratelimit.Rate{Tokens: 40, Per: time.Nanosecond, Burst: 40}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Nanosecond)
		bank.Take("b", r, 1, now)
	}
}
