package chmodel

import (
	"context"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// Whose runs are asked for, or what is in their metadata, is in no key, but an index
// skips what cannot match. Ids are looked for first among all copies of the rows, for
// that is where an index helps; then those rows are read as they stand, and looked at
// whole. Of metadata the tables know hashes only.

// indexed tells whether an index finds what f asks for.
func indexed(f *readmodel.RunFilter) bool { return f.By != "" || len(f.Meta) > 0 }

// rarely is a share of a page: where the first window holds less, the index is asked
// for all of the rest at once. A statement costs more than looking at an index.
const rarely = 8

// search finds a page of runs by an index.
func (q question) search(ctx context.Context, kind event.Kind, account, table string, f readmodel.RunFilter, p readmodel.Page) ([]readmodel.RunRow, error) {
	where, b := q.runsWhere(account, table, f)
	shape := shapeOf(table, where, b, f.Oldest, p)
	w, err := q.begin(ctx, account, table, f, p)
	if err != nil {
		return nil, err
	}
	if !w.last && q.hints.rare(shape) {
		w.last = true
		w.stretch()
	}
	where += within
	from, order := table+" WHERE "+where, inOrder(f.Oldest)+" LIMIT 1 BY id"
	var out []readmodel.RunRow
	for ended := false; !ended && len(out) < p.Limit; {
		want := p.Limit - len(out)
		var ids []ulid.ULID
		var of []identity
		for {
			b["from"], b["to"], b["limit"] = ulidHex(w.from), ulidHex(w.to), uint32(want-len(ids))
			more, moreOf, err := q.findRuns(ctx, from, order, b)
			if err != nil {
				return nil, err
			}
			ids, of = append(ids, more...), append(of, moreOf...)
			if ended = len(ids) < want && w.last; ended || len(ids) == want {
				break
			}
			if len(out)+len(ids) < p.Limit/rarely {
				q.hints.setRare(shape, true)
				w.last = true
			}
			w.next()
		}
		if len(ids) == 0 {
			break
		}
		w.after(ids[len(ids)-1])
		if w.last && len(ids) == p.Limit && spanOf(ids[0], ids[len(ids)-1]) < firstWindow { // no longer
			q.hints.setRare(shape, false)
		}
		rows, err := q.runsOf(ctx, kind, account, ids, of)
		if err != nil {
			return nil, err
		}
		if f.Oldest {
			slices.Reverse(rows)
		}
		asked := f
		asked.Class = nil // the statement knew
		rows = slices.DeleteFunc(rows, func(r readmodel.RunRow) bool { return !asked.Matches(&r, event.Other) })
		if len(rows) < len(ids) { // some are of earlier incarnations or stand otherwise by now, and there may be many
			from = table + " FINAL WHERE " + where + " AND id IN (SELECT id FROM " + table + " WHERE " + where + ")" + livingRuns(kind)
			order = inOrder(f.Oldest)
		}
		out = append(out, rows...)
	}
	return out, nil
}
