package credential

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
)

// A Keyring is the fold of the stream of credentials: what every secret may do
// now. Verify and Alive may run side by side; Apply and Distrust may not run
// beside anything.
type Keyring struct {
	peppers  *Peppers
	byName   map[name]*entry
	byID     map[string]*entry // by record id
	users    map[string]*owner // by user id
	sessions sessions
	foreign  foreign
	accounts map[string]*accountEntry
}

// name is what a token is looked up by. A PAT does not name its account.
type name struct{ account, id string }

// entry is a credential and the place of the event that left it so. Only a
// later event replaces it, whatever is loaded late: that is the fence.
type entry struct {
	at       event.Offset
	record   *Record // nil: not to be trusted, see Distrust
	identity Identity
}

type owner struct {
	at   event.Offset
	user *User // nil: not to be trusted
}

// NewKeyring gives the keyring before the first event.
func NewKeyring(peppers *Peppers) *Keyring {
	return &Keyring{
		peppers: peppers, byName: map[name]*entry{}, byID: map[string]*entry{}, users: map[string]*owner{},
		accounts: map[string]*accountEntry{},
		sessions: sessions{byID: map[string]*sessionEntry{}, room: minRoom},
	}
}

// Apply folds an event in. An error leaves the keyring as it was; the caller
// has to Distrust what the event was about.
func (k *Keyring) Apply(r event.Recorded) error {
	state, err := Decode(&r.Event)
	if err != nil {
		return fmt.Errorf("read %s at %s: %w", r.Type, r.Position, err)
	}
	switch s := state.(type) {
	case *Record:
		return k.applyRecord(s, r.Position)
	case *User:
		if held, ok := k.users[s.ID]; !ok || held.at < r.Position.Offset {
			k.users[s.ID] = &owner{r.Position.Offset, s}
		}
	case *WebSession:
		k.applySession(s, &r)
	case *Account:
		k.applyAccount(s, r.Position.Offset)
	}
	return nil
}

func (k *Keyring) applyRecord(r *Record, at event.Position) error {
	n := name{r.Account, r.PublicID}
	if r.Kind == PAT {
		n.account = ""
	}
	held, ok := k.byName[n]
	switch {
	case ok && held.at >= at.Offset:
		return nil
	case ok && held.record != nil && (held.record.ID != r.ID || held.record.Account != r.Account):
		return fmt.Errorf("credential %s at %s claims the public id %s of %s", r.ID, at, r.PublicID, held.record.ID)
	}
	e := &entry{at.Offset, r, Identity{
		Kind: r.Kind, Account: r.Account, RecordID: r.ID, PublicID: r.PublicID, Name: r.Name, Mode: r.Mode,
		Scopes: r.Scopes, UserID: r.UserID, ExpiresAt: r.ExpiresAt, RotatedAt: r.RotatedAt, OldDigest: r.Pepper < k.peppers.current, FirstStart: r.FirstStart, Limits: r.limits(),
	}}
	if ok && held.record != nil && held.record.Legacy {
		k.foreign.remove(held.record)
	}
	if r.Legacy {
		k.foreign.add(r, n)
	}
	k.byName[n], k.byID[r.ID] = e, e
	return nil
}

// Held is a record in a keyring, and the place of the event that left it so:
// whoever changes the record stores the next event after that one.
type Held struct {
	Record

	At event.Offset
}

// Records gives an account's credentials of a kind, in no order. Those that are
// not to be trusted are left out: nothing is known of them.
func (k *Keyring) Records(account string, kind Kind) []Held {
	var out []Held
	for _, e := range k.byID {
		if e.record.Account == account && e.record.Kind == kind {
			out = append(out, Held{*e.record, e.at})
		}
	}
	return out
}

// Record gives the credential with a record id, of whatever account.
func (k *Keyring) Record(id string) (Held, bool) {
	e, ok := k.byID[id]
	if !ok {
		return Held{}, false
	}
	return Held{*e.record, e.at}, true
}

// NextKeyID gives the first key id after all that an account ever had in a
// mode, those of revoked and of unreadable keys included.
func (k *Keyring) NextKeyID(account string, mode event.Mode) string {
	highest := 0
	for n := range k.byName {
		if n.account != account || len(n.id) < 2 || ModeOf(APIKey, n.id) != mode {
			continue
		}
		if i, err := strconv.Atoi(n.id[1:]); err == nil {
			highest = max(highest, i)
		}
	}
	return KeyID(mode, highest+1)
}

// Distrust makes the keyring refuse what the events of a log subject are about,
// from the event at offset on: it cannot be read, and may be a revocation. A
// later event that can be read restores it.
func (k *Keyring) Distrust(logSubject string, at event.Offset) {
	parts := strings.Split(logSubject, ".")
	if len(parts) != 4 || parts[0] != "cred" {
		return
	}
	switch account, family, id := parts[1], parts[2], parts[3]; family {
	case "sk":
		k.distrust(name{account, id}, at)
	case "pat":
		k.distrust(name{"", id}, at)
	case "user":
		if held, ok := k.users[id]; !ok || held.at < at {
			k.users[id] = &owner{at: at}
		}
	case "session":
		if held, ok := k.sessions.byID[id]; !ok || held.at < at {
			k.sessions.byID[id] = &sessionEntry{at: at}
		}
	}
}

func (k *Keyring) distrust(n name, at event.Offset) {
	held, ok := k.byName[n]
	if ok && held.at >= at {
		return
	}
	if ok && held.record != nil {
		delete(k.byID, held.record.ID)
	}
	k.byName[n] = &entry{at: at}
}

// Verify tells who presents a token, at now. Its errors are those of this
// package. Nothing about a positive answer is kept: the next call looks again.
//
// The order is contract 3.3: shape and checksum before any look-up, then the
// whole secret, and only then what became of it. Of a session it is the signature
// that comes first.
func (k *Keyring) Verify(token string, now time.Time) (Identity, error) {
	if LooksLikeSession(token) {
		return k.verifySession(token, now)
	}
	e, err := k.minted(token)
	if err != nil {
		if e, err = k.otherwise(token, err); err != nil {
			return Identity{}, err
		}
	}
	return k.alive(e, now)
}

// minted gives the credential that a token of our own grammar is.
func (k *Keyring) minted(token string) (*entry, error) {
	t, err := Parse(token)
	if err != nil {
		return nil, err
	}
	e, ok := k.byName[name{t.Account, t.PublicID}]
	if !ok || e.record == nil {
		k.peppers.matches(token, k.peppers.current, &dummy) // so that an unknown id takes as long as a wrong secret
		return nil, ErrInvalidKey
	}
	if !k.peppers.matches(token, e.record.Pepper, &e.record.Digest) {
		return nil, ErrInvalidKey
	}
	return e, nil
}

var dummy Digest

// Alive tells whether the credential of a record, or a session, may still act, at now. It is
// asked right before a commit and before the first byte of an answer, for what
// Verify once let in (contract 3.3).
func (k *Keyring) Alive(recordID string, now time.Time) error {
	_, err := k.Again(recordID, now)
	return err
}

// Again is Verify for a token that it once let in as this record: what is known
// of the record now. The secret need not be looked at again, since that of a
// record never changes; that is what nearly all of Verify's time goes into.
func (k *Keyring) Again(recordID string, now time.Time) (Identity, error) {
	if e, ok := k.byID[recordID]; ok {
		return k.alive(e, now)
	}
	if s, ok := k.sessions.byID[recordID]; ok {
		return k.aliveSession(s, now)
	}
	return Identity{}, ErrInvalidKey
}

func (k *Keyring) alive(e *entry, now time.Time) (Identity, error) {
	switch e.record.StatusAt(now) {
	case Active:
	case Suspended:
		return Identity{}, ErrSuspendedKey
	case Revoked:
		return Identity{}, ErrRevokedKey
	case Expired:
		return Identity{}, ErrExpiredKey
	default:
		return Identity{}, ErrInvalidKey
	}
	id := e.identity
	if e.record.Kind != PAT {
		return id, nil // the account's own: roles do not touch it
	}
	owner, ok := k.owner(e.record.UserID, e.record.Account)
	if !ok {
		return Identity{}, ErrInvalidKey
	}
	id.Role = owner.Role
	id.Scopes &= RoleScopes(owner.Role)
	return id, nil
}
