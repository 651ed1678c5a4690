// Package kv is the port to small shared tables of newest values: how far each
// process is, when a credential was last used. Nothing in them is a fact; what
// must not be lost is an event in a log.
//
// Adapters (memkv, natskv) are held by one suite, kvtest.
package kv

import (
	"context"
	"errors"
	"iter"
)

// ErrConflict says that a key does not have the revision that was expected.
var ErrConflict = errors.New("the entry was changed by somebody else")

// An Entry is what a table has under a key. Revisions rise with every change of
// the table, whatever the key.
type Entry struct {
	Key      string // words of letters, digits, - and _, joined by dots
	Value    []byte // nil: deleted
	Revision uint64
}

// A Table keeps the newest value of each key.
//
// Implementations must be safe for concurrent use and must answer, or fail,
// when ctx is done. They may forget entries after a life that whoever made the
// table chose; those that watch are not told.
type Table interface {
	// Put stores a value, whatever was there.
	Put(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// Swap stores a value in place of the revision given, zero for none. Where
	// another one is stored the error is ErrConflict.
	Swap(ctx context.Context, key string, value []byte, revision uint64) (stored uint64, err error)
	// Delete removes a key.
	Delete(ctx context.Context, key string) error
	// Watch yields the newest entry of every key, then one entry without a key,
	// and then every change, in the order of revisions, until ctx is done, which
	// ends the iteration without an error. Of changes of one key in quick
	// succession only the last need be yielded. A watch that hears nothing may
	// be deaf: whoever must know puts something and waits for it to come back.
	Watch(ctx context.Context) iter.Seq2[Entry, error]
}
