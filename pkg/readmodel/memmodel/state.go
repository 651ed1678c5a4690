package memmodel

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// Changes implements readmodel.States.
func (m *Model) Changes(_ context.Context, account string, f readmodel.ChangeFilter, p readmodel.Page) ([]readmodel.Change, error) {
	if p.After != "" {
		if _, err := readmodel.ParseChangeKey(p.After); err != nil {
			return nil, err
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	first, second := f.Side(false), f.Side(true)
	var out []readmodel.Change
	for _, product := range t.products {
		if product.Deleted || f.Product != (event.ProductID{}) && f.Product != product.ID ||
			!strings.Contains(strings.ToLower(product.Name), strings.ToLower(f.Search)) || !by(f.KnownAt, product.CreatedAt) {
			continue
		}
		product.Description, product.Extra = "", nil
		compare := func(environment, from, to readmodel.EnvironmentRow) {
			c := readmodel.Change{
				Product: product, Environment: environment,
				From: t.occupant(product, from, first), To: t.occupant(product, to, second),
			}
			if version(c.From) != version(c.To) && (p.After == "" || readmodel.CompareChangeKeys(c.Key(), p.After) > 0) {
				out = append(out, c)
			}
		}
		if f.BetweenEnvironments() {
			compare(readmodel.EnvironmentRow{}, t.environments[f.Left], t.environments[f.Right])
			continue
		}
		for _, e := range t.columns(first) {
			compare(e, e, e)
		}
	}
	slices.SortFunc(out, func(a, b readmodel.Change) int { return readmodel.CompareChangeKeys(a.Key(), b.Key()) })
	return out[:min(len(out), max(p.Limit, 0))], nil
}

// occupant gives what the matrix of f shows of a product in an environment.
func (t *tables) occupant(p readmodel.ProductRow, e readmodel.EnvironmentRow, f readmodel.MatrixFilter) *readmodel.Occupant {
	if e.Deleted || !f.Column(&e) {
		return nil
	}
	live := t.cell(cellKey{p.ID, e.ID, p.Incarnation, e.Incarnation}, f).Live
	if live == nil {
		return nil
	}
	return &readmodel.Occupant{Environment: e.ID, Deployment: live.ID, Version: live.Version, At: live.At}
}

func version(o *readmodel.Occupant) string {
	if o == nil {
		return ""
	}
	return o.Version
}

// Stays implements readmodel.States.
func (m *Model) Stays(_ context.Context, account string, f readmodel.StayFilter, p readmodel.Page) ([]readmodel.Stay, error) {
	if p.After != "" {
		if _, _, err := readmodel.ParseStayKey(p.After); err != nil {
			return nil, err
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	key := cellKey{f.Product, f.Environment, t.products[f.Product].Incarnation, t.environments[f.Environment].Incarnation}
	var cells []readmodel.Cell
	for _, c := range t.cells[key] {
		if by(f.KnownAt, c.ReceivedAt) && t.dress(&c.Record) {
			cells = append(cells, c)
		}
	}
	slices.SortFunc(cells, func(a, b readmodel.Cell) int {
		return cmp.Or(b.EffectiveAt.Compare(a.EffectiveAt), cmp.Compare(b.Position.Offset, a.Position.Offset))
	})
	var all []readmodel.Stay
	var staying readmodel.Staying
	for _, c := range cells {
		if s, ok := staying.Add(c); ok {
			all = append(all, s)
		}
	}
	if s, ok := staying.Last(); ok {
		all = append(all, s)
	}
	if p.After != "" {
		at := slices.IndexFunc(all, func(s readmodel.Stay) bool { return s.Key() == p.After })
		all = all[at+1:]
	}
	return all[:min(len(all), max(p.Limit, 0))], nil
}

// CountRuns implements readmodel.States.
func (m *Model) CountRuns(_ context.Context, account string, product event.ProductID, environment event.EnvironmentID) (readmodel.Counts, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	out := readmodel.Counts{ByStatus: map[event.Status]int{}}
	f := readmodel.RunFilter{Product: product, Environment: environment}
	for _, r := range t.deployments {
		if !t.dress(&r.Record) || !f.Matches(&r, event.Other) {
			continue
		}
		out.ByStatus[r.Record.Status]++
		if r.Record.ID.Compare(out.Newest) > 0 {
			out.Newest = r.Record.ID
		}
	}
	return out, nil
}
