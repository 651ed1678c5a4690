package projection_test

import (
	"context"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
)

// slowSink takes its time, and notes when it was asked.
type slowSink struct {
	*memmodel.Model
	takes time.Duration
	began []time.Time
}

func (s *slowSink) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	s.began = append(s.began, time.Now())
	time.Sleep(s.takes)
	return s.Model.Store(ctx, rows, upTo)
}

// trickle yields the frames of a log, one in ten milliseconds.
func trickle(log *memlog.Log) projection.Source {
	return func(ctx context.Context) iter.Seq2[eventlog.Recorded, error] {
		return func(yield func(eventlog.Recorded, error) bool) {
			for r, err := range log.Read(ctx, 0) {
				time.Sleep(10 * time.Millisecond)
				if !yield(r, err) {
					return
				}
			}
		}
	}
}

// A store that takes long is asked less often, so that it has time for reads and
// merges; never so seldom that events are not readable within a second.
func TestStoresThatTakeLongAreAskedLessOften(t *testing.T) {
	for _, c := range []struct {
		name         string
		takes, apart time.Duration // what a store takes, and the time from one to the next
	}{
		{"quick", 20 * time.Millisecond, 250 * time.Millisecond},
		{"slow", 120 * time.Millisecond, 360 * time.Millisecond},
		{"very slow", 500 * time.Millisecond, 600 * time.Millisecond},
		{"slower than any pause", 2 * time.Second, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := memlog.New()
				fill(t, log, 600, 1)
				sink := &slowSink{Model: memmodel.New(), takes: c.takes}
				done, err := projection.Pump(t.Context(), "t0", trickle(log), sink, projection.DefaultConfig, &counts{})
				if err != nil || done.Offset != event.At(600, 0) {
					t.Fatalf("%+v, %v", done, err)
				}
				if len(sink.began) < 3 {
					t.Fatalf("%d stores", len(sink.began))
				}
				// The first is made at once, and after the last frame nothing is waited for.
				for i := 2; i < len(sink.began)-1; i++ {
					if apart := sink.began[i].Sub(sink.began[i-1]); apart < c.apart || apart > c.apart+20*time.Millisecond {
						t.Errorf("store %d began %v after the one before, want %v", i, apart, c.apart)
					}
				}
			})
		})
	}
}
