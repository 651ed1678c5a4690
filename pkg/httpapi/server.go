package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// The limits of a connection. Pipelines send small requests at once; whoever is
// slower than this holds a connection for nothing.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 60 * time.Second
	answerTimeout = 90 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// Server serves a handler on an address. It implements lifecycle.Service.
type Server struct {
	// Addr is where it listens; port 0 takes a free one.
	Addr    string
	Handler http.Handler
	// Grace is how long requests in flight may take when it stops.
	Grace time.Duration
	// Listening, if set, is told the address that it listens on.
	Listening func(addr net.Addr)
}

// Run serves until ctx is done, then lets requests in flight finish.
func (s *Server) Run(ctx context.Context, ready func()) error {
	ln, err := net.Listen("tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; is another server running? --addr takes another address", s.Addr, err)
	}
	srv := &http.Server{
		Handler: s.Handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout,
		WriteTimeout: answerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), stoppingKey{}, ctx.Done())
		},
	}
	var idle silent
	srv.ConnState = idle.changed
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		idle.close()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Grace)
		defer cancel()
		err := srv.Shutdown(grace)
		if err != nil {
			_ = srv.Close()
		}
		stopped <- err
	})
	if s.Listening != nil {
		s.Listening(ln.Addr())
	}
	ready()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve on %s: %w", s.Addr, err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("requests were cut off after %s: %w", s.Grace, err)
	}
	return nil
}

// silent are the connections on which nothing was ever sent. Clients open such
// ones to have them ready; http.Server waits for them, up to 5 s, as if they
// were requests in flight.
type silent struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// changed is the server's ConnState.
func (s *silent) changed(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.conns, c)
	case s.closed:
		_ = c.Close()
	default:
		if s.conns == nil {
			s.conns = map[net.Conn]struct{}{}
		}
		s.conns[c] = struct{}{}
	}
}

// close closes them, and those that still come.
func (s *silent) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
}

type stoppingKey struct{}

// Stopping gives what is closed when the server begins to stop: an answer that
// would go on for ever must end then, others are let finish.
func (r *Request) Stopping() <-chan struct{} { return Stopping(r.Context()) }

// Stopping does so for whoever has the context of a request; nil where it is no
// server of this package that stops.
func Stopping(ctx context.Context) <-chan struct{} {
	stopping, _ := ctx.Value(stoppingKey{}).(<-chan struct{})
	return stopping
}
