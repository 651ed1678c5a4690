package memmodel

import (
	"cmp"
	"context"
	"slices"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// EventCounts implements readmodel.Ledger.
func (m *Model) EventCounts(_ context.Context, account, stream string) (readmodel.Progress, []readmodel.EventCount, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	upTo, ok := m.progress[stream]
	if !ok {
		upTo.Stream = stream
	}
	type key struct {
		account string
		is      event.Type
	}
	found := map[key]uint64{}
	for name, t := range m.accounts {
		if account != "" && account != name {
			continue
		}
		for p, row := range t.events {
			if p.Stream == stream && p.Offset <= upTo.Offset {
				found[key{name, row.Type}]++
			}
		}
	}
	var out []readmodel.EventCount
	for k, n := range found {
		out = append(out, readmodel.EventCount{Account: k.account, Type: k.is, Stored: n})
	}
	slices.SortFunc(out, func(a, b readmodel.EventCount) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Type, b.Type))
	})
	return upTo, out, nil
}
