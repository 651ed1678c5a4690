package memmodel

import (
	"context"

	"github.com/shipledger/shipledger/pkg/event"
)

// Newer implements readmodel.Freshness.
func (m *Model) Newer(_ context.Context, account, stream string, after event.Offset) (bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.accounts[account]
	if t == nil {
		return false, nil
	}
	for p := range t.events {
		if p.Stream == stream && p.Offset > after {
			return true, nil
		}
	}
	return false, nil
}

// Edition implements readmodel.Freshness. There is one.
func (m *Model) Edition() uint32 { return 1 }
