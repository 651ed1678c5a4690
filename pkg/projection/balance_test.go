package projection_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/tally"
)

func TestABalanceNamesWhatIsMissingAndWhatWasNeverAccepted(t *testing.T) {
	got := projection.Balance(
		tally.Counts{{Account: "a", Type: "deployment.completed"}: 5, {Account: "a", Type: "product.created"}: 1, {Account: "b", Type: "x.y"}: 2},
		[]readmodel.EventCount{
			{Account: "a", Type: "deployment.completed", Stored: 3, Quarantined: 1},
			{Account: "b", Type: "x.y", Stored: 2},
			{Account: "c", Type: "build.started", Stored: 4},
		})
	want := []projection.Entry{
		{Account: "a", Type: "deployment.completed", Accepted: 5, Projected: 3, Quarantined: 1},
		{Account: "a", Type: "product.created", Accepted: 1},
		{Account: "b", Type: "x.y", Accepted: 2, Skipped: 2},
		{Account: "c", Type: "build.started", Projected: 4},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i, difference := range []int64{1, 1, 0, -4} {
		if got[i].Difference() != difference {
			t.Errorf("%+v: difference %d", got[i], got[i].Difference())
		}
	}
}
