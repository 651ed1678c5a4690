package chserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

// pingTimeout bounds one authenticated ping, connecting included.
const pingTimeout = 5 * time.Second

// dirBusy is what an engine prints then, before it ends.
const dirBusy = "Cannot lock file"

// errDirBusy means that an older engine still holds the data folder. After a
// hard kill of its parent that lasts a few seconds.
var errDirBusy = errors.New("an engine that is still stopping holds the data folder")

// process is one run of the engine.
type process struct {
	cmd    *exec.Cmd
	life   *os.File // the write end of the lifeline; a collected one would stop the engine
	stderr *tail
	auth   Auth

	listener listener // set once ready

	mu    sync.Mutex
	conns map[*conn]struct{} // those that dial handed out and that are open

	exited chan struct{} // closed when the process has ended and was reaped
	err    error         // how it ended, set before exited is closed
}

// spawn starts an engine on the files in cfg.Dir and does not wait for it.
func spawn(cfg Config, auth Auth) (*process, error) {
	child, life, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the lifeline: %w", err)
	}
	defer child.Close()

	args := []string{"--config-file=" + filepath.Join(cfg.Dir, configFile), "--queries-file", filepath.Join(cfg.Dir, startFile)}
	var cmd *exec.Cmd
	if cfg.Engine.Library != "" {
		cmd = exec.Command(self, append([]string{childArg, cfg.Engine.Library}, args...)...)
	} else {
		// Without a child of ours in between, the engine reads the lifeline itself.
		cmd = exec.Command(cfg.Engine.Binary, append(append([]string{"local"}, args...), fmt.Sprintf("/dev/fd/%d", lifelineFD))...)
	}
	p := &process{cmd: cmd, life: life, stderr: &tail{}, auth: auth, conns: map[*conn]struct{}{}, exited: make(chan struct{})}
	cmd.Dir = cfg.Dir
	cmd.Stderr = p.stderr
	cmd.ExtraFiles = []*os.File{child} // becomes lifelineFD
	cmd.WaitDelay = time.Second
	// None of our environment: SQL can read a process's own, and ours may hold
	// secrets. UTC, so that no answer depends on the machine. The last one is for
	// tests: a child with the race detector would sleep a second before it ends.
	cmd.Env = []string{"HOME=" + cfg.Dir, "TZ=UTC", "GORACE=atexit_sleep_ms=0"}
	detach(cmd)
	if err := cmd.Start(); err != nil {
		life.Close()
		return nil, fmt.Errorf("start %s: %w", cfg.Engine, err)
	}
	go func() { // owned by stop, which waits for exited
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// awaitReady returns once the engine answered an authenticated ping; nothing
// less says that it is up. Its exit code in particular says nothing.
func (p *process) awaitReady(ctx context.Context) error {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	last := errors.New("it does not listen yet")
	for {
		select {
		case <-p.exited:
			if strings.Contains(p.stderr.String(), dirBusy) {
				return errDirBusy
			}
			return fmt.Errorf("it ended before it was ready%s", p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("it did not become ready: %w: %w%s", ctx.Err(), last, p.lastWords())
		case <-poll.C:
		}
		l, found, err := findListener(p.cmd.Process.Pid)
		switch {
		case err != nil:
			last = err
			continue
		case !found && strings.Contains(p.stderr.String(), dirBusy):
			return errDirBusy // it has yet to end
		case !found && strings.Contains(p.stderr.String(), "DB::Exception"):
			// An engine too old to listen says so, and then waits for input.
			return fmt.Errorf("it cannot listen%s", p.lastWords())
		case !found:
			continue
		}
		p.listener = l
		if err := p.ping(ctx); err != nil {
			last = err
			continue
		}
		return nil
	}
}

// dial connects to the engine, and makes sure that it is the engine: any local
// user may tell it to stop listening, take its port and wait for our password.
// The check comes after connecting, because a socket that still listens then
// has been there when the connection was made.
func (p *process) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	dialed, err := d.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.listener.port)))
	if err != nil {
		return nil, err
	}
	open, err := p.listener.stillOpen(p.cmd.Process.Pid)
	if err == nil && !open {
		err = errors.New("the engine no longer listens on its port")
	}
	if err != nil {
		dialed.Close()
		return nil, err
	}
	c := &conn{TCPConn: dialed.(*net.TCPConn), of: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	return c, nil
}

// conn is a connection that its process can close. It stays a TCP connection
// to clients that look closer, such as clickhouse-go's check for a dead one.
type conn struct {
	*net.TCPConn
	of *process
}

// Close closes the connection.
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.TCPConn.Close()
}

// connect logs in as the application.
func (p *process) connect(ctx context.Context) (*ch.Client, error) {
	return ch.Dial(ctx, ch.Options{
		Dialer:           dialerFunc(func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) }),
		User:             p.auth.User,
		Password:         p.auth.Password,
		DialTimeout:      pingTimeout,
		HandshakeTimeout: pingTimeout,
	})
}

// ping logs in on a new connection each time: connections made earlier live on
// when the engine stops listening.
func (p *process) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	client, err := p.connect(ctx)
	if err != nil {
		return fmt.Errorf("log in to the engine: %w", err)
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return fmt.Errorf("ping the engine: %w", err)
	}
	return nil
}

// prepare checks that this is the engine we are made for and creates the
// database. It must be Atomic: default is an overlay with the file system, in
// which views do not refresh.
func (p *process) prepare(ctx context.Context, engine Engine) error {
	client, err := p.connect(ctx)
	if err != nil {
		return fmt.Errorf("log in to the engine: %w", err)
	}
	defer client.Close()
	var version proto.ColStr
	if err := client.Do(ctx, ch.Query{Body: "SELECT version()", Result: proto.Results{{Name: "version()", Data: &version}}}); err != nil {
		return fmt.Errorf("ask for the engine's version: %w", err)
	}
	if err := engine.checkVersion(version.First()); err != nil {
		return err
	}
	if err := client.Do(ctx, ch.Query{Body: "CREATE DATABASE IF NOT EXISTS `" + p.auth.Database + "` ENGINE = Atomic"}); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return nil
}

// stop ends the engine in order, or by force after grace, and waits until it is
// gone. It may be called again. It reports whether force was needed.
func (p *process) stop(grace time.Duration) (forced bool) {
	// The engine waits up to 5 s for open connections. Whoever needed theirs has
	// stopped before us; what is left is idle in somebody's pool.
	p.mu.Lock()
	for c := range p.conns {
		c.TCPConn.Close()
	}
	p.mu.Unlock()
	p.life.Close()
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case <-p.exited:
		return false
	case <-patience.C:
	}
	_ = p.cmd.Process.Kill() // fails only if it has just ended
	<-p.exited
	return true
}

// endedHow is the exit status. It must be called after exited is closed only.
func (p *process) endedHow() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// lastWords is what the engine last wrote to its standard error, for messages.
func (p *process) lastWords() string {
	if s := strings.TrimSpace(p.stderr.String()); s != "" {
		return "; its last words: " + s
	}
	return ""
}

// tail is a writer that remembers the last lines written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// dialerFunc makes a function a dialer of ch-go.
type dialerFunc func(ctx context.Context, network, address string) (net.Conn, error)

// DialContext calls f.
func (f dialerFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}
