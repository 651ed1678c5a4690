package chmodel

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// A page of a list of runs costs the engine least as one statement that reads
// whole rows in a window that holds little more than the page: 6 to 9 ms of its
// processor time, of a million deployments in eight parts, where finding ids in a
// week and reading those rows took 4 and 9 to 15. How long such a window is can
// only be known from pages that were read before.

// hint is what an earlier page of a list told of the next. It may be wrong in
// every way: it decides where a list is looked at first, never what it holds.
type hint struct {
	each    time.Duration // from one run to the next
	edge    ulid.ULID     // the last run of the first page
	middle  ulid.ULID     // the one that begins its second half
	known   bool          // there was a first page, of which edge is the last
	all     bool          // and it was the whole list
	refused int           // windows in a row that held too much
	asked   int           // pages since then
}

// keptHints is for how many lists there are hints: two megabytes or so.
const keptHints = 4096

// hints are those of the lists that were read last. The zero value has none.
type hints struct {
	mu sync.Mutex
	of map[string]*hint
}

// shapeOf names what lists have in common that are alike but for where they begin.
func shapeOf(table, where string, b params, oldest bool, p readmodel.Page) string {
	return table + strconv.Itoa(p.Limit) + strconv.FormatBool(oldest) + where + fmt.Sprint(b) // in order of names
}

func (h *hints) get(shape string) (hint, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	got := h.of[shape]
	if got == nil {
		return hint{}, false
	}
	// One that was refused again and again is tried from time to time: the parts
	// that were in the way may be merged.
	got.asked++
	return *got, got.refused < 3 || got.asked%64 == 0
}

func (h *hints) change(shape string, f func(*hint)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	got := h.of[shape]
	if got == nil {
		if len(h.of) >= keptHints { // any will do: the others are learned again by one page each
			for other := range h.of {
				delete(h.of, other)
				break
			}
		}
		if h.of == nil {
			h.of = map[string]*hint{}
		}
		got = &hint{}
		h.of[shape] = got
	}
	f(got)
}

func (h *hints) refused(shape string) { h.change(shape, func(h *hint) { h.refused++ }) }

// learn takes down what a page tells, and whether it was read whole.
func (h *hints) learn(shape string, rows []readmodel.RunRow, p readmodel.Page, whole bool) {
	h.change(shape, func(h *hint) {
		if whole {
			h.refused = 0
		}
		if len(rows) > 1 {
			h.each = spanOf(rows[0].Record.ID, rows[len(rows)-1].Record.ID) / time.Duration(len(rows)-1)
		}
		if p.After == "" {
			h.known, h.all = true, len(rows) < p.Limit
			if !h.all {
				h.edge, h.middle = rows[len(rows)-1].Record.ID, rows[len(rows)/2].Record.ID
			}
		}
	})
}

// spanOf gives the time between two runs, a millisecond at least and that of the last
// window at most: four times the 75 years to a run that somebody dated 2101 are no duration.
func spanOf(a, b ulid.ULID) time.Duration {
	return min(max(ulid.Time(a.Time()).Sub(ulid.Time(b.Time())).Abs(), time.Millisecond), lastWindow)
}

// hintable tells whether runs that match lie close enough for a page to be read in
// one window. Of a product few may match what its key does not tell.
func hintable(table string, f *readmodel.RunFilter, p readmodel.Page) bool {
	return (table != byEnvironmentTable || settled(table, f)) && !searches(f) && !ofVersion(table, f) && f.Changed == 0 && p.Limit > 0
}

// ofCell tells that a list is of one cell, which is a short range of the key.
func ofCell(table string, f *readmodel.RunFilter) bool {
	return table == byEnvironmentTable && f.Product != (event.ProductID{}) && f.Environment != (event.EnvironmentID{})
}

// near gives a window that holds a page and little more, where something is known
// of how close the runs lie; false where nothing is. Of a cell all is little.
func (q question) near(ctx context.Context, account, table string, f *readmodel.RunFilter, p readmodel.Page, shape string, unfiltered bool) (window, bool, error) {
	oldest := f.Oldest
	w := window{to: topID, oldest: oldest}
	if p.After != "" {
		id, err := readmodel.ParseRunKey(p.After)
		if err != nil {
			return w, false, err
		}
		w.after(id)
	}
	h, likely := q.hints.get(shape)
	if h.refused > 0 && !likely {
		return w, false, nil
	}
	w.length = lastWindow
	if h.each < lastWindow/time.Duration(2*p.Limit) {
		w.length = max(2*h.each*time.Duration(p.Limit), time.Millisecond)
	}
	switch {
	case p.After == "" && h.all:
		w.last = true
	case p.After == "" && h.known && oldest:
		w.to, w.middle = idAfter(h.edge), h.middle
	case p.After == "" && h.known:
		w.from, w.middle = h.edge, h.middle
	case p.After != "" && h.each > 0:
		w.stretch()
	case ofCell(table, f):
		w.last = true
		w.stretch()
	case unfiltered:
		return q.probe(ctx, account, table, w, p.Limit)
	default:
		return w, false, nil
	}
	return w, true, nil
}

// probe finds the window of the next runs of an account, whatever they are: it
// reads their ids in the order of the key and stops. Some may be there twice.
func (q question) probe(ctx context.Context, account, table string, w window, limit int) (window, bool, error) {
	order := " ORDER BY account DESC, id DESC"
	if w.oldest {
		order = " ORDER BY account, id"
	}
	var first, edge ulid.ULID
	rows, runs := 0, 0
	// In the order of the key the engine reads on to the end of a block, by itself of 65,000 rows.
	small := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_block_size": max(128, 2*limit)}))
	err := q.ask(small, "find about where runs are", "SELECT id FROM "+table+" WHERE account = {account:String}"+within+order+" LIMIT {limit:UInt32}",
		params{"account": account, "from": ulidHex(w.from), "to": ulidHex(w.to), "limit": uint32(2 * limit)}, func(s scanner) error {
			var id ulid.ULID
			err := s.Scan((*[16]byte)(&id))
			if rows++; id != edge && runs < limit {
				runs++
				edge = id
			}
			if rows == 1 {
				first = id
			}
			return err
		})
	if err != nil {
		return w, false, err
	}
	switch {
	case rows < 2*limit && runs < limit: // there are no more
		w.last = true
	case w.oldest:
		w.to = idAfter(edge)
	default:
		w.from = edge
	}
	w.length = spanOf(first, edge)
	return w, true, nil
}

// mostWhole is how many rows, of whole granules, a window may hold that is read
// whole. A thousand cost the engine about as much as finding the ids in a week. Of a
// product more are worth it: the rows of a page lie nearer than in deployments, where
// they would be read one by one.
const (
	mostWhole       = 8192
	mostWholeByCell = 4 * mostWhole
)

// errTooMany says that a window holds too much to be read whole.
var errTooMany = errors.New("too many rows")

// wholePage reads the rows of a window in one statement. The engine knows from
// the key how many that will be, and refuses before it reads.
func (q question) wholePage(ctx context.Context, kind event.Kind, account, table, where string, b params, oldest bool) (page, error) {
	most := mostWhole
	if table == byEnvironmentTable {
		most = mostWholeByCell
	}
	settings := clickhouse.Settings{"max_rows_to_read": max(most, 8*int(b["limit"].(uint32)))} //nolint:forcetypeassert // runs made it
	if table == byEnvironmentTable {
		// Its index is over a column of the key, so that copies of a row are skipped together.
		settings["use_skip_indexes_if_final_exact_mode"] = 0
	}
	rows, err := list(clickhouse.Context(ctx, clickhouse.WithSettings(settings)), q, "read a page of runs",
		"SELECT "+runSelection+" FROM "+table+" FINAL WHERE "+where+inOrder(oldest)+" LIMIT {limit:UInt32}", b,
		func(s scanner) (readmodel.RunRow, error) { return scanRun(s, kind, account) })
	if code, _ := serverCode(err); code == tooManyRows {
		return page{}, errTooMany
	}
	if err != nil || len(rows) == 0 {
		return page{}, err
	}
	found := page{ids: len(rows), last: rows[len(rows)-1].Record.ID}
	found.rows, err = q.dressed(ctx, account, rows)
	return found, err
}

// tooManyRows is the server's code for max_rows_to_read.
const tooManyRows = 158
