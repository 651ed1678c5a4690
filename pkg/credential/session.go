package credential

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// What becomes of a web session.
const (
	SessionStarted event.Type = "session.started"
	SessionEnded   event.Type = "session.ended"
)

const (
	sessionSchema = "session/1"
	sessionName   = "web session" // what events call the credential
)

// Why a web session is refused, once its signature has matched.
var (
	ErrEndedSession = fault.New(fault.Unauthenticated, "AUTH_REVOKED_KEY", "this session has ended").
			WithHint("Sign in again.")
	ErrExpiredSession = fault.New(fault.Unauthenticated, "AUTH_EXPIRED_KEY", "this session has expired").
				WithHint("Sign in again.")
)

// A WebSession is a session as it stands after an event. Its token is not kept,
// not even as a digest: the signature says that it is genuine.
type WebSession struct {
	ID        string // a ULID; the subject of its events
	Account   string
	UserID    string
	StartedAt time.Time
	ExpiresAt time.Time
	Ended     bool
}

// LogSubject gives the subject that the session's events are stored under.
func (s *WebSession) LogSubject() string { return logSubject(s.Account, Session.String(), s.ID) }

// Author gives what events carry of a session.
func (s *WebSession) Author() event.Author {
	return event.Author{CredentialID: s.ID, CredentialName: sessionName, Mode: event.Live, Actor: s.UserID}
}

// End decides whether a session ends.
func (s *WebSession) End() (WebSession, error) {
	if s.Ended {
		return WebSession{}, ErrEndedSession
	}
	next := *s
	next.Ended = true
	return next, nil
}

type sessionWire struct {
	UserID    string    `json:"user_id"`
	StartedAt time.Time `json:"started_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Ended     bool      `json:"ended,omitzero"`
}

// Event gives the event of type t that leaves the session behind.
func (s *WebSession) Event(id ulid.ULID, t event.Type, at time.Time, by event.Author) (event.Event, error) {
	return wrap(id, t, at, by, s.Account, s.ID, sessionSchema, struct {
		Session sessionWire `json:"session"`
	}{sessionWire{s.UserID, s.StartedAt.UTC(), s.ExpiresAt.UTC(), s.Ended}})
}

func decodeSession(e *event.Event, o event.Opaque) (*WebSession, error) {
	var d struct {
		Session sessionWire `json:"session"`
	}
	if err := json.Unmarshal(o.Data, &d); err != nil {
		return nil, err
	}
	w := d.Session
	if w.UserID == "" || w.ExpiresAt.IsZero() {
		return nil, errors.New("a session without a user or without an end is none")
	}
	return &WebSession{e.Subject, e.Account, w.UserID, w.StartedAt, w.ExpiresAt, w.Ended}, nil
}

// SessionKeys sign and verify the tokens of web sessions: JWTs with an Ed25519
// signature. The highest version signs; the others still verify what they
// signed. They are safe for concurrent use.
type SessionKeys struct {
	signer   ed25519.PrivateKey
	header   string // of what signer signs
	byHeader map[string]ed25519.PublicKey
	public   []PublicKey // the signer's first
}

// A PublicKey is a key that verifies sessions, for whoever wants to.
type PublicKey struct {
	ID  string
	Key ed25519.PublicKey
}

// NewSessionKeys makes keys of one seed per version.
func NewSessionKeys(seeds map[int][]byte) (*SessionKeys, error) {
	k := &SessionKeys{byHeader: map[string]ed25519.PublicKey{}}
	for _, version := range slices.Backward(slices.Sorted(maps.Keys(seeds))) {
		seed := seeds[version]
		if version < 1 {
			return nil, fmt.Errorf("session key version %d: versions begin at 1", version)
		}
		if len(seed) != ed25519.SeedSize {
			return nil, fmt.Errorf("session key version %d has %d bytes, not %d", version, len(seed), ed25519.SeedSize)
		}
		private := ed25519.NewKeyFromSeed(seed)
		public := private.Public().(ed25519.PublicKey)
		id := thumbprint(public)
		header := text64.EncodeToString([]byte(`{"alg":"EdDSA","kid":"` + id + `","typ":"JWT"}`))
		if k.signer == nil {
			k.signer, k.header = private, header
		}
		k.byHeader[header] = public
		k.public = append(k.public, PublicKey{id, public})
	}
	if k.signer == nil {
		return nil, errors.New("no session key is given")
	}
	return k, nil
}

// ParseSessionKeys reads keys as operators write them, in the form of
// ParsePeppers. Errors never show a value.
func ParseSessionKeys(text string) (*SessionKeys, error) {
	seeds, err := parseKeys("session key", text)
	if err != nil {
		return nil, err
	}
	return NewSessionKeys(seeds)
}

// Public gives the keys that verify.
func (k *SessionKeys) Public() []PublicKey { return slices.Clone(k.public) }

var text64 = base64.RawURLEncoding.Strict() // one spelling per signature

// thumbprint names a key after itself (RFC 7638, RFC 8037).
func thumbprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + text64.EncodeToString(key) + `"}`))
	return text64.EncodeToString(sum[:])
}

// claims is what a token says. Who its bearer is now and for how long follows
// from the session that it names, not from here.
type claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"` // the user
	Account  string `json:"account"`
	ID       string `json:"jti"` // the session
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

const issuer = "shipledger"

// Sign gives the token of a session. It is to be shown once and kept nowhere.
func (k *SessionKeys) Sign(s *WebSession) (string, error) {
	body, err := json.Marshal(claims{issuer, s.UserID, s.Account, s.ID, s.StartedAt.Unix(), s.ExpiresAt.Unix()}, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("write the token of a session: %w", err)
	}
	signed := k.header + "." + text64.EncodeToString(body)
	return signed + "." + text64.EncodeToString(ed25519.Sign(k.signer, []byte(signed))), nil
}

// LooksLikeSession tells a web session from other tokens by how it begins.
func LooksLikeSession(token string) bool { return startsWith(token, "eyJ") }

// verify gives what a token says, if one of the keys signed it.
// The header must be, byte for byte, the one that such a key signs under: so no
// token chooses how it is verified.
func (k *SessionKeys) verify(token string) (c claims, err error) {
	first, last := strings.IndexByte(token, '.'), strings.LastIndexByte(token, '.')
	if first < 0 || first == last {
		return claims{}, ErrInvalidKey
	}
	key, ok := k.byHeader[token[:first]]
	if !ok {
		return claims{}, ErrInvalidKey
	}
	signature, err := text64.DecodeString(token[last+1:])
	if err != nil || len(signature) != ed25519.SignatureSize || !ed25519.Verify(key, []byte(token[:last]), signature) {
		return claims{}, ErrInvalidKey
	}
	body, err := text64.DecodeString(token[first+1 : last])
	if err != nil {
		return claims{}, ErrInvalidKey
	}
	if err := json.Unmarshal(body, &c); err != nil || c.Issuer != issuer {
		return claims{}, ErrInvalidKey
	}
	return c, nil
}

// sessions is the part of a keyring that is about web sessions.
type sessions struct {
	keys *SessionKeys // nil: no session is let in
	byID map[string]*sessionEntry
	room int // how many are held before those that are over are forgotten
}

type sessionEntry struct {
	at      event.Offset
	session *WebSession // nil: not to be trusted
}

// minRoom keeps small keyrings from looking for what is over at every log-in.
const minRoom = 1024

// TrustSessions makes a keyring let in sessions that these keys signed.
func (k *Keyring) TrustSessions(keys *SessionKeys) { k.sessions.keys = keys }

// HeldSession is a session in a keyring, and the place of the event that left
// it so.
type HeldSession struct {
	WebSession

	At event.Offset
}

// Session gives the session with an id, of whatever account.
func (k *Keyring) Session(id string) (HeldSession, bool) {
	e, ok := k.sessions.byID[id]
	if !ok || e.session == nil {
		return HeldSession{}, false
	}
	return HeldSession{*e.session, e.at}, true
}

func (k *Keyring) applySession(s *WebSession, r *event.Recorded) {
	all := &k.sessions
	if held, ok := all.byID[s.ID]; ok && held.at >= r.Position.Offset {
		return
	}
	all.byID[s.ID] = &sessionEntry{r.Position.Offset, s}
	if len(all.byID) < all.room {
		return
	}
	// A session that is over is refused whether it is known or not, and cannot
	// begin anew: it need not be remembered.
	maps.DeleteFunc(all.byID, func(_ string, e *sessionEntry) bool {
		return e.session != nil && !r.Time.Before(e.session.ExpiresAt)
	})
	all.room = max(minRoom, 2*len(all.byID))
}

func (k *Keyring) verifySession(token string, now time.Time) (Identity, error) {
	if k.sessions.keys == nil {
		return Identity{}, ErrInvalidKey
	}
	c, err := k.sessions.keys.verify(token)
	if err != nil {
		return Identity{}, err
	}
	e, ok := k.sessions.byID[c.ID]
	switch {
	case ok:
		return k.aliveSession(e, now)
	case now.Unix() >= c.Expires: // and forgotten for that
		return Identity{}, ErrExpiredSession
	}
	return Identity{}, ErrInvalidKey
}

func (k *Keyring) aliveSession(e *sessionEntry, now time.Time) (Identity, error) {
	s := e.session
	switch {
	case s == nil:
		return Identity{}, ErrInvalidKey
	case s.Ended:
		return Identity{}, ErrEndedSession
	case !now.Before(s.ExpiresAt):
		return Identity{}, ErrExpiredSession
	}
	o, ok := k.owner(s.UserID, s.Account)
	switch {
	case !ok:
		return Identity{}, ErrInvalidKey
	case e.at.Seq() <= o.EndedUpTo && s.ID != o.KeptSession:
		return Identity{}, ErrEndedSession
	}
	return Identity{
		Kind: Session, Account: s.Account, RecordID: s.ID, PublicID: s.ID, Name: sessionName, Mode: event.Live,
		Scopes: RoleScopes(o.Role), UserID: o.ID, Role: o.Role, ExpiresAt: s.ExpiresAt,
	}, nil
}
