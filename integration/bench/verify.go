package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

const (
	verifiedKeys  = 10_000 // in the keyring
	verifications = 20_000 // a round
)

// Verified is what a process pays to tell whether a credential is one.
type Verified struct {
	Name   string  `json:"name"`
	Nanos  float64 `json:"nanoseconds"`
	Allocs float64 `json:"allocations"`
}

// verified measures the keyring on its own, as every request asks it once.
func (b *bench) verified(ctx context.Context) error {
	keys, now, all, err := newKeyring()
	if err != nil {
		return err
	}
	unknown, err := credential.Mint(credential.APIKey, "bench", fmt.Sprintf("k%d", verifiedKeys+1), event.Live, rand.Reader)
	if err != nil {
		return fmt.Errorf("mint a key: %w", err)
	}
	wrong := make([]string, len(all))
	for i, key := range all {
		last := "0"
		if strings.HasSuffix(key, last) {
			last = "1"
		}
		wrong[i] = key[:len(key)-1] + last
	}
	for _, of := range []struct {
		name   string
		tokens []string
		good   bool
	}{{"a key", all, true}, {"a key that nobody made", []string{unknown}, false}, {"a wrong checksum", wrong, false}} {
		b.logf("verify %s", of.name)
		rounds := make([]float64, b.Rounds)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for round := range rounds {
			began := time.Now()
			for i := range verifications {
				if _, err := keys.Verify(of.tokens[i%len(of.tokens)], now); (err == nil) != of.good {
					return fmt.Errorf("verify %s: %w", of.name, errors.Join(err, ctx.Err()))
				}
			}
			rounds[round] = float64(time.Since(began).Nanoseconds()) / verifications
		}
		runtime.ReadMemStats(&after)
		b.report.Verified = append(b.report.Verified, Verified{
			Name: of.name, Nanos: median(rounds), Allocs: float64(after.Mallocs-before.Mallocs) / float64(b.Rounds*verifications),
		})
	}
	return nil
}

// newKeyring gives one that holds keys of an account, and those.
func newKeyring() (keys *credential.Keyring, now time.Time, tokens []string, err error) {
	pepper := make([]byte, 32)
	_, _ = rand.Read(pepper) // never fails
	peppers, err := credential.NewPeppers(map[int][]byte{1: pepper})
	if err != nil {
		return nil, now, nil, fmt.Errorf("make a pepper: %w", err)
	}
	keys, now = credential.NewKeyring(peppers), time.Now().UTC().Truncate(time.Millisecond)
	for i := range verifiedKeys {
		public := fmt.Sprintf("k%d", i+1)
		token, err := credential.Mint(credential.APIKey, "bench", public, event.Live, rand.Reader)
		if err != nil {
			return nil, now, nil, fmt.Errorf("mint a key: %w", err)
		}
		r := credential.Record{
			ID: ulid.Make().String(), Kind: credential.APIKey, Account: "bench", PublicID: public, Name: "bench", Mode: event.Live, Status: credential.Active,
			Scopes: credential.EventsWrite, CreatedAt: now, ExpiresAt: now.AddDate(1, 0, 0), LastFour: credential.LastFour(token),
		}
		r.Digest, r.Pepper = peppers.Digest(token)
		e, err := r.Event(ulid.Make(), credential.Created, now, event.Author{CredentialID: "k0", Actor: "bench"})
		if err != nil {
			return nil, now, nil, fmt.Errorf("record a key: %w", err)
		}
		at := event.Position{Stream: event.CredentialStream, Offset: event.At(uint64(i+1), 0)}
		recorded, err := event.DecodeEvent(at, event.AppendEvent(nil, &e, at.Offset))
		if err == nil {
			err = keys.Apply(recorded)
		}
		if err != nil {
			return nil, now, nil, fmt.Errorf("record a key: %w", err)
		}
		tokens = append(tokens, token)
	}
	return keys, now, tokens, nil
}
