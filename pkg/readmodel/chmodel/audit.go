package chmodel

import (
	"context"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/readmodel"
)

// Events implements readmodel.Audit. Each stream is read in the order of the key
// for as long as the page is not full, and no further. An event never changes,
// so any of its copies will do and FINAL is not needed.
func (m *Model) Events(ctx context.Context, account string, f readmodel.EventFilter, spans readmodel.Spans, newest bool, limit int) ([]readmodel.EventRow, error) {
	q := m.now()
	where, filters := eventsWhere(f)
	names := slices.Sorted(maps.Keys(spans))
	streams := make([][]readmodel.EventRow, len(names))
	group, each := errgroup.WithContext(ctx)
	for i, stream := range names {
		span := spans[stream]
		if span.UpTo <= span.After {
			continue
		}
		group.Go(func() (err error) {
			streams[i], err = q.eventsOf(each, account, stream, where, filters, span, newest, limit)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return readmodel.EventsInOrder(streams, newest, limit), nil
}

// eventsOf reads on behind copies, so that a short answer is the end of the span.
// LIMIT BY would leave them out in the statement, but makes it read the whole span.
func (q question) eventsOf(ctx context.Context, account, stream, where string, filters params, span readmodel.Span, newest bool, limit int) ([]readmodel.EventRow, error) {
	order := " ORDER BY account, stream, pos"
	if newest {
		order = " ORDER BY account DESC, stream DESC, pos DESC"
	}
	var out []readmodel.EventRow
	spans := readmodel.Spans{stream: span}
	for {
		b := maps.Clone(filters)
		b["account"], b["stream"], b["after"], b["upto"] = account, stream, uint64(spans[stream].After), uint64(spans[stream].UpTo)
		b["limit"] = uint32(limit)
		rows, err := list(ctx, q, "read events", `
			SELECT `+eventSelection+` FROM events_vN
			WHERE account = {account:String} AND stream = {stream:String} AND pos > {after:UInt64} AND pos <= {upto:UInt64}`+where+
			order+" LIMIT {limit:UInt32}", b,
			func(s scanner) (readmodel.EventRow, error) { return scanEvent(s, account) })
		if err != nil {
			return nil, err
		}
		spans = spans.Rest(rows, newest)
		short := len(rows) < limit
		out = append(out, slices.CompactFunc(rows, func(a, b readmodel.EventRow) bool { return a.Position == b.Position })...)
		if short || len(out) >= limit {
			return out, nil
		}
	}
}

func eventsWhere(f readmodel.EventFilter) (string, params) {
	where, b := "", params{}
	equal := func(column, value string) {
		if value != "" {
			where += " AND " + column + " = {" + column + ":String}"
			b[column] = value
		}
	}
	equal("type", string(f.Type))
	equal("credential_id", f.Credential)
	equal("subject", f.Subject)
	equal("actor", f.Actor)
	equal("mode", string(f.Mode))
	if f.Family != "" {
		where += " AND startsWith(type, {family:String})"
		b["family"] = f.Family + "."
	}
	if !f.Since.IsZero() {
		where += " AND received_ms >= {since:Int64}"
		b["since"] = f.Since.UnixMilli()
	}
	if !f.Until.IsZero() {
		where += " AND received_ms < {until:Int64}"
		b["until"] = f.Until.UnixMilli()
	}
	return where, b
}

// Event implements readmodel.Audit.
func (m *Model) Event(ctx context.Context, account string, id ulid.ULID) (readmodel.EventRow, error) {
	return one(ctx, m.now(), "read an event", `
		SELECT `+eventSelection+` FROM events_vN
		WHERE account = {account:String} AND id = toFixedString(unhex({id:String}), 16) LIMIT 1`,
		params{"account": account, "id": ulidHex(id)},
		func(s scanner) (readmodel.EventRow, error) { return scanEvent(s, account) })
}

// Writes implements readmodel.Audit. Copies of an event count once.
func (m *Model) Writes(ctx context.Context, account string, f readmodel.EventFilter, limit int) ([]readmodel.WriteGroup, error) {
	where, b := eventsWhere(f)
	b["account"], b["limit"] = account, uint32(limit)
	return list(ctx, m.now(), "sum up events", `
		SELECT type AS kind, JSONExtractString(request, 'product_name') AS product,
			if(JSONExtractString(request, 'environment_name') = '', JSONExtractString(request, 'environment'), JSONExtractString(request, 'environment_name')) AS environment,
			uniqExact(stream, pos) AS n, min(received_ms), max(received_ms)
		FROM events_vN WHERE account = {account:String}`+where+`
		GROUP BY kind, product, environment ORDER BY n DESC, kind, product, environment LIMIT {limit:UInt32}`, b,
		func(s scanner) (g readmodel.WriteGroup, err error) {
			var n uint64
			var first, last int64
			err = s.Scan((*string)(&g.Type), &g.Product, &g.Environment, &n, &first, &last)
			g.Events, g.First, g.Last = int(n), moment(first), moment(last)
			return g, err
		})
}
