package contract_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/schemas"
)

// parallel is how many scripts run side by side: they spend their time waiting
// for the read model, not computing.
const parallel = "24"

// partitionsFlag is how many partitions the log of every mode has.
var partitionsFlag = flag.Int("partitions", 1, "partitions of the log")

func TestMain(m *testing.M) {
	chserver.MaybeRunChild() // the engine is this binary, started a second time
	flag.Parse()
	if !given("test.parallel") {
		_ = flag.Set("test.parallel", parallel)
	}
	code := m.Run()
	if err := errors.Join(shared.stop(), apart.stop()); err != nil {
		fmt.Fprintln(os.Stderr, "the shared system:", err)
		code = 1
	}
	os.Exit(code)
}

func given(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// document is the published one, which every answer is held to.
var document = func() *httpapi.Spec {
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		panic(err)
	}
	return spec
}()

// everywhere runs a script in every mode. A script names its products by
// ledger.product and ledger.name, because the embedded system is shared.
func everywhere(t *testing.T, script func(t *testing.T, l *ledger)) {
	t.Helper()
	t.Parallel()
	modes := []struct {
		name string
		open func(*testing.T) *ledger
	}{
		{"memory", func(t *testing.T) *ledger { return onMemory(t).ledger }},
		{"embedded", onEmbedded},
	}
	if *separateFlag {
		modes = modes[:1]
		modes[0].name, modes[0].open = "separate", onSeparate
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			script(t, mode.open(t))
		})
	}
}

// inMemory runs a script that needs the clock, a second account or the log in
// its hands.
func inMemory(t *testing.T, script func(t *testing.T, m *memory)) {
	t.Helper()
	t.Parallel()
	if *separateFlag {
		t.Skip("what needs the clock or the log in its hands runs on memory alone")
	}
	script(t, onMemory(t))
}

var names atomic.Int64

// unique gives a name that no other script uses, and that says where it comes from.
func unique(t *testing.T) string {
	name, _, _ := strings.Cut(t.Name(), "/")
	return fmt.Sprintf("%s.%d", strings.TrimPrefix(name, "Test"), names.Add(1))
}
