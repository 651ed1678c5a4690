package chmodel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// What was live at a past moment is found in steps, of which none reads the
// history of an account:
//
//  1. The matrix reads the newest row of each cell in the moment's own period, as far
//     as the moment, and the one before: successes whole, attempts in short. Busy
//     accounts end here.
//  2. A cell whose newest success is not after the moment is answered by current.
//  3. For what is then still open, one row of each cell and period: of three periods
//     more, then of nine, then of all that are left. These are identities, times and
//     places only; the rows that were found are then read whole.
//
// A comparison of two moments wants little of few cells, so that it reads identities,
// times and places in the first step, too.
//
// Of 3,000 cells of an account with 6.5 successes each in two periods, the engine takes
// this much processor time: to group those rows by cell 9.8 ms though narrow, to read
// the last of each in the order of the key 11.9 ms whole, which spares a second look,
// and 9.4 ms of attempts. To send all of them whole would take 7 ms, but the driver then 50 ms.

// spot is a cell of one incarnation.
type spot struct {
	product, environment uuid.UUID
	inc                  uint32
}

// mark is where a success or an attempt stands: by time, then by place.
type mark struct {
	at  int64
	pos uint64
}

var noMark = mark{at: math.MinInt64}

func (m mark) after(o mark) bool { return m.at > o.at || m.at == o.at && m.pos > o.pos }

// standing is what is known of a cell at a moment. The first of each pair is of
// attempts, the second of successes.
type standing struct {
	newest [2]mark // of all; after the moment: it must be searched for
	found  [2]mark
}

const (
	attempted = iota
	succeeded
)

// open tells whether what is searched for may stand before a moment.
func (s *standing) open(at, begin int64) bool {
	if s.found[succeeded] == noMark && s.newest[succeeded].at > at {
		return true
	}
	// An attempt before what is live tells nothing.
	return s.found[attempted] == noMark && s.newest[attempted].at > at && s.found[succeeded].at < begin
}

// newestMarks gives the newest success and attempt of the cells that where chooses:
// those of the products in b, and of the environments if it names any.
func (q question) newestMarks(ctx context.Context, where string, b params) (map[spot]*[2]mark, error) {
	cells := map[spot]*[2]mark{}
	if q.state.grid != nil {
		products, _ := b["products"].([]uuid.UUID)
		environments, narrowed := b["environments"].([]uuid.UUID)
		for _, product := range products {
			row := q.state.grid.rows[event.ProductID(product)]
			if row == nil {
				continue
			}
			for i := range row.cells {
				c := &row.cells[i]
				if narrowed && !slices.Contains(environments, uuid.UUID(c.environment)) {
					continue
				}
				newest := &[2]mark{noMark, noMark}
				if c.live != nil {
					newest[succeeded] = markOf(c.live)
				}
				if c.attempt != nil {
					newest[attempted] = markOfAttempt(c.attempt)
				}
				cells[spot{product, uuid.UUID(c.environment), c.inc}] = newest
			}
		}
		return cells, nil
	}
	err := q.marks(ctx, "find the cells", `
		SELECT product_id, environment_id, inc, at_ms, pos, true FROM current_vN WHERE account = {account:String}`+where+`
		UNION ALL
		SELECT product_id, environment_id, inc, at_ms, pos, false FROM attempts_vN WHERE account = {account:String}`+where, b,
		func(c spot, kind int, m mark) {
			newest := cells[c]
			if newest == nil {
				newest = &[2]mark{noMark, noMark}
				cells[c] = newest
			}
			if m.after(newest[kind]) {
				newest[kind] = m
			}
		})
	return cells, err
}

// periods are what one step searches, both of them included.
type periods struct{ first, last int32 }

// earlier gives the steps by which the time before a period is searched.
func earlier(own int32) []periods {
	return []periods{{own - 1, own - 1}, {own - 4, own - 2}, {own - 13, own - 5}, {math.MinInt32, own - 14}}
}

// standings gives what the newest marks tell of a moment, in milliseconds.
func standings(newest map[spot]*[2]mark, ms int64) map[spot]*standing {
	cells := make(map[spot]*standing, len(newest))
	for c, marks := range newest {
		s := &standing{newest: *marks, found: [2]mark{noMark, noMark}}
		for kind, m := range marks {
			if m.at <= ms {
				s.found[kind] = m
			}
		}
		cells[c] = s
	}
	return cells
}

// at gives how cells stood at a moment, in milliseconds, of which the newest
// marks are known. where and b are those that found them.
func (q question) at(ctx context.Context, where string, b params, newest map[spot]*[2]mark, ms int64) (map[spot]*standing, error) {
	cells := standings(newest, ms)
	return cells, q.steps(ctx, where, b, cells, ms, earlier(periodOf(ms)), math.MaxInt64)
}

// earlierThan finds what is not found yet in the time before the period before that
// of a moment.
func (q question) earlierThan(ctx context.Context, where string, b params, cells map[spot]*standing, ms int64) error {
	own := periodOf(ms)
	return q.steps(ctx, where, b, cells, ms, earlier(own)[1:], periodBegin(own-1))
}

// steps searches further and further back for what stands before begin.
func (q question) steps(ctx context.Context, where string, b params, cells map[spot]*standing, ms int64, steps []periods, begin int64) error {
	b = maps.Clone(b)
	own := periodOf(ms)
	b["own"], b["at"] = own, ms
	where += " AND product_id IN {open:Array(UUID)}"
	const snapshots = "SELECT product_id, environment_id, inc, at_ms, pos, succeeded FROM cell_periods_vN WHERE account = {account:String} AND period BETWEEN {first:Int32} AND {last:Int32}"
	for _, step := range steps {
		if b["open"] = openProducts(cells, ms, begin); len(b["open"].([]uuid.UUID)) == 0 {
			break
		}
		b["first"], b["last"] = step.first, step.last
		sql := snapshots + where
		if step.last == own-1 {
			sql += `
				UNION ALL
				SELECT product_id, environment_id, inc, at_ms, pos, true FROM cells_vN WHERE account = {account:String} AND period = {own:Int32} AND at_ms <= {at:Int64}` + where + `
				UNION ALL
				SELECT product_id, environment_id, inc, at_ms, pos, false FROM past_attempts_vN WHERE account = {account:String} AND period = {own:Int32} AND at_ms <= {at:Int64}` + where
		}
		err := q.marks(ctx, "find what was live", `
			SELECT product_id, environment_id, inc, (max((at_ms, pos)) AS newest).1, newest.2, succeeded FROM (`+sql+`)
			GROUP BY product_id, environment_id, inc, succeeded`, b, func(c spot, kind int, m mark) {
			if s := cells[c]; s != nil && m.after(s.found[kind]) {
				s.found[kind] = m
			}
		})
		if err != nil {
			return err
		}
		begin = periodBegin(step.first)
	}
	return nil
}

// openProducts gives the products of which a cell may hold more before begin.
func openProducts(cells map[spot]*standing, ms, begin int64) []uuid.UUID {
	left := map[event.ProductID]bool{}
	for c, s := range cells {
		if s.open(ms, begin) {
			left[event.ProductID(c.product)] = true
		}
	}
	return uuids(left)
}

func (q question) marks(ctx context.Context, doing, sql string, b params, take func(spot, int, mark)) error {
	return q.ask(ctx, doing, sql, b, func(s scanner) error {
		var c spot
		var m mark
		var success bool
		err := s.Scan(&c.product, &c.environment, &c.inc, &m.at, &m.pos, &success)
		kind := attempted
		if success {
			kind = succeeded
		}
		take(c, kind, m)
		return err
	})
}

// pastCells gives what was live, and the last attempts, at a moment.
func (q question) pastCells(ctx context.Context, account, where string, b params, at time.Time) (live []readmodel.Cell, attempts []attempt, err error) {
	ms := at.UnixMilli()
	recent := maps.Clone(b)
	recent["first"], recent["own"], recent["at"] = periodOf(ms)-1, periodOf(ms), ms
	var newest map[spot]*[2]mark
	group, all := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		newest, err = q.newestMarks(all, where, b)
		return err
	})
	group.Go(func() (err error) {
		live, err = list(all, q, "read what was live lately", newestLately(cellSelection, "cells_vN", where), recent,
			func(s scanner) (readmodel.Cell, error) { return scanCell(s, account) })
		return err
	})
	group.Go(func() (err error) {
		attempts, err = list(all, q, "read what was tried lately", newestLately(attemptSelection, "past_attempts_vN", where), recent, scanAttempt)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	cells := standings(newest, ms)
	here := map[spot][2]bool{} // what was read already
	for i := range live {
		c := spotOf(&live[i])
		if s := cells[c]; s != nil {
			s.found[succeeded] = markOf(&live[i])
		}
		here[c] = [2]bool{succeeded: true}
	}
	for i := range attempts {
		c := attempts[i].spot()
		if s := cells[c]; s != nil {
			s.found[attempted] = markOfAttempt(&attempts[i].LastAttempt)
		}
		have := here[c]
		have[attempted] = true
		here[c] = have
	}
	if err := q.earlierThan(ctx, where, b, cells, ms); err != nil {
		return nil, nil, err
	}
	var from [2]marked // what holds the newest, and the past
	for c, s := range cells {
		have := here[c]
		kept := q.state.kept(c)
		if s.found[succeeded] != noMark && !have[succeeded] {
			if kept.live != nil && markOf(kept.live) == s.found[succeeded] {
				live = append(live, *kept.live)
			} else {
				from[succeeded].add(c, s.found[succeeded], s.newest[succeeded])
			}
		}
		if s.found[attempted] != noMark && !have[attempted] && s.found[attempted].after(s.found[succeeded]) {
			from[attempted].add(c, s.found[attempted], s.newest[attempted])
		}
	}
	group, all = errgroup.WithContext(ctx)
	tables := [2][2]string{attempted: {"attempts_vN", "past_attempts_vN"}, succeeded: {"current_vN", "cells_vN"}}
	var out [2]whole
	for kind := range tables {
		out[kind].of, out[kind].rows = from[kind].of, make([]readmodel.Cell, 0, len(from[kind].of))
		for past, table := range tables[kind] {
			if len(from[kind].positions[past]) == 0 {
				continue
			}
			group.Go(func() error { return q.wholeCells(all, account, table, where, b, &from[kind], past == 1, &out[kind]) })
		}
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	where += " AND at_ms <= {at:Int64}"
	b["at"] = ms
	for kind := range out {
		if err := q.wholeMissing(ctx, account, tables[kind][1], where, b, &out[kind]); err != nil {
			return nil, nil, err
		}
	}
	for i := range out[attempted].rows {
		attempts = append(attempts, attemptOf(&out[attempted].rows[i]))
	}
	return append(live, out[succeeded].rows...), attempts, nil
}

// newestLately asks for the newest row of each cell in a moment's period, as far as
// the moment, and the one before. The rows of a cell stand together in the order of
// the key, so that the last of them is found without sorting.
func newestLately(selection, table, where string) string {
	return "SELECT " + selection + " FROM " + table + ` WHERE account = {account:String} AND period BETWEEN {first:Int32} AND {own:Int32} AND at_ms <= {at:Int64}` + where + `
		ORDER BY account DESC, period DESC, product_id DESC, environment_id DESC, inc DESC, at_ms DESC, stream DESC, pos DESC
		LIMIT 1 BY product_id, environment_id, inc`
}

// marked are rows to be read whole, of the table of the newest and of the past.
type marked struct {
	positions [2][]uint64
	places    map[cellPeriod]bool // of those of the past
	of        map[spot]mark
}

// cellPeriod is where the rows of a cell in a period begin.
type cellPeriod struct {
	period               int32
	product, environment uuid.UUID
}

// fewPlaces is how many are named one by one. What stands in so few takes as many
// granules at the most; of more, whole periods are read.
const fewPlaces = 1000

// at narrows a statement to the places of what is past. The values are numbers
// and ids, and a parameter.
func (m *marked) at(b params) string {
	if len(m.places) > fewPlaces {
		periods := map[int32]bool{}
		for p := range m.places {
			periods[p.period] = true
		}
		b["periods"] = slices.Collect(maps.Keys(periods))
		return " AND period IN {periods:Array(Int32)}"
	}
	list := []byte{'['}
	for p := range m.places {
		if len(list) > 1 {
			list = append(list, ',')
		}
		list = fmt.Appendf(list, "(%d,'%s','%s')", p.period, p.product, p.environment)
	}
	b["places"] = string(append(list, ']')) // the driver knows no tuples
	return " AND (period, product_id, environment_id) IN {places:Array(Tuple(Int32, UUID, UUID))}"
}

func (m *marked) add(c spot, found, newest mark) {
	if m.of == nil {
		m.of, m.places = map[spot]mark{}, map[cellPeriod]bool{}
	}
	m.of[c] = found
	past := 0
	if found != newest {
		past = 1
		m.places[cellPeriod{periodOf(found.at), c.product, c.environment}] = true
	}
	m.positions[past] = append(m.positions[past], found.pos)
}

// whole are rows read whole.
type whole struct {
	mu   sync.Mutex
	of   map[spot]mark // what is to be read, and then what was not found
	rows []readmodel.Cell
}

// wholeCells reads rows by their positions. A position may be that of another
// cell in another stream, and of a row that was stored twice any copy will do.
func (q question) wholeCells(ctx context.Context, account, table, where string, b params, rows *marked, past bool, out *whole) error {
	with := maps.Clone(b)
	with["positions"] = rows.positions[0]
	if past {
		where = rows.at(with) + where
		with["positions"] = rows.positions[1]
	}
	return q.ask(ctx, "read cells", "SELECT "+cellSelection+" FROM "+table+" WHERE account = {account:String}"+where+" AND pos IN {positions:Array(UInt64)}",
		with, func(s scanner) error {
			cell, err := scanCell(s, account)
			if err != nil {
				return err
			}
			c := spotOf(&cell)
			out.mu.Lock()
			defer out.mu.Unlock()
			if want, ok := out.of[c]; ok && want == markOf(&cell) {
				delete(out.of, c)
				out.rows = append(out.rows, cell)
			}
			return nil
		})
}

// wholeMissing reads what the tables that were asked first named and others did
// not hold: a newer row took its place meanwhile, or its Store is under way. Here
// one statement finds and reads, on one table.
func (q question) wholeMissing(ctx context.Context, account, table, where string, b params, out *whole) error {
	if len(out.of) == 0 {
		return nil
	}
	products := map[event.ProductID]bool{}
	for c := range out.of {
		products[event.ProductID(c.product)] = true
	}
	b["open"] = uuids(products)
	where += " AND product_id IN {open:Array(UUID)}"
	return q.ask(ctx, "read missing cells", newest(cellSelection, table, where), b, func(s scanner) error {
		cell, err := scanCell(s, account)
		if _, missing := out.of[spotOf(&cell)]; missing && err == nil {
			out.rows = append(out.rows, cell)
		}
		return err
	})
}

func spotOf(c *readmodel.Cell) spot {
	return spot{uuid.UUID(c.Record.ProductID), uuid.UUID(c.Record.EnvironmentID), inc(&c.Record)}
}

func (a *attempt) spot() spot {
	return spot{uuid.UUID(a.product), uuid.UUID(a.environment), uint32(a.productIncarnation)<<16 | uint32(a.environmentIncarnation)}
}

func markOf(c *readmodel.Cell) mark {
	return mark{c.EffectiveAt.UnixMilli(), uint64(c.Position.Offset)}
}

func markOfAttempt(a *readmodel.LastAttempt) mark {
	return mark{a.At.UnixMilli(), uint64(a.Position.Offset)}
}

// occupantsAt gives what was live in the cells of some products and environments
// at two moments, where that is not the same, or of all of them.
func (q question) occupantsAt(ctx context.Context, account string, products, environments []uuid.UUID, first, second int64, all bool) ([]occupants, error) {
	const where = " AND product_id IN {products:Array(UUID)} AND environment_id IN {environments:Array(UUID)}"
	b := params{"account": account, "products": products, "environments": environments}
	newest, err := q.newestMarks(ctx, where, b)
	if err != nil {
		return nil, err
	}
	found := map[spot]*[2]mark{}
	for side, ms := range [2]int64{first, second} {
		if side == 1 && second == first {
			for _, marks := range found {
				marks[1] = marks[0]
			}
			break
		}
		cells, err := q.at(ctx, where, b, newest, ms)
		if err != nil {
			return nil, err
		}
		for c, s := range cells {
			if found[c] == nil {
				found[c] = &[2]mark{noMark, noMark}
			}
			found[c][side] = s.found[succeeded]
		}
	}
	out := map[spot]*occupants{}
	var positions []uint64
	searched := map[int32]bool{}
	for c, marks := range found {
		if marks[0] == marks[1] && (!all || marks[0] == noMark) {
			continue
		}
		out[c] = &occupants{product: c.product, environment: c.environment, inc: c.inc}
		for _, m := range marks {
			if m != noMark {
				positions = append(positions, m.pos)
				searched[periodOf(m.at)] = true
			}
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	b["positions"], b["periods"] = positions, slices.Collect(maps.Keys(searched))
	err = q.ask(ctx, "read what was live", `
		SELECT product_id, environment_id, inc, at_ms, pos, id, version FROM cells_vN
		WHERE account = {account:String} AND period IN {periods:Array(Int32)} AND pos IN {positions:Array(UInt64)}`+where, b, func(s scanner) error {
		var c spot
		var m mark
		var id ulid.ULID
		var version string
		if err := s.Scan(&c.product, &c.environment, &c.inc, &m.at, &m.pos, (*[16]byte)(&id), &version); err != nil {
			return err
		}
		if o := out[c]; o != nil {
			for side, want := range found[c] {
				if m == want {
					o.id[side], o.version[side], o.at[side] = id, version, m.at
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	rows := make([]occupants, 0, len(out))
	for c, o := range out {
		for side, want := range found[c] {
			if want != noMark && o.version[side] == "" {
				return nil, errUnderWay
			}
		}
		if all || o.version[0] != o.version[1] {
			rows = append(rows, *o)
		}
	}
	return rows, nil
}

// errUnderWay says that a row is in one table and not yet in another.
var errUnderWay = errors.New("rows are being stored")
