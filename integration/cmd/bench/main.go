// Command bench measures the shipledger binary on this machine and prints a
// table. It listens on loopback only and ends every process that it starts.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/shipledger/shipledger/integration/bench"
	"github.com/shipledger/shipledger/pkg/embedded/chserver"
)

func main() {
	chserver.MaybeRunChild() // the engine is this binary, started a second time
	if len(os.Args) == 2 && os.Args[1] == bench.DecoderArg {
		exit(bench.ServeDecoder(os.Stdin, os.Stdout))
	}
	if len(os.Args) == 3 && os.Args[1] == bench.LogArg {
		exit(bench.ServeLog(os.Args[2], os.Stdin, os.Stdout))
	}
	if len(os.Args) == 4 && os.Args[1] == bench.SideArg {
		exit(bench.ServeSide(os.Args[2], os.Args[3], os.Stdin, os.Stdout))
	}
	quick := flag.Bool("quick", false, "less than 3 minutes instead of about 25")
	binary := flag.String("binary", "bin/shipledger", "what to measure")
	dir := flag.String("dir", "", "where data directories are made, on the disk to measure; default: the system's temporary directory")
	connections := flag.String("connections", "", "numbers of connections for single events, joined by commas; default: 1,16,64,256")
	only := flag.String("only", "", "measure one section: singles, sides, partitions, mixed, overload, sizes, verifications, revocations, rebuild, imports, reads or soak")
	out := flag.String("json", "", "write the figures to this file as well")
	events := flag.String("events", "", "events that reads are measured on; several numbers, joined by commas, show how the cost grows; default: 1000000, or 100000 with --quick")
	question := flag.String("question", "", "of readers: ask only those with this in their names, such as metadata")
	samples := flag.Int("samples", 0, "how often each question of readers is asked, within 10 s; default: 200, or 15 with --quick")
	wide := flag.Int("wide", 0, "events of a second such run, with 1,000 products in 1,500 environments; default: none")
	rebuilt := flag.Int("rebuilt", -1, "events of the log that is rebuilt; 0: none; default: 1,000,000, or 100,000 with --quick")
	round := flag.Duration("round", 0, "how long a round of single events is measured; default: 3 s, or 1 s with --quick")
	rounds := flag.Int("rounds", 0, "rounds of each side of a comparison; default: 5, or 3 with --quick")
	ledgers := flag.String("ledgers", "", "events of the ledgers that starts and growth are measured on, or events:accounts, joined by commas; default: 1000000, or 50000 with --quick")
	soak := flag.Duration("soak", 0, "keep up half of the maximum for so long, and see whether anything grows; default: not at all")
	flag.Parse()

	cfg := bench.Full
	if *quick {
		cfg = bench.Quick
	}
	cfg.Binary, cfg.Dir, cfg.History, cfg.Only, cfg.Log = *binary, *dir, os.Getenv("SHIPLEDGER_HISTORY"), *only, os.Stderr
	cfg.Wide, cfg.Question = *wide, *question
	if *samples > 0 {
		cfg.Samples = *samples
	}
	if *round > 0 {
		cfg.Round = *round
	}
	cfg.Soak = *soak
	if *ledgers != "" {
		var err error
		if cfg.Ledgers, err = bench.ParseLedgers(*ledgers); err != nil {
			exit(fmt.Errorf("--ledgers %w", err))
		}
	}
	if *rounds > 0 {
		cfg.Rounds = *rounds
	}
	if *events != "" {
		cfg.Events = numbers("--events", *events)
	}
	if *rebuilt >= 0 {
		cfg.Rebuilt = *rebuilt
	}
	if *connections != "" {
		cfg.Connections = numbers("--connections", *connections)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, cfg, *out))
}

// numbers reads a flag of numbers above 0, and ends the process where it is none.
func numbers(flag, value string) (out []int) {
	for text := range strings.SplitSeq(value, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			exit(fmt.Errorf("%s %q: not numbers joined by commas", flag, value))
		}
		out = append(out, n)
	}
	return out
}

func run(ctx context.Context, cfg bench.Config, out string) error {
	report, err := bench.Run(ctx, cfg)
	if err == nil && report.Soak != nil && len(report.Soak.Faults) > 0 {
		err = errors.New("something grew while half of the maximum was kept up")
	}
	if printErr := report.Print(os.Stdout); err == nil {
		err = printErr
	}
	if out == "" {
		return err
	}
	text, jsonErr := json.MarshalIndent(report, "", "  ")
	if jsonErr != nil {
		return jsonErr
	}
	if err != nil {
		return errors.Join(err, os.WriteFile(out, append(text, '\n'), 0o644)) //nolint:gosec // figures are no secret
	}
	return os.WriteFile(out, append(text, '\n'), 0o644) //nolint:gosec // figures are no secret
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
