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
	ask := q.ask
	if account == "" { // of 50 million events it takes longer than a reader would be kept waiting
		ask = q.askSlowly
	}
	var counts []readmodel.EventCount
	// A store may have taken some rows of an event and refused others.
	err = ask(ctx, "count events", `
		SELECT account, kind, sum(stored), sum(quarantined), sum(discarded) FROM (
			SELECT account, type AS kind, count() AS stored, 0 AS quarantined, 0 AS discarded FROM events_vN FINAL
			WHERE `+ofAccount+`stream = {stream:String} AND pos <= {pos:UInt64}
				AND pos NOT IN (SELECT pos FROM quarantine_vN FINAL WHERE stream = {stream:String} AND state != 'redriven')
			GROUP BY account, kind
			UNION ALL
			SELECT account, type AS kind, 0, sumIf(events, state = 'quarantined'), sumIf(events, state = 'discarded') FROM quarantine_vN FINAL
			WHERE `+ofAccount+`stream = {stream:String} AND pos <= {pos:UInt64} AND state != 'redriven'
			GROUP BY account, kind)
		GROUP BY account, kind ORDER BY account, kind`,
		p, func(s scanner) error {
			var c readmodel.EventCount
			var is string
			err := s.Scan(&c.Account, &is, &c.Stored, &c.Quarantined, &c.Discarded)
			c.Type = event.Type(is)
			counts = append(counts, c)
			return err
		})
	if err != nil {
		return upTo, nil, err
	}
	return upTo, counts, nil
}
