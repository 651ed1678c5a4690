package chmodel

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/delivery"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// CellRuns implements readmodel.Deliveries. The rows come in the order of the
// table's key, so neither side holds more than a cell.
func (m *Model) CellRuns(ctx context.Context, account string, f readmodel.CellFilter, each func(*readmodel.Cells) error) error {
	return m.now().CellRuns(ctx, account, f, each)
}

// DeliveriesOf asks what metrics are made of, of one version of the tables, which
// need not be the live one.
func (m *Model) DeliveriesOf(version uint32) readmodel.Deliveries {
	return question{Model: m, version: version}
}

// ProgressOf says how far a version is, which need not be the live one.
func (m *Model) ProgressOf(ctx context.Context, version uint32) ([]readmodel.Progress, error) {
	return m.progress(ctx, version)
}

const (
	runsByCell = `
		SELECT environment_id, product_id, inc, id, version, status, at_ms, commit_ms, mode, pos FROM dep_by_env_vN FINAL
		WHERE account = {account:String} AND environment_id IN {environments:Array(UUID)}`
	inKeyOrder = `
		ORDER BY environment_id, product_id, inc, id`
)

func scanCellRun(s scanner, account string, of *readmodel.Place, inc *uint32) (r delivery.Run, err error) {
	var status string
	var ended, committed int64
	err = s.Scan((*uuid.UUID)(&of.Environment), (*uuid.UUID)(&of.Product), inc, (*[16]byte)(&r.ID), &r.Version, &status,
		&ended, &committed, (*string)(&r.Mode), (*uint64)(&r.Offset))
	r.Status, _ = event.StatusOf(status)
	r.At, r.CommittedAt = moment(ended), moment(committed)
	r.VersionID = event.VersionIDOf(account, of.Product, r.Version)
	return r, err
}

// incOf gives what rows of the living in a cell have as inc.
func incOf(c *readmodel.Cells) uint32 {
	return uint32(c.Product.Incarnation)<<16 | uint32(c.Environment.Incarnation)
}

// cellRuns is CellRuns of one cell, whose rows are read beside what it is called.
func (q question) cellRuns(ctx context.Context, account string, f readmodel.CellFilter, each func(*readmodel.Cells) error) error {
	var n names
	runs := map[uint32][]delivery.Run{} // by incarnations
	group, both := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		n, err = q.chosen(both, account, f)
		return err
	})
	group.Go(func() error {
		b := params{"account": account, "environments": []uuid.UUID{uuid.UUID(f.Environment)}, "products": []uuid.UUID{uuid.UUID(f.Product)}}
		return q.ask(both, "read deployments by cell", runsByCell+" AND product_id IN {products:Array(UUID)}"+inKeyOrder, b, func(s scanner) error {
			var of readmodel.Place
			var inc uint32
			r, err := scanCellRun(s, account, &of, &inc)
			runs[inc] = append(runs[inc], r)
			return err
		})
	})
	if err := group.Wait(); err != nil {
		return err
	}
	product, hasProduct := n.products[f.Product]
	environment, hasEnvironment := n.environments[f.Environment]
	cell := readmodel.Cells{Product: product, Environment: environment}
	if cell.Runs = runs[incOf(&cell)]; !hasProduct || !hasEnvironment || len(cell.Runs) == 0 {
		return nil
	}
	slices.SortFunc(cell.Runs, delivery.Compare)
	return each(&cell)
}

// CellRuns implements readmodel.Deliveries for one version.
func (q question) CellRuns(ctx context.Context, account string, f readmodel.CellFilter, each func(*readmodel.Cells) error) error {
	if f.Product != (event.ProductID{}) && f.Environment != (event.EnvironmentID{}) && f.From == (readmodel.Place{}) {
		return q.cellRuns(ctx, account, f, each)
	}
	n, err := q.chosen(ctx, account, f)
	if err != nil || len(n.products) == 0 || len(n.environments) == 0 {
		return err
	}
	environments := make(map[event.EnvironmentID]bool, len(n.environments))
	for id := range n.environments {
		environments[id] = true
	}
	where, b := "", params{"account": account, "environments": uuids(environments)}
	if f.Product != (event.ProductID{}) || len(f.Products) > 0 || f.Team != "" {
		products := make(map[event.ProductID]bool, len(n.products))
		for id := range n.products {
			products[id] = true
		}
		where, b["products"] = " AND product_id IN {products:Array(UUID)}", uuids(products)
	}
	if f.From != (readmodel.Place{}) {
		where += " AND (environment_id, product_id) >= ({from_environment:UUID}, {from_product:UUID})"
		b["from_environment"], b["from_product"] = f.From.Environment.String(), f.From.Product.String()
	}
	var cell readmodel.Cells
	var at readmodel.Place
	done := func() error {
		if len(cell.Runs) == 0 {
			return nil
		}
		slices.SortFunc(cell.Runs, delivery.Compare)
		err := each(&cell)
		cell.Runs = cell.Runs[:0]
		return err
	}
	err = q.ask(ctx, "read deployments by cell", runsByCell+where+inKeyOrder, b, func(s scanner) error {
		var of readmodel.Place
		var inc uint32
		r, err := scanCellRun(s, account, &of, &inc)
		if err != nil {
			return err
		}
		if of != at {
			if err := done(); err != nil {
				return enough{err}
			}
			at, cell.Product, cell.Environment = of, n.products[of.Product], n.environments[of.Environment]
		}
		if cell.Product.ID == of.Product && incOf(&cell) == inc {
			cell.Runs = append(cell.Runs, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return done()
}

// chosen gives the products and environments of the cells that f chooses.
func (q question) chosen(ctx context.Context, account string, f readmodel.CellFilter) (names, error) {
	n := names{map[event.ProductID]readmodel.ProductRow{}, map[event.EnvironmentID]readmodel.EnvironmentRow{}}
	one := func(id string, narrows bool) (string, params) {
		if !narrows {
			return "", params{"account": account}
		}
		return " AND id = {id:UUID}", params{"account": account, "id": id}
	}
	product, ofProduct := one(f.Product.String(), f.Product != event.ProductID{})
	environment, ofEnvironment := one(f.Environment.String(), f.Environment != event.EnvironmentID{})
	group, both := errgroup.WithContext(ctx)
	group.Go(func() error {
		rows, err := list(both, q, "read products",
			"SELECT "+productSelection+" FROM products_vN FINAL WHERE account = {account:String} AND NOT deleted"+product, ofProduct, scanProductOf(account))
		for _, r := range rows {
			if f.WantsProduct(&r) {
				n.products[r.ID] = r
			}
		}
		return err
	})
	group.Go(func() error {
		rows, err := list(both, q, "read environments",
			"SELECT "+environmentSelection+" FROM environments_vN FINAL WHERE account = {account:String} AND NOT deleted"+environment, ofEnvironment, scanEnvironmentOf(account))
		for _, r := range rows {
			if f.WantsEnvironment(&r) {
				n.environments[r.ID] = r
			}
		}
		return err
	})
	return n, group.Wait()
}

// FirstBuilds implements readmodel.Deliveries.
func (m *Model) FirstBuilds(ctx context.Context, account string, versions []event.VersionID) (map[event.VersionID]time.Time, error) {
	return m.now().FirstBuilds(ctx, account, versions)
}

// FirstBuilds implements readmodel.Deliveries for one version.
func (q question) FirstBuilds(ctx context.Context, account string, versions []event.VersionID) (map[event.VersionID]time.Time, error) {
	out := map[event.VersionID]time.Time{}
	if len(versions) == 0 {
		return out, nil
	}
	ids := make([]uuid.UUID, len(versions))
	for i, id := range versions {
		ids[i] = uuid.UUID(id)
	}
	err := q.ask(ctx, "find first builds", `
		SELECT version_id, min(begun_ms) FROM builds_vN FINAL
		WHERE account = {account:String} AND version_id IN {versions:Array(UUID)} AND (product_id, `+productOf+`) IN `+livingProducts+`
		GROUP BY version_id`,
		params{"account": account, "versions": ids}, func(s scanner) error {
			var id uuid.UUID
			var ms int64
			err := s.Scan(&id, &ms)
			out[event.VersionID(id)] = moment(ms)
			return err
		})
	return out, err
}
