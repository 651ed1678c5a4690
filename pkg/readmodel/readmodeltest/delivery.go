package readmodeltest

import (
	"context"
	"errors"
	"fmt"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// deliveryQuestions asks for what Deliveries hands over.
func (a *account) deliveryQuestions(ctx context.Context) []question {
	var out []question
	for _, f := range []readmodel.CellFilter{
		{},
		{Product: a.products[0]},
		{Environment: a.environments[1]},
		{Product: a.products[1], Environment: a.environments[0]},
		{Environments: []string{"prod*", "dev"}},
		{Products: []string{"*check*"}, Environments: []string{"*o*"}},
		{Products: []string{"nothing"}},
		{Team: "it's ü"},
		{Team: "it's ü", Environments: []string{"prod*"}},
		{From: readmodel.Place{Environment: a.environments[0], Product: a.products[0]}},
		{From: readmodel.Place{Environment: a.environments[1], Product: a.products[1]}, Products: []string{"*"}},
	} {
		out = append(out, question{fmt.Sprintf("cells of %s %+v", a.name, f), func(r readmodel.Reader) (any, error) {
			var cells []readmodel.Cells
			err := r.CellRuns(ctx, a.name, f, func(c *readmodel.Cells) error {
				kept := *c
				kept.Runs = append(kept.Runs[:0:0], c.Runs...)
				cells = append(cells, kept)
				return nil
			})
			return cells, err
		}})
	}
	errEnough := errors.New("enough")
	var versions []event.VersionID
	for _, p := range a.products {
		for _, v := range versionNames[:2] {
			versions = append(versions, event.VersionIDOf(a.name, p, v))
		}
	}
	for _, of := range []readmodel.Place{{}, {Product: a.products[0]}, {Environment: a.environments[1]}, {Product: a.products[1], Environment: a.environments[0]}} {
		out = append(out, question{fmt.Sprintf("counts of %s %+v", a.name, of), func(r readmodel.Reader) (any, error) {
			return r.CountRuns(ctx, a.name, of.Product, of.Environment)
		}})
	}
	return append(out,
		question{"the first cell of " + a.name, func(r readmodel.Reader) (any, error) {
			n := 0
			err := r.CellRuns(ctx, a.name, readmodel.CellFilter{}, func(c *readmodel.Cells) error {
				n += len(c.Runs)
				return errEnough
			})
			return []any{n, errors.Is(err, errEnough)}, nil
		}},
		question{"first builds of " + a.name, func(r readmodel.Reader) (any, error) { return r.FirstBuilds(ctx, a.name, versions) }},
		question{"first builds of nothing", func(r readmodel.Reader) (any, error) { return r.FirstBuilds(ctx, a.name, nil) }},
	)
}
