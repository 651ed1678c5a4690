// Command bench measures the shipledger binary on this machine and prints a
// table. It listens on loopback only and ends every process that it starts.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/shipledger/shipledger/integration/bench"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == bench.DecoderArg {
		exit(bench.ServeDecoder(os.Stdin, os.Stdout))
	}
	if len(os.Args) == 3 && os.Args[1] == bench.LogArg {
		exit(bench.ServeLog(os.Args[2], os.Stdin, os.Stdout))
	}
	quick := flag.Bool("quick", false, "less than 90 seconds instead of less than 6 minutes")
	binary := flag.String("binary", "bin/shipledger", "what to measure")
	dir := flag.String("dir", "", "where data directories are made, on the disk to measure; default: the system's temporary directory")
	connections := flag.String("connections", "", "numbers of connections for single events, joined by commas; default: 1,16,64,256")
	only := flag.String("only", "", "measure one section: singles, revocations or imports")
	out := flag.String("json", "", "write the figures to this file as well")
	flag.Parse()

	cfg := bench.Full
	if *quick {
		cfg = bench.Quick
	}
	cfg.Binary, cfg.Dir, cfg.History, cfg.Only, cfg.Log = *binary, *dir, os.Getenv("SHIPLEDGER_HISTORY"), *only, os.Stderr
	if *connections != "" {
		cfg.Connections = nil
		for text := range strings.SplitSeq(*connections, ",") {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				exit(fmt.Errorf("--connections %q: not numbers joined by commas", *connections))
			}
			cfg.Connections = append(cfg.Connections, n)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, cfg, *out))
}

func run(ctx context.Context, cfg bench.Config, out string) error {
	report, err := bench.Run(ctx, cfg)
	if printErr := report.Print(os.Stdout); err == nil {
		err = printErr
	}
	if err != nil || out == "" {
		return err
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
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
