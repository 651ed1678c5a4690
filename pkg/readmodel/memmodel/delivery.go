package memmodel

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/delivery"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// CellRuns implements readmodel.Deliveries.
func (m *Model) CellRuns(_ context.Context, account string, f readmodel.CellFilter, each func(*readmodel.Cells) error) error {
	m.mu.RLock()
	t := m.view(account)
	cells := map[readmodel.Place]*readmodel.Cells{}
	for _, r := range t.deployments {
		rec := &r.Record
		product, environment := t.products[rec.ProductID], t.environments[rec.EnvironmentID]
		at := readmodel.Place{Environment: rec.EnvironmentID, Product: rec.ProductID}
		if !t.dress(rec) || !f.WantsProduct(&product) || !f.WantsEnvironment(&environment) || readmodel.ComparePlaces(at, f.From) < 0 {
			continue
		}
		c := cells[at]
		if c == nil {
			c = &readmodel.Cells{Product: product, Environment: environment}
			cells[at] = c
		}
		c.Runs = append(c.Runs, delivery.Run{
			ID: rec.ID, Version: rec.Version, VersionID: rec.VersionID, Status: rec.Status, At: readmodel.Moment(r.At()),
			CommittedAt: readmodel.CommitTime(rec), Mode: r.Author.Mode, Offset: r.Position.Offset,
		})
	}
	m.mu.RUnlock()
	for _, at := range slices.SortedFunc(maps.Keys(cells), readmodel.ComparePlaces) {
		slices.SortFunc(cells[at].Runs, delivery.Compare)
		if err := each(cells[at]); err != nil {
			return err
		}
	}
	return nil
}

// FirstBuilds implements readmodel.Deliveries.
func (m *Model) FirstBuilds(_ context.Context, account string, versions []event.VersionID) (map[event.VersionID]time.Time, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	out := map[event.VersionID]time.Time{}
	for _, b := range t.builds {
		rec := &b.Record
		id := event.VersionIDOf(account, rec.ProductID, rec.Version)
		if !t.dress(rec) || !slices.Contains(versions, id) {
			continue
		}
		at := readmodel.Moment(rec.DeployedAt())
		if old, ok := out[id]; !ok || at.Before(old) {
			out[id] = at
		}
	}
	return out, nil
}
