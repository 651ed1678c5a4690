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
	found := map[key]readmodel.EventCount{}
	count := func(account string, is event.Type, more func(*readmodel.EventCount)) {
		k := key{account, is}
		c := found[k]
		c.Account, c.Type = account, is
		more(&c)
		found[k] = c
	}
	for name, t := range m.accounts {
		if account != "" && account != name {
			continue
		}
		for p, row := range t.events {
			// A store may have taken some rows of an event and refused others.
			aside := m.aside[p].State
			if p.Stream == stream && p.Offset <= upTo.Offset && aside != readmodel.Quarantined && aside != readmodel.Discarded {
				count(name, row.Type, func(c *readmodel.EventCount) { c.Stored++ })
			}
		}
	}
	for p, row := range m.aside {
		if account != "" && account != row.Account || p.Stream != stream || p.Offset > upTo.Offset {
			continue
		}
		switch row.State {
		case readmodel.Quarantined:
			count(row.Account, row.Type, func(c *readmodel.EventCount) { c.Quarantined += row.Events })
		case readmodel.Discarded:
			count(row.Account, row.Type, func(c *readmodel.EventCount) { c.Discarded += row.Events })
		case readmodel.Redriven:
		}
	}
	var out []readmodel.EventCount
	for _, c := range found {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b readmodel.EventCount) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Type, b.Type))
	})
	return upTo, out, nil
}
