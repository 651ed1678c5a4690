// Package separate runs the whole system as separate processes: NATS and
// ClickHouse as servers of their own, any number of processes of each service, and
// the front door. It is what make run-separate runs, and what tests hold to the
// same scripts as the one process.
//
//	nats-server   clickhouse
//	     │            │
//	accounts ─ ingest ─ projector, projector ─ query ─ mcp
//	     └────────┴─────────┬──────────┴──────────┘
//	                     console ◄── clients
//
// What is drawn higher starts first and stops last.
package separate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shipledger/shipledger/pkg/tlsfiles"
	"github.com/shipledger/shipledger/pkg/tlsfiles/tlsfilestest"
	"github.com/shipledger/shipledger/services/compose"
)

const (
	// stopGrace is how long a process may take to stop before it is killed.
	stopGrace = 90 * time.Second
	askAgain  = 50 * time.Millisecond
)

// Programs are the packages of what is run, by the name of the program.
var Programs = map[string]string{
	"nats-server": "github.com/shipledger/shipledger/pkg/embedded/natsserver/cmd/nats-server",
	"shipledger":  "github.com/shipledger/shipledger/services/all/cmd/shipledger",
	"ingest":      "github.com/shipledger/shipledger/services/ingest/cmd/ingest",
	"query":       "github.com/shipledger/shipledger/services/query/cmd/query",
	"accounts":    "github.com/shipledger/shipledger/services/accounts/cmd/accounts",
	"projector":   "github.com/shipledger/shipledger/services/projector/cmd/projector",
	"mcp":         "github.com/shipledger/shipledger/services/mcp/cmd/mcp",
	"console":     "github.com/shipledger/shipledger/services/console/cmd/console",
}

// Build makes the programs in a directory, of version "test".
func Build(dir string) error {
	args := []string{"build", "-ldflags", "-s -w -X main.version=test", "-o", dir + string(filepath.Separator)}
	for _, pkg := range Programs {
		args = append(args, pkg)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil { //nolint:noctx // as long as it takes
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// Config says what to run.
type Config struct {
	Programs string // directory in which they are
	Data     string // of everything that is kept
	Addr     string // of the front door; port 0 takes a free one
	// Counts is how many processes there are of each service; none: one, and of the
	// projector two, of which one stands by.
	Counts map[string]int
	Env    []string // beside those of this process
	// Partitions of the log, where it is made; 0: one.
	Partitions int
	// DSN and ReadDSN are a ClickHouse that is there; empty: the engine is run.
	DSN, ReadDSN string
	// Log takes what processes write; nil: nobody.
	Log io.Writer
	// Metrics lets services serve metrics, on ports that Process tells.
	Metrics bool
	// TLS encrypts every connection, and everybody but clients of the front door shows
	// a certificate of an authority that is made for it. The engine must be run.
	TLS bool
}

// A System is what was started.
type System struct {
	cfg Config
	env []string
	URL string // of the front door
	DSN string // of ClickHouse, as a user who may write
	// NATS is where the log is.
	NATS string
	// Client asks the front door.
	Client *http.Client
	// Authority is whose certificates everybody has; nil: nothing is encrypted.
	Authority *tlsfilestest.Authority

	mu       sync.Mutex
	all      []*Process // in the order of their start
	addrs    map[string][]string
	launches chan func()
}

// A Process is one of the system.
type Process struct {
	Name    string // such as ingest
	Addr    string // of its API, or its port
	Metrics string // base address of its metrics; empty: none
	cmd     *exec.Cmd
	args    []string
	env     []string
	exited  chan struct{}
	last    *lastWords
}

// Start starts everything and returns when every process listens and all is healthy. What
// was started is stopped again where something does not come up.
func Start(ctx context.Context, cfg Config) (_ *System, err error) {
	s := &System{cfg: cfg, Client: http.DefaultClient, addrs: map[string][]string{}, launches: make(chan func())}
	go s.launch()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if err := s.openAuthority(); err != nil {
		return nil, err
	}
	if err := s.startBackends(ctx); err != nil {
		return nil, err
	}
	for _, name := range compose.Services {
		for range max(1, s.count(name)) {
			addr, err := FreeAddr()
			if err != nil {
				return nil, err
			}
			s.addrs[name] = append(s.addrs[name], addr)
		}
	}
	for name, addrs := range s.addrs {
		s.env = append(s.env, "SHIPLEDGER_"+strings.ToUpper(name)+"_AT="+strings.Join(addrs, ","))
	}
	// Accounts first: it makes the first credentials. The others wait for what they need.
	for _, name := range []string{compose.Accounts, compose.Ingest, compose.Projector, compose.Query, compose.MCP} {
		for _, addr := range s.addrs[name] {
			if _, err := s.StartService(name, addr); err != nil {
				return nil, err
			}
		}
	}
	if err := s.startDoor(); err != nil {
		return nil, err
	}
	return s, s.awaitAll(ctx)
}

// awaitAll returns when every process takes connections and the front door says that all
// is well. It says so as soon as one process of each service answers: another, of a
// service that has several, may still be on its way up.
func (s *System) awaitAll(ctx context.Context) error {
	s.mu.Lock()
	all := slices.Clone(s.all)
	s.mu.Unlock()
	for _, p := range all {
		if err := p.awaitListening(ctx); err != nil {
			return err
		}
	}
	return s.AwaitHealthy(ctx)
}

func (s *System) count(name string) int {
	if n, ok := s.cfg.Counts[name]; ok {
		return n
	}
	if name == compose.Projector {
		return 2
	}
	return 1
}

// openAuthority makes what everybody has a certificate of, if there is to be one, and
// the client that believes it.
func (s *System) openAuthority() (err error) {
	if !s.cfg.TLS {
		return nil
	}
	if s.Authority, err = tlsfilestest.New(filepath.Join(s.cfg.Data, "tls"), "authority"); err != nil {
		return err
	}
	files, err := tlsfiles.Open(tlsfiles.Config{Roots: s.Authority.File}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	s.Client = &http.Client{Transport: files.Transport()}
	return nil
}

func (s *System) startBackends(ctx context.Context) error {
	ports := make([]string, 3)
	for i := range ports {
		addr, err := FreeAddr()
		if err != nil {
			return err
		}
		ports[i] = addr
	}
	conf := filepath.Join(s.cfg.Data, "nats.conf")
	text := fmt.Sprintf("listen: %q\nhttp: %q\njetstream { store_dir: %q, sync_interval: always }\n", ports[0], ports[1], filepath.Join(s.cfg.Data, "nats"))
	scheme, monitor, secure := "nats", "http", ""
	if a := s.Authority; a != nil {
		cert, key, err := a.Issue("nats-server", "127.0.0.1")
		if err != nil {
			return err
		}
		text = strings.Replace(text, "http:", "https:", 1) + fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }\n", cert, key, a.File)
		scheme, monitor, secure = "tls", "https", "?secure=true"
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the configuration of NATS: %w", err)
	}
	nats, err := s.start("nats-server", ports[0], nil, "-c", conf)
	if err != nil {
		return err
	}
	s.NATS, s.DSN = scheme+"://"+ports[0], s.cfg.DSN
	reads := s.cfg.ReadDSN
	s.env = append(s.env, "SHIPLEDGER_NATS_URL="+s.NATS, "SHIPLEDGER_NATS_MONITOR_URL="+monitor+"://"+ports[1])
	if s.DSN == "" {
		password, readPassword := rand.Text(), rand.Text()
		engine, err := s.start("shipledger", ports[2], []string{"CLICKHOUSE_PASSWORD=" + password, "CLICKHOUSE_READ_PASSWORD=" + readPassword},
			"engine", "serve", "--data", filepath.Join(s.cfg.Data, "clickhouse"), "--listen", ports[2])
		if err != nil {
			return err
		}
		s.DSN = "clickhouse://app:" + password + "@" + ports[2] + "/shipledger" + secure
		reads = "clickhouse://reader:" + readPassword + "@" + ports[2] + "/shipledger" + secure
		if err := engine.awaitListening(ctx); err != nil {
			return err
		}
	}
	s.env = append(s.env, "SHIPLEDGER_DATA="+s.cfg.Data, "SHIPLEDGER_ADDR="+s.cfg.Addr)
	if s.cfg.Partitions > 0 {
		s.env = append(s.env, "SHIPLEDGER_PARTITIONS="+strconv.Itoa(s.cfg.Partitions))
	}
	s.env = append(s.env, "SHIPLEDGER_CLICKHOUSE_DSN="+s.DSN, "SHIPLEDGER_CLICKHOUSE_READ_DSN="+reads)
	return nats.awaitListening(ctx)
}

// StartService starts a process of a service at one of its addresses.
func (s *System) StartService(name, addr string) (*Process, error) {
	env := []string{"SHIPLEDGER_" + strings.ToUpper(name) + "_ADDR=" + addr, "SHIPLEDGER_METRICS_ADDR="}
	if name == compose.Query { // who answers questions cannot change anything
		env = append(env, "SHIPLEDGER_CLICKHOUSE_DSN=")
	}
	metrics := ""
	if s.cfg.Metrics {
		at, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		metrics = "http://" + at
		env = append(env, "SHIPLEDGER_METRICS_ADDR="+at)
	}
	p, err := s.start(name, addr, env)
	if err == nil {
		p.Metrics = metrics
	}
	return p, err
}

func (s *System) startDoor() error {
	addr := s.cfg.Addr
	if strings.HasSuffix(addr, ":0") {
		var err error
		if addr, err = FreeAddr(); err != nil {
			return err
		}
	}
	s.URL = "http://" + addr
	if s.Authority != nil {
		s.URL = "https://" + addr
	}
	_, err := s.start("console", addr, []string{"SHIPLEDGER_ADDR=" + addr, "SHIPLEDGER_METRICS_ADDR="})
	return err
}

// launch starts processes on a thread of its own that lives as long as this
// process: they die with the thread that started them, however that ends.
func (s *System) launch() {
	runtime.LockOSThread()
	for do := range s.launches {
		do()
	}
	select {} // the thread must not end before the processes
}

func (s *System) start(program, addr string, env []string, args ...string) (*Process, error) {
	p := &Process{Name: program, Addr: addr, args: args, env: env}
	if a := s.Authority; a != nil {
		cert, key, err := a.Issue(program, "127.0.0.1")
		if err != nil {
			return nil, err
		}
		p.env = append(p.env, "SHIPLEDGER_TLS_CERT="+cert, "SHIPLEDGER_TLS_KEY="+key, "SHIPLEDGER_TLS_CA="+a.File)
	}
	if err := s.run(p); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, p)
	return p, nil
}

func (s *System) run(p *Process) error {
	p.last, p.exited = &lastWords{to: s.cfg.Log}, make(chan struct{})
	p.cmd = exec.Command(filepath.Join(s.cfg.Programs, p.Name), p.args...) //nolint:noctx // it is stopped in order
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SHIPLEDGER_") && !strings.HasPrefix(v, "CLICKHOUSE_") { // what a shell has set is no part of it
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	p.cmd.Env = slices.Concat(p.cmd.Env, s.cfg.Env, s.env, p.env)
	p.cmd.Stdout, p.cmd.Stderr = p.last, p.last
	// A group of its own: Ctrl-C in a terminal must not reach it before its turn.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	s.launches <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	go func() { // ends with the process
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return nil
}

// Data gives the directory of everything that is kept.
func (s *System) Data() string { return s.cfg.Data }

// Processes gives those of a service, or of a backend, in the order of their start.
func (s *System) Processes(name string) []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.all), func(p *Process) bool { return p.Name != name })
}

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// PID gives its number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// LastWords gives what it wrote last.
func (p *Process) LastWords() string { return p.last.String() }

// Stop stops it in order, and by force after a while.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.exited:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("%s ended with %s: %s", p.Name, p.cmd.ProcessState, p.last)
		}
		return nil
	case <-time.After(stopGrace):
		p.Kill()
		return fmt.Errorf("%s did not stop within %s: %s", p.Name, stopGrace, p.last)
	}
}

// Kill ends it at once.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Restart stops a process in order and starts it again as it was.
func (s *System) Restart(ctx context.Context, p *Process) error {
	if err := p.Stop(); err != nil {
		return err
	}
	if err := s.run(p); err != nil {
		return err
	}
	return p.awaitListening(ctx)
}

// Stop stops everything, in the reverse order of the start.
func (s *System) Stop() error {
	s.mu.Lock()
	all := s.all
	s.all = nil
	s.mu.Unlock()
	var errs []error
	for _, p := range slices.Backward(all) {
		select {
		case <-p.exited:
			continue // it was stopped or killed before
		default:
		}
		errs = append(errs, p.Stop())
	}
	return errors.Join(errs...)
}

// Ended gives a process that has ended by itself; nil while none has.
func (s *System) Ended() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.all {
		select {
		case <-p.exited:
			return p
		default:
		}
	}
	return nil
}

// AwaitHealthy returns when the front door says that all is well.
func (s *System) AwaitHealthy(ctx context.Context) error {
	return s.await(ctx, func() error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/health", http.NoBody)
		if err != nil {
			return err
		}
		res, err := s.Client.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var health struct {
			Status string            `json:"status"`
			Parts  map[string]string `json:"parts"`
		}
		if err := json.NewDecoder(res.Body).Decode(&health); err != nil {
			return err
		}
		if health.Status != "ok" {
			return fmt.Errorf("it is %s: %v", health.Status, health.Parts)
		}
		return nil
	})
}

func (s *System) await(ctx context.Context, done func() error) error {
	for {
		err := done()
		if err == nil {
			return nil
		}
		if p := s.Ended(); p != nil {
			return fmt.Errorf("%s has ended: %s", p.Name, p.last)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(askAgain):
		}
	}
}

// awaitListening returns when a process takes connections.
func (p *Process) awaitListening(ctx context.Context) error {
	for {
		conn, err := net.Dial("tcp", p.Addr) //nolint:noctx // of this machine: at once or never
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s has ended: %s", p.Name, p.last)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", p.Name, err)
		case <-time.After(askAgain):
		}
	}
}

// claims keeps every address that FreeAddr gave to this process.
var claims struct {
	sync.Mutex
	held []net.Listener
}

// FreeAddr gives an address that nothing listens to, and that no other call is given,
// here or in another process, for as long as this process lives: whoever asked may be
// slow to listen there. Its port is below those that the kernel hands out by itself, so
// that nobody is given it before it is used, or while its server is started anew.
func FreeAddr() (string, error) {
	const from, upTo = 10_000, 30_000
	for range 1000 {
		port := strconv.Itoa(from + mathrand.IntN(upTo-from))
		claim, err := net.Listen("unix", "@shipledger-port-"+port) //nolint:noctx // a name of the kernel's, no file
		if err != nil {
			continue // somebody else's
		}
		ln, err := net.Listen("tcp", "127.0.0.1:"+port) //nolint:noctx // returns at once
		if err != nil {
			_ = claim.Close()
			continue
		}
		claims.Lock()
		claims.held = append(claims.held, claim)
		claims.Unlock()
		return ln.Addr().String(), ln.Close()
	}
	return "", fmt.Errorf("no port from %d to %d is free", from, upTo)
}

// lastWords keeps the last that a process wrote, and passes it on.
type lastWords struct {
	to io.Writer

	mu  sync.Mutex
	buf []byte
}

const lastBytes = 8 << 10

// Write never fails.
func (l *lastWords) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to != nil {
		_, _ = l.to.Write(b)
	}
	l.buf = append(l.buf, b...)
	if over := len(l.buf) - lastBytes; over > 0 {
		l.buf = l.buf[over:]
	}
	return len(b), nil
}

func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.TrimSpace(l.buf))
}
