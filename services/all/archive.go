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
	"slices"

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

// openArchived opens the logs of a ledger by their short names, with the partitions
// that an archive of these streams has.
func openArchived(ctx context.Context, js jetstream.JetStream, replicas int, streams []string) (map[string]eventlog.Log, error) {
	partitions := 0
	for slices.Contains(streams, event.TrackStream(partitions)) {
		partitions++
	}
	partitions = max(partitions, 1)
	for _, stream := range streams {
		if !slices.Contains(compose.Archived(partitions), stream) {
			return nil, fmt.Errorf("the archive has %d partitions and the stream %s beside them: it is not of one whole log", partitions, stream)
		}
	}
	logs := map[string]eventlog.Log{}
	for name, cfg := range map[string]natslog.Config{
		event.CredentialStream:  natslog.Credentials(replicas),
		compose.OperationStream: natslog.Operations(replicas),
	} {
		log, err := natslog.Open(ctx, js, cfg)
		if err != nil {
			return nil, err
		}
		logs[name] = log
	}
	tracks, err := natslog.OpenTracks(ctx, js, natslog.Tracks{Partitions: partitions, Replicas: replicas})
	if err != nil {
		return nil, err
	}
	for i, track := range tracks {
		logs[event.TrackStream(i)] = track
	}
	return logs, nil
}

// Restore stores an archive, opened by open, in the empty logs of a ledger that
// does not run, with as many partitions as the archive has: those of a new data directory, or those of cfg.NATSURL. Nothing
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
	into := func(streams []string) (map[string]eventlog.Log, error) {
		return openArchived(ctx, js, cfg.NATSReplicas, streams)
	}
	return logarchive.Restore(ctx, open, into, expect, progress)
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
