package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/integration/separate"
	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/lifecycle"
)

// SideArg starts this binary as one of the other ways to store an event before
// it is answered; the arguments behind it are its name and a directory.
const SideArg = "store-side"

// sides are what the same events are posted to in turns, each a process of its
// own. All of them decode the body with the standard library first. None but the
// ledger knows whose event it is, what it means, or whether it was sent before.
var sides = []struct {
	name, about string
	open        func(ctx context.Context, dir string) (store storer, closed func(), err error)
}{
	{"bare committer", "events gathered into frames, one in flight, no check at all", openBareCommitter},
	{"a publish a request", "JetStream with sync_interval: always", openPublisher},
	{"an insert a request", "ClickHouse, asynchronous and waited for; the embedded engine runs these one by one", openInserter},
	{"a commit a request", "PostgreSQL, 32 connections, synchronous_commit on", openDatabase},
}

// A storer stores one event and returns when it is on disk.
type storer func(ctx context.Context, body []byte) error

// ServeSide answers on a port of its own, which it prints, until input ends.
func ServeSide(name, dir string, input io.Reader, output io.Writer) error {
	signal.Ignore(os.Interrupt) // the end of input is the end, so that what it started ends with it
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, s := range sides {
		if s.name != name {
			continue
		}
		store, closed, err := s.open(ctx, dir)
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		defer closed()
		return serve(input, output, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			var decoded struct {
				ProductName string `json:"product_name"`
				Version     string `json:"version"`
				InvokeID    string `json:"invoke_id"`
			}
			if err == nil {
				err = json.Unmarshal(body, &decoded)
			}
			if err == nil {
				err = store(r.Context(), body)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		})
	}
	return fmt.Errorf("there is no side %q", name)
}

// background runs a service until stop is called, and returns once it is ready.
func background(ctx context.Context, s lifecycle.Service) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	up, down := make(chan struct{}), make(chan error, 1)
	go func() { down <- s.Run(ctx, func() { close(up) }) }()
	select {
	case <-up:
	case err := <-down:
		cancel()
		return nil, err
	}
	return func() {
		cancel()
		if err := <-down; err != nil {
			fmt.Fprintln(os.Stderr, "bench: stop a side:", err) // what it stored is thrown away anyhow
		}
	}, nil
}

// openLog starts a NATS in this process, as the ledger has one.
func openLog(ctx context.Context, dir string) (js jetstream.JetStream, closed func(), err error) {
	srv, err := natsserver.New(natsserver.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	stop, err := background(ctx, srv)
	if err != nil {
		return nil, nil, err
	}
	nc, err := srv.Connect()
	if err != nil {
		stop()
		return nil, nil, err
	}
	if js, err = jetstream.New(nc); err != nil {
		stop()
	}
	return js, func() { nc.Close(); stop() }, err
}

// openBareCommitter is what architecture 10 calls a bare prototype of the
// committer: what it reaches is what frames alone make possible.
func openBareCommitter(ctx context.Context, dir string) (storer, func(), error) {
	js, closed, err := openLog(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	log, err := natslog.Open(ctx, js, natslog.Track(0, 1))
	if err != nil {
		return nil, nil, err
	}
	type waiter struct {
		body []byte
		done chan error
	}
	queue := make(chan waiter, 16<<10)
	go func() {
		var waiting []waiter
		var frame []byte
		for seq := uint64(0); ; seq++ {
			select {
			case <-ctx.Done():
				return
			case w := <-queue:
				waiting = append(waiting[:0], w)
			}
			frame = append(append(frame[:0], '['), waiting[0].body...)
			for more := true; more && len(waiting) < event.MaxFrameEvents && len(frame) < 512<<10; {
				select {
				case w := <-queue:
					waiting = append(waiting, w)
					frame = append(append(frame, ','), w.body...)
				default:
					more = false
				}
			}
			_, err := log.AppendFrame(ctx, eventlog.Frame{ID: ulid.Make().String(), ContentType: event.ContentType, Body: append(frame, ']')}, seq)
			for _, w := range waiting {
				w.done <- err
			}
		}
	}()
	return func(_ context.Context, body []byte) error {
		w := waiter{body, make(chan error, 1)}
		queue <- w
		return <-w.done
	}, closed, nil
}

func openPublisher(ctx context.Context, dir string) (storer, func(), error) {
	js, closed, err := openLog(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	if _, err := natslog.Open(ctx, js, natslog.Track(0, 1)); err != nil {
		return nil, nil, err
	}
	subject := natslog.Track(0, 1).Subject
	return func(ctx context.Context, body []byte) error {
		_, err := js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: body})
		return err
	}, closed, nil
}

func openInserter(ctx context.Context, dir string) (storer, func(), error) {
	engine, err := chserver.Locate(chserver.LocateConfig{Library: os.Getenv("SHIPLEDGER_CLICKHOUSE_LIB"), CacheDir: os.Getenv("SHIPLEDGER_ENGINE_CACHE")})
	if err != nil {
		return nil, nil, err
	}
	srv, err := chserver.New(chserver.Config{Dir: dir, Engine: engine}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	stop, err := background(ctx, srv)
	if err != nil {
		return nil, nil, err
	}
	auth := srv.Auth()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr: []string{"embedded:9000"}, Auth: clickhouse.Auth{Username: auth.User, Password: auth.Password, Database: auth.Database},
		DialContext: srv.DialContext, DialTimeout: time.Minute, MaxOpenConns: 64, MaxIdleConns: 64,
		Settings: clickhouse.Settings{"async_insert": 1, "wait_for_async_insert": 1},
	})
	if err == nil {
		err = conn.Exec(ctx, "CREATE TABLE bodies (at DateTime64(3) DEFAULT now64(3), body String) ENGINE = MergeTree ORDER BY at SETTINGS fsync_after_insert = 1, fsync_part_directory = 1")
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return func(ctx context.Context, body []byte) error {
		return conn.Exec(ctx, "INSERT INTO bodies (body) VALUES (?)", string(body))
	}, func() { _ = conn.Close(); stop() }, nil
}

// errNotInstalled says that a side cannot be measured here.
var errNotInstalled = errors.New("no PostgreSQL server is installed here: neither initdb nor postgres is on PATH")

func openDatabase(ctx context.Context, dir string) (storer, func(), error) {
	initdb, err := exec.LookPath("initdb")
	server, err2 := exec.LookPath("postgres")
	if err != nil || err2 != nil {
		return nil, nil, errNotInstalled
	}
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // it refuses to run as root
		if attr.Credential, err = someoneElse(); err != nil {
			return nil, nil, err
		}
		if err := os.Chown(dir, int(attr.Credential.Uid), int(attr.Credential.Gid)); err != nil {
			return nil, nil, err
		}
	}
	data := filepath.Join(dir, "data")
	prepare := exec.CommandContext(ctx, initdb, "-D", data, "-U", "bench", "-A", "trust", "--no-locale", "-E", "UTF8")
	prepare.SysProcAttr, prepare.Dir = attr, dir
	if text, err := prepare.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("initdb: %w: %s", err, text)
	}
	run := exec.Command(server, "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "synchronous_commit=on", "-c", "fsync=on")
	run.SysProcAttr, run.Dir = attr, dir
	if err := run.Start(); err != nil {
		return nil, nil, err
	}
	closed := func() {
		_ = run.Process.Signal(os.Interrupt)
		_ = run.Wait()
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		pool, err := pgxpool.New(ctx, "host="+dir+" user=bench dbname=postgres pool_max_conns=32")
		if err == nil {
			_, err = pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS bodies (id bigserial PRIMARY KEY, body jsonb NOT NULL)")
		}
		if err == nil {
			return func(ctx context.Context, body []byte) error {
				_, err := pool.Exec(ctx, "INSERT INTO bodies (body) VALUES ($1)", body)
				return err
			}, func() { pool.Close(); closed() }, nil
		}
		select {
		case <-ctx.Done():
			closed()
			return nil, nil, fmt.Errorf("PostgreSQL is not ready: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func someoneElse() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("there is no user but root to run PostgreSQL as")
}

// allSides posts the same events to each side in turns, and to the ledger with
// and without budgets.
func (b *bench) allSides(ctx context.Context) (err error) {
	type contender struct {
		name, about string
		*server
		ledger *ledger
		held   bool // its ClickHouse is stopped while it is measured
		rounds []sample
		allocs []float64
	}
	var all []*contender
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.stop())
		}
	}()
	decoder, err := startDecoder(ctx)
	if err != nil {
		return err
	}
	all = append(all, &contender{name: "decode-only handler", about: "stores nothing", server: decoder})
	if err := os.Chmod(b.dir, 0o711); err != nil { //nolint:gosec // PostgreSQL runs as somebody else, and must reach its own directory in it
		return err
	}
	for i, s := range sides {
		dir := filepath.Join(b.dir, "side-"+strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		side, err := startSelf(ctx, SideArg, s.name, dir)
		if err != nil {
			b.logf("%s is left out: %v", s.name, err)
			b.report.LeftOut = append(b.report.LeftOut, fmt.Sprintf("%s: %v", s.name, err))
			continue
		}
		all = append(all, &contender{name: s.name, about: s.about, server: side})
	}
	for i, v := range []struct {
		name, about, budgets string
		held                 bool
	}{
		{"shipledger", "all checks on, durable, no budgets", "off", false},
		{"shipledger with budgets", "the same, and budgets so large that nobody is refused", "on", false},
		{"shipledger, nothing projected", "no budgets, and ClickHouse is stopped meanwhile: ingest where the projection has processors of its own", "off", true},
	} {
		l, err := startMeasured(ctx, b.Binary, filepath.Join(b.dir, "side-shipledger-"+strconv.Itoa(i)), "SHIPLEDGER_RATE_LIMIT="+v.budgets,
			"SHIPLEDGER_RATE_INGESTION="+unlimitedRate, "SHIPLEDGER_RATE_ACCOUNT_INGESTION="+unlimitedRate, "SHIPLEDGER_RATE_READ="+unlimitedRate)
		if err != nil {
			return err
		}
		all = append(all, &contender{name: v.name, about: v.about, server: &l.server, ledger: l, held: v.held})
	}
	for _, connections := range b.SideConnections {
		ratios := make([][]float64, len(all))
		for _, c := range all {
			c.rounds, c.allocs = nil, nil
		}
		for round := range b.Rounds {
			b.logf("side by side, %d connections, round %d of %d", connections, round+1, b.Rounds)
			for i, c := range all {
				key := ""
				if c.ledger != nil {
					key = c.ledger.apiKey
				}
				before := c.mallocs(ctx)
				if c.held {
					err = c.signalChildren(syscall.SIGSTOP)
				}
				s, n, roundErr := b.sideRound(ctx, c.server, key, connections)
				if c.held {
					err = errors.Join(err, c.signalChildren(syscall.SIGCONT))
				}
				if err = errors.Join(err, roundErr); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				c.rounds = append(c.rounds, s)
				c.allocs = append(c.allocs, (c.mallocs(ctx)-before)/float64(max(n, 1)))
				ratios[i] = append(ratios[i], s.perSecond/all[0].rounds[round].perSecond)
				if c.ledger != nil { // the projector's rest is not the next one's load
					if _, err := c.ledger.settle(ctx, b.sideEvents(key)); err != nil {
						return err
					}
				}
			}
		}
		for i, c := range all {
			b.report.Sides = append(b.report.Sides, SideBySide{
				Connections: connections, Name: c.name, About: c.about, Side: medians(c.rounds), Allocs: median(c.allocs), Ratio: median(ratios[i]),
			})
		}
	}
	return nil
}

const unlimitedRate = "1000000000/1s"

// sideEvents gives events for one side. Runs rise over all of them, so that each
// is new to everybody.
func (b *bench) sideEvents(keys ...string) *events {
	e := newEvents(keys...)
	e.lastRun = b.runs
	return e
}

func (b *bench) sideRound(ctx context.Context, s *server, key string, connections int) (sample, int, error) {
	before := s.cpu()
	out, err := drive(ctx, s, b.sideEvents(key), load{connections: connections, warmUp: warmUp, measured: b.Round, max: b.MaxRequests})
	if err != nil {
		return sample{}, 0, err
	}
	return out.sample(before, s.cpu()), out.all, nil
}

// startMeasured starts a ledger whose own metrics can be asked for.
func startMeasured(ctx context.Context, binary, data string, env ...string) (*ledger, error) {
	metrics, err := separate.FreeAddr()
	if err != nil {
		return nil, err
	}
	l, err := startProcess(ctx, binary, data, append(slices.Clip(env), "SHIPLEDGER_METRICS_ADDR="+metrics)...)
	if err != nil {
		return nil, err
	}
	l.metrics = metrics
	if err := l.readCredentials(); err != nil {
		return nil, errors.Join(err, l.stop())
	}
	return l, nil
}

// serve answers on a port of its own, which it prints, until input ends.
func serve(input io.Reader, output io.Writer, h http.HandlerFunc) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, input)
		_ = listener.Close()
	}()
	if _, err := fmt.Fprintln(output, listener.Addr()); err != nil {
		return err
	}
	err = http.Serve(listener, h) //nolint:gosec // timeouts would be work that the other side does not do
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
