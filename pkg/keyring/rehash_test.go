package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/keyring"
)

// bothPeppers holds the old pepper beside a newer one.
func bothPeppers(t testing.TB) *credential.Peppers {
	t.Helper()
	p, err := credential.NewPeppers(map[int][]byte{1: bytes.Repeat([]byte{1}, 32), 2: bytes.Repeat([]byte{2}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rehash runs a rehasher of ring until the test ends.
func rehash(t *testing.T, ring *keyring.Ring, log eventlog.Appender) {
	t.Helper()
	h := keyring.NewRehasher(ring, log, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, func() {}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Rows: VF-06
func TestADigestUnderAnOldPepperIsRewrittenAtTheNextUseAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, old := memlog.New(), newPeppers(t)
		token, rec := newKey(t, old, 1)
		store(t, log, rec, 0)
		rings := []*keyring.Ring{run(t, log, bothPeppers(t)), run(t, log, bothPeppers(t))}
		for _, r := range rings {
			rehash(t, r, log)
		}
		for range 5 {
			for _, r := range rings {
				if _, err := r.Verify(token); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		if _, err := rings[0].Verify(token); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if last, _ := log.Last(t.Context()); last != 2 {
			t.Errorf("%d events, want the key's and one rewriting", last)
		}
		held, _ := rings[1].Record(rec.ID)
		if held.Pepper != 2 || held.Digest == rec.Digest || held.Status != credential.Active || held.Name != rec.Name {
			t.Errorf("%+v", held.Record)
		}
		newest, err := credential.NewPeppers(map[int][]byte{2: bytes.Repeat([]byte{2}, 32)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := run(t, log, newest).Verify(token); err != nil {
			t.Errorf("without the old pepper: %v", err)
		}
		if _, err := run(t, log, old).Verify(token); !errors.Is(err, credential.ErrInvalidKey) {
			t.Errorf("with the old pepper alone: %v", err)
		}
	})
}

// revokes stores a revocation right before the first append.
type revokes struct {
	*memlog.Log

	once sync.Once
	do   func()
}

func (l *revokes) AppendToSubject(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	l.once.Do(l.do)
	return l.Log.AppendToSubject(ctx, f, after)
}

// Rows: VR-22
func TestARewrittenDigestNeverCoversARevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New()
		token, rec := newKey(t, newPeppers(t), 1)
		seq := store(t, log, rec, 0)
		ring := run(t, log, bothPeppers(t))
		rehash(t, ring, &revokes{Log: log, do: func() {
			gone := rec
			gone.Status = credential.Revoked
			store(t, log, gone, seq)
		}})
		if _, err := ring.Verify(token); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for range 3 {
			if _, err := ring.Verify(token); !errors.Is(err, credential.ErrRevokedKey) {
				t.Fatalf("after the revocation: %v", err)
			}
			synctest.Wait()
		}
		if last, _ := log.Last(t.Context()); last != 2 {
			t.Errorf("%d events", last)
		}
		// What is folded late, from a snapshot say, changes nothing either.
		k := credential.NewKeyring(bothPeppers(t))
		apply := func(r credential.Record, is event.Type, seq uint64) {
			e, err := r.Event([16]byte{1}, is, time.Now(), event.Author{})
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Apply(event.Recorded{Event: e, Position: event.Position{Stream: event.CredentialStream, Offset: event.At(seq, 0)}}); err != nil {
				t.Fatal(err)
			}
		}
		gone := rec
		gone.Status = credential.Revoked
		apply(gone, credential.WasRevoked, 7)
		apply(rec, credential.Rehashed, 6)
		apply(rec, credential.Created, 1)
		if _, err := k.Verify(token, time.Now()); !errors.Is(err, credential.ErrRevokedKey) {
			t.Errorf("what was loaded late covers the revocation: %v", err)
		}
	})
}
