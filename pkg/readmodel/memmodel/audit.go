package memmodel

import (
	"context"
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
