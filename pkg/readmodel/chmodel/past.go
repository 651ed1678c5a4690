package chmodel

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"unsafe"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// What was live at a past moment is found in looks further and further back, of
// which none reads the history of an account:
//
//  1. Every row of the moment's own period, as far as the moment, and the newest of
//     each cell in the period before. Of busy accounts few cells are left.
//  2. A cell whose newest success is not after the moment is answered by current.
//  3. The newest of each cell, of both kinds at once, in the two periods before those, or in
//     five where many cells are left, then in fifteen, and in all that are left.
//
// What is read is all that is shown, so that nothing is looked up a second time. Of the
// rows of a cell the newest is chosen here: the engine takes longer to group or sort
// them than to send them. A row that is in one table and not yet in another is of a
// Store under way: an answer may do with it or without it.
//
// Of 10,000 cells that are deployed to every three days (BenchmarkPast) the whole matrix
// took the engine 305 ms of processor time in pages of half of the products, when
// two periods of ten days were read by row and what was missing looked up in two steps,
// and this process 107. By columns it was 86 and 51; as dense as of 10 M events, with the
// JSON and its reader, 93 and 98 in 6.2 statements. There it is 66 and 88 in 3.7, of which a
// statement that finds next to nothing costs 4, whatever the granules: of 128, 1,024 and
// 8,192 rows the same.

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

func spotOf(c *readmodel.Cell) spot {
	return spot{uuid.UUID(c.Record.ProductID), uuid.UUID(c.Record.EnvironmentID), inc(&c.Record)}
}

func (c spot) identity() identity {
	return identity{event.ProductID(c.product), event.EnvironmentID(c.environment), uint16(c.inc >> 16), uint16(c.inc)}
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

const (
	attempted = iota
	succeeded
)

// standing is what is known of a cell: its newest attempt and its newest success.
type standing struct {
	spot
	newest [2]mark
}

// standings gives what is known of the cells that where chooses: those of the
// products in b, and of the environments if it names any.
func (q question) standings(ctx context.Context, where string, b params) ([]standing, error) {
	var out []standing
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
				s := standing{spot{product, uuid.UUID(c.environment), c.inc}, [2]mark{noMark, noMark}}
				if c.live != nil {
					s.newest[succeeded] = markOf(c.live)
				}
				if c.attempt != nil {
					s.newest[attempted] = markOfAttempt(c.attempt)
				}
				out = append(out, s)
			}
		}
		return out, nil
	}
	const marks = "product_id, environment_id, inc, at_ms, pos"
	at := map[spot]int{}
	columns := newCellColumns(newestCells)
	err := q.read(ctx, "find the cells", "SELECT "+marks+", true AS succeeded FROM current_vN WHERE account = {account:String}"+where+`
		UNION ALL
		SELECT `+marks+", false AS succeeded FROM attempts_vN WHERE account = {account:String}"+where, b, columns.results(marks+", succeeded"), func() {
		for n := range columns.rows() {
			c, kind := columns.spot(n), attempted
			if columns.succeeded[n] {
				kind = succeeded
			}
			i, ok := at[c]
			if !ok {
				i = len(out)
				at[c], out = i, append(out, standing{c, [2]mark{noMark, noMark}})
			}
			if m := columns.mark(n); m.after(out[i].newest[kind]) {
				out[i].newest[kind] = m
			}
		}
	})
	return out, err
}

// looker looks for the newest row of one kind in each cell, as far as a moment.
type looker interface {
	found(c spot) mark
	// lately looks into the moment's own period and the one before.
	lately(ctx context.Context) error
	// newest looks among the newest rows of some cells.
	newest(ctx context.Context, of []spot) error
	// keep takes the newest row of a cell that is kept in memory.
	keep(c spot, kept gridCell)
	// earlier takes row i of those that a look into other periods has brought.
	earlier(columns *cellColumns, i int)
}

// lookBack is what is asked of a moment, in milliseconds.
type lookBack struct {
	question
	selection string
	where     string // of cells, beside their account
	params    params
	ms        int64
	live      looker
	more      looker // for attempts; nil: they are not wanted
}

// periods are what one look searches, both of them included.
type periods struct{ first, last int32 }

// The looks into the time before that of lately: of a cell that is deployed to every
// third day two periods leave nothing, and one that is not is asked for in few
// statements, as its rows are few.
const (
	firstLook, wideFirstLook = 2, 5
	secondLook               = 15
	manyOpen                 = 20 // one cell in so many
)

// earlier gives those looks, where of so many cells as many are open.
func earlier(own int32, open, cells int) []periods {
	second := own - 1 - firstLook
	if open*manyOpen > cells {
		second = own - 1 - wideFirstLook
	}
	third := second - secondLook
	return []periods{{second, own - 2}, {third, second - 1}, {math.MinInt32, third - 1}}
}

// rest finds what was not found lately of cells of which it is known how they stand.
func (l *lookBack) rest(ctx context.Context, cells []standing) error {
	own := periodOf(l.ms)
	begin := periodBegin(own - 1)
	var open, unchanged [2][]spot
	for i := range cells {
		c := &cells[i]
		live := l.live.found(c.spot)
		if m := c.newest[succeeded]; m != noMark && live == noMark {
			open[succeeded] = append(open[succeeded], c.spot)
			if m.at <= l.ms {
				unchanged[succeeded] = append(unchanged[succeeded], c.spot)
			}
		}
		if m := c.newest[attempted]; l.more != nil && m.after(live) && live.at < begin && l.more.found(c.spot) == noMark {
			open[attempted] = append(open[attempted], c.spot)
			if m.at <= l.ms {
				unchanged[attempted] = append(unchanged[attempted], c.spot)
			}
		}
	}
	if l.state.grid != nil {
		for kind, cells := range unchanged {
			for _, c := range cells {
				l.of(kind).keep(c, l.state.kept(c))
			}
		}
	} else if err := l.both(ctx, unchanged, func(ctx context.Context, by looker, of []spot) error { return by.newest(ctx, of) }); err != nil {
		return err
	}
	open = l.still(open, begin)
	for _, p := range earlier(own, len(open[succeeded]), len(cells)) {
		if len(open[attempted])+len(open[succeeded]) == 0 {
			break
		}
		if err := l.earlier(ctx, p, open); err != nil {
			return err
		}
		open = l.still(open, periodBegin(p.first))
	}
	return nil
}

// earlier looks into other periods for cells, of both kinds at once: one that has no
// success lately mostly has no attempt either.
func (l *lookBack) earlier(ctx context.Context, p periods, open [2][]spot) error {
	b := maps.Clone(l.params)
	b["first"], b["last"] = p.first, p.last
	kinds, selection, of := "= true", l.selection, open[succeeded]
	switch {
	case len(of) == 0:
		kinds, of = "= false", open[attempted]
	case len(open[attempted]) > 0:
		kinds, of = "IN (true, false)", union(of, open[attempted])
	}
	selection += ", succeeded"
	columns := spareColumns.Get().(*cellColumns) //nolint:forcetypeassert // nothing else is put there
	defer spareColumns.Put(columns)
	return l.read(ctx, "find what was before", "SELECT "+selection+" FROM cell_periods_vN WHERE account = {account:String}"+l.where+`
		AND period BETWEEN {first:Int32} AND {last:Int32} AND succeeded `+kinds+only(of, b), b, columns.results(selection), func() {
		for i := range columns.rows() {
			if columns.succeeded[i] {
				l.live.earlier(columns, i)
			} else {
				l.more.earlier(columns, i)
			}
		}
	})
}

// union gives the cells that are in either list, each once.
func union(a, b []spot) []spot {
	in := make(map[spot]bool, len(a))
	for _, c := range a {
		in[c] = true
	}
	out := slices.Clip(a)
	for _, c := range b {
		if !in[c] {
			out = append(out, c)
		}
	}
	return out
}

// still leaves those open of which more may stand before begin. An attempt before
// what is live tells nothing.
func (l *lookBack) still(open [2][]spot, begin int64) [2][]spot {
	open[succeeded] = slices.DeleteFunc(open[succeeded], func(c spot) bool { return l.live.found(c) != noMark })
	open[attempted] = slices.DeleteFunc(open[attempted], func(c spot) bool { return l.more.found(c) != noMark || l.live.found(c).at >= begin })
	return open
}

func (l *lookBack) of(kind int) looker {
	if kind == succeeded {
		return l.live
	}
	return l.more
}

// both lets both look for cells, where there are any.
func (l *lookBack) both(ctx context.Context, cells [2][]spot, look func(context.Context, looker, []spot) error) error {
	var looks []func(context.Context) error
	for kind, of := range cells {
		if len(of) > 0 {
			looks = append(looks, func(ctx context.Context) error { return look(ctx, l.of(kind), of) })
		}
	}
	return together(ctx, looks...)
}

// together does several things at once.
func together(ctx context.Context, each ...func(context.Context) error) error {
	group, all := errgroup.WithContext(ctx)
	for _, do := range each {
		group.Go(func() error { return do(all) })
	}
	return group.Wait()
}

// lookup is a looker for rows of a type.
type lookup[R any] struct {
	question
	kind      int
	selection string
	where     string // of cells, beside their account
	params    params
	ms        int64
	fill      func(columns *cellColumns, i int, out *R) error
	copy      func(c spot, kept gridCell, out *R)

	at    map[spot]int // in rows
	bad   error        // of a row that is not as it is written
	marks []mark
	rows  []R
}

// found implements looker.
func (l *lookup[R]) found(c spot) mark {
	if i, ok := l.at[c]; ok {
		return l.marks[i]
	}
	return noMark
}

// row gives the place for the row of a cell, nil where there is a newer one.
func (l *lookup[R]) row(c spot, m mark) *R {
	i, ok := l.at[c]
	switch {
	case !ok:
		var none R
		i = len(l.rows)
		l.at[c], l.marks, l.rows = i, append(l.marks, m), append(l.rows, none)
	case !m.after(l.marks[i]):
		return nil
	}
	l.marks[i] = m
	return &l.rows[i]
}

// spareColumns are those to read into that nobody uses now.
var spareColumns = sync.Pool{New: func() any { return newCellColumns(newestCells) }}

func (l *lookup[R]) look(ctx context.Context, doing, sql string) error {
	columns := spareColumns.Get().(*cellColumns) //nolint:forcetypeassert // nothing else is put there
	defer spareColumns.Put(columns)
	return l.read(ctx, doing, sql, l.params, columns.results(l.selection), func() {
		n := columns.rows()
		for i := range n {
			c, m := columns.spot(i), columns.mark(i)
			if i+1 < n && columns.spot(i+1) == c && columns.mark(i+1).after(m) { // those of a cell mostly come in order
				continue
			}
			l.take(columns, i, c, m)
		}
	})
}

// take takes row i, of a cell, unless a newer one is there.
func (l *lookup[R]) take(columns *cellColumns, i int, c spot, m mark) {
	if row := l.row(c, m); row != nil {
		if err := l.fill(columns, i, row); err != nil {
			l.bad = err
		}
	}
}

func (l *lookup[R]) from(table string) string {
	return "SELECT " + l.selection + " FROM " + table + " WHERE account = {account:String}" + l.where
}

// lately implements looker.
func (l *lookup[R]) lately(ctx context.Context) error {
	own := periodOf(l.ms)
	l.params["own"], l.params["before"], l.params["at"], l.params["succeeded"] = own, own-1, l.ms, l.kind == succeeded
	every := [2]string{attempted: "past_attempts_vN", succeeded: "cells_vN"}[l.kind]
	return l.look(ctx, "find what was lately", l.from(every)+` AND period = {own:Int32} AND at_ms <= {at:Int64}
		UNION ALL `+l.from("cell_periods_vN")+" AND period = {before:Int32} AND succeeded = {succeeded:Bool}")
}

// newest implements looker. The newest may have become a newer one since: then it
// is found among the periods.
func (l *lookup[R]) newest(ctx context.Context, of []spot) error {
	l.params["at"] = l.ms
	table := [2]string{attempted: "attempts_vN", succeeded: "current_vN"}[l.kind]
	return l.look(ctx, "find what has not changed", l.from(table)+" AND at_ms <= {at:Int64}"+only(of, l.params))
}

// keep implements looker.
func (l *lookup[R]) keep(c spot, kept gridCell) {
	var m mark
	switch {
	case l.kind == succeeded && kept.live != nil:
		m = markOf(kept.live)
	case l.kind == attempted && kept.attempt != nil:
		m = markOfAttempt(kept.attempt)
	default:
		return
	}
	if row := l.row(c, m); row != nil {
		l.copy(c, kept, row)
	}
}

// earlier implements looker.
func (l *lookup[R]) earlier(columns *cellColumns, i int) {
	l.take(columns, i, columns.spot(i), columns.mark(i))
}

// fewCells is how many are named one by one.
const fewCells = 1000

// only narrows a statement to cells.
func only(cells []spot, b params) string {
	if len(cells) > fewCells {
		products := map[event.ProductID]bool{}
		for _, c := range cells {
			products[event.ProductID(c.product)] = true
		}
		b["open"] = uuids(products)
		return " AND product_id IN {open:Array(UUID)}"
	}
	list := []byte{'['}
	for i, c := range cells {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(append(list, "('"...), c.product.String()...)
		list = append(append(list, "','"...), c.environment.String()...)
		list = append(list, "')"...)
	}
	b["open"] = string(append(list, ']')) // the drivers know no tuples
	return " AND (product_id, environment_id) IN {open:Array(Tuple(UUID, UUID))}"
}

// pastCells gives what was live, and the last attempts, at a moment in milliseconds,
// of at most so many cells.
func (q question) pastCells(ctx context.Context, account, where string, b params, ms int64, cells int) ([]readmodel.Cell, []attempt, error) {
	cells = min(cells, 2*usualCells)
	live := &lookup[readmodel.Cell]{
		question: q, kind: succeeded, selection: shownSelection, where: where, params: maps.Clone(b), ms: ms,
		fill: func(columns *cellColumns, i int, out *readmodel.Cell) error { return columns.shown(i, account, out) },
		copy: func(_ spot, kept gridCell, out *readmodel.Cell) { *out = kept.live.Shown() },
		at:   make(map[spot]int, cells), rows: make([]readmodel.Cell, 0, cells), // a row is large: growing would copy it
	}
	tried := &lookup[attempt]{
		question: q, kind: attempted, selection: shownSelection, where: where, params: maps.Clone(b), ms: ms,
		fill: (*cellColumns).attempt,
		copy: func(c spot, kept gridCell, out *attempt) { *out = attempt{c.identity(), *kept.attempt} },
		at:   make(map[spot]int, cells), rows: make([]attempt, 0, cells),
	}
	var known []standing
	err := together(ctx, live.lately, tried.lately, func(ctx context.Context) (err error) {
		known, err = q.standings(ctx, where, b)
		return err
	})
	if err == nil {
		err = (&lookBack{q, shownSelection, where, b, ms, live, tried}).rest(ctx, known)
	}
	if err == nil {
		err = cmp.Or(live.bad, tried.bad)
	}
	return live.rows, tried.rows, err
}

// past is the matrix of an account at the moment that was asked about last. Its pages
// would each read all of it: products lie in the tables by their ids and on pages by
// their names, so that what a page wants is everywhere.
type past struct {
	took func(bytes int)

	mu   sync.Mutex
	ms   int64
	grid *grid // nil: no moment was asked about
}

// pastShare is what part of an account's products a page has at least for which
// those of the other pages are read, too.
const pastShare = 4

// then gives what an account, of which the names are kept, had at the moment of f;
// nil where a page is better read on its own.
func (q question) then(ctx context.Context, account string, f readmodel.MatrixFilter, page readmodel.Page) (*state, error) {
	edges, past := q.state.edges, q.state.past
	if f.At.IsZero() || !f.KnownAt.IsZero() || edges == nil || past == nil {
		return nil, nil
	}
	ms := f.At.UnixMilli()
	if g := past.of(ms); g != nil {
		return &state{edges: edges, grid: g}, nil
	}
	cells := len(edges.rows) * len(edges.columns)
	if f.Narrowed() || f.DriftOnly || f.Search != "" || f.Product != (event.ProductID{}) || page.Limit*pastShare < len(edges.rows) ||
		cells*int(unsafe.Sizeof(readmodel.Cell{})) > q.Model.hot.limit/hotShare/2 {
		return nil, nil
	}
	ids := make([]uuid.UUID, len(edges.rows))
	for i := range ids {
		ids[i] = uuid.UUID(edges.rows[i].ID)
	}
	live, attempts, err := q.pastCells(ctx, account, "", params{"account": account, "products": ids}, ms, cells)
	if err != nil {
		return nil, err
	}
	of := make([]*readmodel.Cell, len(live))
	for i := range live {
		of[i] = &live[i]
		rec := &live[i].Record
		rec.ProductName, rec.EnvironmentName = edges.products[rec.ProductID].Name, edges.environments[rec.EnvironmentID].Name
	}
	g := newGrid(edges, of, attempts, past.took)
	past.keep(ms, g)
	return &state{edges: edges, grid: g}, nil
}

func (p *past) of(ms int64) *grid {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ms != ms {
		return nil
	}
	return p.grid
}

func (p *past) keep(ms int64, g *grid) {
	p.mu.Lock()
	bytes := g.size()
	if p.grid != nil {
		bytes -= p.grid.size()
	}
	p.ms, p.grid = ms, g
	p.mu.Unlock()
	p.took(bytes)
}

func (p *past) size() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.grid == nil {
		return 0
	}
	return p.grid.size()
}

// occupant is what was live in a cell, as a comparison wants it.
type occupant struct {
	id      ulid.ULID
	version string
	at      int64
}

// occupantsAt gives what was live in the cells of some products and environments
// at two moments, where that is not the same, or of all of them.
func (q question) occupantsAt(ctx context.Context, account string, products, environments []uuid.UUID, first, second int64, all bool) ([]occupants, error) {
	const where = " AND product_id IN {products:Array(UUID)} AND environment_id IN {environments:Array(UUID)}"
	b := params{"account": account, "products": products, "environments": environments}
	const selection = "product_id, environment_id, inc, at_ms, pos, id, version"
	at := func(ms int64) *lookup[occupant] {
		return &lookup[occupant]{
			question: q, kind: succeeded, selection: selection, where: where, params: maps.Clone(b), ms: ms,
			fill: func(columns *cellColumns, i int, out *occupant) error {
				*out = occupant{columns.id[i], columns.version.Row(i), columns.at[i]}
				return nil
			},
			copy: func(_ spot, kept gridCell, out *occupant) {
				*out = occupant{kept.live.Record.ID, kept.live.Record.Version, kept.live.EffectiveAt.UnixMilli()}
			},
			at: map[spot]int{},
		}
	}
	sides := [2]*lookup[occupant]{at(first)}
	moments := sides[:1]
	if sides[1] = sides[0]; second != first {
		sides[1], moments = at(second), sides[:]
	}
	var known []standing
	var lately, rest []func(context.Context) error
	for _, l := range moments {
		lately = append(lately, l.lately)
		rest = append(rest, func(ctx context.Context) error {
			return (&lookBack{q, selection, where, b, l.ms, l, nil}).rest(ctx, known)
		})
	}
	err := together(ctx, append(lately, func(ctx context.Context) (err error) {
		known, err = q.standings(ctx, where, b)
		return err
	})...)
	if err == nil {
		err = together(ctx, rest...)
	}
	if err != nil {
		return nil, err
	}
	out := map[spot]*occupants{}
	for side, l := range sides {
		for c, i := range l.at {
			if !all && sides[0].found(c) == sides[1].found(c) {
				continue
			}
			o := out[c]
			if o == nil {
				o = &occupants{product: c.product, environment: c.environment, inc: c.inc}
				out[c] = o
			}
			o.id[side], o.version[side], o.at[side] = l.rows[i].id, l.rows[i].version, l.rows[i].at
		}
	}
	rows := make([]occupants, 0, len(out))
	for _, o := range out {
		if all || o.version[0] != o.version[1] {
			rows = append(rows, *o)
		}
	}
	return rows, nil
}
