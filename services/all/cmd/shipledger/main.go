// Command shipledger is the one binary: the whole system, and the tools to use it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/services/cli"
	"github.com/shipledger/shipledger/services/compose"
)

// version is set by the build.
var version = "dev"

type app struct {
	Up         up               `cmd:"" help:"Run everything in one process."`
	Import     cli.Import       `cmd:"" help:"Load a deployment history from a file."`
	Log        logs             `cmd:"" help:"The log as a file: back up, restore, verify, prove."`
	Accounts   cli.Accounts     `cmd:"" help:"Manage the accounts of a server."`
	Quarantine cli.Quarantine   `cmd:"" help:"What the read model could not apply: list it, try it again, discard it."`
	Replay     cli.Replay       `cmd:"" help:"Rebuild the read model from the log, verify it, switch to it, go back."`
	Engine     engine           `cmd:"" help:"Manage the embedded ClickHouse engine."`
	Version    kong.VersionFlag `help:"Print the version."`
}

func main() {
	chserver.MaybeRunChild() // the engine is this binary, started again
	compose.TuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var a app
	k := kong.Parse(&a,
		kong.Name("shipledger"), kong.Description("The ledger of everything a company ships."),
		kong.UsageOnError(), kong.Vars{"version": version}, kong.BindTo(ctx, (*context.Context)(nil)),
	)
	k.FatalIfErrorf(k.Run())
}
