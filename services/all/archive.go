package all

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/logarchive"
	"github.com/shipledger/shipledger/services/compose"
)

// openArchived opens the logs of a ledger by their short names.
func openArchived(ctx context.Context, js jetstream.JetStream, replicas int) (map[string]*natslog.Log, error) {
	logs := map[string]*natslog.Log{}
	for name, cfg := range map[string]natslog.Config{
		event.CredentialStream:  natslog.Credentials(replicas),
		compose.OperationStream: natslog.Operations(replicas),
		event.TrackStream(0):    natslog.Track(0, replicas),
	} {
		var err error
		if logs[name], err = natslog.Open(ctx, js, cfg); err != nil {
			return nil, err
		}
	}
	return logs, nil
}

// Restore stores an archive, opened by open, in the empty logs of a ledger that
// does not run: those of a new data directory, or those of cfg.NATSURL. Nothing
// is stored of an archive that is not sound.
func Restore(ctx context.Context, cfg Config, open func() (io.ReadCloser, error), expect logarchive.Expect, progress func(done, total uint64)) (result logarchive.Result, err error) {
	nc, closeAll, err := dialLog(ctx, cfg)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	js, err := jetstream.New(nc)
	if err != nil {
		return result, fmt.Errorf("use JetStream: %w", err)
	}
	opened, err := openArchived(ctx, js, cfg.NATSReplicas)
	if err != nil {
		return result, err
	}
	logs := map[string]eventlog.Log{}
	for name, log := range opened {
		logs[name] = log
	}
	return logarchive.Restore(ctx, open, logs, expect, progress)
}

// dialLog connects to the NATS of cfg, and starts the embedded one for as long
// as it is used.
func dialLog(ctx context.Context, cfg Config) (*nats.Conn, func() error, error) {
	if cfg.NATSURL != "" {
		secrecy, err := cfg.Secrecy(slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, nil, err
		}
		nc, err := nats.Connect(cfg.NATSURL, append(secrecy.NATS(cfg.NATSURL), nats.Name("shipledger log import"))...)
		if err != nil {
			return nil, nil, fmt.Errorf("connect to NATS: %w", err)
		}
		return nc, func() error { nc.Close(); return nil }, nil
	}
	dir := filepath.Join(cfg.Data, "nats")
	if held, err := os.ReadDir(dir); len(held) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		// A server may be running on it, and two on one directory destroy it.
		return nil, nil, errors.Join(fmt.Errorf("%w: %s holds one already; restore into a new data directory", logarchive.ErrNotEmpty, dir), err)
	}
	srv, err := natsserver.New(natsserver.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	stop, err := lifecycle.Start(ctx, srv)
	if err != nil {
		return nil, nil, err
	}
	nc, err := srv.Connect()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("connect to NATS: %w", err), stop())
	}
	return nc, func() error { nc.Close(); return stop() }, nil
}
