// Command separate runs the whole system as separate processes until Ctrl-C.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/shipledger/shipledger/integration/separate"
)

func main() {
	var args struct {
		Programs   string `default:"bin/separate" help:"Directory of the programs."`
		Data       string `default:"./data-separate" env:"SHIPLEDGER_DATA" help:"Directory for everything that is kept."`
		Addr       string `default:"127.0.0.1:8080" env:"SHIPLEDGER_ADDR" help:"Address of the front door."`
		DSN        string `name:"clickhouse-dsn" env:"SHIPLEDGER_CLICKHOUSE_DSN" help:"ClickHouse to use instead of the engine as a process of its own."`
		ReadDSN    string `name:"clickhouse-read-dsn" env:"SHIPLEDGER_CLICKHOUSE_READ_DSN" help:"The same for who only reads."`
		Ingest     int    `default:"1" help:"Processes of ingest."`
		Query      int    `default:"1" help:"Processes of query."`
		Accounts   int    `default:"1" help:"Processes of accounts."`
		Partitions int    `env:"SHIPLEDGER_PARTITIONS" help:"Partitions of a log that is made now, 1 to 64."`
		Projectors int    `default:"2" help:"Processes of projector, of which one projects and the others stand by."`
	}
	k := kong.Parse(&args, kong.Description("Run every service as a process of its own."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	data, err := filepath.Abs(args.Data)
	k.FatalIfErrorf(err)
	began := time.Now()
	opening, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	system, err := separate.Start(opening, separate.Config{
		Programs: args.Programs, Data: data, Addr: args.Addr, DSN: args.DSN, ReadDSN: args.ReadDSN, Log: os.Stderr,
		Env: handedOn(), Partitions: args.Partitions,
		Counts: map[string]int{"ingest": args.Ingest, "query": args.Query, "accounts": args.Accounts, "projector": args.Projectors},
	})
	k.FatalIfErrorf(err)
	fmt.Printf("\n  Shipledger is ready after %.1f s, as separate processes.\n\n  API          %s\n  Health       %s/health\n", time.Since(began).Seconds(), system.URL, system.URL)
	fmt.Printf("  Credentials  %s\n\n  Stop with Ctrl-C; everything is kept in %s.\n\n", filepath.Join(data, "bootstrap-credentials.json"), data)
	<-ctx.Done()
	k.FatalIfErrorf(system.Stop())
}

// handedOn are the settings of services that a shell has set; where things are is
// decided here.
func handedOn() (out []string) {
	for _, v := range os.Environ() {
		for _, prefix := range []string{"SHIPLEDGER_RATE", "SHIPLEDGER_SETTING_", "SHIPLEDGER_LOG_", "SHIPLEDGER_OIDC_", "SHIPLEDGER_REPLAY_"} {
			if strings.HasPrefix(v, prefix) {
				out = append(out, v)
			}
		}
	}
	return out
}
