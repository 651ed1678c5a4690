package keyring

import (
	"context"
	"sync/atomic"
)

// A Flight is what somebody decided by the keyring and has not finished: a
// frame on its way to the log. One thing is in flight at a time. The zero value
// is ready.
type Flight struct{ current atomic.Pointer[chan struct{}] }

// Begin is called before the keyring is asked. What is decided until landed is
// called is in flight.
func (f *Flight) Begin() (landed func()) {
	done := make(chan struct{})
	f.current.Store(&done)
	return func() {
		f.current.Store(nil)
		close(done)
	}
}

// Landed returns when nothing is in flight that was decided before the call.
func (f *Flight) Landed(ctx context.Context) error {
	done := f.current.Load()
	if done == nil {
		return nil
	}
	select {
	case <-*done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
