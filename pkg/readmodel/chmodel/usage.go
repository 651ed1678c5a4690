package chmodel

import (
	"context"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// EventsByDay implements readmodel.Usage. Receipt never falls along a stream, so
// the index on it leaves only the granules of these days to be read, and of
// those a few narrow columns. FINAL would read the whole account; copies of an
// event are counted once by its place instead.
func (m *Model) EventsByDay(ctx context.Context, account string, mode event.Mode, since, until time.Time) ([]readmodel.UsageCount, error) {
	return list(ctx, m.now(), "count events by day", `
		SELECT intDiv(received_ms, 86400000) AS day, credential_id, uniqExact(stream, pos) FROM events_vN
		WHERE account = {account:String} AND received_ms >= {since:Int64} AND received_ms < {until:Int64}
			AND mode = {mode:String} AND status NOT IN ('', {refused:String})
		GROUP BY day, credential_id ORDER BY day, credential_id`,
		params{"account": account, "since": since.UnixMilli(), "until": until.UnixMilli(), "mode": string(mode), "refused": event.PreflightFailed.String()},
		func(s scanner) (readmodel.UsageCount, error) {
			c := readmodel.UsageCount{Mode: mode}
			var day int64
			err := s.Scan(&day, &c.Credential, &c.Events)
			c.Day = time.Unix(day*86400, 0).UTC()
			return c, err
		})
}
