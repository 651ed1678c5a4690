package tracking_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/tracking"
)

func TestAStateFromWhichPartsWereSealedDecidesLikeOneThatHoldsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole, parted := newLedger(t), newLedger(t)
		for _, f := range rapid.SliceOfN(anyBody, 1, 60).Draw(t, "commands") {
			if rapid.IntRange(0, 3).Draw(t, "seal") == 0 {
				parted.sealed = append(parted.sealed, parted.state.Seal())
			}
			if want, got := whole.try(f), parted.try(f); want != got {
				t.Fatalf("%v: %s where parts were sealed, %s where none were", f, got, want)
			}
		}
		if n := len(parted.sealed); parted.state.Parts() != n {
			t.Fatalf("it counts %d parts, %d were sealed", parted.state.Parts(), n)
		}
		// However often a run went on after it was closed, one entry of it stands.
		var left []tracking.ClosedRun
		for _, p := range parted.sealed {
			left = append(left, slices.Collect(p.All())...)
		}
		left = append(left, slices.Collect(parted.state.Seal().All())...)
		slices.SortFunc(left, tracking.ClosedRun.Compare)
		got := map[uint64][]event.Offset{}
		for i := 0; i < len(left); i++ {
			if i+1 < len(left) && left[i].EndedBy(left[i+1]) {
				i++
				continue
			}
			got[left[i].Hash] = append(got[left[i].Hash], left[i].At)
		}
		if diff := cmp.Diff(whole.state.ClosedRuns(), got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestAPartThatCannotBeReadLetsNothingBeDecided(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("success", fields{"invoke_id": "1"}))
	if _, err := l.state.Needs(command(deployment("success", fields{"invoke_id": "2"})), unreadable{}); !errors.Is(err, errUnreadable) {
		t.Errorf("Needs gives %v", err)
	}
}

var errUnreadable = errors.New("unreadable")

type unreadable struct{}

func (unreadable) Lookup(uint64) ([]event.Offset, error) { return nil, errUnreadable }
