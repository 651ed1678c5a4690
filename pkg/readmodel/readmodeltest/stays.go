package readmodeltest

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
)

// However far apart successes lie, a cell's history holds them all: an adapter may
// look at the last months first, and remember how far it had to go.
func longStays(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	f := newFixture(t, sink)
	b := both{sink, memmodel.New()}
	b.store(t, f, readmodel.Rows{
		Products:     []readmodel.ProductRow{{Product: event.Product{ID: f.product(), Name: "svc", CreatedAt: epoch}, Account: f.account, Position: f.next()}},
		Environments: []readmodel.EnvironmentRow{{Environment: event.Environment{ID: f.environment(), Name: "production", Class: event.Production, CreatedAt: epoch}, Account: f.account, Position: f.next()}},
	})
	const day = 24 * time.Hour
	for _, step := range []struct {
		what string
		n    int
		from time.Time
		each time.Duration
	}{
		{"nothing", 0, epoch, 0},
		{"years ago", 7, epoch.AddDate(-12, 0, 0), 200 * day},
		{"before 1970", 2, time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), day},
		{"close", 20, epoch, time.Minute},
		{"apart", 9, epoch.AddDate(2, 0, 0), 31 * day},
		{"in years to come", 2, epoch.AddDate(40, 0, 0), day},
	} {
		var rows readmodel.Rows
		for i := range step.n {
			at := step.from.Add(time.Duration(i) * step.each)
			run := f.deployment(sinceIDs(at), strconv.Itoa(i%3), event.Completed)
			rows.Cells = append(rows.Cells, readmodel.Cell{Record: run.Record, EffectiveAt: at, ReceivedAt: at, Position: run.Position})
		}
		b.store(t, f, rows)
		filter := readmodel.StayFilter{Product: f.product(), Environment: f.environment()}
		for range 2 { // the second time it is known how far that goes
			for _, limit := range []int{1, 4, 100} {
				for p := (readmodel.Page{Limit: limit}); ; {
					want, err := b.oracle.Stays(t.Context(), f.account, filter, p)
					if err != nil {
						t.Fatal(err)
					}
					got, err := reader.Stays(t.Context(), f.account, filter, p)
					if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(readmodel.Stay{})); diff != "" || err != nil {
						t.Fatalf("%s, %+v: %v (-want +got):\n%s", step.what, p, err, diff)
					}
					if len(want) < limit {
						break
					}
					p.After = want[len(want)-1].Key()
				}
			}
		}
	}
}

// sinceIDs gives a moment that an id can hold.
func sinceIDs(t time.Time) time.Time {
	if t.UnixMilli() < 0 {
		return time.UnixMilli(0).UTC()
	}
	return t
}
