package memmodel

import (
	"context"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

type nameKey struct {
	object readmodel.Object
	name   string
}

func (m *Model) storeNames(rows []readmodel.NameRow) {
	for _, r := range rows {
		put(m.account(r.Account).names, nameKey{r.Object, r.Name}, r, func(r *readmodel.NameRow) event.Offset { return r.Position.Offset })
	}
}

// ProductNamed implements readmodel.Names.
func (m *Model) ProductNamed(_ context.Context, account, name string) (event.ProductID, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r, ok := m.view(account).names[nameKey{readmodel.ProductObject, name}]; ok {
		return event.ProductID(r.ID), nil
	}
	return event.ProductIDOf(account, name), nil
}

// EnvironmentNamed implements readmodel.Names.
func (m *Model) EnvironmentNamed(_ context.Context, account, name string) (event.EnvironmentID, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r, ok := m.view(account).names[nameKey{readmodel.EnvironmentObject, name}]; ok {
		return event.EnvironmentID(r.ID), nil
	}
	return event.EnvironmentIDOf(account, name), nil
}
