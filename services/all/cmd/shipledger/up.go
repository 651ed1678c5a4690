package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/shipledger/shipledger/services/all"
	"github.com/shipledger/shipledger/services/cli"
	"github.com/shipledger/shipledger/services/compose"
)

// demoSeed makes everybody's demo the same history.
const demoSeed = 1

type up struct {
	all.Config `embed:""`
	Demo       bool `help:"Load a generated history of two years into an empty ledger." env:"SHIPLEDGER_DEMO"`

	compose.Logging `embed:""`
}

// Run serves until ctx is done.
func (u *up) Run(ctx context.Context) error {
	logger := u.Logger()
	var start all.Start
	var addr net.Addr
	u.Version = version
	u.Bootstrapped = func(s all.Start) { start = s }
	u.Listening = func(a net.Addr) { addr = a }
	system, err := all.New(u.Config, logger)
	if err != nil {
		return err
	}
	secrecy, err := u.Secrecy(slog.New(slog.DiscardHandler)) // the system logs what it finds
	if err != nil {
		return err
	}
	began := time.Now()
	loading, stopLoading := context.WithCancel(ctx)
	var demo sync.WaitGroup
	err = system.Run(ctx, func() {
		base := "http://" + addr.String()
		var own http.RoundTripper
		if secrecy.Public != nil {
			base, own = "https://"+addr.String(), &http.Transport{TLSClientConfig: secrecy.Public.Myself()}
		}
		u.announce(start, base, time.Since(began))
		if u.Demo {
			demo.Go(func() { u.loadDemo(loading, start, base, own) })
		}
	})
	stopLoading()
	demo.Wait()
	if err == nil {
		logger.InfoContext(ctx, "stopped")
	}
	return err
}

// announce tells a person where things are. Secrets stay in their file.
func (u *up) announce(start all.Start, base string, took time.Duration) {
	fmt.Printf("\n  Shipledger %s is ready after %.1f s.\n\n", version, took.Seconds())
	fmt.Printf("  API          %s\n", base)
	fmt.Printf("  Health       %s/health\n", base)
	if start.File != "" {
		fmt.Printf("  Credentials  %s\n", start.File)
	}
	fmt.Printf("\n  Stop with Ctrl-C; everything is kept in %s.\n\n", u.Data)
}

// loadDemo fills an empty ledger through the public API, as anybody would, and
// tells a person how it went.
func (u *up) loadDemo(ctx context.Context, start all.Start, base string, own http.RoundTripper) {
	if !start.EmptyLedger || start.File == "" {
		fmt.Println("  The ledger is not empty: the demo history is not loaded again.")
		return
	}
	token, err := adminToken(start.File)
	if err != nil {
		fmt.Fprintln(os.Stderr, "load the demo history:", err)
		return
	}
	end := time.Now().UTC().Truncate(24 * time.Hour)
	sum, err := cli.LoadDemo(ctx, os.Stdout, own, base, token, demoSeed, end)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "load the demo history:", err)
		return
	}
	fmt.Printf("  Demo history: %d events of two years, loaded in %.1f s.\n\n", sum.Accepted, sum.Elapsed.Seconds())
}

func adminToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the first credentials: %w", err)
	}
	var first struct {
		AdminPAT string `json:"admin_pat"`
	}
	if err := json.Unmarshal(text, &first); err != nil || first.AdminPAT == "" {
		return "", errors.New("the first credentials hold no admin token")
	}
	return first.AdminPAT, nil
}
