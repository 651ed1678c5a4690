package memmodel

import (
	"cmp"
	"context"
	"slices"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func (m *Model) storeQuarantine(rows []readmodel.QuarantineRow) {
	for _, r := range rows {
		r.ReceivedAt, r.SetAsideAt = readmodel.Moment(r.ReceivedAt), readmodel.Moment(r.SetAsideAt)
		if old, ok := m.aside[r.Position]; !ok || old.Turn <= r.Turn {
			m.aside[r.Position] = r
		}
	}
}

// Quarantine implements readmodel.Sink.
func (m *Model) Quarantine(_ context.Context, f readmodel.QuarantineFilter, p readmodel.Page) ([]readmodel.QuarantineRow, error) {
	var after event.Position
	if p.After != "" {
		var err error
		if after, err = event.ParsePosition(p.After); err != nil {
			return nil, err
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []readmodel.QuarantineRow
	for _, r := range m.aside {
		if f.Matches(&r) && byPosition(r.Position, after) > 0 {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b readmodel.QuarantineRow) int { return byPosition(a.Position, b.Position) })
	return out[:min(len(out), p.Limit)], nil
}

func byPosition(a, b event.Position) int {
	return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Offset, b.Offset))
}
