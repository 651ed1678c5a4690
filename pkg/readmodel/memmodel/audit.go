package memmodel

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/readmodel"
)

// Events implements readmodel.Audit.
func (m *Model) Events(_ context.Context, account string, f readmodel.EventFilter, spans readmodel.Spans, newest bool, limit int) ([]readmodel.EventRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	streams := map[string][]readmodel.EventRow{}
	for p, e := range m.view(account).events {
		if span, ok := spans[p.Stream]; ok && p.Offset > span.After && p.Offset <= span.UpTo && f.Matches(&e) {
			streams[p.Stream] = append(streams[p.Stream], e)
		}
	}
	for _, rows := range streams {
		slices.SortFunc(rows, func(a, b readmodel.EventRow) int {
			if newest {
				a, b = b, a
			}
			return int(a.Position.Offset) - int(b.Position.Offset)
		})
	}
	return readmodel.EventsInOrder(slices.Collect(maps.Values(streams)), newest, limit), nil
}

// Event implements readmodel.Audit.
func (m *Model) Event(_ context.Context, account string, id ulid.ULID) (readmodel.EventRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, e := range m.view(account).events {
		if e.ID == id {
			return e, nil
		}
	}
	return readmodel.EventRow{}, readmodel.ErrNotFound
}

// Writes implements readmodel.Audit.
func (m *Model) Writes(_ context.Context, account string, f readmodel.EventFilter, limit int) ([]readmodel.WriteGroup, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	type key struct{ kind, product, environment string }
	groups := map[key]readmodel.WriteGroup{}
	for _, e := range m.view(account).events {
		if !f.Matches(&e) {
			continue
		}
		var said struct {
			Product     string `json:"product_name"`
			Name        string `json:"environment_name"`
			Environment string `json:"environment"`
		}
		_ = json.Unmarshal([]byte(e.Request), &said) // what is no request names nothing
		k := key{string(e.Type), said.Product, cmp.Or(said.Name, said.Environment)}
		g, known := groups[k]
		if !known {
			g = readmodel.WriteGroup{Type: e.Type, Product: k.product, Environment: k.environment, First: e.ReceivedAt, Last: e.ReceivedAt}
		}
		g.Events++
		if e.ReceivedAt.Before(g.First) {
			g.First = e.ReceivedAt
		}
		if e.ReceivedAt.After(g.Last) {
			g.Last = e.ReceivedAt
		}
		groups[k] = g
	}
	return first(slices.SortedFunc(maps.Values(groups), func(a, b readmodel.WriteGroup) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Product, b.Product), cmp.Compare(a.Environment, b.Environment))
	}), limit), nil
}
