// Package chserver runs ClickHouse as a child process, so that one binary is a
// whole Shipledger on a machine that has no ClickHouse server.
//
// The engine is a shared library, far too large to link or embed and with no
// business inside our address space: a crash of it must not take the log down.
// So this program starts itself a second time (MaybeRunChild), and that child
// loads the library and listens on a port of its own choice on 127.0.0.1.
//
//	parent                                     child (same program, __clickhouse-engine)
//	Server.Run ── holds the write end of the lifeline ──▶ fd 3; its end means the parent is gone
//	   │                                                    └▶ ends the inner pipe, the engine's
//	   ├─ supervises: exit or three lost pings ⇒ restart       last queries file: orderly shutdown
//	   └─ DialContext ── native protocol, password ──▶ 127.0.0.1:port of this run
//
// The child ends with the parent however that dies, kill -9 included. Each
// engine run has a new port; DialContext always finds the current one, so
// connection pools outlive a restart.
//
// Only composition roots that run everything in one process import this package
// (services/all), and tests. Everyone else is handed a connection. With an
// external ClickHouse configured nothing here runs.
package chserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"time"
)

// ErrDown is returned while the engine is starting, restarting or stopped.
var ErrDown = errors.New("the ClickHouse engine is down")

// ErrInUse is returned by Run when another process runs an engine on the same folder.
var ErrInUse = errors.New("another process runs ClickHouse on this folder")

// Config says how to run the engine. Zero values mean the defaults.
type Config struct {
	// Dir is where the engine keeps its data, and we its configuration.
	Dir string
	// Engine is what to run; see Locate.
	Engine Engine
	// Database is created if missing. Default: shipledger.
	Database string
	// Readable names more databases that the user who may only read may read: their
	// names begin so. Tests have many databases in one engine. Default: none.
	Readable string
	// Listen is the IPv4 address of the engine. Default: 127.0.0.1:0, a free port
	// of this machine's own. Beyond loopback, the user may log in from anywhere.
	Listen string
	// Password is the user's. Default: one that only this process knows.
	Password string
	// ReadPassword is that of the user who may only read. Default: likewise.
	ReadPassword string
	// MaxServerMemory bounds the memory of the engine, in bytes. Default: 1.5 GB.
	MaxServerMemory int64
	// MaxQueryMemory bounds the memory of one query, in bytes. Default: 800 MB.
	MaxQueryMemory int64
	// MaxThreads bounds the threads of one query. Default: 2.
	MaxThreads int
	// MergeThreads is how many threads merge parts. Default: half of the processors, one
	// at least. Of two processors both were taken for seconds where two threads merged.
	MergeThreads int
	// StartTimeout bounds one start of the engine. Default: 60 s.
	StartTimeout time.Duration
	// StopTimeout is how long the engine may take to stop in order before it is
	// killed. Default: 25 s; 5 s more than the child itself waits.
	StopTimeout time.Duration
	// HealthInterval is the time between two health checks. Default: 3 s.
	HealthInterval time.Duration
}

func (c Config) withDefaults() Config {
	c.Database = orDefault(c.Database, "shipledger")
	c.Listen = orDefault(c.Listen, "127.0.0.1:0")
	c.MaxServerMemory = orDefault(c.MaxServerMemory, 1_500_000_000)
	c.MaxQueryMemory = orDefault(c.MaxQueryMemory, 800_000_000)
	c.MaxThreads = orDefault(c.MaxThreads, 2)
	c.MergeThreads = orDefault(c.MergeThreads, max(1, runtime.NumCPU()/2))
	c.StartTimeout = orDefault(c.StartTimeout, 60*time.Second)
	c.StopTimeout = orDefault(c.StopTimeout, forcedExit+5*time.Second)
	c.HealthInterval = orDefault(c.HealthInterval, 3*time.Second)
	return c
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

var plainName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("the data folder is not set"))
	}
	if (c.Engine.Library == "") == (c.Engine.Binary == "") {
		errs = append(errs, errors.New("the engine must be either a library or a binary"))
	}
	if !plainName.MatchString(c.Database) {
		errs = append(errs, fmt.Errorf("%q is no name for a database", c.Database))
	}
	if c.Readable != "" && !plainName.MatchString(c.Readable) {
		errs = append(errs, fmt.Errorf("%q is no beginning of names of databases", c.Readable))
	}
	if a, err := netip.ParseAddrPort(c.Listen); err != nil || !a.Addr().Is4() {
		errs = append(errs, fmt.Errorf("%q is no IPv4 address with a port, such as 127.0.0.1:9000", c.Listen))
	}
	if c.MaxServerMemory < 0 || c.MaxQueryMemory < 0 || c.MaxThreads < 0 || c.MergeThreads < 0 {
		errs = append(errs, errors.New("limits must not be negative"))
	}
	if c.StartTimeout < 0 || c.StopTimeout < 0 || c.HealthInterval < 0 {
		errs = append(errs, errors.New("durations must not be negative"))
	}
	return errors.Join(errs...)
}

// Auth is how to log in to the engine.
type Auth struct {
	User     string
	Password string
	Database string
}

// LogValue keeps the password out of logs.
func (a Auth) LogValue() slog.Value {
	return slog.GroupValue(slog.String("user", a.User), slog.String("database", a.Database))
}

// Server runs the engine and keeps it running. It implements lifecycle.Service.
type Server struct {
	cfg    Config
	auth   Auth
	reads  Auth
	logger *slog.Logger

	mu  sync.Mutex
	cur *process // nil while down
	err error    // why it is down or unwell, nil when healthy
}

// New returns a server that is not running yet. A password that is made here
// lives as long as this process, so it survives restarts of the engine.
func New(cfg Config, logger *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure the embedded ClickHouse: %w", err)
	}
	cfg = cfg.withDefaults()
	dir, err := filepath.Abs(cfg.Dir) // the child works in it
	if err != nil {
		return nil, fmt.Errorf("find the data folder: %w", err)
	}
	cfg.Dir = dir
	return &Server{
		cfg:    cfg,
		auth:   Auth{User: appUser, Password: orDefault(cfg.Password, rand.Text()), Database: cfg.Database},
		reads:  Auth{User: readUser, Password: orDefault(cfg.ReadPassword, rand.Text()), Database: cfg.Database},
		logger: logger,
		err:    errors.New("it was not started"),
	}, nil
}

// Auth returns the user, password and database to connect with. They stay the
// same for the life of the Server.
func (s *Server) Auth() Auth { return s.auth }

// ReadAuth is the login of a user who may read our tables and nothing else.
func (s *Server) ReadAuth() Auth { return s.reads }

// DialContext connects to the engine on the port it has now, whatever the
// address says, or returns ErrDown. It fits clickhouse-go's Options.DialContext;
// for ch-go see Dialer.
func (s *Server) DialContext(ctx context.Context, _ string) (net.Conn, error) {
	s.mu.Lock()
	p, err := s.cur, s.err
	s.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("%w: %w", ErrDown, err)
	}
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: dial it: %w", ErrDown, err)
	}
	return conn, nil
}

// Dialer is what ch-go's Options.Dialer wants.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Dialer returns DialContext in the form that ch-go takes.
func (s *Server) Dialer() Dialer {
	return dialerFunc(func(ctx context.Context, _, address string) (net.Conn, error) { return s.DialContext(ctx, address) })
}

// Healthy returns nil if the engine is up and answered the last health check,
// otherwise what is wrong.
func (s *Server) Healthy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cur == nil:
		return fmt.Errorf("%w: %w", ErrDown, s.err)
	case s.err != nil:
		return fmt.Errorf("the ClickHouse engine is unwell: %w", s.err)
	}
	return nil
}

func (s *Server) setState(p *process, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur, s.err = p, err
}

// Supervision. An engine that ran a healthy minute is not in a crash loop.
const (
	firstPause     = 200 * time.Millisecond
	longestPause   = 30 * time.Second
	healthyFor     = time.Minute
	pingsUntilSick = 3
	// dirBusyFor is longer than an engine takes to end whose parent was killed.
	dirBusyFor = forcedExit + 10*time.Second
	// Two engines must never share a folder, so even a failed start is given
	// this long to end in order.
	failedStartGrace = 5 * time.Second
)

// Run starts the engine, calls ready once it answers, keeps it running, and
// stops it in order when ctx is done. It returns an error only if the first
// start fails; later failures are retried for ever, and Healthy tells of them.
func (s *Server) Run(ctx context.Context, ready func()) error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the ClickHouse data folder: %w", err)
	}
	// Before anything is written: a second process would otherwise replace the
	// users file of the first, and only then be refused by the engine's own lock.
	unlock, err := lockFile(filepath.Join(s.cfg.Dir, lockName))
	if errors.Is(err, errLocked) {
		return fmt.Errorf("start ClickHouse on %s: %w", s.cfg.Dir, ErrInUse)
	}
	if err != nil {
		return fmt.Errorf("lock the ClickHouse data folder: %w", err)
	}
	defer unlock()
	if err := writeFiles(s.cfg, s.auth.Password, s.reads.Password); err != nil {
		return err
	}

	p, err := s.start(ctx)
	if ctx.Err() != nil {
		s.stop(ctx, p)
		return nil //nolint:nilerr // being told to stop while starting is no failure
	}
	if err != nil {
		s.setState(nil, err)
		return err
	}
	ready()
	for pause := firstPause; ; {
		up := time.Now()
		reason := s.supervise(ctx, p)
		if ctx.Err() != nil {
			s.stop(ctx, p)
			return nil
		}
		s.setState(nil, reason)
		p.stop(failedStartGrace)
		if time.Since(up) >= healthyFor {
			pause = firstPause
		}
		for p = nil; p == nil; {
			s.logger.ErrorContext(ctx, "clickhouse engine failed, restarting", "err", reason, "after", pause)
			if !wait(ctx, pause) {
				s.stop(ctx, nil)
				return nil
			}
			pause = min(2*pause, longestPause)
			p, reason = s.start(ctx)
			if ctx.Err() != nil {
				s.stop(ctx, p)
				return nil
			}
			if reason != nil {
				s.setState(nil, reason)
			}
		}
	}
}

// start starts the engine and waits until it is ready, or leaves nothing behind.
func (s *Server) start(ctx context.Context) (*process, error) {
	for busySince := time.Now(); ; {
		began := time.Now()
		p, err := s.startOnce(ctx)
		if err == nil {
			s.setState(p, nil)
			s.logger.InfoContext(ctx, "clickhouse engine is ready", "engine", s.cfg.Engine.String(),
				"pid", p.cmd.Process.Pid, "port", p.listener.port, "took", time.Since(began))
			return p, nil
		}
		if errors.Is(err, errDirBusy) && time.Since(busySince) < dirBusyFor && wait(ctx, firstPause) {
			continue
		}
		return nil, fmt.Errorf("start ClickHouse %s: %w", s.cfg.Engine, err)
	}
}

func (s *Server) startOnce(ctx context.Context) (_ *process, err error) {
	p, err := spawn(s.cfg, s.auth)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.stop(failedStartGrace)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StartTimeout)
	defer cancel()
	if err := p.awaitReady(ctx); err != nil {
		return nil, err
	}
	if err := p.prepare(ctx, s.cfg.Engine); err != nil {
		return nil, err
	}
	return p, nil
}

// supervise returns when ctx is done, or with the reason why p must be restarted.
func (s *Server) supervise(ctx context.Context, p *process) error {
	tick := time.NewTicker(s.cfg.HealthInterval)
	defer tick.Stop()
	giving := false
	for lost := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-p.exited:
			return fmt.Errorf("it ended (%w)%s", p.endedHow(), p.lastWords())
		case <-tick.C:
		}
		// The engine can live on with its listener closed.
		err := p.ping(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // being stopped, not unwell
		}
		s.setState(p, err)
		if err == nil {
			lost = 0
			if !giving {
				giving = s.giveWay(ctx, p)
			}
			continue
		}
		if lost++; lost == pingsUntilSick {
			return fmt.Errorf("it missed %d health checks: %w", lost, err)
		}
	}
}

// giveWay lowers the priority of p's merges, and reports whether that is done. The threads
// are there once the engine has a table.
func (s *Server) giveWay(ctx context.Context, p *process) bool {
	threads, err := giveWay(p.cmd.Process.Pid)
	if err != nil { // it serves all the same
		s.logger.WarnContext(ctx, "merges of the clickhouse engine take as much of a busy processor as everything else", "err", err)
	}
	return threads > 0 || err != nil
}

// stop ends p, if there is one, because Run is ending.
func (s *Server) stop(ctx context.Context, p *process) {
	s.setState(nil, errors.New("it was stopped"))
	if p == nil {
		return
	}
	began := time.Now()
	forced := p.stop(s.cfg.StopTimeout)
	s.logger.InfoContext(ctx, "clickhouse engine stopped", "forced", forced, "took", time.Since(began))
}

// wait reports whether it could wait for d before ctx was done.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
