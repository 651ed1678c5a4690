package accounts

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// linkAnswer is a one-time link, in the one answer that holds it.
type linkAnswer struct {
	Token     string     `json:"token"`
	Link      string     `json:"link"`
	ExpiresAt *time.Time `json:"expires_at"`
}

// link draws a one-time link of a user.
func (s *Service) link(userID string, p credential.Purpose, now time.Time) (token string, _ credential.Link, _ error) {
	token, err := credential.NewLinkToken(userID, s.entropy)
	if err != nil {
		return "", credential.Link{}, err
	}
	l := credential.Link{Purpose: p, ExpiresAt: now.UTC().Truncate(time.Millisecond).Add(p.Life())}
	l.Digest, l.Pepper = s.peppers.Digest(token)
	return token, l, nil
}

func linkToAPI(r *httpapi.Request, token string, l credential.Link) linkAnswer {
	path := "/auth/password-reset/"
	if l.Purpose == credential.Invitation {
		path = "/auth/invitations/"
	}
	return linkAnswer{token, r.Base() + path + token, httpapi.Moment(l.ExpiresAt)}
}

// inviteUser makes a user who may join by a link.
func (s *Service) inviteUser(w http.ResponseWriter, r *httpapi.Request) error {
	var asked struct {
		Email string `json:"email"`
		Role  string `json:"role"`
		Name  string `json:"name"`
	}
	if err := s.read(r, &asked); err != nil {
		return err
	}
	var user credential.User
	var token string
	done, err := s.inTurn(r.Context(), func(ctx context.Context, now time.Time, before uint64) (committed, error) {
		id, err := ulid.New(ulid.Timestamp(now), s.entropy)
		if err != nil {
			return committed{}, err
		}
		everyone, _ := s.ring.Users(r.Identity.Account)
		change, err := credential.Invite(credential.User{
			ID: id.String(), Email: strings.TrimSpace(asked.Email), Name: said(asked.Name), Role: asked.Role, CreatedAt: now.UTC().Truncate(time.Millisecond),
		}, &r.Identity, everyone)
		if err != nil {
			return committed{}, err
		}
		if token, change.User.Link, err = s.link(change.User.ID, credential.Invitation, now); err != nil {
			return committed{}, err
		}
		user = change.User
		seq, err := s.put(ctx, r, fact{recordable: &change.User, is: change.Type, alone: true}, now, before)
		return committed{seq: seq}, err
	})
	if err != nil {
		return err
	}
	secretAnswer(w, done.seq)
	return r.JSON(http.StatusCreated, struct {
		userAnswer
		Invitation linkAnswer `json:"invitation"`
	}{userToAPI(&user), linkToAPI(r, token, user.Link)})
}

// openReset gives an admin a link by which a user chooses a new password.
func (s *Service) openReset(w http.ResponseWriter, r *httpapi.Request) error {
	var token string
	var l credential.Link
	_, err := s.changeUser(w, r, func(u *credential.User, everyone []credential.HeldUser, now time.Time, _ uint64) (change credential.UserChange, err error) {
		if token, l, err = s.link(u.ID, credential.PasswordReset, now); err != nil {
			return change, err
		}
		return u.OpenReset(l, &r.Identity, everyone)
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return r.JSON(http.StatusCreated, linkToAPI(r, token, l))
}

// askReset is for those who have forgotten their password. It does and tells
// the same whoever asks: an admin hands out the link.
func (s *Service) askReset(_ http.ResponseWriter, r *httpapi.Request) error {
	var asked struct {
		Email string `json:"email"`
	}
	if err := s.public(r, &asked); err != nil {
		return err
	}
	if err := s.attempt(r, asked.Email); err != nil {
		return err
	}
	return r.JSON(http.StatusAccepted, struct {
		Message string `json:"message"`
	}{"Ask an admin of your account for the link to a new password."})
}

// invitation tells what a link is for, to whoever holds it.
func (s *Service) invitation(w http.ResponseWriter, r *httpapi.Request) error {
	held, err := s.holder(r, credential.Invitation)
	if err != nil {
		return err
	}
	noStore(w)
	return r.JSON(http.StatusOK, struct {
		Account   string     `json:"account"`
		Email     string     `json:"email"`
		Role      string     `json:"role"`
		ExpiresAt *time.Time `json:"expires_at"`
	}{held.Account, held.Email, held.Role, httpapi.Moment(held.Link.ExpiresAt)})
}

// join makes a user of whoever was invited.
func (s *Service) join(w http.ResponseWriter, r *httpapi.Request) error {
	return s.useLink(w, r, credential.Invitation, func(u *credential.User, name, hash string, now time.Time, _ uint64) credential.UserChange {
		return u.Join(name, hash, now)
	})
}

// resetPassword sets a password by a link. Every session of the user ends.
func (s *Service) resetPassword(w http.ResponseWriter, r *httpapi.Request) error {
	return s.useLink(w, r, credential.PasswordReset, func(u *credential.User, _, hash string, _ time.Time, before uint64) credential.UserChange {
		return u.ChangePassword(hash, before, "")
	})
}

// useLink does what a link is for. Of two who use it at the same time one is
// first in the log, and the other finds no link any more.
func (s *Service) useLink(
	w http.ResponseWriter, r *httpapi.Request, p credential.Purpose,
	decide func(u *credential.User, name, hash string, now time.Time, before uint64) credential.UserChange,
) error {
	var asked struct {
		Password string `json:"password"`
		Name     string `json:"name"`
	}
	if err := s.public(r, &asked); err != nil {
		return err
	}
	if _, err := s.holder(r, p); err != nil {
		return err
	}
	hash, err := s.passwords.hash(r.Context(), asked.Password, s.entropy)
	if err != nil {
		return err
	}
	var user credential.User
	done, err := s.inTurn(r.Context(), func(ctx context.Context, now time.Time, before uint64) (committed, error) {
		held, ok := s.ring.UserOfLink(r.PathValue("token"), p)
		if !ok {
			return committed{}, errLink
		}
		change := decide(&held.User, said(asked.Name), hash, now, before)
		user = change.User
		seq, err := s.appendNoted(ctx, fact{recordable: &user, is: change.Type, alone: true}, byLink(&user), noteOf(r), now, before)
		return committed{seq: seq}, err
	})
	if err != nil {
		return err
	}
	secretAnswer(w, done.seq)
	return r.JSON(http.StatusOK, userToAPI(&user))
}

// errLink says nothing of why a link does not work.
var errLink = fault.New(fault.NotFound, "NOT_FOUND", "This link does not work: it was used, has expired, or never was.")

// holder gives the user whose link the path holds. Trying links is bounded as
// trying passwords is.
func (s *Service) holder(r *httpapi.Request, p credential.Purpose) (credential.HeldUser, error) {
	if err := s.ring.Healthy(); err != nil {
		return credential.HeldUser{}, err
	}
	if err := s.attemptFrom(r); err != nil {
		return credential.HeldUser{}, err
	}
	held, ok := s.ring.UserOfLink(r.PathValue("token"), p)
	if !ok {
		return held, errLink
	}
	return held, nil
}

// changePassword is for whoever is signed in. Their other sessions end.
func (s *Service) changePassword(w http.ResponseWriter, r *httpapi.Request) error {
	var asked struct {
		Current string `json:"current"`
		New     string `json:"new"`
	}
	if err := s.read(r, &asked); err != nil {
		return err
	}
	if err := s.take("user."+r.Identity.UserID, attemptsByEmail); err != nil {
		return err
	}
	wrong := fault.New(fault.Forbidden, "WRONG_PASSWORD", "The current password is another one.")
	held, ok := s.ring.User(r.Identity.UserID)
	if !ok {
		return credential.ErrInvalidKey
	}
	switch i, err := s.passwords.pick(r.Context(), asked.Current, []string{held.PasswordHash}); {
	case err != nil:
		return busyVerifying(r.Context(), err)
	case i < 0:
		return wrong
	}
	hash, err := s.passwords.hash(r.Context(), asked.New, s.entropy)
	if err != nil {
		return err
	}
	done, err := s.inTurn(r.Context(), func(ctx context.Context, now time.Time, before uint64) (committed, error) {
		now1, ok := s.ring.User(r.Identity.UserID)
		switch {
		case !ok:
			return committed{}, credential.ErrInvalidKey
		case now1.PasswordHash != held.PasswordHash: // changed meanwhile
			return committed{}, wrong
		}
		change := now1.ChangePassword(hash, before, r.Identity.RecordID)
		seq, err := s.put(ctx, r, fact{recordable: &change.User, is: change.Type, alone: true}, now, before)
		return committed{seq: seq}, err
	})
	if err != nil {
		return err
	}
	w.Header()[httpapi.PositionHeader] = []string{position(done.seq)}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// public reads the body of an operation that needs no credential. A foreign
// page must not send it.
func (s *Service) public(r *httpapi.Request, into any) error {
	if err := ownPage(r); err != nil {
		return err
	}
	return s.read(r, into)
}

func ownPage(r *httpapi.Request) error {
	if len(r.Header["Origin"]) > 0 && !r.SameOrigin() {
		return fault.New(fault.Forbidden, "CROSS_ORIGIN", "This is for pages of this server.")
	}
	return nil
}

// attemptFrom takes an attempt from the budget of where it comes from.
func (s *Service) attemptFrom(r *httpapi.Request) error {
	return s.take("address."+network(r.ClientAddr()), attemptsByAddress)
}

func (s *Service) take(name string, rate ratelimit.Rate) error {
	if s.attempts == nil {
		return nil
	}
	if granted, left := s.attempts.Take(name, rate, 1, s.now()); granted == 0 {
		wait := time.Duration((1 - left) / rate.PerSecond() * float64(time.Second))
		return httpapi.RetryLater{Err: fault.New(fault.RateLimited, "", "Too many attempts."), After: wait}
	}
	return nil
}

// secretAnswer prepares an answer that follows from a secret or holds one.
func secretAnswer(w http.ResponseWriter, seq uint64) {
	w.Header()[httpapi.PositionHeader] = []string{position(seq)}
	noStore(w)
}

// noStore keeps an answer, and the address that it is read at, to its reader.
func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
}

// byLink is who acts where a link is all that they hold.
func byLink(u *credential.User) event.Author {
	return event.Author{CredentialName: "one-time link", Mode: event.Live, Actor: u.ID}
}
