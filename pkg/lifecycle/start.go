package lifecycle

import (
	"context"
	"errors"
	"sync"
)

// Start runs a service beside its caller. It returns when the service is ready,
// with what stops it and waits for its end; stop may be called again and gives
// the same error. A service that ends before it is ready is an error, and so is
// ctx ending first; ctx says nothing about how long the service runs.
func Start(ctx context.Context, s Service) (stop func() error, err error) {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan struct{}), make(chan struct{})
	var fault error
	go func() { // ends with the service, which stop awaits
		defer close(ended)
		fault = s.Run(running, sync.OnceFunc(func() { close(ready) }))
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		<-ended
		return fault
	})
	select {
	case <-ready:
		return stop, nil
	case <-ended:
		cancel()
		return nil, errors.Join(errors.New("the service ended before it was ready"), fault)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), stop())
	}
}
