// Package fault is the one error vocabulary of the system.
//
// A fault has a kind, which the HTTP edge maps to a status in exactly one
// table, a code that clients may rely on, and a sentence for the user. The
// cause is for the operator and never leaves the process. Any package may
// import fault; it imports only the standard library.
package fault

import (
	"errors"
	"fmt"
)

// A Kind says what sort of thing went wrong, without knowing of HTTP.
type Kind uint8

// The kinds. Internal is the zero value: an error that nobody classified.
const (
	Internal        Kind = iota
	Invalid              // the request cannot be understood at all
	Unprocessable        // the request is understood, but its values are not acceptable
	Unauthenticated      // who asks is unknown or dead
	Forbidden            // who asks is known but may not
	NotFound             // it exists nowhere
	Conflict             // it contradicts what is recorded
	Locked               // a window forbids it for now
	Precondition         // something else must happen first
	TooLarge             // the request is over a limit of size
	RateLimited          // the caller's budget is used up
	Unavailable          // a part that is needed does not answer; try again
	Misdirected          // somebody else answers that
)

// Error is a fault.
type Error struct {
	Kind    Kind
	Code    string // stable, upper snake case; empty: the kind's default
	Message string // for the user
	Hint    string // for the user: what to do next; may be empty
	Cause   error  // for the operator; may be nil
}

// Error gives the user's sentence and the cause: it is for logs.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New returns a fault with a formatted sentence for the user.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy of e that tells the user what to do next.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// Because returns a copy of e with a cause for the operator.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// KindOf gives the kind of the first fault in err's chain, else Internal.
func KindOf(err error) Kind {
	if f, ok := errors.AsType[*Error](err); ok {
		return f.Kind
	}
	return Internal
}
