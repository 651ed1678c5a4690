// Package keyring keeps a process's keys in step with the log: it follows the
// stream of credentials and answers who a token speaks for. That is how a
// revocation reaches every process, and why a process that cannot hear the log
// refuses rather than trust what it last knew.
package keyring

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
)

// Config says how a keyring follows. Zero values are replaced by the defaults.
type Config struct {
	// DeafLimit is how long a keyring that cannot hear the log goes on
	// answering. Default 30 s.
	DeafLimit time.Duration `default:"30s" help:"Refuse credentials when the log was not heard for this long."`
	// Sessions are the keys of web sessions; nil: none is let in.
	Sessions *credential.SessionKeys `kong:"-"`
}

const (
	defaultDeafLimit = 30 * time.Second
	probesPerLimit   = 6 // so that one lost probe does not matter
	minBackoff       = 50 * time.Millisecond
	maxBackoff       = 2 * time.Second
)

// ErrDeaf refuses everybody while the keyring may be out of date.
var ErrDeaf = fault.New(fault.Unavailable, "", "Service temporarily unavailable").
	WithHint("This process cannot hear the log of credentials. Try again later.")

// Ring is a lifecycle.Service and safe for concurrent use.
type Ring struct {
	log    eventlog.Reader
	now    func() time.Time
	logger *slog.Logger
	limit  time.Duration

	peppers  *credential.Peppers
	renewals chan renewed // for the rehasher

	mu      sync.RWMutex
	keys    *credential.Keyring
	applied uint64
	newest  time.Time     // receipt of the newest event that was applied and could be read
	heardAt time.Time     // when keys were last known to be complete; zero: never
	toldAt  time.Time     // when a report that reached the others was begun; zero: this process tells nobody
	probed  probe         // what is still to be applied; no time: nothing
	grown   chan struct{} // closed and replaced whenever applied grows
}

// A probe says where the log ended at a time: once that much is applied, the
// keys are known to be complete as of then.
type probe struct {
	last uint64
	at   time.Time
}

// New returns a ring that knows nothing until it runs.
func New(cfg Config, log eventlog.Reader, peppers *credential.Peppers, now func() time.Time, logger *slog.Logger) *Ring {
	if cfg.DeafLimit <= 0 {
		cfg.DeafLimit = defaultDeafLimit
	}
	keys := credential.NewKeyring(peppers)
	keys.TrustSessions(cfg.Sessions)
	return &Ring{log: log, now: now, logger: logger, limit: cfg.DeafLimit, keys: keys, peppers: peppers, renewals: make(chan renewed, rehashQueue), grown: make(chan struct{})}
}

// Verify tells who presents a token. Beside the errors of package credential it
// returns ErrDeaf.
func (r *Ring) Verify(token string) (credential.Identity, error) {
	id, err := r.verify(token)
	if id.OldDigest {
		r.renew(token, id.RecordID)
	}
	return id, err
}

func (r *Ring) verify(token string) (credential.Identity, error) {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.deaf(now) {
		return credential.Identity{}, ErrDeaf
	}
	return r.keys.Verify(token, now)
}

// Warnings gives the credentials that a warning of their end is due for at now.
func (r *Ring) Warnings(now time.Time) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.Warnings(now)
}

// Alive tells whether the credential of a record may still act; it is asked
// right before a commit and before the first byte of an answer.
func (r *Ring) Alive(recordID string) error {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.deaf(now) {
		return ErrDeaf
	}
	return r.keys.Alive(recordID, now)
}

// Again gives who a credential that Verify once let in speaks for now; see
// httpapi.Rechecker.
func (r *Ring) Again(recordID string) (credential.Identity, error) {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.deaf(now) {
		return credential.Identity{}, ErrDeaf
	}
	return r.keys.Again(recordID, now)
}

// Healthy returns ErrDeaf while requests are refused for that reason.
func (r *Ring) Healthy() error {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.deaf(now) {
		return ErrDeaf
	}
	return nil
}

// deaf is for whoever holds r.mu. A process that nobody hears of stops as one
// does that hears of nothing: the others cease to wait for it (Node.gone), and
// then it may not let in whom they have shut out.
func (r *Ring) deaf(now time.Time) bool {
	return r.heardAt.IsZero() || now.Sub(r.heardAt) > r.limit || !r.toldAt.IsZero() && now.Sub(r.toldAt) > r.limit
}

// reported notes that the others heard of this process, not before a time.
func (r *Ring) reported(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.toldAt = at
}

// Applied gives the sequence of the last event that the ring knows.
func (r *Ring) Applied() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.applied
}

// Changed gives what is closed when the ring next applies an event.
func (r *Ring) Changed() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.grown
}

// AsOf says how far a ring's answer goes.
type AsOf struct {
	Seq  uint64    // of the last event that the ring knows; 0: none
	Time time.Time // receipt of the newest event; zero: none
}

// Records gives an account's credentials of a kind, in no order, as they stand.
func (r *Ring) Records(account string, kind credential.Kind) ([]credential.Held, AsOf) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.Records(account, kind), AsOf{r.applied, r.newest}
}

// Record gives the credential with a record id, of whatever account.
func (r *Ring) Record(id string) (credential.Held, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.Record(id)
}

// Holder gives the record, of whatever account and state, whose whole secret
// value is.
func (r *Ring) Holder(value string) (credential.Held, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.Holder(value)
}

// Session gives the web session with an id, of whatever account.
func (r *Ring) Session(id string) (credential.HeldSession, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.Session(id)
}

// Users gives an account's users, in no order, without those who were removed.
func (r *Ring) Users(account string) ([]credential.HeldUser, AsOf) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.Users(account), AsOf{r.applied, r.newest}
}

// User gives the user with an id, of whatever account, who was not removed.
func (r *Ring) User(id string) (credential.HeldUser, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.User(id)
}

// UserOfLink gives the user whose open link a token is.
func (r *Ring) UserOfLink(token string, purpose credential.Purpose) (credential.HeldUser, bool) {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.UserOfLink(token, purpose, now)
}

// Account gives an account by its slug.
func (r *Ring) Account(id string) (credential.HeldAccount, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.Account(id)
}

// Accounts gives all accounts, in no order.
func (r *Ring) Accounts() ([]credential.HeldAccount, AsOf) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.Accounts(), AsOf{r.applied, r.newest}
}

// Operator gives the account whose admins run the server.
func (r *Ring) Operator() (id string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.Operator()
}

// UsersByEmail gives those who sign in with an address, of whatever account.
func (r *Ring) UsersByEmail(email string) []credential.HeldUser {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.UsersByEmail(email)
}

// NextKeyID gives the id of an account's next API key in a mode. Another
// process may take it first: the log decides.
func (r *Ring) NextKeyID(account string, mode event.Mode) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys.NextKeyID(account, mode)
}

// Await returns once the event at seq is applied: then this process refuses
// what that event revoked.
func (r *Ring) Await(ctx context.Context, seq uint64) error {
	for {
		r.mu.RLock()
		applied, grown := r.applied, r.grown
		r.mu.RUnlock()
		if applied >= seq {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// CatchUp returns when all is applied that the log held at the call.
func (r *Ring) CatchUp(ctx context.Context) error {
	last, err := r.log.Last(ctx)
	if err != nil {
		return err
	}
	return r.Await(ctx, last)
}

// Run follows the log until ctx is done. The ring is ready once it has applied
// all that the log held when it started.
func (r *Ring) Run(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { r.follow(ctx) })

	first := backoff{}
	for !r.probe(ctx) {
		if !first.wait(ctx) {
			return nil
		}
	}
	r.mu.RLock()
	last := max(r.applied, r.probed.last)
	r.mu.RUnlock()
	if err := r.Await(ctx, last); err != nil {
		return nil //nolint:nilerr // being stopped before it was ready is no failure
	}
	ready()
	ticks := time.NewTicker(r.limit / probesPerLimit)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
			r.probe(ctx)
		}
	}
}

// probe asks where the log ends. That, and not the arrival of events, is what
// tells a log without news from one that cannot be heard.
func (r *Ring) probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, r.limit/probesPerLimit)
	defer cancel()
	asked := r.now() // before the question, so that the answer is not older than that
	last, err := r.log.Last(ctx)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			r.logger.WarnContext(ctx, "cannot hear the log of credentials", "err", err)
		}
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.probed.at.IsZero() { // else an older one is still to be reached: replaced again and again, none ever would be
		r.probed = probe{last, asked}
	}
	r.reached()
	return true
}

// reached takes note that the keys are complete, if they are. r.mu is held.
func (r *Ring) reached() {
	if p := r.probed; !p.at.IsZero() && r.applied >= p.last {
		r.heardAt, r.probed.at = p.at, time.Time{}
	}
}

// follow applies what the log holds, and begins anew where it was when the log
// fails. It goes on for ever: how long the keys are trusted meanwhile is the
// probe's matter.
func (r *Ring) follow(ctx context.Context) {
	retry := backoff{}
	for {
		for f, err := range r.log.Follow(ctx, r.Applied()) {
			if err != nil {
				if ctx.Err() == nil {
					r.logger.WarnContext(ctx, "following the log of credentials failed", "after", r.Applied(), "err", err)
				}
				break
			}
			r.apply(ctx, f)
			retry = backoff{}
		}
		if !retry.wait(ctx) {
			return
		}
	}
}

func (r *Ring) apply(ctx context.Context, f eventlog.Recorded) {
	e, err := event.DecodeEvent(event.Position{Stream: event.CredentialStream, Offset: event.At(f.Seq, 0)}, f.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		err = r.keys.Apply(e)
	}
	if err != nil {
		// It may be a revocation, so what it is about is refused from here on.
		r.logger.ErrorContext(ctx, "a credential event cannot be applied", "seq", f.Seq, "subject", f.Subject, "err", err)
		r.keys.Distrust(f.Subject, event.At(f.Seq, 0))
	}
	if e.Time.After(r.newest) {
		r.newest = e.Time
	}
	r.applied = f.Seq
	r.reached()
	close(r.grown)
	r.grown = make(chan struct{})
}

// backoff waits longer from one failure to the next.
type backoff struct{ next time.Duration }

// wait tells whether to go on.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(2*b.next, minBackoff), maxBackoff)
	t := time.NewTimer(b.next)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
