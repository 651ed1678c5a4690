package readmodel

import (
	"context"
	"slices"

	"github.com/shipledger/shipledger/pkg/delivery"
	"github.com/shipledger/shipledger/pkg/event"
)

// judgedAtOnce bounds how many deployments wait for the first builds of their
// versions, which are looked up together.
const judgedAtOnce = 50_000

// Judged is a judgement and the cell that it is of.
type Judged struct {
	delivery.Judgement

	Cell *Cells
}

// Judge hands the judgements of every chosen cell to each, in the order of cells
// and of deployments in them. An error of each ends it and is returned.
func Judge(ctx context.Context, from Deliveries, account string, f CellFilter, w delivery.Window, each func(Judged) error) error {
	var waiting []Cells
	var versions []event.VersionID
	held := 0
	flush := func() error {
		builds, err := from.FirstBuilds(ctx, account, versions)
		if err != nil {
			return err
		}
		for i := range waiting {
			var failed error
			delivery.Judge(waiting[i].Runs, builds, w, func(j delivery.Judgement) {
				if failed == nil {
					failed = each(Judged{j, &waiting[i]})
				}
			})
			if failed != nil {
				return failed
			}
		}
		waiting, versions, held = waiting[:0], versions[:0], 0
		return nil
	}
	err := from.CellRuns(ctx, account, f, func(c *Cells) error {
		kept := *c
		kept.Runs = slices.Clone(c.Runs)
		waiting, versions = append(waiting, kept), append(versions, delivery.NeedBuilds(c.Runs, w)...)
		if held += len(c.Runs); held < judgedAtOnce {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}
