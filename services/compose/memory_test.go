package compose_test

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
	"github.com/shipledger/shipledger/services/compose"
)

// What is asked for holds while little lives; a ledger that needs more is not made
// to collect all the time.
func TestTheLimitOfMemoryGivesWayToWhatLives(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		asked  int64
		live   uint64
		limits int64
	}{
		{1024 * mb, 0, 1024 * mb},
		{1024 * mb, 512 * mb, 1024 * mb},
		{1024 * mb, 513 * mb, 1088 * mb},
		{1024 * mb, 2048 * mb, 4096 * mb},
		{mb, 5 * mb, 64 * mb},
	} {
		if got := compose.LimitFor(c.asked, c.live); got != c.limits {
			t.Errorf("%d MB asked for, %d MB live: %d MB, want %d", c.asked/mb, c.live/mb, got/mb, c.limits/mb)
		}
	}
	if got := compose.LimitFor(mb, math.MaxUint64); got <= 0 {
		t.Errorf("%d", got)
	}
}

func TestTheLimitOfMemoryHoldsWhileAProcessServes(t *testing.T) {
	const asked = 3 << 30
	before := debug.SetMemoryLimit(-1)
	stop := lifecycletest.Run(t, compose.Bounded(asked))
	if got := debug.SetMemoryLimit(-1); got != asked {
		t.Errorf("the limit is %d", got)
	}
	stop()
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("afterwards it is %d, before it was %d", got, before)
	}
	lifecycletest.Run(t, compose.Bounded(0))()
	t.Setenv("GOMEMLIMIT", "2GiB")
	lifecycletest.Run(t, compose.Bounded(asked))()
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("0 or GOMEMLIMIT make it %d, before it was %d", got, before)
	}
}
