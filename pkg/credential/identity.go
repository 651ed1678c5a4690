package credential

import (
	"time"

	"github.com/shipledger/shipledger/pkg/event"
)

// Kind tells what sort of credential someone holds.
type Kind uint8

// The kinds (contract 3).
const (
	APIKey  Kind = iota + 1 // sk_: owned by an account, for event ingestion
	PAT                     // pat_: bound to a user, for reads
	Session                 // a web session of a user
)

// String gives the word that subjects and events use.
func (k Kind) String() string {
	switch k {
	case APIKey:
		return "sk"
	case PAT:
		return "pat"
	case Session:
		return "session"
	}
	return "unknown"
}

// prefix is what a token of this kind begins with.
func (k Kind) prefix() string { return k.String() + "_" }

// An Identity is who a verified credential speaks for, and what it may do now.
type Identity struct {
	Kind       Kind
	Account    string
	RecordID   string // the credential's record id, a ULID
	PublicID   string // k1, t1 for API keys, the token id for PATs
	Name       string
	Mode       event.Mode
	Scopes     Scopes // already narrowed to the owner's role
	UserID     string // the owner of a PAT or session; empty for API keys
	Role       string // the owner's role; empty for API keys
	ExpiresAt  time.Time
	RotatedAt  time.Time // when it was to make way for a successor; zero: it was not
	OldDigest  bool      // its digest was made with an old pepper
	Limits     *Limits   // its own; nil: none
	FirstStart bool      // made by the first start: the setting pat_write does not bind it
}

// Author gives what events carry of the identity.
func (i *Identity) Author() event.Author {
	return event.Author{CredentialID: i.PublicID, CredentialName: i.Name, Mode: i.Mode, Actor: i.UserID}
}
