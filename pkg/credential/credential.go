// Package credential is the domain of keys and tokens: their grammar, how they
// are minted and checked, what they may do, and the keyring, a fold of
// credential events.
//
// It imports only the domain: no clock, no I/O. Secrets pass through it and
// stay nowhere: what is kept of one is a keyed digest.
package credential
