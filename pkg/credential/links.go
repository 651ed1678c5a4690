package credential

import (
	"fmt"
	"io"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// What happens to a user before and beside their credentials.
const (
	UserInvited     event.Type = "user.invited"
	ResetOpened     event.Type = "user.reset_opened" // a link to choose a new password
	PasswordChanged event.Type = "user.password_changed"
)

// A Purpose is what a one-time link is for.
type Purpose string

// The purposes.
const (
	Invitation    Purpose = "invitation"
	PasswordReset Purpose = "password_reset"
)

// Life gives how long a link of this purpose works.
func (p Purpose) Life() time.Duration {
	if p == Invitation {
		return 7 * 24 * time.Hour
	}
	return 24 * time.Hour
}

// A Link is the open one-time link of a user; the zero Link is none. Its token
// is kept as a digest. It is used up by the event that does what it is for:
// that event leaves the user without it.
type Link struct {
	Purpose   Purpose
	Digest    Digest
	Pepper    int
	ExpiresAt time.Time
}

// Why a user cannot be invited, or has no link to a new password.
var (
	ErrUserExists = fault.New(fault.Conflict, "USER_EXISTS", "A user of this account has this e-mail address.")
	ErrInvited    = fault.New(fault.Conflict, "USER_INVITED", "This user has not joined yet: invite them again.")
)

// NewLinkToken makes the token of a link of a user. It is to be shown once and
// kept nowhere.
func NewLinkToken(userID string, entropy io.Reader) (string, error) {
	random, err := Random(mintedRandom, entropy)
	if err != nil {
		return "", err
	}
	return userID + random, nil
}

const ulidLen = 26

// UserOfLink gives the user whose open link a token is, at now. An unknown user
// is found out no sooner than a wrong token.
func (k *Keyring) UserOfLink(token string, purpose Purpose, now time.Time) (HeldUser, bool) {
	if len(token) != ulidLen+mintedRandom || span(token, 0, inBase62) != len(token) {
		return HeldUser{}, false
	}
	o, ok := k.users[token[:ulidLen]]
	if !ok || o.user == nil || o.user.Removed || o.user.Link.Purpose != purpose {
		k.peppers.matches(token, k.peppers.current, &dummy)
		return HeldUser{}, false
	}
	l := &o.user.Link
	if !k.peppers.matches(token, l.Pepper, &l.Digest) || !now.Before(l.ExpiresAt) {
		return HeldUser{}, false
	}
	return HeldUser{*o.user, o.at}, true
}

// Invite decides whether by may invite somebody. Whoever was invited before and
// has not joined is invited anew: the earlier link is void.
func Invite(u User, by *Identity, everyone []HeldUser) (UserChange, error) {
	if !isAdmin(by.UserID, everyone) {
		return UserChange{}, errNoAdmin
	}
	u.Account, u.Invited = by.Account, true
	for i := range everyone {
		if !sameEmail(everyone[i].Email, u.Email) {
			continue
		}
		if !everyone[i].Invited {
			return UserChange{}, ErrUserExists
		}
		u.ID, u.CreatedAt = everyone[i].ID, everyone[i].CreatedAt
	}
	return UserChange{UserInvited, u}, nil
}

// Join decides what an invited user is once they have come: by a password, or,
// with an empty hash, by signing in elsewhere.
func (u *User) Join(name, passwordHash string, now time.Time) UserChange {
	next := *u
	next.Invited, next.Link, next.PasswordHash = false, Link{}, passwordHash
	if name != "" {
		next.Name = name
	}
	next.CreatedAt = now.UTC().Truncate(time.Millisecond)
	return UserChange{UserJoined, next}
}

// OpenReset decides whether by may give a user a link to a new password.
func (u *User) OpenReset(l Link, by *Identity, everyone []HeldUser) (UserChange, error) {
	switch {
	case !isAdmin(by.UserID, everyone):
		return UserChange{}, errNoAdmin
	case u.Invited:
		return UserChange{}, ErrInvited
	}
	next := *u
	next.Link = l
	return UserChange{ResetOpened, next}, nil
}

// ChangePassword decides on a new password. Sessions that were stored up to the
// sequence upTo end, save the kept one; an open link is void.
func (u *User) ChangePassword(passwordHash string, upTo uint64, kept string) UserChange {
	next := *u
	next.PasswordHash, next.Link, next.EndedUpTo, next.KeptSession = passwordHash, Link{}, upTo, kept
	return UserChange{PasswordChanged, next}
}

type linkWire struct {
	Purpose   Purpose   `json:"purpose"`
	Digest    []byte    `json:"digest"`
	Pepper    int       `json:"pepper"`
	ExpiresAt time.Time `json:"expires_at"`
}

func toLinkWire(l *Link) *linkWire {
	if l.Purpose == "" {
		return nil
	}
	return &linkWire{l.Purpose, l.Digest[:], l.Pepper, l.ExpiresAt.UTC()}
}

func (w *linkWire) link() (Link, error) {
	if w == nil {
		return Link{}, nil
	}
	l := Link{Purpose: w.Purpose, Pepper: w.Pepper, ExpiresAt: w.ExpiresAt}
	if len(w.Digest) != len(l.Digest) {
		return Link{}, fmt.Errorf("a digest of %d bytes is none", len(w.Digest))
	}
	copy(l.Digest[:], w.Digest)
	return l, nil
}
