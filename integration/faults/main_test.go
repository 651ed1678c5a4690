//go:build linux

// Package faults_test kills, stops, fills and cuts off a running Shipledger and
// holds it to its one promise: what it has acknowledged is in the log, once,
// and readable, once. The failures are real ones of whole processes, so nothing
// here shares memory with what is tested: the product is the built binary.
//
// A test never waits for a time to pass, only for something to happen, and
// asserts no duration: machines that run tests are slow in their own ways.
package faults_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	// Of what the binary is made: otherwise go test would not know that the
	// product has changed, and take a result from its cache.
	_ "github.com/shipledger/shipledger/services/all"
	_ "github.com/shipledger/shipledger/services/cli"
)

var seedFlag = flag.Uint64("seed", 0, "what the moments of failure are drawn from; 0 takes a new one")

// program is where the product's binary is to be, once built.
var program string

func TestMain(m *testing.M) {
	maybeRunNATS()
	chserver.MaybeRunChild()
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shipledger-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "shipledger")
	return m.Run()
}

// build makes the binary when the first test wants it, so that listing tests
// and skipping them costs nothing.
var build = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", program, "github.com/shipledger/shipledger/services/all/cmd/shipledger").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the product: %w\n%s", err, out)
	}
	return nil
})

// newRand tells its seed, by which a failed run is repeated.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (repeat with -args -seed=%[1]d)", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// rounds is how often a random failure is tried.
func rounds(all, short int) int {
	if testing.Short() {
		return short
	}
	return all
}

// patience bounds every wait. It is no expectation: only a run that hangs
// reaches it.
const patience = 3 * time.Minute

var errImpatient = errors.New("it did not happen")

// eventually asks until done says so, and gives its last error if that never is.
func eventually(t *testing.T, what string, done func() error) {
	t.Helper()
	if err := await(done); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func await(done func() error) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("%w: %w", errImpatient, err)
		case <-poll.C:
		}
	}
}
