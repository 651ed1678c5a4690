package chmodel

import (
	"context"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// EventCounts implements readmodel.Ledger. Progress is read first: rows beyond
// it may come meanwhile, those up to it are there. It reads the columns of the
// key and no others.
func (m *Model) EventCounts(ctx context.Context, account, stream string) (readmodel.Progress, []readmodel.EventCount, error) {
	q := m.now()
	upTo := readmodel.Progress{Stream: stream}
	all, err := m.progress(ctx, q.version)
	if err != nil {
		return upTo, nil, err
	}
	for _, p := range all {
		if p.Stream == stream {
			upTo = p
		}
	}
	p := params{"stream": stream, "pos": uint64(upTo.Offset)}
	ofAccount := ""
	if account != "" {
		p["account"], ofAccount = account, `account = {account:String} AND `
	}
	counts, err := list(ctx, q, "count events", `
		SELECT account, type, count() FROM events_vN FINAL
		WHERE `+ofAccount+`stream = {stream:String} AND pos <= {pos:UInt64}
		GROUP BY account, type ORDER BY account, type`,
		p, func(s scanner) (readmodel.EventCount, error) {
			var c readmodel.EventCount
			var is string
			err := s.Scan(&c.Account, &is, &c.Stored)
			c.Type = event.Type(is)
			return c, err
		})
	return upTo, counts, err
}
