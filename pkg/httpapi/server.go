package httpapi

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// The limits of a connection where a server sets no others; see Timeouts.
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
	// TLS, if set, is spoken on every connection. It must not offer HTTP/2.
	TLS *tls.Config
	// Leave is how long the server may go on when it is told to stop, until those in
	// front of it have moved away: every answer then closes its connection and says so,
	// and it stops when no connection is left that one of them would still use. 0: it
	// stops at once.
	Leave time.Duration
	// Grace is how long requests in flight may take when it stops.
	Grace time.Duration
	// Listening, if set, is told the address that it listens on.
	Listening func(addr net.Addr)
	// MaxConnections bounds the connections; 0: 10,000. A newcomer gets the place of
	// the one that was silent longest, and 503 where all are being served.
	MaxConnections int
	// Timeouts bound how slow a client may be; those that are zero have defaults.
	Timeouts Timeouts
	// Logger, if set, is told what a stop waits for.
	Logger *slog.Logger
}

// Timeouts are how long a client may take. Pipelines send small requests at once;
// whoever is slower than this holds a connection for nothing.
type Timeouts struct {
	Header time.Duration // until the header is there; default 10 s
	Body   time.Duration // until the request is there; default 60 s
	Answer time.Duration // until it has taken the answer; default 90 s
	Idle   time.Duration // until it sends another request; default 2 min
}

// Run serves until ctx is done, then lets requests in flight finish.
func (s *Server) Run(ctx context.Context, ready func()) error {
	ln, err := net.Listen("tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; is another server running? --addr takes another address", s.Addr, err)
	}
	var leaving atomic.Bool
	srv := &http.Server{
		Handler: s.leavable(&leaving), ReadHeaderTimeout: cmp.Or(s.Timeouts.Header, headerTimeout), ReadTimeout: cmp.Or(s.Timeouts.Body, bodyTimeout),
		WriteTimeout: cmp.Or(s.Timeouts.Answer, answerTimeout), IdleTimeout: cmp.Or(s.Timeouts.Idle, idleTimeout), MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), stoppingKey{}, ctx.Done())
		},
	}
	conns := newPlaces(ln, s.MaxConnections)
	srv.ConnState = conns.changed
	accepting := net.Listener(conns)
	if s.TLS != nil {
		conns.secret = true
		accepting = tls.NewListener(conns, s.TLS)
	}
	if s.Logger != nil {
		srv.ErrorLog = slog.NewLogLogger(complaints{s.Logger.Handler()}, slog.LevelWarn)
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		if s.Leave > 0 {
			leaving.Store(true)
			conns.awaitLeft(s.Leave)
		}
		if served := conns.stop(); served > 0 && s.Logger != nil {
			s.Logger.InfoContext(ctx, "waiting for requests in flight", "requests", served, "at_most", s.Grace)
		}
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
	if err := srv.Serve(accepting); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve on %s: %w", s.Addr, err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("requests were cut off after %s: %w", s.Grace, err)
	}
	return nil
}

// leavingHeader says in an answer that the process is about to stop.
const leavingHeader = "X-Shipledger-Leaving"

// leavable gives the handler, whose answers say so once the server is leaving.
func (s *Server) leavable(leaving *atomic.Bool) http.Handler {
	if s.Leave <= 0 {
		return s.Handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if leaving.Load() {
			w.Header().Set("Connection", "close")
			w.Header().Set(leavingHeader, "true")
		}
		s.Handler.ServeHTTP(w, r)
	})
}

// complaints takes what http.Server logs. Of clients that do not agree on TLS there
// may be any number.
type complaints struct{ slog.Handler }

// Handle implements slog.Handler.
func (c complaints) Handle(ctx context.Context, r slog.Record) error {
	level := r.Level
	if strings.Contains(r.Message, "TLS handshake error") {
		level = slog.LevelDebug
	}
	if !c.Enabled(ctx, level) {
		return nil
	}
	said := slog.NewRecord(r.Time, level, "the HTTP server complains", r.PC)
	said.AddAttrs(slog.String("of", r.Message))
	return c.Handler.Handle(ctx, said)
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
