package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/alecthomas/kong"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/logarchive"
	"github.com/shipledger/shipledger/services/all"
	"github.com/shipledger/shipledger/services/cli"
	"github.com/shipledger/shipledger/services/compose"
)

// logs are the commands about the log as a file: the backup of a ledger.
type logs struct {
	Export cli.LogExport `cmd:"" help:"Fetch the log of a running server into a file."`
	Import logImport     `cmd:"" help:"Restore a file into an empty log, while no server runs."`
	Verify cli.LogVerify `cmd:"" help:"Check a file, offline: every bit, every frame, the signatures."`
	Prove  cli.LogProve  `cmd:"" help:"Take the proof of one event out of a file."`
	Key    logKey        `cmd:"" help:"Print the public key of a ledger's checkpoints."`
}

// logImport restores an archive.
type logImport struct {
	File    string `arg:"" type:"existingfile" help:"Archive, made by log export of the first account."`
	Data    string `default:"./data" env:"SHIPLEDGER_DATA" help:"Data directory to restore into; its secrets (pepper, session-key, log-key) are copied by hand."`
	NATSURL string `name:"nats-url" env:"SHIPLEDGER_NATS_URL" help:"NATS to restore into, instead of the data directory."`
	Replica int    `name:"nats-replicas" default:"1" env:"SHIPLEDGER_NATS_REPLICAS" help:"Replicas of each stream."`
	Key     string `env:"SHIPLEDGER_LOG_PUBLIC_KEY" help:"Public key that must have signed it."`

	TLS compose.TLS `embed:"" prefix:"tls-"`
}

// Run restores. Nothing is stored of an archive that is not sound.
func (c *logImport) Run(ctx context.Context, app *kong.Context) error {
	var expect logarchive.Expect
	var err error
	if c.Key != "" {
		if expect.Key, err = logarchive.ParsePublicKey(c.Key); err != nil {
			return err
		}
	}
	began := time.Now()
	var bar *progressbar.ProgressBar
	progress := func(done, total uint64) {
		if bar == nil && done == 1 && term.IsTerminal(int(os.Stderr.Fd())) {
			bar = progressbar.NewOptions64(int64(total), //nolint:gosec // frames
				progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetWidth(30), progressbar.OptionShowCount(),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		}
		if bar != nil {
			_ = bar.Add(1)
		}
	}
	result, err := all.Restore(ctx, all.Config{Data: c.Data, NATSURL: c.NATSURL, NATSReplicas: c.Replica, TLS: c.TLS},
		func() (io.ReadCloser, error) { return logarchive.Open(c.File) }, expect, progress)
	if bar != nil {
		_ = bar.Clear()
	}
	if err != nil {
		return err
	}
	for _, e := range result.Streams {
		_, _ = fmt.Fprintf(app.Stdout, "%-4s %12d frames %12d events\n", e.Stream, e.Frames, e.Events)
	}
	_, err = fmt.Fprintf(app.Stdout, "restored in %.1f s; the next start makes the read model anew\n", time.Since(began).Seconds())
	return err
}

// logKey prints the public key.
type logKey struct {
	Data string `default:"./data" env:"SHIPLEDGER_DATA" help:"Data directory of the ledger."`
	Key  string `name:"log-key" env:"SHIPLEDGER_LOG_KEY" help:"The secret key, where it is not in the data directory."`
	File string `name:"log-key-file" env:"SHIPLEDGER_LOG_KEY_FILE" help:"File that holds the secret key."`
}

// Run prints the key. Where there is none it is made, as the server would.
func (c *logKey) Run(app *kong.Context) error {
	seed, err := keyring.LoadLogSeed(c.Key, c.File, c.Data, rand.Reader)
	if err != nil {
		return err
	}
	signer, err := logarchive.NewSigner(seed)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(app.Stdout, signer.PublicKey())
	return err
}
