package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// How often passwords may be tried. Where many share an address it must not be
// tight; of one e-mail address nobody needs more.
var (
	attemptsByAddress = ratelimit.Rate{Tokens: 30, Per: time.Minute, Burst: 30}
	attemptsByEmail   = ratelimit.Rate{Tokens: 10, Per: time.Minute, Burst: 10}
)

// maxNamesakes bounds how many users of one e-mail address, each of an account
// of its own, a password is compared with.
const maxNamesakes = 8

// loginTimeout is how long a log-in waits for its turn to be verified.
const loginTimeout = 10 * time.Second

type loggedIn struct {
	Token     string     `json:"token"`
	ExpiresAt *time.Time `json:"expires_at"`
}

// logIn starts a web session. Whatever is wrong with the address or the
// password, the answer is the same and takes about as long.
func (s *Service) logIn(w http.ResponseWriter, r *httpapi.Request) error {
	var asked struct {
		Email    string `json:"email"`
		Password string `json:"password"`
	}
	if err := s.public(r, &asked); err != nil { // a foreign page must not sign anybody in, either
		return err
	}
	email := strings.TrimSpace(asked.Email)
	if err := s.attempt(r, email); err != nil {
		return err
	}
	user, err := s.whoHas(r.Context(), email, asked.Password)
	if err != nil {
		return err
	}
	session, seq, err := s.start(r, user)
	if err != nil {
		return err
	}
	token, err := s.sessions.Sign(&session)
	if err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(r, token, int(s.life.Seconds())))
	s.everywhere(w, r, seq)
	w.Header().Set("Cache-Control", "no-store")
	return r.JSON(http.StatusOK, loggedIn{token, httpapi.Moment(session.ExpiresAt)})
}

// attempt takes an attempt from the budgets of where it comes from and of whom
// it is about. Whether there is such a user makes no difference.
func (s *Service) attempt(r *httpapi.Request, email string) error {
	if err := s.attemptFrom(r); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(strings.ToLower(email)))
	return s.take("email."+hex.EncodeToString(sum[:]), attemptsByEmail)
}

// network gives what an address is counted by: of IPv6 the half that is
// assigned as one, so that nobody has 2^64 budgets.
func network(addr netip.Addr) string {
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// whoHas gives the user of an address and a password.
func (s *Service) whoHas(ctx context.Context, email, password string) (*credential.User, error) {
	if err := s.ring.Healthy(); err != nil {
		return nil, err
	}
	users := s.ring.UsersByEmail(email)
	users = users[:min(len(users), maxNamesakes)]
	hashes := make([]string, len(users))
	for i := range users {
		hashes[i] = users[i].PasswordHash
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	i, err := s.passwords.pick(ctx, password, hashes)
	switch {
	case err != nil:
		return nil, busyVerifying(ctx, err)
	case i < 0:
		return nil, errLogin
	}
	return &users[i].User, nil
}

// busyVerifying tells why a password could not be compared.
func busyVerifying(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.New(fault.Unavailable, "", "Too many are signing in. Try again later.").Because(err)
	}
	return fmt.Errorf("compare a password: %w", err)
}

// errLogin says nothing of what was wrong.
var errLogin = fault.New(fault.Unauthenticated, credential.ErrInvalidKey.Code, "The e-mail address and the password do not belong together.")

// start records a session of a user, and returns when this process lets it in.
func (s *Service) start(r *httpapi.Request, user *credential.User) (credential.WebSession, uint64, error) {
	now := s.now().UTC()
	id, err := ulid.New(ulid.Timestamp(now), s.entropy)
	if err != nil {
		return credential.WebSession{}, 0, fmt.Errorf("make a session id: %w", err)
	}
	at := now.Truncate(time.Second) // as exactly as a token tells it
	session := credential.WebSession{
		ID: id.String(), Account: user.Account, UserID: user.ID, StartedAt: at, ExpiresAt: at.Add(s.life),
	}
	// Once it is stored it counts, so that a client who has gone changes nothing.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commitTimeout)
	defer cancel()
	what := fact{recordable: &session, is: credential.SessionStarted}
	seq, err := s.appendNoted(ctx, what, session.Author(), noteOf(r), now, s.ring.Applied())
	if errors.Is(err, eventlog.ErrConflict) { // nobody else has its id
		err = unavailable(err)
	}
	if err != nil {
		return session, 0, err
	}
	if err := s.ring.Await(ctx, seq); err != nil {
		return session, 0, unavailable(fmt.Errorf("the session at %s is stored, but the keyring has not heard of it: %w", position(seq), err))
	}
	// The password may have been changed since it was compared; nobody has the token yet.
	if held, ok := s.ring.User(user.ID); !ok || held.PasswordHash != user.PasswordHash {
		return session, 0, errLogin
	}
	return session, seq, nil
}

// logOut ends the session that asks for it, in every process.
func (s *Service) logOut(w http.ResponseWriter, r *httpapi.Request) error {
	done, err := s.inTurn(r.Context(), func(ctx context.Context, now time.Time, before uint64) (committed, error) {
		held, ok := s.ring.Session(r.Identity.RecordID)
		if !ok {
			return committed{}, credential.ErrInvalidKey
		}
		ended, err := held.End()
		if err != nil {
			return committed{}, err
		}
		seq, err := s.put(ctx, r, fact{recordable: &ended, is: credential.SessionEnded, after: held.At.Seq()}, now, before)
		return committed{seq: seq}, err
	})
	if err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(r, "", -1))
	s.everywhere(w, r, done.seq)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// cookie gives the cookie that holds a session; no script reads it, and no
// foreign page has it sent.
func (s *Service) cookie(r *httpapi.Request, token string, seconds int) *http.Cookie {
	return &http.Cookie{
		Name: httpapi.SessionCookie, Value: token, Path: "/", MaxAge: seconds,
		HttpOnly: true, Secure: r.Secure(), SameSite: http.SameSiteLaxMode,
	}
}

type jwk struct {
	Type      string `json:"kty"`
	Curve     string `json:"crv"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
	ID        string `json:"kid"`
	X         string `json:"x"`
}

// publicKeys answers with the keys that verify sessions.
func (s *Service) publicKeys(w http.ResponseWriter, r *httpapi.Request) error {
	set := struct {
		Keys []jwk `json:"keys"`
	}{[]jwk{}}
	for _, k := range s.sessions.Public() {
		set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", "EdDSA", "sig", k.ID, base64.RawURLEncoding.EncodeToString(k.Key)})
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	return r.JSON(http.StatusOK, set)
}
