package compose

import (
	"net"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// Config is what an operator can say. Every field has a variable of its own,
// the same in every way of running, so that one file of them fits every process.
type Config struct {
	Data    string `default:"./data" env:"SHIPLEDGER_DATA" help:"Directory for everything that is kept."`
	Addr    string `default:"127.0.0.1:8080" env:"SHIPLEDGER_ADDR" help:"Address of the HTTP API."`
	Account string `default:"main" env:"SHIPLEDGER_ACCOUNT" help:"Account that the first start makes."`

	TLS TLS `embed:"" prefix:"tls-"`

	NATSURL        string `name:"nats-url" env:"SHIPLEDGER_NATS_URL" help:"NATS to use instead of the embedded one."`
	NATSMonitorURL string `name:"nats-monitor-url" env:"SHIPLEDGER_NATS_MONITOR_URL" help:"Monitoring address of that NATS: its durability is checked there."`
	NATSReplicas   int    `name:"nats-replicas" default:"1" env:"SHIPLEDGER_NATS_REPLICAS" help:"Replicas of each stream."`
	Partitions     int    `default:"0" env:"SHIPLEDGER_PARTITIONS" help:"Partitions of a log that is made now, 1 to 64: accounts are spread over them, and each takes as many events as one log does. It stays as it is from then on. 0: those that the log has, one for a new log."`
	LogMaxBytes    int64  `name:"log-max-bytes" default:"0" env:"SHIPLEDGER_LOG_MAX_BYTES" help:"Bytes that the event log may grow to before it refuses, in equal shares for its partitions; 0: as far as the disk goes."`

	ClickHouseDSN     string `name:"clickhouse-dsn" env:"SHIPLEDGER_CLICKHOUSE_DSN" help:"ClickHouse to use instead of the embedded one."`
	ClickHouseReadDSN string `name:"clickhouse-read-dsn" env:"SHIPLEDGER_CLICKHOUSE_READ_DSN" help:"The same ClickHouse as a user that may only read, for questions; default: that of SHIPLEDGER_CLICKHOUSE_DSN."`
	ClickHouseLib     string `name:"clickhouse-lib" env:"SHIPLEDGER_CLICKHOUSE_LIB" help:"Engine library to use instead of the installed one."`
	EngineCache       string `name:"engine-cache" env:"SHIPLEDGER_ENGINE_CACHE" help:"Where the engine is installed; default: the user's cache directory."`

	RateLimit string `default:"on" enum:"on,off" env:"SHIPLEDGER_RATE_LIMIT" help:"Budgets of credentials: on, or off for load tests."`
	Rates     Rates  `embed:"" prefix:"rate-"`

	LogKey          string        `env:"SHIPLEDGER_LOG_KEY" help:"Key that signs checkpoints of the log, 32 bytes as hex; default: made once in the data directory."`
	LogKeyFile      string        `env:"SHIPLEDGER_LOG_KEY_FILE" help:"File that holds the key of checkpoints."`
	CheckpointEvery time.Duration `default:"10m" env:"SHIPLEDGER_CHECKPOINT_EVERY" help:"How often, at most, a signed checkpoint of the log is kept."`

	AuditEvery time.Duration `name:"audit-every" default:"1m" env:"SHIPLEDGER_AUDIT_EVERY" help:"How often, at most, the read model is checked to account for every event."`

	MemoryLimit int64 `name:"memory-limit" default:"1073741824" env:"SHIPLEDGER_MEMORY_LIMIT" help:"Bytes of memory that this process tries to stay below, the ClickHouse engine not counted; twice what it needs where that is more; 0: no limit. GOMEMLIMIT takes its place."`

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

	MaxConnections int           `default:"10000" env:"SHIPLEDGER_MAX_CONNECTIONS" help:"Connections of the HTTP API at a time. Beyond them a silent one makes room, and where all are being served a newcomer is answered 503."`
	OutboundAllow  []string      `name:"outbound-allow" env:"SHIPLEDGER_OUTBOUND_ALLOW" help:"Private addresses and networks that may be called, also without TLS, where the issuer or the reporter's keys are; none: only the public internet is, over https."`
	TrustedProxies []string      `name:"trusted-proxies" env:"SHIPLEDGER_TRUSTED_PROXIES" help:"Addresses and networks of proxies in front whose X-Forwarded-For tells where a request comes from; none: the connection does."`
	ReplayKeep     time.Duration `default:"24h" env:"SHIPLEDGER_REPLAY_KEEP" help:"How long a switch to a rebuilt read model can be undone."`
	Snapshots      string        `name:"snapshot-dir" env:"SHIPLEDGER_SNAPSHOT_DIR" help:"Folder of exported logs that a replay may run from; none: replays read the log only."`

	Heartbeat time.Duration `default:"15s" env:"SHIPLEDGER_HEARTBEAT" help:"How often a stream of events without news says that it is alive."`

	Settings Settings `embed:"" prefix:"setting-"`

	Places     Places   `embed:""`
	FrontDoors []string `default:"127.0.0.1/32,::1/128" name:"front-doors" env:"SHIPLEDGER_FRONT_DOORS" help:"Addresses and networks of the front door, which a service of its own process believes about where a request comes from."`

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

// Defaults gives what the operator said; what is empty is as contract 22 has it.
func (s Settings) Defaults() event.Settings {
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
	Created     bool   // it made the first credentials, or finished making them
	File        string // where they are; empty if this process does not hold them
	EmptyLedger bool   // no event was ever recorded
}

// Places are where services listen that are processes of their own, and where
// the front door finds them. Any number of processes of one service may listen.
type Places struct {
	IngestAddr    string `default:"127.0.0.1:8081" env:"SHIPLEDGER_INGEST_ADDR" help:"Address of ingest, where it is a process of its own."`
	QueryAddr     string `default:"127.0.0.1:8082" env:"SHIPLEDGER_QUERY_ADDR" help:"Address of query, likewise."`
	AccountsAddr  string `default:"127.0.0.1:8083" env:"SHIPLEDGER_ACCOUNTS_ADDR" help:"Address of accounts, likewise."`
	ProjectorAddr string `default:"127.0.0.1:8084" env:"SHIPLEDGER_PROJECTOR_ADDR" help:"Address of projector, likewise."`
	MCPAddr       string `name:"mcp-addr" default:"127.0.0.1:8085" env:"SHIPLEDGER_MCP_ADDR" help:"Address of mcp, likewise."`

	IngestAt    []string `env:"SHIPLEDGER_INGEST_AT" help:"Where the front door finds the processes of ingest, as host:port; default: its address."`
	QueryAt     []string `env:"SHIPLEDGER_QUERY_AT" help:"Those of query, which mcp asks too."`
	AccountsAt  []string `env:"SHIPLEDGER_ACCOUNTS_AT" help:"Those of accounts."`
	ProjectorAt []string `env:"SHIPLEDGER_PROJECTOR_AT" help:"Those of projector."`
	MCPAt       []string `name:"mcp-at" env:"SHIPLEDGER_MCP_AT" help:"Those of mcp."`
}

// Of gives where a service listens, and where others find its processes.
func (p Places) Of(service string) (listens string, at []string) {
	switch service {
	case Ingest:
		listens, at = p.IngestAddr, p.IngestAt
	case Query:
		listens, at = p.QueryAddr, p.QueryAt
	case Accounts:
		listens, at = p.AccountsAddr, p.AccountsAt
	case Projector:
		listens, at = p.ProjectorAddr, p.ProjectorAt
	case MCP:
		listens, at = p.MCPAddr, p.MCPAt
	}
	if len(at) == 0 {
		at = []string{listens}
	}
	return listens, at
}
