// Command acceptance runs the tests that name rows of the acceptance table and
// prints every row with what they say. It fails if a row fails, or if a test
// names a row that does not exist; rows without a test are open.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/shipledger/shipledger/integration/acceptance"
)

const ourPrefix = "github.com/shipledger/shipledger/"

func main() {
	asJSON := flag.Bool("json", false, "print the table as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, *asJSON)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "acceptance:", err)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, asJSON bool) (ok bool, err error) {
	tests, faults, err := acceptance.Find(ctx)
	if err != nil {
		return false, err
	}
	results, err := acceptance.Run(ctx, tests, func(pkg string, tests int) {
		fmt.Fprintf(os.Stderr, "running %d tests of %s\n", tests, pkg)
	})
	if err != nil {
		return false, err
	}
	table := acceptance.Tabulate(acceptance.Rows(), tests, results, faults)
	if asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return table.OK(), out.Encode(table)
	}
	return table.OK(), table.Print(os.Stdout, ourPrefix)
}
