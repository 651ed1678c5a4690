package compose

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/shipledger/shipledger/pkg/lifecycle"
)

// garbagePercent trades memory for time: what lives is small (tens of MB), what
// every event leaves behind is not, and collecting took a tenth of the process.
const garbagePercent = 400

// TuneMemory sets how much garbage may lie around, unless GOGC says.
func TuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

const (
	// liveShare is how much of what lives the limit is at the least. A ledger with
	// very many runs decides on more than the limit; one below what lives would have
	// the process do nothing but collect.
	liveShare = 2
	// memoryLook is how often that is looked at. A limit that is too low until then
	// costs half of the processor at the most: the runtime gives up on it beyond.
	memoryLook = time.Second
)

// liveBytes is what of the heap the last collection found in use.
const liveBytes = "/gc/heap/live:bytes"

// bounded keeps the memory of this process, garbage included and what it maps or
// starts apart, below a limit where it can, unless GOMEMLIMIT says. 0 is no limit.
//
// Garbage is bounded in proportion to what lives (TuneMemory), which is little in a
// small ledger; in a rebuild, which has two blocks of every table in hand, it came to
// 2 GB and more.
func bounded(limit int64) lifecycle.Service {
	return lifecycle.Func(func(ctx context.Context, ready func()) error {
		if limit <= 0 || os.Getenv("GOMEMLIMIT") != "" {
			return Nothing(ctx, ready)
		}
		before := debug.SetMemoryLimit(limit)
		ready()
		defer debug.SetMemoryLimit(before)
		tick := time.NewTicker(memoryLook)
		defer tick.Stop()
		for inForce := limit; ; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if wanted := limitFor(limit, live()); wanted != inForce {
				debug.SetMemoryLimit(wanted)
				inForce = wanted
			}
		}
	})
}

// limitFor gives the limit to set where so much lives, in steps, so that it is
// seldom another one: setting it stops the process for a moment.
func limitFor(asked int64, live uint64) int64 {
	const step = 64 << 20
	least := int64(min(live, math.MaxInt64/liveShare-step)) * liveShare
	if least <= asked {
		return asked
	}
	return (least + step - 1) / step * step
}

func live() uint64 {
	sample := []metrics.Sample{{Name: liveBytes}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 { // a Go that does not tell
		return 0
	}
	return sample[0].Value.Uint64()
}
