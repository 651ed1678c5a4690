package projector

import (
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/projection"
)

// However many partitions there are, the store gets no more inserts a second than of
// four, or one of each; and nobody waits for longer than a second.
func TestPartitionsShareTheInsertsOfALog(t *testing.T) {
	most := 4 * float64(time.Second/projection.DefaultConfig.Pause)
	for n := 1; n <= 64; n++ {
		pause := livePause(n)
		if pause < projection.DefaultConfig.Pause || pause > time.Second {
			t.Errorf("of %d partitions each is stored every %s", n, pause)
		}
		if inserts := float64(n) * float64(time.Second) / float64(pause); inserts > max(most, float64(n)) {
			t.Errorf("of %d partitions the store gets %.0f inserts a second", n, inserts)
		}
	}
}

func TestATurnEndsWithTheFrameThatTheLogEndedWith(t *testing.T) {
	failed := errors.New("failed")
	frames := func(fails uint64) iter.Seq2[eventlog.Recorded, error] {
		return func(yield func(eventlog.Recorded, error) bool) {
			for seq := uint64(4); seq <= 9; seq++ {
				if seq == fails && !yield(eventlog.Recorded{}, failed) || !yield(eventlog.Recorded{Seq: seq}, nil) {
					return
				}
			}
		}
	}
	for _, c := range []struct{ upTo, fails, last, faults uint64 }{{0, 0, 9, 0}, {7, 0, 7, 0}, {4, 0, 4, 0}, {7, 6, 7, 1}} {
		var last, faults uint64
		for r, err := range until(c.upTo, frames(c.fails)) {
			if err != nil {
				faults++
				continue
			}
			last = r.Seq
		}
		if last != c.last || faults != c.faults {
			t.Errorf("up to %d it came to %d with %d errors", c.upTo, last, faults)
		}
	}
}
