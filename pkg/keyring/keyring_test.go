package keyring_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/keyring"
)

func newPeppers(t testing.TB) *credential.Peppers {
	t.Helper()
	p, err := credential.NewPeppers(map[int][]byte{1: bytes.Repeat([]byte{1}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newKey gives a key and its record, and stores nothing.
func newKey(t testing.TB, p *credential.Peppers, n int) (string, credential.Record) {
	t.Helper()
	id := credential.KeyID(event.Live, n)
	token, err := credential.Mint(credential.APIKey, "acme", id, event.Live, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest, version := p.Digest(token)
	return token, credential.Record{
		ID: ulid.Make().String(), Kind: credential.APIKey, Account: "acme", PublicID: id, Name: "ci", Scopes: credential.EventsWrite,
		Mode: event.Live, Status: credential.Active, Digest: digest, Pepper: version,
	}
}

// store stores what a record now is, and gives the sequence.
func store(t testing.TB, log eventlog.Appender, r credential.Record, after uint64) uint64 {
	t.Helper()
	e, err := r.Event(ulid.Make(), credential.Updated, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), event.Author{})
	if err != nil {
		t.Fatal(err)
	}
	seq, err := log.AppendToSubject(t.Context(), eventlog.Frame{
		ID: e.ID.String(), Subject: r.LogSubject(), ContentType: credential.ContentType, Body: event.AppendEvent(nil, &e, 0),
	}, after)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// deafenable is a log that can stop answering.
type deafenable struct {
	eventlog.Log
	deaf atomic.Bool // new questions fail
	mute atomic.Bool // a running Follow yields nothing more, without an error

	mu  sync.Mutex
	cut context.CancelFunc
}

var errDown = errors.New("the log is down")

func (d *deafenable) Last(ctx context.Context) (uint64, error) {
	if d.deaf.Load() {
		return 0, errDown
	}
	return d.Log.Last(ctx)
}

func (d *deafenable) Follow(ctx context.Context, after uint64) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		inner, cut := context.WithCancel(ctx)
		defer cut()
		d.mu.Lock()
		d.cut = cut
		d.mu.Unlock()
		if !d.deaf.Load() {
			for f, err := range d.Log.Follow(inner, after) {
				if d.mute.Load() {
					<-inner.Done()
					break
				}
				if !yield(f, err) {
					return
				}
			}
		}
		if ctx.Err() == nil {
			yield(eventlog.Recorded{}, errDown)
		}
	}
}

// goDown fails what is running and what is asked from now on.
func (d *deafenable) goDown() {
	d.deaf.Store(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut()
}

// run runs a ring until the test ends and returns once it is ready.
func run(t *testing.T, log eventlog.Reader, p *credential.Peppers) *keyring.Ring {
	t.Helper()
	r, ready := start(t, log, p, slog.New(slog.DiscardHandler))
	<-ready
	return r
}

func start(t *testing.T, log eventlog.Reader, p *credential.Peppers, logger *slog.Logger) (*keyring.Ring, <-chan struct{}) {
	t.Helper()
	r := keyring.New(keyring.Config{}, log, p, time.Now, logger)
	ready, done := make(chan struct{}), make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- r.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r, ready
}

func TestReadyMeansThatAllThatWasStoredIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, p := memlog.New(), newPeppers(t)
		var tokens []string
		for n := range 100 {
			token, r := newKey(t, p, n+1)
			store(t, log, r, 0)
			tokens = append(tokens, token)
		}
		r := run(t, log, p)
		for _, token := range tokens {
			if _, err := r.Verify(token); err != nil {
				t.Fatal(err)
			}
		}
		if r.Applied() != 100 || r.Healthy() != nil {
			t.Errorf("applied %d, healthy: %v", r.Applied(), r.Healthy())
		}
	})
}

func TestAnEmptyLogIsReadyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeppers(t)
		token, _ := newKey(t, p, 1)
		if _, err := run(t, memlog.New(), p).Verify(token); !errors.Is(err, credential.ErrInvalidKey) {
			t.Error(err)
		}
	})
}

func TestNobodyIsLetInBeforeTheLogIsRead(t *testing.T) {
	p := newPeppers(t)
	token, rec := newKey(t, p, 1)
	log := memlog.New()
	store(t, log, rec, 0)
	r := keyring.New(keyring.Config{}, log, p, time.Now, slog.New(slog.DiscardHandler))
	if _, err := r.Verify(token); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Verify: %v", err)
	}
	if err := r.Alive(rec.ID); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Alive: %v", err)
	}
	if err := r.Healthy(); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Healthy: %v", err)
	}
}

// Rows: VR-23
func TestARevocationReachesEveryProcessThroughTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, p := memlog.New(), newPeppers(t)
		one, two := run(t, log, p), run(t, log, p)
		token, rec := newKey(t, p, 1)
		seq := store(t, log, rec, 0)
		for _, r := range []*keyring.Ring{one, two} {
			if err := r.Await(t.Context(), seq); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Verify(token); err != nil {
				t.Fatal(err)
			}
			if err := r.Alive(rec.ID); err != nil {
				t.Fatal(err)
			}
		}
		rec.Status = credential.Revoked
		seq = store(t, log, rec, seq)
		for _, r := range []*keyring.Ring{one, two} {
			if err := r.Await(t.Context(), seq); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Verify(token); !errors.Is(err, credential.ErrRevokedKey) {
				t.Errorf("Verify: %v", err)
			}
			if err := r.Alive(rec.ID); !errors.Is(err, credential.ErrRevokedKey) { // of a request that is under way
				t.Errorf("Alive: %v", err)
			}
		}
	})
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, memlog.New(), newPeppers(t))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Await(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestAQuietLogIsNotADeafProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, p := memlog.New(), newPeppers(t)
		token, rec := newKey(t, p, 1)
		store(t, log, rec, 0)
		r := run(t, log, p)
		time.Sleep(24 * time.Hour)
		if _, err := r.Verify(token); err != nil {
			t.Error(err)
		}
	})
}

func TestADeafProcessRefusesEverybodyUntilItHearsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, p := &deafenable{Log: memlog.New()}, newPeppers(t)
		token, rec := newKey(t, p, 1)
		seq := store(t, log, rec, 0)
		r := run(t, log, p)
		synctest.Wait()

		log.goDown()
		rec.Status = credential.Revoked
		store(t, log, rec, seq) // which this process cannot hear
		time.Sleep(20 * time.Second)
		if _, err := r.Verify(token); err != nil {
			t.Errorf("within the limit: %v", err)
		}
		time.Sleep(11 * time.Second)
		if _, err := r.Verify(token); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("beyond the limit: %v", err)
		}
		if err := r.Alive(rec.ID); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("beyond the limit: %v", err)
		}

		log.deaf.Store(false)
		time.Sleep(10 * time.Second)
		if _, err := r.Verify(token); !errors.Is(err, credential.ErrRevokedKey) {
			t.Errorf("once it hears again: %v", err)
		}
	})
}

// TestAStalledFollowerIsDeaf: the log answers, and yet its events do not arrive.
func TestAStalledFollowerIsDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, p := &deafenable{Log: memlog.New()}, newPeppers(t)
		token, rec := newKey(t, p, 1)
		seq := store(t, log, rec, 0)
		r := run(t, log, p)
		synctest.Wait()
		log.mute.Store(true)
		rec.Status = credential.Revoked
		store(t, log, rec, seq)
		time.Sleep(36 * time.Second)
		if _, err := r.Verify(token); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("Verify: %v", err)
		}
	})
}

func TestALogThatIsDownAtTheStartIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, p := &deafenable{Log: memlog.New()}, newPeppers(t)
		token, rec := newKey(t, p, 1)
		store(t, log, rec, 0)
		log.deaf.Store(true)
		r, ready := start(t, log, p, slog.New(slog.DiscardHandler))
		time.Sleep(time.Minute)
		select {
		case <-ready:
			t.Fatal("ready without having read the log")
		default:
		}
		log.deaf.Store(false)
		<-ready
		if _, err := r.Verify(token); err != nil {
			t.Error(err)
		}
	})
}

func TestBeingStoppedBeforeReadinessIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &deafenable{Log: memlog.New()}
		log.deaf.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := keyring.New(keyring.Config{}, log, newPeppers(t), time.Now, slog.New(slog.DiscardHandler))
		if err := r.Run(ctx, func() { t.Error("ready") }); err != nil {
			t.Error(err)
		}
	})
}

func TestAnEventThatCannotBeReadStopsItsCredentialAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, p := memlog.New(), newPeppers(t)
		one, r1 := newKey(t, p, 1)
		two, r2 := newKey(t, p, 2)
		seq := store(t, log, r1, 0)
		store(t, log, r2, 0)
		var out bytes.Buffer
		r, ready := start(t, log, p, slog.New(slog.NewTextHandler(&out, nil)))
		<-ready
		seq, err := log.AppendToSubject(t.Context(), eventlog.Frame{ID: "broken", Subject: r1.LogSubject(), Body: []byte(`{"type":"credential.re`)}, seq)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Await(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Verify(one); !errors.Is(err, credential.ErrInvalidKey) {
			t.Errorf("the credential of the broken event: %v", err)
		}
		if _, err := r.Verify(two); err != nil {
			t.Errorf("the other one: %v", err)
		}
		if !strings.Contains(out.String(), "level=ERROR") || !strings.Contains(out.String(), r1.LogSubject()) {
			t.Errorf("the operator was not told: %s", out.String())
		}
		store(t, log, r1, seq)
		synctest.Wait()
		if _, err := r.Verify(one); err != nil {
			t.Errorf("after an event that can be read: %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	log, p := memlog.New(), newPeppers(b)
	token, rec := newKey(b, p, 1)
	store(b, log, rec, 0)
	r := keyring.New(keyring.Config{}, log, p, time.Now, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(b.Context())
	done, ready := make(chan error), make(chan struct{})
	go func() { done <- r.Run(ctx, func() { close(ready) }) }()
	<-ready
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = r.Verify(token)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = r.Verify(token)
			}
		})
	})
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
