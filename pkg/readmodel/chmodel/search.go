package chmodel

import (
	"context"
	"maps"
	"slices"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// Whose runs are asked for, or what is in their metadata, is in no key, but an index
// skips what cannot match. Ids are looked for first among all copies of the rows, for
// that is where an index helps; then those rows are read as they stand, and looked at
// whole. Of hands and metadata the tables know hashes only. Both is one statement, of a window
// that holds little more than the page where a page was read before.

// indexed tells whether an index finds what f asks for.
func indexed(f *readmodel.RunFilter) bool { return f.By != "" || len(f.Meta) > 0 }

// anyTime has the ids that an index finds found without that of their time: it would be
// looked at for each granule of a window that may be as long as the account.
const anyTime = " SETTINGS ignore_data_skipping_indices = 'by_time'"

// rarely is a share of a page: where the first window holds less, the index is asked
// for all of the rest at once. A statement costs more than looking at an index.
const rarely = 8

// readApart is for a window that holds little more than the page, of deployments that lie
// apart. To look at the index as each part is read, and to read each part in the order of
// the key, costs the engine more than it spares. One thread took 14 % less of its processor
// time, and 2 ms longer of 18. Where many match by now it would read them all, and refuses.
func readApart(ctx context.Context, p readmodel.Page) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"use_skip_indexes_on_data_read": 0, "optimize_read_in_order": 0,
		"max_rows_to_read": max(mostWhole, 512*p.Limit), // a page takes two granules of 128 a row
	}))
}

// inHalves reads both halves of a window at once, where it is known where they are. Of a
// page that lies apart the engine does one thing after the other on one thread, and half of
// that is to find its way; the parts of one half's time are few of the other's. Of 10 M
// events a page by metadata took 22 to 34 ms, and 14 and 23 in two runs so.
func inHalves(ctx context.Context, w window, read func(context.Context, window) ([]readmodel.RunRow, error)) ([]readmodel.RunRow, error) {
	halves := w.halves()
	rows := make([][]readmodel.RunRow, len(halves))
	reads := make([]func(context.Context) error, len(halves))
	for i := range halves {
		reads[i] = func(ctx context.Context) (err error) {
			rows[i], err = read(ctx, halves[i])
			return err
		}
	}
	err := together(ctx, reads...)
	return slices.Concat(rows...), err
}

// search finds a page of runs by an index.
func (q question) search(ctx context.Context, kind event.Kind, account, table string, f readmodel.RunFilter, p readmodel.Page) ([]readmodel.RunRow, error) {
	if p.Limit <= 0 {
		return nil, nil
	}
	where, b := q.runsWhere(account, table, f)
	shape := shapeOf(table, where, b, f.Oldest, p)
	w, known, err := q.near(ctx, account, table, &f, p, shape, false)
	if err == nil && !known {
		w, err = q.begin(ctx, account, table, f, p)
	}
	if err != nil {
		return nil, err
	}
	where += within
	from, once := table+" WHERE "+where, " LIMIT 1 BY id"
	asked := f
	asked.Class = nil // the statement knows
	apart := known && table == deploymentsTable
	var out []readmodel.RunRow
	for len(out) < p.Limit {
		want := p.Limit - len(out)
		b["limit"] = uint32(want)
		read := func(ctx context.Context, w window) ([]readmodel.RunRow, error) {
			b := maps.Clone(b)
			b["from"], b["to"] = ulidHex(w.from), ulidHex(w.to)
			return list(ctx, q, "read runs that an index finds",
				"SELECT "+runSelection+" FROM "+table+" FINAL WHERE account = {account:String} AND id IN (SELECT id FROM "+from+inOrder(f.Oldest)+once+" LIMIT {limit:UInt32}"+anyTime+")"+inOrder(f.Oldest), b,
				func(s scanner) (readmodel.RunRow, error) { return scanRun(s, kind, account) })
		}
		var rows []readmodel.RunRow
		if apart {
			rows, err = inHalves(readApart(ctx, p), w, read)
			rows = rows[:min(want, len(rows))]
		} else {
			rows, err = read(ctx, w)
		}
		if code, _ := serverCode(err); code == tooManyRows && apart {
			apart = false
			continue
		}
		apart = false
		if err != nil {
			return nil, err
		}
		found, last := len(rows), ulid.ULID{}
		if found > 0 {
			last = rows[found-1].Record.ID
		}
		if rows, err = q.dressed(ctx, account, rows); err != nil {
			return nil, err
		}
		rows = slices.DeleteFunc(rows, func(r readmodel.RunRow) bool { return !asked.Matches(&r, event.Other) })
		out = append(out, rows...)
		if found < want {
			if w.last {
				break
			}
			w.last = len(out) < p.Limit/rarely
			w.next()
			continue
		}
		w.after(last)
		if len(rows) < found { // some are of earlier incarnations or stand otherwise by now, and there may be many
			from = table + " FINAL WHERE " + where + " AND id IN (SELECT id FROM " + table + " WHERE " + where + ")" + livingRuns(kind)
			once = ""
		}
	}
	q.hints.learn(shape, out, p, true)
	return out, nil
}
