package compose

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/kv/natskv"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/pkg/ratelimit/natsbank"
	"github.com/shipledger/shipledger/pkg/settings"
	"github.com/shipledger/shipledger/pkg/telemetry"
	"github.com/shipledger/shipledger/pkg/usage"
	"github.com/shipledger/shipledger/schemas"
)

const (
	// OpenTimeout is how long a process may take to find what it stands on.
	OpenTimeout = 30 * time.Second
	stopGrace   = 3 * time.Second
	// leave is how long a service behind the front door waits for it to move away.
	leave = 3 * time.Second
)

// OperationStream is the short name of what operators decide.
const OperationStream = "o"

// Archived are the streams of a ledger of so many partitions that an archive
// holds, in its order.
func Archived(partitions int) []string {
	return append([]string{event.CredentialStream, OperationStream}, trackStreams(partitions)...)
}

func trackStreams(partitions int) []string {
	out := make([]string, partitions)
	for i := range out {
		out[i] = event.TrackStream(i)
	}
	return out
}

// A Partition of the log.
type Partition struct {
	Stream string // its short name
	Log    *natslog.Log
}

// Streams gives the short names of partitions.
func Streams(of []Partition) []string { return trackStreams(len(of)) }

// Readers gives their logs by short name, for who only reads.
func Readers(of []Partition) map[string]eventlog.Reader {
	out := make(map[string]eventlog.Reader, len(of))
	for _, p := range of {
		out[p.Stream] = p.Log
	}
	return out
}

// A Process is what the parts of a process stand on.
type Process struct {
	Config  Config
	Secrecy Secrecy
	Logger  *slog.Logger
	JS      jetstream.JetStream
	Spec    *httpapi.Spec
	// Address is where other processes find this one's API; empty: nowhere.
	Address string

	Peppers  *credential.Peppers
	Sessions *credential.SessionKeys
	Ring     *keyring.Ring
	Nodes    *keyring.Nodes
	Book     *settings.Book
	Usage    *usage.Book

	name       string
	services   []string
	durability string
	limiter    httpapi.Limiter
	budgets    lifecycle.Service
	logs       map[string]*natslog.Log // by stream
	partitions []Partition             // nil: not opened yet
	registry   *prometheus.Registry
	api        *httpapi.API
}

// Open finds what a process of these services stands on. The name is by which the
// other processes know it. ctx should have a deadline.
func Open(ctx context.Context, cfg Config, secrecy Secrecy, nc *nats.Conn, name string, services []string, logger *slog.Logger) (*Process, error) {
	p := &Process{
		Config: cfg, Secrecy: secrecy, Logger: logger, name: name, services: services,
		logs: map[string]*natslog.Log{}, registry: telemetry.NewRegistry(),
	}
	var err error
	if p.durability, err = checkDurability(ctx, cfg, secrecy.transport()); err != nil {
		return nil, err
	}
	if p.JS, err = jetstream.New(nc); err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	if p.Spec, err = httpapi.ParseSpec(schemas.OpenAPI); err != nil {
		return nil, fmt.Errorf("read the API document: %w", err)
	}
	if p.Peppers, err = keyring.LoadPeppers(cfg.Pepper, cfg.PepperFile, cfg.Data, rand.Reader); err != nil {
		return nil, err
	}
	if p.Sessions, err = keyring.LoadSessionKeys(cfg.SessionKey, cfg.SessionKeyFile, cfg.Data, rand.Reader); err != nil {
		return nil, err
	}
	credentials, err := p.Credentials(ctx)
	if err != nil {
		return nil, err
	}
	p.Ring = keyring.New(keyring.Config{DeafLimit: cfg.DeafLimit, Sessions: p.Sessions}, credentials, p.Peppers, time.Now, logger)
	if err := p.openTables(ctx); err != nil {
		return nil, err
	}
	return p, p.openBudgets(ctx)
}

// openTables opens the small tables that every process shares with the others.
func (p *Process) openTables(ctx context.Context) error {
	decided, err := p.Table(ctx, natskv.Config{Bucket: "SETTINGS", Description: "What accounts decided, as the log has it"})
	if err != nil {
		return err
	}
	p.Book = settings.New(decided, p.Config.Settings.Defaults(), p.Logger)
	used, err := p.Table(ctx, natskv.Config{Bucket: "USAGE", Description: "Who uses which credential"})
	if err != nil {
		return err
	}
	p.Usage = usage.New(used, time.Now, p.Logger)
	nodes, err := p.Table(ctx, natskv.Config{
		Bucket: "NODES", Description: "How far each process has heard of credentials", Life: max(keyring.NodeLife, p.Config.DeafLimit), Volatile: true,
	})
	if err != nil {
		return err
	}
	p.Nodes = keyring.NewNodes(keyring.NodesConfig{Service: p.name, ID: rand.Text(), Beside: p.Book}, p.Ring, nodes, time.Now, p.Logger)
	return nil
}

// Table opens a table that processes share.
func (p *Process) Table(ctx context.Context, cfg natskv.Config) (*natskv.Table, error) {
	cfg.Replicas = p.Config.NATSReplicas
	return natskv.Open(ctx, p.JS, cfg)
}

// openBudgets opens what counts requests, nothing if that is off. Every process
// of a ledger draws on the same budgets; one alone does so too.
func (p *Process) openBudgets(ctx context.Context) error {
	if p.Config.RateLimit == "off" {
		p.budgets = lifecycle.Func(Nothing)
		return nil
	}
	rates := ratelimit.Config(p.Config.Rates).WithDefaults()
	if err := rates.Validate(); err != nil {
		return err
	}
	store, err := natsbank.Open(ctx, p.JS, natsbank.Config{Replicas: p.Config.NATSReplicas, Slowest: max(rates.Slowest(), ratelimit.MaxFill)})
	if err != nil {
		return err
	}
	bank := ratelimit.NewLeased(ratelimit.LeasedConfig{Owner: rand.Text()}, store, p.Logger)
	p.limiter, p.budgets = ratelimit.NewLimiter(rates, bank, time.Now), bank
	return nil
}

// Nothing is the service of what somebody else runs.
func Nothing(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	return nil
}

// Credentials gives the log of credentials.
func (p *Process) Credentials(ctx context.Context) (*natslog.Log, error) {
	return p.log(ctx, Accounts, natslog.Credentials(p.Config.NATSReplicas))
}

// Partitions gives the partitions of the log in their order. Ingest makes them, and
// settles how many there are; the others learn it from what it made.
func (p *Process) Partitions(ctx context.Context) ([]Partition, error) {
	if p.partitions != nil {
		return p.partitions, nil
	}
	foreign := p.foreign(Ingest)
	cfg := natslog.Tracks{Replicas: p.Config.NATSReplicas, MaxBytes: p.Config.LogMaxBytes, Foreign: foreign}
	if !foreign {
		cfg.Partitions = p.Config.Partitions
	}
	logs, err := natslog.OpenTracks(ctx, p.JS, cfg)
	if other, ok := errors.AsType[*natslog.PartitionsError](err); ok {
		return nil, fmt.Errorf("%w; set SHIPLEDGER_PARTITIONS to %d or to nothing", err, other.Has)
	}
	if err != nil {
		return nil, askedFor(err, Ingest, foreign)
	}
	for i, log := range logs {
		p.partitions = append(p.partitions, Partition{event.TrackStream(i), log})
	}
	return p.partitions, nil
}

// Operations gives the log of what operators decide.
func (p *Process) Operations(ctx context.Context) (*natslog.Log, error) {
	return p.log(ctx, Projector, natslog.Operations(p.Config.NATSReplicas))
}

// Checkpoints gives the log of what was signed of the others.
func (p *Process) Checkpoints(ctx context.Context) (*natslog.Log, error) {
	return p.log(ctx, Query, natslog.Checkpoints(p.Config.NATSReplicas))
}

// log opens a stream, which is made by the process of its writer and by nobody
// else; others wait for it.
func (p *Process) log(ctx context.Context, writer string, cfg natslog.Config) (*natslog.Log, error) {
	if l := p.logs[cfg.Stream]; l != nil {
		return l, nil
	}
	cfg.Foreign = p.foreign(writer)
	l, err := natslog.Open(ctx, p.JS, cfg)
	if err != nil {
		return nil, askedFor(err, writer, cfg.Foreign)
	}
	p.logs[cfg.Stream] = l
	return l, nil
}

// foreign tells whether what a service makes is made by another process.
func (p *Process) foreign(writer string) bool { return !slices.Contains(p.services, writer) }

func askedFor(err error, writer string, foreign bool) error {
	if foreign {
		return fmt.Errorf("%w; does %s run?", err, writer)
	}
	return err
}

// Handler gives the API of this process, for parts that ask others of its parts.
// It may be asked once the process serves.
func (p *Process) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.api.ServeHTTP(w, r) })
}
