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
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/services/accounts"
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/compose/accountspart"
	"github.com/shipledger/shipledger/services/compose/ingestpart"
	"github.com/shipledger/shipledger/services/compose/mcppart"
	"github.com/shipledger/shipledger/services/compose/projectorpart"
	"github.com/shipledger/shipledger/services/compose/querypart"
	"github.com/shipledger/shipledger/services/compose/tables"
)

// Config is what an operator can say.
type Config = compose.Config

// Start says what this start found.
type Start = compose.Start

// New wires the system.
func New(cfg Config, logger *slog.Logger) (lifecycle.Service, error) {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	secrecy, err := cfg.Secrecy(logger)
	if err != nil {
		return nil, err
	}
	connect, natsService, err := openNATS(cfg, secrecy, logger)
	if err != nil {
		return nil, err
	}
	model, clickhouseService, err := openClickHouse(cfg, secrecy, logger)
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
		b := backends{nc: nc, model: model, secrecy: secrecy}
		services, err := b.wire(ctx, cfg, logger)
		if err != nil {
			return err
		}
		return services.Run(ctx, ready)
	})
	return lifecycle.Seq(lifecycle.Par(natsService, clickhouseService), app), nil
}

func openNATS(cfg Config, secrecy compose.Secrecy, logger *slog.Logger) (connect func() (*nats.Conn, error), _ lifecycle.Service, err error) {
	if cfg.NATSURL != "" {
		return func() (*nats.Conn, error) { return compose.DialNATS(cfg, "all", secrecy) }, lifecycle.Func(compose.Nothing), nil
	}
	srv, err := natsserver.New(natsserver.Config{Dir: filepath.Join(cfg.Data, "nats")}, logger)
	if err != nil {
		return nil, nil, err
	}
	return func() (*nats.Conn, error) { return srv.Connect(compose.NATSOptions("all")...) }, srv, nil
}

func openClickHouse(cfg Config, secrecy compose.Secrecy, logger *slog.Logger) (*chmodel.Model, lifecycle.Service, error) {
	if cfg.ClickHouseDSN != "" {
		model, err := tables.Open(context.Background(), cfg, secrecy, logger)
		return model, lifecycle.Func(compose.Nothing), err
	}
	engine, err := chserver.Locate(chserver.LocateConfig{Library: cfg.ClickHouseLib, CacheDir: cfg.EngineCache})
	if err != nil {
		return nil, nil, err
	}
	srv, err := chserver.New(chserver.Config{Dir: filepath.Join(cfg.Data, "clickhouse"), Engine: engine}, logger)
	if err != nil {
		return nil, nil, err
	}
	auth, reads := srv.Auth(), srv.ReadAuth()
	model, err := chmodel.Open(context.Background(), chmodel.Config{
		DialContext: srv.DialContext, User: auth.User, Password: auth.Password, Database: auth.Database,
		Reader: &chmodel.Login{User: reads.User, Password: reads.Password}, Alone: true,
	}, logger)
	return model, srv, err
}

// backends are what services stand on, whoever started them.
type backends struct {
	nc      *nats.Conn
	model   *chmodel.Model
	secrecy compose.Secrecy
}

// wire puts all services into this process.
func (b backends) wire(ctx context.Context, cfg Config, logger *slog.Logger) (lifecycle.Service, error) {
	opening, cancel := context.WithTimeout(ctx, compose.OpenTimeout)
	defer cancel()
	p, err := compose.Open(opening, cfg, b.secrecy, b.nc, "all", compose.Services, logger)
	if err != nil {
		return nil, err
	}
	people, made, err := accountspart.New(opening, p)
	if err != nil {
		return nil, err
	}
	if err := announce(opening, p, made); err != nil {
		return nil, err
	}
	writes, err := ingestpart.New(opening, p)
	if err != nil {
		return nil, err
	}
	reads, err := querypart.New(opening, p, b.model)
	if err != nil {
		return nil, err
	}
	project, err := projectorpart.New(opening, p, b.model)
	if err != nil {
		return nil, err
	}
	project.Beside = append(project.Beside, tables.Following(b.model))
	agents := mcppart.New(p, "http://"+cfg.Addr, httpapi.InProcess(p.Handler()))
	return p.Serve(compose.Door{
		Addr: cfg.Addr, TLS: b.secrecy.Outside(), Believed: cfg.TrustedProxies, ForwardedProto: cfg.ForwardedProto, Listening: cfg.Listening,
	}, writes, reads, people, project, agents)
}

// announce tells whoever wants to know what this start found.
func announce(ctx context.Context, p *compose.Process, made accounts.Bootstrapped) error {
	partitions, err := p.Partitions(ctx)
	if err != nil {
		return err
	}
	empty := true
	for _, part := range partitions {
		last, err := part.Log.Last(ctx)
		if err != nil {
			return err
		}
		empty = empty && last == 0
	}
	if p.Config.Bootstrapped != nil {
		p.Config.Bootstrapped(Start{Created: made.Created, File: made.File, EmptyLedger: empty})
	}
	return nil
}
