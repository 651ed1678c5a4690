package memmodel

import (
	"context"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func (m *Model) storeReleases(rows []readmodel.ReleaseRow) {
	for _, r := range rows {
		r.CreatedAt = readmodel.Moment(r.CreatedAt)
		r.Versions = slices.Clone(r.Versions)
		for i := range r.Versions {
			r.Versions[i].AddedAt = readmodel.Moment(r.Versions[i].AddedAt)
		}
		put(m.account(r.Account).releases, r.ID, r, func(r *readmodel.ReleaseRow) event.Offset { return r.Position.Offset })
	}
}

// dressRelease leaves out what was deleted, and gives the names of now.
func (t *tables) dressRelease(r *readmodel.ReleaseRow) {
	var living []event.ReleaseVersion
	for _, v := range r.Versions {
		if p, ok := t.products[v.ProductID]; ok && !p.Deleted && p.Incarnation == v.Incarnation {
			v.ProductName = p.Name
			living = append(living, v)
		}
	}
	r.Versions = living
}

// Releases implements readmodel.Releases.
func (m *Model) Releases(_ context.Context, account string, p readmodel.Page) ([]readmodel.ReleaseRow, error) {
	var after ulid.ULID
	if p.After != "" {
		var err error
		if after, err = readmodel.ParseRunKey(p.After); err != nil {
			return nil, err
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	var out []readmodel.ReleaseRow
	for id, r := range t.releases {
		if p.After == "" || id.Compare(after) < 0 {
			t.dressRelease(&r)
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b readmodel.ReleaseRow) int { return b.ID.Compare(a.ID) })
	return first(out, p.Limit), nil
}

// Release implements readmodel.Releases.
func (m *Model) Release(_ context.Context, account string, id ulid.ULID) (readmodel.ReleaseRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	r, ok := t.releases[id]
	if !ok {
		return readmodel.ReleaseRow{}, readmodel.ErrNotFound
	}
	t.dressRelease(&r)
	return r, nil
}
