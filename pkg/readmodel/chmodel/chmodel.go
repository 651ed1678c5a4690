// Package chmodel keeps the read model in ClickHouse. All SQL that asks and
// answers lives here, and the DDL in schemas/clickhouse.
//
// The tables exist in versions (events_v7, deployments_v7 …). A projection
// writes one version through a Writer; reads use the version that a row of
// active_version names, held in an atomic, so that all tables flip together:
//
//	projector ── Writer(7) ──▶ *_v7, then checkpoint      ch-go: native columns
//	query ─────── Model ─────▶ *_v<Active>                clickhouse-go: bound parameters; ch-go where rows are many
//	Model.Run ───────────────▶ active_version, twice a second
//
// Every table collapses by key, so storing rows again changes no answer.
package chmodel

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

var (
	_ readmodel.Reader = (*Model)(nil)
	_ readmodel.Sink   = (*Writer)(nil)
)

// Config says where ClickHouse is and how patient to be. Zero values mean the
// defaults.
type Config struct {
	// Addr lists servers as host:port of the native protocol. Default: 127.0.0.1:9000.
	Addr []string
	// DialContext, if set, connects instead of plain TCP; it may ignore addr. It
	// is asked anew for every connection, so the server's port may change.
	DialContext func(ctx context.Context, addr string) (net.Conn, error)
	// TLS, if set, is spoken on every connection, but not on those of DialContext and Dial.
	TLS *tls.Config
	// Dial, if set, connects to the addresses, and speaks TLS with them if need be.
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	User     string // default: default
	Password string
	Database string // default: shipledger

	// Reader, if set, asks questions in place of User, and may do nothing else.
	Reader *Login

	// Cluster, if set, names the cluster whose servers share the tables: DDL
	// runs ON CLUSTER and the tables are replicated.
	Cluster string

	// DialTimeout bounds connecting. Default: 1 s.
	DialTimeout time.Duration
	// QueryTimeout bounds one question, waiting for a connection included. Default: 10 s.
	QueryTimeout time.Duration
	// MaxQueryTime bounds the time that the server spends on one statement. It is
	// less than QueryTimeout, so that a dear question is told from a server that
	// does not answer. Default: nine tenths of QueryTimeout.
	MaxQueryTime time.Duration
	// MaxQueryMemory bounds the bytes that the server uses for one statement.
	// Default: 1 GiB.
	MaxQueryMemory int64
	// StoreTimeout bounds one insert. Default: 60 s.
	StoreTimeout time.Duration
	// FollowInterval is the time between two looks at the active version. Default: 500 ms.
	FollowInterval time.Duration
	// MaxReaders bounds the connections that ask; they are two at least. Default: 32.
	MaxReaders int
	// Writers is how many connections one Writer inserts on. Default: 3.
	Writers int

	// Alone says that nobody but writers of this model stores into the database, so
	// that how far the tables are need not be asked of them before each read: that
	// costs the server 1.2 ms of processor time, a SELECT 1 of it 0.7 ms.
	Alone bool

	// HotBytes bounds what is kept in memory of accounts that are asked about again.
	// Negative: nothing is kept. Default: 256 MiB.
	HotBytes int64

	// Now is the clock. It only decides how far back a first look at a list
	// goes, never what the answer is. Default: time.Now.
	Now func() time.Time
}

// Login is a user of the same server.
type Login struct{ User, Password string }

func (c Config) withDefaults() Config {
	if len(c.Addr) == 0 {
		c.Addr = []string{"127.0.0.1:9000"}
	}
	c.User = orDefault(c.User, "default")
	c.Database = orDefault(c.Database, "shipledger")
	c.DialTimeout = orDefault(c.DialTimeout, time.Second)
	c.QueryTimeout = orDefault(c.QueryTimeout, 10*time.Second)
	c.MaxQueryTime = orDefault(c.MaxQueryTime, c.QueryTimeout*9/10)
	c.MaxQueryMemory = orDefault(c.MaxQueryMemory, 1<<30)
	c.StoreTimeout = orDefault(c.StoreTimeout, time.Minute)
	c.FollowInterval = orDefault(c.FollowInterval, 500*time.Millisecond)
	c.MaxReaders = orDefault(c.MaxReaders, 32)
	c.Writers = orDefault(c.Writers, 3)
	c.HotBytes = orDefault(c.HotBytes, defaultHotBytes)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// dialer gives what connects in place of the drivers; nil: nothing does.
func (c Config) dialer() func(ctx context.Context, addr string) (net.Conn, error) {
	if c.DialContext != nil {
		return c.DialContext
	}
	return c.Dial
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	for _, name := range []string{c.Database, orDefault(c.Cluster, "none")} {
		if !plainName.MatchString(name) { // it becomes part of statements
			errs = append(errs, fmt.Errorf("%q is no name for a database or cluster", name))
		}
	}
	if c.MaxQueryTime < 0 || c.MaxQueryMemory < 0 {
		errs = append(errs, errors.New("limits of a query must not be negative"))
	}
	if c.DialTimeout < 0 || c.QueryTimeout < 0 || c.StoreTimeout < 0 || c.FollowInterval < 0 {
		errs = append(errs, errors.New("durations must not be negative"))
	}
	if c.MaxReaders < 0 || c.Writers < 0 {
		errs = append(errs, errors.New("numbers of connections must not be negative"))
	}
	return errors.Join(errs...)
}

// ParseDSN reads clickhouse://user:password@host:9000/database?secure=true.
func ParseDSN(dsn string) (Config, error) {
	o, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return Config{}, fmt.Errorf("read the ClickHouse address: %w", err)
	}
	if o.Protocol != clickhouse.Native {
		return Config{}, errors.New("read the ClickHouse address: only the native protocol (clickhouse://) is spoken")
	}
	return Config{Addr: o.Addr, TLS: o.TLS, User: o.Auth.Username, Password: o.Auth.Password, Database: o.Auth.Database}, nil
}

// firstVersion is what reads use while nobody has named another.
const firstVersion = 1

// Model is the read model in one database. It is a readmodel.Reader.
type Model struct {
	cfg    Config
	logger *slog.Logger
	conn   driver.Conn
	slow   driver.Conn // for comparing whole tables
	active atomic.Uint32
	hot    *hot
	hints  hints
	known  told

	native columnReader
}

// Place names the database, alike in every process that was given its address; ""
// where only this process reaches it, by Config.DialContext.
func (m *Model) Place() string {
	if m.cfg.DialContext != nil {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(m.cfg.Addr)), ",") + "/" + m.cfg.Database))
	return hex.EncodeToString(sum[:8])
}

// Open returns a model that connects when it is first used. It makes no tables:
// the process that writes calls Migrate.
func Open(_ context.Context, cfg Config, logger *slog.Logger) (*Model, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure ClickHouse: %w", err)
	}
	m := &Model{cfg: cfg.withDefaults(), logger: logger}
	m.hot = newHot(m.cfg.HotBytes)
	m.active.Store(firstVersion)
	conn, err := clickhouse.Open(m.readerOptions())
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	m.conn = conn
	m.native = &natives{newPool(columnReaders(m.cfg.MaxReaders), m.dialReader), m.cfg.MaxQueryMemory}
	if m.slow, err = clickhouse.Open(m.slowOptions()); err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	return m, nil
}

// Close closes the connections that ask. Writers are closed on their own.
func (m *Model) Close() error {
	m.native.close()
	return errors.Join(m.conn.Close(), m.slow.Close())
}

// columnReaders is how many of the connections that ask do so for whole columns.
func columnReaders(all int) int { return max(1, all/4) }

func (m *Model) options() *clickhouse.Options {
	return &clickhouse.Options{
		Addr:         m.cfg.Addr,
		Auth:         clickhouse.Auth{Username: m.cfg.User, Password: m.cfg.Password, Database: m.cfg.Database},
		DialContext:  m.cfg.dialer(),
		TLS:          m.cfg.TLS,
		DialTimeout:  m.cfg.DialTimeout,
		ReadTimeout:  m.cfg.QueryTimeout,
		MaxOpenConns: max(1, m.cfg.MaxReaders-columnReaders(m.cfg.MaxReaders)),
		MaxIdleConns: max(1, m.cfg.MaxReaders-columnReaders(m.cfg.MaxReaders)),
		Settings: clickhouse.Settings{
			"max_memory_usage": strconv.FormatInt(m.cfg.MaxQueryMemory, 10),
		},
	}
}

// readerOptions are for questions.
func (m *Model) readerOptions() *clickhouse.Options {
	o := m.options()
	if r := m.cfg.Reader; r != nil {
		o.Auth.Username, o.Auth.Password = r.User, r.Password
	}
	return o
}

// dial makes a connection for inserts and DDL.
func (m *Model) dial(ctx context.Context, database string) (*ch.Client, error) {
	return m.dialAs(ctx, Login{m.cfg.User, m.cfg.Password}, database, m.cfg.StoreTimeout)
}

// dialReader makes a connection that asks.
func (m *Model) dialReader(ctx context.Context) (*ch.Client, error) {
	as := Login{m.cfg.User, m.cfg.Password}
	if m.cfg.Reader != nil {
		as = *m.cfg.Reader
	}
	return m.dialAs(ctx, as, m.cfg.Database, m.cfg.QueryTimeout)
}

func (m *Model) dialAs(ctx context.Context, as Login, database string, patience time.Duration) (*ch.Client, error) {
	options := ch.Options{
		User: as.User, Password: as.Password, Database: database, TLS: m.cfg.TLS,
		DialTimeout: m.cfg.DialTimeout, HandshakeTimeout: m.cfg.DialTimeout, ReadTimeout: patience,
	}
	if dial := m.cfg.dialer(); dial != nil {
		options.TLS = nil
		options.Dialer = dialerFunc(func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, m.cfg.DialTimeout)
			defer cancel()
			return dial(ctx, addr)
		})
	}
	var errs []error
	for _, options.Address = range m.cfg.Addr {
		c, err := ch.Dial(ctx, options)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

type dialerFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func (f dialerFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f(ctx, network, addr)
}

// Database names where the tables are.
func (m *Model) Database() string { return m.cfg.Database }

// Active is the version of the tables that reads use.
func (m *Model) Active() uint32 { return m.active.Load() }

// Run follows the active version until ctx is done. It is ready once it knows
// the version, and goes on with the last one known while ClickHouse is away.
func (m *Model) Run(ctx context.Context, ready func()) error {
	tick := time.NewTicker(m.cfg.FollowInterval)
	defer tick.Stop()
	known, failures := false, 0
	for {
		err := m.Refresh(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if failures++; failures == 2 { // once is a first start, before the writer has made the tables
				m.logger.WarnContext(ctx, "active version of the read model is unknown", "err", err)
			}
		case !known:
			ready()
			known = true
			fallthrough
		default:
			failures = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Refresh learns the active version now.
func (m *Model) Refresh(ctx context.Context) error {
	version, err := m.pointer(ctx)
	if err != nil {
		return fmt.Errorf("learn the active version: %w", err)
	}
	if old := m.active.Swap(version); old != version {
		m.logger.InfoContext(ctx, "reads use another version of the read model", "from", old, "to", version)
	}
	return nil
}

// Codes of server errors that pass: the same statement may succeed later.
var passing = map[int32]bool{
	60:  true, // unknown table: the writer has not made it yet
	81:  true, // unknown database: the same
	159: true, // the time limit of a query
	164: true, // read-only for now
	173: true, // cannot allocate memory
	202: true, // too many queries at once
	209: true, // socket timeout
	210: true, // network error
	218: true, // the table was dropped while it was read: another version is live by now
	236: true, // aborted
	241: true, // memory limit
	242: true, // the table is read-only
	243: true, // not enough space
	252: true, // too many parts: inserts outrun merges
	285: true, // too few live replicas
	319: true, // unknown status of an insert
	394: true, // the query was cancelled
	425: true, // system error
	439: true, // cannot schedule a task
	774: true, // an operator has set the table to read-only
	999: true, // the keeper does not answer
}

// tooDear tells whether the server gave a statement up for what it would cost:
// it took longer, or needed more memory, than one statement may. Of memory there
// is also a limit that all statements share; what that one ends passes.
func tooDear(err error) bool {
	code, _ := serverCode(err)
	return code == 159 || code == 160 || code == 241 && !strings.Contains(err.Error(), "(total)")
}

// serverCode gives the code of an answer that is an error; false where there
// was no answer.
func serverCode(err error) (int32, bool) {
	if e, ok := errors.AsType[*clickhouse.Exception](err); ok {
		return e.Code, true
	}
	if e, ok := errors.AsType[*ch.Exception](err); ok {
		return int32(e.Code), true
	}
	return 0, false
}

// classify tells a store that does not answer from a mistake of ours. A caller
// that gave up is told so.
func classify(ctx context.Context, doing string, err error) error {
	if err == nil || errors.Is(err, readmodel.ErrNotFound) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	if tooDear(err) {
		return fault.New(fault.Unavailable, "QUERY_TOO_EXPENSIVE", "this question takes more time or memory than one question may").
			WithHint("Ask for less: a shorter time, fewer products or environments, or a smaller page.").Because(fmt.Errorf("%s: %w", doing, err))
	}
	if code, answered := serverCode(err); answered && !passing[code] {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fault.New(fault.Unavailable, "READ_MODEL_UNAVAILABLE", "the read model does not answer right now").
		WithHint("Try again in a moment.").Because(fmt.Errorf("%s: %w", doing, err))
}

// broken tells whether the connection failed, not the statement.
func broken(err error) bool {
	_, answered := serverCode(err)
	return err != nil && !answered
}
