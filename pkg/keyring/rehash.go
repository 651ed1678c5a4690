package keyring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
)

// rehashQueue is how many digests may wait to be rewritten. What finds no place
// is rewritten at a later use.
const rehashQueue = 256

// renewed is a digest under the newest pepper, of a secret that was just presented.
type renewed struct {
	recordID string
	digest   credential.Digest
	pepper   int
}

// Rehasher rewrites digests that were made with an old pepper, when their secret
// is presented: only then can they be. It is a lifecycle.Service.
//
// The event is stored after the one that the ring knows of the credential, or not
// at all, so that it never covers a revocation, and of several processes one
// stores it.
type Rehasher struct {
	ring   *Ring
	log    eventlog.Appender
	logger *slog.Logger
}

// NewRehasher returns a rehasher of what ring verifies, storing in the log that
// ring follows.
func NewRehasher(ring *Ring, log eventlog.Appender, logger *slog.Logger) *Rehasher {
	return &Rehasher{ring, log, logger}
}

// Run rewrites until ctx is done.
func (h *Rehasher) Run(ctx context.Context, ready func()) error {
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-h.ring.renewals:
			if err := h.rewrite(ctx, n); err != nil && ctx.Err() == nil && !errors.Is(err, eventlog.ErrConflict) {
				h.logger.WarnContext(ctx, "cannot rewrite a digest", "credential", n.recordID, "err", err)
			}
		}
	}
}

const rewriteTimeout = 5 * time.Second

func (h *Rehasher) rewrite(ctx context.Context, n renewed) error {
	held, ok := h.ring.Record(n.recordID)
	now := h.ring.now().UTC().Truncate(time.Millisecond)
	if !ok || held.Pepper >= n.pepper || held.StatusAt(now) != credential.Active {
		return nil
	}
	held.Digest, held.Pepper = n.digest, n.pepper
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	if err != nil {
		return fmt.Errorf("make an event id: %w", err)
	}
	e, err := held.Event(id, credential.Rehashed, now, event.Author{CredentialName: "pepper rotation", Mode: event.Live})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rewriteTimeout)
	defer cancel()
	seq, err := h.log.AppendToSubject(ctx, eventlog.Frame{
		ID: id.String(), Subject: held.LogSubject(), ContentType: credential.ContentType, Body: event.AppendEvent(nil, &e, 0),
	}, held.At.Seq())
	if err != nil {
		return err
	}
	return h.ring.Await(ctx, seq)
}

// renew hands in the secret of a credential whose digest is old.
func (r *Ring) renew(token, recordID string) {
	d, version := r.peppers.Digest(token)
	select {
	case r.renewals <- renewed{recordID, d, version}:
	default:
	}
}
