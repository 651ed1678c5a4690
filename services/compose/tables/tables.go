// Package tables opens the read model in a ClickHouse that somebody else runs.
package tables

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/url"

	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/services/compose"
)

// errNowhere says what to set.
var errNowhere = errors.New("a process of its own needs a ClickHouse: set SHIPLEDGER_CLICKHOUSE_DSN")

// errUnchecked refuses an address that asks for less than the authority.
var errUnchecked = errors.New("skip_verify in the address of ClickHouse and SHIPLEDGER_TLS_CA exclude each other: leave one of them out")

// Open gives the read model for whoever keeps it. What only asks uses the address
// for reads, if there is one.
func Open(ctx context.Context, cfg compose.Config, secrecy compose.Secrecy, logger *slog.Logger) (*chmodel.Model, error) {
	return open(ctx, cfg.ClickHouseDSN, cfg.ClickHouseReadDSN, secrecy, logger)
}

// OpenToRead gives the read model for whoever only asks: by the address for reads,
// or where there is none by the one for all.
func OpenToRead(ctx context.Context, cfg compose.Config, secrecy compose.Secrecy, logger *slog.Logger) (*chmodel.Model, error) {
	return open(ctx, cmp.Or(cfg.ClickHouseReadDSN, cfg.ClickHouseDSN), "", secrecy, logger)
}

func open(ctx context.Context, dsn, reads string, secrecy compose.Secrecy, logger *slog.Logger) (*chmodel.Model, error) {
	if dsn == "" {
		return nil, errNowhere
	}
	c, err := chmodel.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	if reads != "" {
		r, err := chmodel.ParseDSN(reads)
		if err != nil {
			return nil, err
		}
		c.Reader = &chmodel.Login{User: r.User, Password: r.Password}
	}
	if c.TLS != nil || secrecy.Demands() && !plain(dsn) {
		if c.TLS != nil && c.TLS.InsecureSkipVerify && secrecy.Demands() {
			return nil, errUnchecked
		}
		if secrecy.Peers != nil {
			c.Dial = secrecy.TableDial()
		}
	}
	return chmodel.Open(ctx, c, logger)
}

// plain tells whether an address asks for no TLS by name.
func plain(dsn string) bool {
	u, err := url.Parse(dsn)
	return err == nil && u.Query().Get("secure") == "false"
}

// Following follows which version of the tables is live. It is ready at once: a
// read model that is away stops readers only.
func Following(model *chmodel.Model) lifecycle.Service {
	return lifecycle.Func(func(ctx context.Context, ready func()) error {
		ready()
		return model.Run(ctx, func() {})
	})
}
