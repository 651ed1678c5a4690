package tracking_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/tracking"
)

func TestAClosedRunTakesAtMost32Bytes(t *testing.T) {
	var x tracking.RunIndex
	r := rand.New(rand.NewPCG(1, 2))
	worst := 0.0
	for n := 1; n <= 2_000_000; n++ {
		x.Insert(r.Uint64(), event.Offset(n))
		if n >= 20_000 && n%997 == 0 { // a handful of runs do not fill the shards they start with
			worst = max(worst, x.BytesEach())
		}
	}
	t.Logf("worst %.1f bytes a run", worst)
	if worst > 32 {
		t.Errorf("%.1f bytes a closed run, want at most 32", worst)
	}
}

func TestRunIndexHoldsWhatAMapWouldHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x tracking.RunIndex
		model := map[uint64][]event.Offset{}
		// Few hashes, in one shard, so that they collide in every way.
		hash := rapid.Custom(func(t *rapid.T) uint64 { return rapid.Uint64Range(0, 40).Draw(t, "hash") << 47 })
		next := event.Offset(1)
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			h := hash.Draw(t, "h")
			switch at := model[h]; rapid.IntRange(0, 2).Draw(t, "op") {
			case 0:
				x.Insert(h, next)
				model[h] = append(model[h], next)
				next++
			case 1:
				if len(at) > 0 {
					x.Remove(h, at[0])
					model[h] = slices.Clone(at[1:])
				}
			default:
				if len(at) > 0 {
					if !x.Move(h, at[0], next) {
						t.Fatalf("%d is not there to be moved", at[0])
					}
					model[h] = append(slices.Clone(at[1:]), next)
					next++
				}
			}
			for h, want := range model {
				got := x.Lookup(h)
				slices.Sort(got)
				want = slices.Sorted(slices.Values(want))
				if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
					t.Fatalf("under %x: %s", h, diff)
				}
			}
		}
	})
}
