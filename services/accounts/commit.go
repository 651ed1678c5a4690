package accounts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

const (
	// decideAttempts bounds how often other processes may come first.
	decideAttempts = 32
	// commitTimeout is how long a change waits for its turn and for the log.
	commitTimeout = 10 * time.Second
)

// errBusy is for a change that other processes keep making impossible.
var errBusy = fault.New(fault.Conflict, "CONFLICT", "Others are changing the same thing. Read it and try again.")

// draft is a decided change, where in the log it may stand, and the secret that
// a new credential has.
type draft struct {
	credential.Change

	after  uint64 // the sequence of the record's last event; 0: the record is new
	secret string
}

// fact is what a draft says.
func (d *draft) fact() fact { return fact{recordable: &d.Record, is: d.Type, after: d.after} }

// fact is something decided: as it stands then, the type of the event that says
// so, and the sequence of the subject's event before it.
type fact struct {
	recordable

	is    event.Type
	after uint64
	// alone says that the decision was drawn from more than its subject: it
	// counts only if nothing at all was stored since.
	alone bool
}

type committed struct {
	draft

	seq uint64
}

// commit decides, stores the decision's event and returns when this process's
// own keyring has applied it: from then on it acts as decided.
//
// Changes of one process take turns. What another process stores meanwhile
// shows as a conflict, after which the question is put again to what then
// stands: of two revocations one is made, and the other is told so.
func (s *Service) commit(ctx context.Context, r *httpapi.Request, decide func(now time.Time) (draft, error)) (committed, error) {
	return s.inTurn(ctx, func(ctx context.Context, now time.Time, before uint64) (committed, error) {
		d, err := decide(now)
		if err != nil {
			return committed{}, err
		}
		seq, err := s.put(ctx, r, d.fact(), now, before)
		return committed{d, seq}, err
	})
}

// rotate makes a successor and then the old credential's way to it. Only the
// second counts: where another change of the old one came first, nobody gets
// the successor, and it is revoked.
func (s *Service) rotate(ctx context.Context, r *httpapi.Request, decide func(now time.Time) (credential.Rotation, uint64, error)) (committed, error) {
	return s.inTurn(ctx, func(ctx context.Context, now time.Time, before uint64) (committed, error) {
		rotation, after, err := decide(now)
		if err != nil {
			return committed{}, err
		}
		successor, err := s.equip(rotation.Successor, now)
		if err != nil {
			return committed{}, err
		}
		made, err := s.put(ctx, r, successor.fact(), now, before)
		if err != nil {
			return committed{}, err
		}
		old := draft{Change: rotation.Old, after: after}
		old.Record.RotatedTo = successor.Record.ID
		seq, err := s.put(ctx, r, old.fact(), now, before)
		if err == nil {
			return committed{successor, seq}, nil
		}
		withdrawn, revokeErr := successor.Record.Revoke(now)
		if revokeErr == nil {
			_, revokeErr = s.append(ctx, fact{recordable: &withdrawn.Record, is: withdrawn.Type, after: made}, r.Identity.Author(), now, before)
		}
		if revokeErr != nil && !errors.Is(revokeErr, eventlog.ErrConflict) { // nobody has its secret, but it is listed
			return committed{}, unavailable(fmt.Errorf("withdraw the successor %s: %w", successor.Record.ID, revokeErr))
		}
		return committed{}, err
	})
}

// inTurn attempts a change when it is this request's turn, and again after each
// conflict, with the keyring as far as the log then was.
func (s *Service) inTurn(ctx context.Context, attempt func(ctx context.Context, now time.Time, before uint64) (committed, error)) (committed, error) {
	// Once it is stored it counts, so that a client who has gone changes nothing.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return committed{}, unavailable(context.Cause(ctx))
	}
	for range decideAttempts {
		landed := s.flight.Begin()
		done, err := attempt(ctx, s.now(), s.ring.Applied())
		landed()
		switch {
		case err == nil:
			if err := s.ring.Await(ctx, done.seq); err != nil {
				return committed{}, unavailable(fmt.Errorf("the change at %s is stored, but the keyring has not heard of it: %w", position(done.seq), err))
			}
			return done, nil
		case !errors.Is(err, eventlog.ErrConflict):
			return committed{}, err
		}
		if err := s.ring.CatchUp(ctx); err != nil {
			return committed{}, unavailable(err)
		}
	}
	return committed{}, errBusy
}

// put stores the event of a fact if its author still may. ErrConflict says
// that it was decided on what no longer stands.
func (s *Service) put(ctx context.Context, r *httpapi.Request, what fact, now time.Time, before uint64) (uint64, error) {
	if err := r.Reverify(); err != nil { // contract 3.3: right before the commit
		return 0, err
	}
	return s.appendNoted(ctx, what, r.Identity.Author(), noteOf(r), now, before)
}

// noteOf tells from where a request comes, and why it was made where its
// operation lets it say so.
func noteOf(r *httpapi.Request) credential.Note {
	n := credential.Note{From: r.ClientAddr().String()}
	if r.Takes("reason") {
		n.Reason = r.QueryString("reason")
	}
	return n
}

func (s *Service) append(ctx context.Context, what fact, by event.Author, now time.Time, before uint64) (uint64, error) {
	return s.appendNoted(ctx, what, by, credential.Note{}, now, before)
}

func (s *Service) appendNoted(ctx context.Context, what fact, by event.Author, note credential.Note, now time.Time, before uint64) (uint64, error) {
	frame, err := s.frame(what, by, note, now)
	if err != nil {
		return 0, err
	}
	put, after := s.log.AppendToSubject, what.after
	if what.alone {
		put, after = s.log.AppendFrame, before
	}
	seq, err := s.store(ctx, put, frame, after, before)
	if err != nil && !errors.Is(err, eventlog.ErrConflict) {
		return 0, unavailable(err)
	}
	return seq, err
}

func (s *Service) frame(what fact, by event.Author, note credential.Note, now time.Time) (eventlog.Frame, error) {
	at := now.UTC().Truncate(time.Millisecond)
	id, err := ulid.New(ulid.Timestamp(at), s.entropy)
	if err != nil {
		return eventlog.Frame{}, fmt.Errorf("make an event id: %w", err)
	}
	e, err := what.Event(id, what.is, at, by)
	if err != nil {
		return eventlog.Frame{}, err
	}
	if err := note.On(&e); err != nil {
		return eventlog.Frame{}, err
	}
	return eventlog.Frame{
		ID: id.String(), Subject: what.LogSubject(), ContentType: credential.ContentType, Body: event.AppendEvent(nil, &e, 0),
	}, nil
}

// store stores f by put, as the event after after. No answer is settled by
// asking again; what that says may mean that the first time succeeded, so f is
// looked for among what was stored since before.
func (s *Service) store(
	ctx context.Context, put func(context.Context, eventlog.Frame, uint64) (uint64, error), f eventlog.Frame, after, before uint64,
) (seq uint64, err error) {
	asked := 0
	for asked < appendAttempts {
		asked++
		if seq, err = put(ctx, f, after); !errors.Is(err, eventlog.ErrAmbiguous) {
			break
		}
	}
	if asked == 1 || err == nil {
		return seq, err
	}
	for r, readErr := range s.log.Read(ctx, before) {
		if readErr != nil {
			return 0, errors.Join(eventlog.ErrAmbiguous, readErr)
		}
		if r.ID == f.ID {
			return r.Seq, nil
		}
	}
	return 0, err
}

// name gives a new credential its ids.
func (s *Service) name(c credential.Change, now time.Time) (draft, error) {
	r := &c.Record
	id, err := ulid.New(ulid.Timestamp(now), s.entropy)
	if err != nil {
		return draft{}, fmt.Errorf("make a record id: %w", err)
	}
	r.ID = id.String()
	if r.Kind == credential.APIKey {
		r.PublicID = s.ring.NextKeyID(r.Account, r.Mode)
	} else if r.PublicID, err = credential.NewTokenID(s.entropy); err != nil {
		return draft{}, err
	}
	return draft{Change: c}, nil
}

// equip gives a new credential its ids and its secret.
func (s *Service) equip(c credential.Change, now time.Time) (draft, error) {
	d, err := s.name(c, now)
	if err != nil {
		return draft{}, err
	}
	r, named := &d.Record, ""
	if r.Kind == credential.APIKey {
		named = r.Account
	}
	secret, err := credential.Mint(r.Kind, named, r.PublicID, r.Mode, s.entropy)
	if err != nil {
		return draft{}, err
	}
	r.Digest, r.Pepper = s.peppers.Digest(secret)
	r.LastFour = credential.LastFour(secret)
	d.secret = secret
	return d, nil
}

// unavailable tells that the log did not take a change, or not in time.
func unavailable(cause error) error {
	return fault.New(fault.Unavailable, "", "The change could not be recorded for certain. Read the list and try again.").Because(cause)
}
