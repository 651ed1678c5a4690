package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/quarantine"
	"github.com/shipledger/shipledger/pkg/replay"
)

const (
	// decideAttempts bounds how often other decisions may come first.
	decideAttempts = 8
	// appendAttempts bounds how often an append without an answer is repeated.
	appendAttempts = 3
	// commitTimeout is how long a decision waits for the log.
	commitTimeout = 10 * time.Second
)

// operations is the book of the stream of operations, kept up with the log.
type operations struct {
	log    eventlog.Log
	now    func() time.Time
	newID  func() (ulid.ULID, error)
	logger *slog.Logger
	turn   chan struct{}

	mu    sync.Mutex
	book  replay.Book
	aside quarantine.Book
	grown chan struct{} // closed and replaced whenever an event is applied
}

func newOperations(log eventlog.Log, now func() time.Time, newID func() (ulid.ULID, error), logger *slog.Logger) *operations {
	return &operations{log: log, now: now, newID: newID, logger: logger, turn: make(chan struct{}, 1), grown: make(chan struct{})}
}

// look gives read what stands now, and returns what is closed when that changes.
func (o *operations) look(read func(b *replay.Book)) (changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	read(&o.book)
	return o.grown
}

// decisions gives what stands about events that are set aside; it does not change.
func (o *operations) decisions() quarantine.Book {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.aside
}

func (o *operations) applied() (seq uint64, at time.Time) {
	o.look(func(b *replay.Book) { seq, at = b.Applied() })
	return seq, at
}

// follow applies what the log holds, until ctx is done.
func (o *operations) follow(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		after, _ := o.applied()
		for f, err := range o.log.Follow(ctx, after) {
			if err != nil {
				if ctx.Err() == nil {
					o.logger.WarnContext(ctx, "following the log of operations failed", "after", after, "err", err)
				}
				break
			}
			o.apply(ctx, f)
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		}
	}
}

func (o *operations) apply(ctx context.Context, f eventlog.Recorded) {
	e, err := event.DecodeEvent(event.Position{Stream: replay.Stream, Offset: event.At(f.Seq, 0)}, f.Body)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		err = errors.Join(o.aside.Apply(&e), o.book.Apply(&e))
	}
	if err != nil {
		o.logger.ErrorContext(ctx, "an event of the log of operations cannot be applied", "seq", f.Seq, "subject", f.Subject, "err", err)
		o.book.Skip(f.Seq)
	}
	close(o.grown)
	o.grown = make(chan struct{})
}

// caughtUp returns when the book knows all that the log held at the call.
func (o *operations) caughtUp(ctx context.Context) error {
	last, err := o.log.Last(ctx)
	if err != nil {
		return err
	}
	return o.await(ctx, last)
}

// await returns when the event at seq is applied.
func (o *operations) await(ctx context.Context, seq uint64) error {
	for {
		reached := false
		changed := o.look(func(b *replay.Book) {
			applied, _ := b.Applied()
			reached = applied >= seq
		})
		if reached {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// decided is a decision that stands in the log.
type decided struct {
	replay.Replay
	seq uint64
}

// commit decides about a replay.
func (o *operations) commit(ctx context.Context, by event.Author, may func() error, decide func(b *replay.Book, now time.Time) (replay.Change, error)) (decided, error) {
	var c replay.Change
	seq, err := o.record(ctx, by, may, func(now time.Time) (change, error) {
		var err error
		c, err = decide(&o.book, now)
		return &c, err
	})
	if err != nil {
		return decided{}, err
	}
	return decided{c.Replay, seq}, nil
}

// change is a decision that can be stored.
type change interface {
	Event(id ulid.ULID, at time.Time, by event.Author) (event.Event, error)
	LogSubject() string
}

// record decides on what stands, stores the decision and returns when the books
// know it. The decision counts only if nothing was stored since: where it was,
// the question is put again. decide is asked under the lock of the books; may, if
// set, right before the decision is stored.
func (o *operations) record(ctx context.Context, by event.Author, may func() error, decide func(now time.Time) (change, error)) (uint64, error) {
	// Once it is stored it counts, so that a client who has gone changes nothing.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return 0, unrecorded(context.Cause(ctx))
	}
	for range decideAttempts {
		now := o.now().UTC().Truncate(time.Millisecond)
		var c change
		var before uint64
		var err error
		o.look(func(b *replay.Book) {
			before, _ = b.Applied()
			c, err = decide(now)
		})
		if err != nil {
			return 0, err
		}
		if may != nil {
			if err := may(); err != nil { // contract 3.3: right before the commit
				return 0, err
			}
		}
		seq, err := o.append(ctx, c, by, now, before)
		if err == nil {
			if err := o.await(ctx, seq); err != nil {
				return 0, unrecorded(err)
			}
			return seq, nil
		}
		if !errors.Is(err, eventlog.ErrConflict) {
			return 0, unrecorded(err)
		}
		if err := o.caughtUp(ctx); err != nil {
			return 0, unrecorded(err)
		}
	}
	return 0, fault.New(fault.Conflict, "CONFLICT", "Others are deciding at the same time. Read what stands now and try again.")
}

func (o *operations) append(ctx context.Context, c change, by event.Author, now time.Time, before uint64) (uint64, error) {
	id, err := o.newID()
	if err != nil {
		return 0, fmt.Errorf("make an event id: %w", err)
	}
	e, err := c.Event(id, now, by)
	if err != nil {
		return 0, err
	}
	f := eventlog.Frame{ID: id.String(), Subject: c.LogSubject(), ContentType: replay.ContentType, Body: event.AppendEvent(nil, &e, 0)}
	var seq uint64
	asked := 0
	for asked < appendAttempts {
		asked++
		if seq, err = o.log.AppendFrame(ctx, f, before); !errors.Is(err, eventlog.ErrAmbiguous) {
			break
		}
	}
	if asked == 1 || err == nil {
		return seq, err
	}
	// A repeat that conflicts may conflict with the first time: look for it.
	for r, readErr := range o.log.Read(ctx, before) {
		if readErr != nil {
			return 0, errors.Join(eventlog.ErrAmbiguous, readErr)
		}
		if r.ID == f.ID {
			return r.Seq, nil
		}
	}
	return 0, err
}

// unrecorded tells that the log did not take a decision, or not in time.
func unrecorded(cause error) error {
	return fault.New(fault.Unavailable, "", "The decision could not be recorded for certain. Read what stands now and try again.").Because(cause)
}
