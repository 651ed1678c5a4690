// Package all runs every service in one process, with embedded backends unless
// others are named. It is the only place that knows which.
//
//	┌─ NATS JetStream (in process) ─┐   ┌─ ClickHouse (child process) ─┐
//	│ CREDENTIALS OPS TRACK_00 …    │   │  tables and checkpoint       │
//	└──────┬──────────────┬─────────┘   └───────▲──────────────┬───────┘
//	   keyring       committer ─► projector ────┘            query
//	       └──────────────┴── HTTP API ────────────────────────┘
//
// What is drawn higher starts first and stops last.
package all

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/feed"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/kv/natskv"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/pkg/ratelimit/natsbank"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/pkg/settings"
	"github.com/shipledger/shipledger/pkg/telemetry"
	"github.com/shipledger/shipledger/pkg/usage"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/accounts"
	"github.com/shipledger/shipledger/services/ingest"
	"github.com/shipledger/shipledger/services/mcp"
	"github.com/shipledger/shipledger/services/projector"
	"github.com/shipledger/shipledger/services/query"
)

// Config is what an operator can say. Every field has a variable of its own,
// the same in every way of running.
type Config struct {
	Data    string `default:"./data" env:"SHIPLEDGER_DATA" help:"Directory for everything that is kept."`
	Addr    string `default:"127.0.0.1:8080" env:"SHIPLEDGER_ADDR" help:"Address of the HTTP API."`
	Account string `default:"main" env:"SHIPLEDGER_ACCOUNT" help:"Account that the first start makes."`

	NATSURL        string `name:"nats-url" env:"SHIPLEDGER_NATS_URL" help:"NATS to use instead of the embedded one."`
	NATSMonitorURL string `name:"nats-monitor-url" env:"SHIPLEDGER_NATS_MONITOR_URL" help:"Monitoring address of that NATS: its durability is checked there."`
	NATSReplicas   int    `name:"nats-replicas" default:"1" env:"SHIPLEDGER_NATS_REPLICAS" help:"Replicas of each stream."`
	LogMaxBytes    int64  `name:"log-max-bytes" default:"0" env:"SHIPLEDGER_LOG_MAX_BYTES" help:"Bytes that the event log may grow to before it refuses; 0: as far as the disk goes."`

	ClickHouseDSN string `name:"clickhouse-dsn" env:"SHIPLEDGER_CLICKHOUSE_DSN" help:"ClickHouse to use instead of the embedded one."`
	ClickHouseLib string `name:"clickhouse-lib" env:"SHIPLEDGER_CLICKHOUSE_LIB" help:"Engine library to use instead of the installed one."`
	EngineCache   string `name:"engine-cache" env:"SHIPLEDGER_ENGINE_CACHE" help:"Where the engine is installed; default: the user's cache directory."`

	RateLimit string `default:"on" enum:"on,off" env:"SHIPLEDGER_RATE_LIMIT" help:"Budgets of credentials: on, or off for load tests."`
	Rates     Rates  `embed:"" prefix:"rate-"`

	LogKey          string        `env:"SHIPLEDGER_LOG_KEY" help:"Key that signs checkpoints of the log, 32 bytes as hex; default: made once in the data directory."`
	LogKeyFile      string        `env:"SHIPLEDGER_LOG_KEY_FILE" help:"File that holds the key of checkpoints."`
	CheckpointEvery time.Duration `default:"10m" env:"SHIPLEDGER_CHECKPOINT_EVERY" help:"How often, at most, a signed checkpoint of the log is kept."`

	AuditEvery time.Duration `name:"audit-every" default:"1m" env:"SHIPLEDGER_AUDIT_EVERY" help:"How often, at most, the read model is checked to account for every event."`

	MetricsAddr string `name:"metrics-addr" default:"127.0.0.1:9464" env:"SHIPLEDGER_METRICS_ADDR" help:"Address of Prometheus metrics; empty turns them off."`

	Pepper     string `env:"SHIPLEDGER_PEPPER" help:"Key of the digests of credentials, base64 or hex; default: made once in the data directory."`
	PepperFile string `env:"SHIPLEDGER_PEPPER_FILE" help:"File that holds the pepper."`

	DeafLimit time.Duration `default:"30s" env:"SHIPLEDGER_DEAF_LIMIT" help:"Refuse every credential when the log of credentials was not heard for this long."`

	SessionKey     string        `env:"SHIPLEDGER_SESSION_KEY" help:"Key that signs web sessions, 32 bytes as base64 or hex; default: made once in the data directory."`
	SessionKeyFile string        `env:"SHIPLEDGER_SESSION_KEY_FILE" help:"File that holds the key of web sessions."`
	SessionLife    time.Duration `default:"12h" env:"SHIPLEDGER_SESSION_LIFE" help:"How long a web session lasts."`
	ForwardedProto bool          `env:"SHIPLEDGER_FORWARDED_PROTO" help:"A proxy in front sets X-Forwarded-Proto: believe it, so that cookies are Secure behind TLS."`

	Leaks Leaks `embed:"" prefix:"leaks-"`
	OIDC  OIDC  `embed:"" prefix:"oidc-"`

	TrustedProxies []string      `name:"trusted-proxies" env:"SHIPLEDGER_TRUSTED_PROXIES" help:"Addresses and networks of proxies in front whose X-Forwarded-For tells where a request comes from; none: the connection does."`
	ReplayKeep     time.Duration `default:"24h" env:"SHIPLEDGER_REPLAY_KEEP" help:"How long a switch to a rebuilt read model can be undone."`

	Heartbeat time.Duration `default:"15s" env:"SHIPLEDGER_HEARTBEAT" help:"How often a stream of events without news says that it is alive."`

	Settings Settings `embed:"" prefix:"setting-"`

	// Version is what /health says of this build.
	Version string `kong:"-"`
	// Listening, if set, is told the address of the API.
	Listening func(net.Addr) `kong:"-"`
	// Bootstrapped, if set, is told of the first credentials before the API listens.
	Bootstrapped func(Start) `kong:"-"`
}

// Rates are the budgets of contract 3.6, each per credential unless it says otherwise.
type Rates struct {
	Ingestion        ratelimit.Rate `default:"1000/1m" env:"SHIPLEDGER_RATE_INGESTION" help:"Events of a credential: how many in which time. A burst of its own goes behind it: 60/1m,burst=100."`
	AccountIngestion ratelimit.Rate `default:"10000/1h" env:"SHIPLEDGER_RATE_ACCOUNT_INGESTION" help:"Events of all API keys of an account together."`
	Read             ratelimit.Rate `default:"120/1m" env:"SHIPLEDGER_RATE_READ" help:"Other requests of a credential whose highest scope is read."`
	EventsWrite      ratelimit.Rate `default:"60/1m" env:"SHIPLEDGER_RATE_EVENTS_WRITE" help:"Other requests of one whose highest scope is events:write."`
	Write            ratelimit.Rate `default:"30/1m" env:"SHIPLEDGER_RATE_WRITE" help:"Other requests of one whose highest scope is write or admin."`
	Session          ratelimit.Rate `default:"300/1m,burst=500" env:"SHIPLEDGER_RATE_SESSION" help:"Requests of a web session."`
}

// Settings are those of accounts that decided none (contract 22).
type Settings struct {
	PATWrite            string `name:"pat-write" default:"on" enum:"on,off" env:"SHIPLEDGER_SETTING_PAT_WRITE" help:"Personal access tokens may write, in accounts that decided nothing else."`
	AllowNeverExpires   string `default:"off" enum:"on,off" env:"SHIPLEDGER_SETTING_ALLOW_NEVER_EXPIRES" help:"API keys may be made that never expire, likewise."`
	MCPAllowAPIKeys     string `name:"mcp-allow-api-keys" default:"off" enum:"on,off" env:"SHIPLEDGER_SETTING_MCP_ALLOW_API_KEYS" help:"API keys that may read may call /mcp, likewise."`
	PreflightStrict     string `default:"off" enum:"on,off" env:"SHIPLEDGER_SETTING_PREFLIGHT_STRICT" help:"An end that was never started is held to the rules, likewise."`
	DeploymentSHAStrict string `name:"deployment-sha-strict" default:"off" enum:"on,off" env:"SHIPLEDGER_SETTING_DEPLOYMENT_SHA_STRICT" help:"A deployment of another commit than its version's is refused, likewise."`
	HonourSkipPreflight string `default:"on" enum:"on,off" env:"SHIPLEDGER_SETTING_HONOUR_SKIP_PREFLIGHT" help:"skip_preflight_checks is heard, likewise."`
}

// defaults gives what the operator said; what is empty is as contract 22 has it.
func (s Settings) defaults() event.Settings {
	d := event.DefaultSettings()
	for name, word := range map[string]string{
		"pat_write": s.PATWrite, "allow_never_expires": s.AllowNeverExpires, "mcp_allow_api_keys": s.MCPAllowAPIKeys,
		"preflight_strict": s.PreflightStrict, "deployment_sha_strict": s.DeploymentSHAStrict, "honour_skip_preflight": s.HonourSkipPreflight,
	} {
		if word != "" {
			*d.Named(name) = word == "on"
		}
	}
	return d
}

// Start says what this start found.
type Start struct {
	accounts.Bootstrapped
	EmptyLedger bool // no event was ever recorded
}

const (
	stopGrace  = 3 * time.Second
	trackIndex = 0 // an embedded log has one partition
)

// Limits of what one process may do at the start.
const openTimeout = 30 * time.Second

// New wires the system.
func New(cfg Config, logger *slog.Logger) (lifecycle.Service, error) {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	connect, natsService, err := openNATS(cfg, logger)
	if err != nil {
		return nil, err
	}
	model, clickhouseService, err := openClickHouse(cfg, logger)
	if err != nil {
		return nil, err
	}
	app := lifecycle.Func(func(ctx context.Context, ready func()) error {
		nc, err := connect()
		if err != nil {
			return fmt.Errorf("connect to NATS: %w", err)
		}
		defer nc.Close()
		defer func() { _ = model.Close() }()
		b := backends{nc: nc, model: model}
		services, err := b.wire(ctx, cfg, logger)
		if err != nil {
			return err
		}
		return services.Run(ctx, ready)
	})
	return lifecycle.Seq(lifecycle.Par(natsService, clickhouseService), app), nil
}

// nothing is the backend that somebody else runs.
func nothing(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	return nil
}

func openNATS(cfg Config, logger *slog.Logger) (connect func() (*nats.Conn, error), _ lifecycle.Service, err error) {
	options := []nats.Option{
		nats.Name("shipledger"), nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond), nats.PingInterval(5 * time.Second),
		nats.ReconnectBufSize(-1), // what cannot be sent now is refused, not kept for later
	}
	if cfg.NATSURL != "" {
		return func() (*nats.Conn, error) { return nats.Connect(cfg.NATSURL, options...) }, lifecycle.Func(nothing), nil
	}
	srv, err := natsserver.New(natsserver.Config{Dir: filepath.Join(cfg.Data, "nats")}, logger)
	if err != nil {
		return nil, nil, err
	}
	return func() (*nats.Conn, error) { return srv.Connect(options...) }, srv, nil
}

func openClickHouse(cfg Config, logger *slog.Logger) (*chmodel.Model, lifecycle.Service, error) {
	if cfg.ClickHouseDSN != "" {
		c, err := chmodel.ParseDSN(cfg.ClickHouseDSN)
		if err != nil {
			return nil, nil, err
		}
		model, err := chmodel.Open(context.Background(), c, logger)
		return model, lifecycle.Func(nothing), err
	}
	engine, err := chserver.Locate(chserver.LocateConfig{Library: cfg.ClickHouseLib, CacheDir: cfg.EngineCache})
	if err != nil {
		return nil, nil, err
	}
	srv, err := chserver.New(chserver.Config{Dir: filepath.Join(cfg.Data, "clickhouse"), Engine: engine}, logger)
	if err != nil {
		return nil, nil, err
	}
	auth := srv.Auth()
	model, err := chmodel.Open(context.Background(), chmodel.Config{
		DialContext: srv.DialContext, User: auth.User, Password: auth.Password, Database: auth.Database,
	}, logger)
	return model, srv, err
}

// backends are what services stand on, whoever started them.
type backends struct {
	nc    *nats.Conn
	model *chmodel.Model
}

func (b backends) wire(ctx context.Context, cfg Config, logger *slog.Logger) (lifecycle.Service, error) {
	opening, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	durability, err := checkDurability(opening, cfg)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(b.nc)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	trackConfig := natslog.Track(trackIndex, cfg.NATSReplicas)
	trackConfig.MaxBytes = cfg.LogMaxBytes
	track, err := natslog.Open(opening, js, trackConfig)
	if err != nil {
		return nil, err
	}
	credentials, err := natslog.Open(opening, js, natslog.Credentials(cfg.NATSReplicas))
	if err != nil {
		return nil, err
	}
	operations, err := natslog.Open(opening, js, natslog.Operations(cfg.NATSReplicas))
	if err != nil {
		return nil, err
	}
	peppers, err := keyring.LoadPeppers(cfg.Pepper, cfg.PepperFile, cfg.Data, rand.Reader)
	if err != nil {
		return nil, err
	}
	sessions, err := keyring.LoadSessionKeys(cfg.SessionKey, cfg.SessionKeyFile, cfg.Data, rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := bootstrap(opening, cfg, credentials, track, peppers); err != nil {
		return nil, err
	}
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("read the API document: %w", err)
	}

	stream := event.TrackStream(trackIndex)
	ring := keyring.New(keyring.Config{DeafLimit: cfg.DeafLimit, Sessions: sessions}, credentials, peppers, time.Now, logger)
	committer := ingest.NewCommitter(track, stream, time.Now, newIDs(), logger)
	logs := map[string]eventlog.Reader{stream: track, event.CredentialStream: credentials}
	live := feed.New(feed.Config{}, logs, query.Render, logger)
	keeper, err := openKeeper(opening, cfg, js, logs, logger)
	if err != nil {
		return nil, err
	}
	audit := projector.NewAudit(track, b.model, stream, cfg.AuditEvery, logger)
	project := projector.New(projector.Config{
		Streams: []projector.Stream{{Name: stream, Log: track}, {Name: event.CredentialStream, Log: credentials}},
		Keep:    cfg.ReplayKeep, CodeVersion: cfg.Version, Operator: ring.Operator, Entropy: rand.Reader,
	}, operations, b.model, spec, logger)
	health := &health{
		version: cfg.Version, durability: durability, log: committer, keys: ring, model: b.model, projector: project, ledger: audit,
	}
	limiter, budgets, err := openBudgets(opening, cfg, js, logger)
	if err != nil {
		return nil, err
	}
	proxies, err := credential.ParsePrefixes(cfg.TrustedProxies)
	if err != nil {
		return nil, fmt.Errorf("read the trusted proxies: %w", err)
	}
	committer.SetDefaults(cfg.Settings.defaults())
	book, err := openSettings(opening, cfg, js, logger)
	if err != nil {
		return nil, err
	}
	committer.Share(book)
	people := accounts.Config{SessionLife: cfg.SessionLife, Settings: book.Of, Flight: &keyring.Flight{}}
	if people.Nodes, err = openNodes(opening, cfg, js, ring, book, logger, committer.Flight(), people.Flight); err != nil {
		return nil, err
	}
	if cfg.Leaks.GitHub != "" {
		people.Leaks = &accounts.LeaksConfig{GitHubKeys: cfg.Leaks.GitHub, MarkOnly: !cfg.Leaks.Revoke}
	}
	if people.OIDC, err = cfg.OIDC.config(); err != nil {
		return nil, err
	}
	if people.Usage, err = openUsage(opening, cfg, js, logger); err != nil {
		return nil, err
	}
	if cfg.RateLimit != "off" {
		people.Attempts = ratelimit.NewMemory()
	}
	registry := telemetry.NewRegistry()
	registry.MustRegister(slices.Concat(committer.Collectors(), project.Collectors(), audit.Collectors())...)
	manage := accounts.New(people, spec, credentials, ring, peppers, sessions, time.Now, rand.Reader)
	var api *httpapi.API
	agents := mcp.New(mcp.Config{
		API: "http://" + cfg.Addr, Version: cfg.Version,
		Transport: httpapi.InProcess(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { api.ServeHTTP(w, r) })),
	}, logger)
	api, err = httpapi.New(
		httpapi.Config{
			Spec: spec, Services: []string{"ingest", "query", "accounts", "projector", "mcp"}, Authenticator: ring, Limiter: limiter, Meter: people.Usage, Logger: logger,
			Observe: telemetry.Requests(registry), ForwardedProto: cfg.ForwardedProto, TrustedProxies: proxies,
			Settings: book.Of,
		},
		ingest.New(spec, committer).Telling(func(ctx context.Context, account string) bool {
			revision, err := book.Share(ctx, account)
			return err == nil && people.Nodes.AwaitBeside(ctx, revision)
		}).Handlers(),
		query.New(b.model, stream).Auditing(event.CredentialStream).Keys(ring.Record).Counting(ring, people.Usage).Streaming(live, cfg.Heartbeat).
			Following(event.CredentialStream, func() event.Offset { return event.At(ring.Applied(), 0) }).
			Accounting(map[string]eventlog.Reader{stream: track}).
			Exporting(keeper, ring.Operator, archived()...).
			Handlers(),
		manage.Handlers(),
		agents.Handlers(),
		project.Handlers(),
		httpapi.Handlers{"getHealth": httpapi.ServeHealth(health.check)},
	)
	if err != nil {
		return nil, fmt.Errorf("mount the API: %w", err)
	}
	follow := lifecycle.Func(func(ctx context.Context, ready func()) error {
		ready() // a read model that is away stops readers only
		return b.model.Run(ctx, func() {})
	})
	return lifecycle.Seq(
		lifecycle.Par(ring, book, people.Usage, follow, budgets, audit, keeper, &telemetry.Server{Addr: cfg.MetricsAddr, Gatherer: registry, Logger: logger}),
		people.Nodes, // before anybody is let in, and after what was let in is done
		committer,
		lifecycle.Par(project, live),
		lifecycle.Par(manage.Warnings(logger), keyring.NewRehasher(ring, credentials, logger)),
		&httpapi.Server{Addr: cfg.Addr, Handler: api, Grace: stopGrace, Listening: cfg.Listening},
	), nil
}

// openBudgets gives what counts requests, nothing if that is off, and the
// service that returns what was not used. Every process of a ledger draws on the
// same budgets; one alone does so too.
func openBudgets(ctx context.Context, cfg Config, js jetstream.JetStream, logger *slog.Logger) (httpapi.Limiter, lifecycle.Service, error) {
	if cfg.RateLimit == "off" {
		return nil, lifecycle.Func(nothing), nil
	}
	rates := ratelimit.Config(cfg.Rates).WithDefaults()
	if err := rates.Validate(); err != nil {
		return nil, nil, err
	}
	store, err := natsbank.Open(ctx, js, natsbank.Config{Replicas: cfg.NATSReplicas, Slowest: max(rates.Slowest(), accounts.MaxFill)})
	if err != nil {
		return nil, nil, err
	}
	bank := ratelimit.NewLeased(ratelimit.LeasedConfig{Owner: rand.Text()}, store, logger)
	return ratelimit.NewLimiter(rates, bank, time.Now), bank, nil
}

// openNodes gives the processes of a ledger that verify credentials, of which
// this is one.
func openNodes(ctx context.Context, cfg Config, js jetstream.JetStream, ring *keyring.Ring, beside keyring.Followed, logger *slog.Logger, flights ...*keyring.Flight) (*keyring.Nodes, error) {
	table, err := natskv.Open(ctx, js, natskv.Config{
		Bucket: "NODES", Description: "How far each process has heard of credentials", Replicas: cfg.NATSReplicas,
		Life: max(keyring.NodeLife, cfg.DeafLimit), Volatile: true,
	})
	if err != nil {
		return nil, err
	}
	return keyring.NewNodes(keyring.NodesConfig{Service: "all", ID: rand.Text(), Flights: flights, Beside: beside}, ring, table, time.Now, logger), nil
}

// openSettings gives what every process knows of what accounts decided.
func openSettings(ctx context.Context, cfg Config, js jetstream.JetStream, logger *slog.Logger) (*settings.Book, error) {
	table, err := natskv.Open(ctx, js, natskv.Config{Bucket: "SETTINGS", Description: "What accounts decided, as the log has it", Replicas: cfg.NATSReplicas})
	if err != nil {
		return nil, err
	}
	return settings.New(table, cfg.Settings.defaults(), logger), nil
}

// openUsage gives the book of who uses which credential.
func openUsage(ctx context.Context, cfg Config, js jetstream.JetStream, logger *slog.Logger) (*usage.Book, error) {
	table, err := natskv.Open(ctx, js, natskv.Config{Bucket: "USAGE", Description: "Who uses which credential", Replicas: cfg.NATSReplicas})
	if err != nil {
		return nil, err
	}
	return usage.New(table, time.Now, logger), nil
}

func bootstrap(ctx context.Context, cfg Config, credentials, track *natslog.Log, peppers *credential.Peppers) error {
	done, err := accounts.Bootstrap(ctx, accounts.BootstrapConfig{
		DataDir: cfg.Data, Account: cfg.Account, URL: "http://" + cfg.Addr,
	}, credentials, peppers, time.Now, rand.Reader)
	if err != nil {
		return err
	}
	last, err := track.Last(ctx)
	if err != nil {
		return err
	}
	if cfg.Bootstrapped != nil {
		cfg.Bootstrapped(Start{done, last == 0})
	}
	return nil
}

// newIDs gives the committer's source of ids: unpredictable and rising within a
// millisecond. It is for one goroutine.
func newIDs() func(ms uint64) ulid.ULID {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	entropy := ulid.Monotonic(mathrand.NewChaCha8(seed), 0)
	return func(ms uint64) ulid.ULID {
		id, err := ulid.New(ms, entropy)
		if err != nil { // more than 2^80 ids in a millisecond, or a year past 10889
			panic(err)
		}
		return id
	}
}
