// Package lifecycletest runs services inside tests.
package lifecycletest

import (
	"testing"

	"github.com/shipledger/shipledger/pkg/lifecycle"
)

// Run runs a service until stop is called, which waits for its end, or the test
// ends. A service that does not become ready, or ends in an error, fails the test.
func Run(tb testing.TB, s lifecycle.Service) (stop func()) {
	tb.Helper()
	stopped, err := lifecycle.Start(tb.Context(), s)
	if err != nil {
		tb.Fatal(err)
	}
	stop = func() {
		if err := stopped(); err != nil {
			tb.Error(err)
		}
	}
	tb.Cleanup(stop)
	return stop
}
