// Package credential is the domain of keys, tokens and web sessions: their
// grammar, how they are minted and checked, what they may do, and the keyring, a
// fold of credential events.
//
// It imports only the domain: no clock, no I/O. Secrets pass through it and
// stay nowhere: what is kept of one is a keyed digest.
package credential

import "github.com/shipledger/shipledger/pkg/fault"

// Why a credential is refused (contract 6.1). Parse and Keyring return these
// very values, so that refusing costs nothing; they are not to be changed.
//
// A caller learns that a key is revoked, suspended or expired only once its
// whole secret has matched: to anyone else it looks like an unknown one.
var (
	ErrMissing = fault.New(fault.Unauthenticated, "AUTH_MISSING", "%s", headerMessage).
			WithHint("Send the header Authorization: Bearer <token>.")
	ErrInvalidFormat = fault.New(fault.Unauthenticated, "AUTH_INVALID_FORMAT", "%s", headerMessage).
				WithHint("Send the header Authorization: Bearer <token>, with the token exactly as it was created.")
	ErrInvalidKey = fault.New(fault.Unauthenticated, "AUTH_INVALID_KEY", "invalid or missing api key").
			WithHint("Check that the key is correct and active.")
	ErrRevokedKey = fault.New(fault.Unauthenticated, "AUTH_REVOKED_KEY", "this key was revoked").
			WithHint("Create a new key: a revocation cannot be undone.")
	ErrSuspendedKey = fault.New(fault.Unauthenticated, "AUTH_SUSPENDED_KEY", "this key is suspended").
			WithHint("An admin can resume it.")
	ErrExpiredKey = fault.New(fault.Unauthenticated, "AUTH_EXPIRED_KEY", "this key has expired").
			WithHint("Create a new key.")
)

const headerMessage = "Missing or malformed Authorization header."
