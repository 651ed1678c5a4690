package memmodel

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// EventsByDay implements readmodel.Usage.
func (m *Model) EventsByDay(_ context.Context, account string, mode event.Mode, since, until time.Time) ([]readmodel.UsageCount, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	type key struct {
		day        int64
		credential string
	}
	found := map[key]uint64{}
	f := readmodel.EventFilter{Mode: mode, Since: since, Until: until}
	for _, e := range m.view(account).events {
		if e.Status != "" && e.Status != event.PreflightFailed.String() && e.Author.Mode == mode && f.Matches(&e) {
			found[key{e.ReceivedAt.Unix() / 86400, e.Author.CredentialID}]++
		}
	}
	var out []readmodel.UsageCount
	for k, n := range found {
		out = append(out, readmodel.UsageCount{Credential: k.credential, Mode: mode, Day: time.Unix(k.day*86400, 0).UTC(), Events: n})
	}
	slices.SortFunc(out, func(a, b readmodel.UsageCount) int {
		return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.Credential, b.Credential))
	})
	return out, nil
}
