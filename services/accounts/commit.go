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
	decideAttempts = 8
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
		before := s.ring.Applied()
		now := s.now()
		d, err := decide(now)
		if err != nil {
			return committed{}, err
		}
		frame, err := s.frame(&d, r.Identity.Author(), now)
		if err != nil {
			return committed{}, err
		}
		if err := r.Reverify(); err != nil { // contract 3.3: right before the commit
			return committed{}, err
		}
		seq, err := s.store(ctx, frame, d.after, before)
		if errors.Is(err, eventlog.ErrConflict) {
			if err := s.catchUp(ctx); err != nil {
				return committed{}, unavailable(err)
			}
			continue
		}
		if err != nil {
			return committed{}, unavailable(err)
		}
		if err := s.ring.Await(ctx, seq); err != nil {
			return committed{}, unavailable(fmt.Errorf("the change at %s is stored, but the keyring has not heard of it: %w", position(seq), err))
		}
		return committed{d, seq}, nil
	}
	return committed{}, errBusy
}

func (s *Service) frame(d *draft, by event.Author, now time.Time) (eventlog.Frame, error) {
	at := now.UTC().Truncate(time.Millisecond)
	id, err := ulid.New(ulid.Timestamp(at), s.entropy)
	if err != nil {
		return eventlog.Frame{}, fmt.Errorf("make an event id: %w", err)
	}
	e, err := d.Record.Event(id, d.Type, at, by)
	if err != nil {
		return eventlog.Frame{}, err
	}
	return eventlog.Frame{
		ID: id.String(), Subject: d.Record.LogSubject(), ContentType: credential.ContentType, Body: event.AppendEvent(nil, &e, 0),
	}, nil
}

// store stores f as the subject's event after after. No answer is settled by
// asking again; what that says may mean that the first time succeeded, so f is
// looked for among what was stored since before.
func (s *Service) store(ctx context.Context, f eventlog.Frame, after, before uint64) (seq uint64, err error) {
	asked := 0
	for asked < appendAttempts {
		asked++
		if seq, err = s.log.AppendToSubject(ctx, f, after); !errors.Is(err, eventlog.ErrAmbiguous) {
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

// catchUp returns when the keyring knows all that the log holds.
func (s *Service) catchUp(ctx context.Context) error {
	last, err := s.log.Last(ctx)
	if err != nil {
		return err
	}
	return s.ring.Await(ctx, last)
}

// draw decides about a new credential and gives it its ids and its secret.
func (s *Service) draw(o credential.Order, by *credential.Identity, now time.Time) (draft, error) {
	c, err := credential.Create(o, by, now)
	if err != nil {
		return draft{}, err
	}
	r := &c.Record
	id, err := ulid.New(ulid.Timestamp(now), s.entropy)
	if err != nil {
		return draft{}, fmt.Errorf("make a record id: %w", err)
	}
	r.ID = id.String()
	named := ""
	if r.Kind == credential.APIKey {
		named = r.Account
		r.PublicID = s.ring.NextKeyID(r.Account, r.Mode)
	} else if r.PublicID, err = credential.NewTokenID(s.entropy); err != nil {
		return draft{}, err
	}
	secret, err := credential.Mint(r.Kind, named, r.PublicID, r.Mode, s.entropy)
	if err != nil {
		return draft{}, err
	}
	r.Digest, r.Pepper = s.peppers.Digest(secret)
	r.LastFour = credential.LastFour(secret)
	return draft{Change: c, secret: secret}, nil
}

// unavailable tells that the log did not take a change, or not in time.
func unavailable(cause error) error {
	return fault.New(fault.Unavailable, "", "The change could not be recorded for certain. Read the list and try again.").Because(cause)
}
