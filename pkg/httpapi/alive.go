package httpapi

import (
	"context"
	"time"
)

// recheckEvery is how often the credential of an open stream is looked at
// without news of it: it may expire, and the process may become deaf.
const recheckEvery = time.Second

// A Changing is an Authenticator that tells when it knows something new, so
// that streams end at once with their credential and not a second later.
type Changing interface {
	// Changed gives what is closed when the authenticator next learns something.
	Changed() <-chan struct{}
}

// WhileAlive gives the context of a stream: it ends with the request, or when
// its credential is no longer alive, and then the cause is what Reverify says.
// The handler writes nothing more and returns once it has ended. It must call
// stop when it is done.
func (r *Request) WhileAlive() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(r.Context())
	if r.api.cfg.Meter != nil {
		r.used() // now: the answer may end in hours
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.watchCredential(ctx, cancel)
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-ended
	}
}

func (r *Request) watchCredential(ctx context.Context, cancel context.CancelCauseFunc) {
	ticks := time.NewTicker(recheckEvery)
	defer ticks.Stop()
	changing, _ := r.api.cfg.Authenticator.(Changing)
	for {
		var changed <-chan struct{}
		if changing != nil {
			changed = changing.Changed() // before the question, so that nothing is missed
		}
		if err := r.Reverify(); err != nil {
			cancel(err)
			return
		}
		select {
		case <-changed:
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}
