package chmodel

import (
	"context"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

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
//     each cell in the period before, or in three where all cells are asked for. Of busy
//     accounts few cells are left.
//  2. A cell whose newest success is not after the moment is answered by current.
//  3. The newest of each cell, of both kinds at once, in the two periods before those, or in
//     five where many cells are left, then in fifteen, and in all that are left.
//
// A period that is read whole costs less than a hundred cells named in it, each of which
// is a granule of every column: of 10 M events, with 10,000 cells of which 140 were left
// behind one period, 9 behind two and 1 behind three, the looks of 3. took 30 ms, 12 and 4,
// and the first one as long each time.
//
// What was known then is found in the same looks, but in the rows of cells and past_attempts
// alone: the newest of a period may have been received later than what was known of it, so that
// cell_periods does not tell. What was received before its time stands in later periods; the
// index of received_ms leaves nothing else of them to read.
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
// JSON and its reader, 93 and 98 in 6.2 statements. There it was 66 and 88 in 3.7, of which a
// statement that finds next to nothing costs 4, whatever the granules: of 128, 1,024 and
// 8,192 rows the same. So both kinds are one statement in each look, of which every table
// costs 2 before it reads; and a whole Cell of each row took this process as long as
// reading: of BenchmarkPast it was 53 and 39, with 26 MB of memory, and is 43 and 23 with 10.

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

func markOf(s *readmodel.Success) mark {
	return mark{s.At.UnixMilli(), uint64(s.Position.Offset)}
}

func markOfAttempt(a *readmodel.LastAttempt) mark {
	return mark{a.At.UnixMilli(), uint64(a.Position.Offset)}
}

const (
	attempted = iota
	succeeded
)

// pastCell is what was found of a cell.
type pastCell struct {
	spot
	newest [2]mark // of all moments
	found  [2]finding
	kept   *gridCell // where one of them is not read, but in memory
	next   int       // the cell that was read behind it; it is mostly that again
}

// finding is the newest attempt or success of a cell, as far as a moment.
type finding struct {
	mark
	id         ulid.ULID
	begin, end int  // of its text
	kept       bool // it was not read: it is that of pastCell.kept
}

// asOf is a moment, of which counts what had been received at another one, both in milliseconds.
type asOf struct{ at, received int64 }

// always is the moment of an asOf that leaves nothing out.
const always = math.MaxInt64

// asOfFilter gives the moment that f asks about.
func asOfFilter(f *readmodel.MatrixFilter) asOf { return asOf{untilMS(f.At), untilMS(f.KnownAt)} }

// lookBack finds what was newest in cells at a moment. It is used by one at a time, but
// for read.
type lookBack struct {
	question
	asOf

	where  string // of cells, beside their account
	params params
	text   string // the column to read beside time and place
	tried  bool   // attempts are wanted, too

	mu    sync.Mutex // of what is read
	place map[spot]int
	cells []pastCell // by place
	known []int      // places of those of which it is known how they stand, some twice
	texts []byte     // those that were newest when they were read
}

// lookRoom is what lookBack reads into.
type lookRoom struct {
	place map[spot]int
	cells []pastCell
	known []int
	texts []byte
}

// What nobody reads into now. Without the second an answer of 10,000 cells left 12 MB of
// garbage (BenchmarkPast) instead of 7, and p99 was the answer that waits for its collection.
var (
	spareColumns = sync.Pool{New: func() any { return newCellColumns(newestCells) }}
	spareRoom    = sync.Pool{New: func() any {
		return &lookRoom{
			make(map[spot]int, lookCells), make([]pastCell, 0, lookCells), make([]int, 0, lookCells), make([]byte, 0, lookCells*shownBytes),
		}
	}}
)

const (
	lookCells  = 10_000        // room is made for so many cells at once, those of 1,000 products in 10 environments
	shownBytes = 128           // about what the matrix shows of a cell
	spareCells = 4 * lookCells // room for more is not held for others
)

// lookingBack begins to look. The caller must end it.
func (q question) lookingBack(where string, b params, at asOf, text string, tried bool) *lookBack {
	room := spareRoom.Get().(*lookRoom) //nolint:forcetypeassert // nothing else is put there
	return &lookBack{
		question: q, asOf: at, where: where, params: maps.Clone(b), text: text, tried: tried,
		place: room.place, cells: room.cells, known: room.known, texts: room.texts,
	}
}

// end frees what l reads into.
func (l *lookBack) end() {
	if cap(l.cells) > spareCells {
		return
	}
	clear(l.place)
	clear(l.cells) // they point at what is kept
	spareRoom.Put(&lookRoom{l.place, l.cells[:0], l.known[:0], l.texts[:0]})
}

// cell gives the place of a cell.
func (l *lookBack) cell(of spot) int {
	i, ok := l.place[of]
	if !ok {
		i = len(l.cells)
		l.place[of], l.cells = i, append(l.cells, pastCell{spot: of, newest: [2]mark{noMark, noMark}, found: [2]finding{{mark: noMark}, {mark: noMark}}})
	}
	return i
}

// cellBehind gives the place of a cell that was read behind another one. Each period has
// them in the same order, so that few are looked up.
func (l *lookBack) cellBehind(was int, of spot) int {
	if next := l.cells[was].next; l.cells[next].spot == of {
		return next
	}
	i := l.cell(of)
	l.cells[was].next = i
	return i
}

func (l *lookBack) textOf(c *pastCell, kind int) string {
	return string(l.texts[c.found[kind].begin:c.found[kind].end])
}

// isNews tells whether an attempt is shown beside what is live.
func (tried *finding) isNews(live *finding) bool { return tried.after(live.mark) }

// shownTexts are the texts of what is shown, all in one.
type shownTexts struct {
	from []byte
	to   strings.Builder
}

// shownTextsOf makes room for those of cells, which stand in from.
func shownTextsOf(cells []pastCell, from []byte) *shownTexts {
	t, bytes := &shownTexts{from: from}, 0
	for i := range cells {
		live, tried := &cells[i].found[succeeded], &cells[i].found[attempted]
		if bytes += live.end - live.begin; tried.isNews(live) {
			bytes += tried.end - tried.begin
		}
	}
	t.to.Grow(bytes)
	return t
}

func (t *shownTexts) of(f *finding) string {
	begin := t.to.Len()
	t.to.Write(t.from[f.begin:f.end])
	return t.to.String()[begin:]
}

func kindOf(success bool) int {
	if success {
		return succeeded
	}
	return attempted
}

// read takes what statements find, each of which says which kind its rows are, and of
// a cell the newest. Rows of a cell mostly come together, and in order. Several may read
// at once.
func (l *lookBack) read(ctx context.Context, doing string, statements ...string) error {
	columns := spareColumns.Get().(*cellColumns) //nolint:forcetypeassert // nothing else is put there
	defer spareColumns.Put(columns)
	texts := &columns.display
	if l.text == versionColumn {
		texts = &columns.version
	}
	return l.question.read(ctx, doing, strings.Join(statements, "\nUNION ALL "), l.params, columns.results(l.selection()+", succeeded"), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		n, was := columns.rows(), -1
		for i := range n {
			of, m := columns.spot(i), columns.mark(i)
			if i+1 < n && columns.spot(i+1) == of && columns.succeeded[i+1] == columns.succeeded[i] && columns.mark(i+1).after(m) {
				continue
			}
			switch {
			case was < 0:
				was = l.cell(of)
			case l.cells[was].spot != of:
				was = l.cellBehind(was, of)
			}
			if found := &l.cells[was].found[kindOf(columns.succeeded[i])]; m.after(found.mark) {
				begin, text := len(l.texts), texts.Pos[i]
				l.texts = append(l.texts, texts.Buf[text.Start:text.End]...)
				*found = finding{m, columns.id[i], begin, len(l.texts), false}
			}
		}
	})
}

const versionColumn = "version"

func (l *lookBack) selection() string {
	return "product_id, environment_id, inc, at_ms, pos, id, " + l.text
}

// from selects rows of a table and of a kind, which is a column or a value.
func (l *lookBack) from(table, kind string) string {
	return "SELECT " + l.selection() + ", " + kind + " AS succeeded FROM " + table + " WHERE account = {account:String}" + l.where
}

// The periods before the moment's own that lately reads.
const (
	latelyOfAll  = 3
	latelyOfSome = 1
)

// own is the period of the moment, or of what was known where that was before.
func (l *lookBack) own() int32 { return periodOf(min(l.at, l.received)) }

// latelyFirst is the first period of lately.
func (l *lookBack) latelyFirst() int32 {
	if l.where == "" {
		return l.own() - latelyOfAll
	}
	return l.own() - latelyOfSome
}

// wasKnown narrows rows to those that had been received.
func (l *lookBack) wasKnown() string {
	if l.received == always {
		return ""
	}
	return " AND received_ms <= {known:Int64}"
}

// lately looks into the moment's own period and those right before. The engine reads what
// is joined in a statement one after the other, and the two take it about as long, so that of
// attempts as well as successes they are read at once: BenchmarkPast took 62 ms of wall time in
// one statement (54 to 63 in four turns) and then 54 (51 to 56), for 2 ms more of the engine's
// processor time of 57. Successes alone are for a diff, which looks at two moments at once.
func (l *lookBack) lately(ctx context.Context) error {
	l.params["own"], l.params["first"], l.params["at"], l.params["known"] = l.own(), l.latelyFirst(), l.at, l.received
	if l.received != always {
		return l.latelyKnown(ctx)
	}
	const every, before = " AND period = {own:Int32} AND at_ms <= {at:Int64}", " AND period >= {first:Int32} AND period < {own:Int32}"
	within, newest := l.from("cells_vN", "true")+every, l.from("cell_periods_vN", "succeeded")+before
	if !l.tried {
		return l.read(ctx, "find what was lately", within, newest+" AND succeeded = true")
	}
	return together(ctx,
		func(ctx context.Context) error {
			return l.read(ctx, "find what was lately", within, l.from("past_attempts_vN", "false")+every)
		},
		func(ctx context.Context) error {
			return l.read(ctx, "find what was before", newest+" AND succeeded IN (true, false)")
		})
}

// latelyKnown is lately of what was known: of all rows, those of later periods too.
func (l *lookBack) latelyKnown(ctx context.Context) error {
	since := " AND period >= {first:Int32} AND at_ms <= {at:Int64}" + l.wasKnown()
	successes := func(ctx context.Context) error {
		return l.read(ctx, "find what was known lately", l.from("cells_vN", "true")+since)
	}
	if !l.tried {
		return successes(ctx)
	}
	return together(ctx, successes, func(ctx context.Context) error {
		return l.read(ctx, "find what was known to be tried", l.from("past_attempts_vN", "false")+since)
	})
}

// standing is the newest attempt and the newest success of a cell, whenever they were.
type standing struct {
	spot
	newest [2]mark
	kept   *gridCell // where that is in memory
}

// standings gives what is known of the cells that where chooses: those of the
// products in b, and of the environments if it names any.
func (q question) standings(ctx context.Context, where string, b params) (iter.Seq[standing], error) {
	if g := q.state.grid; g != nil {
		products, _ := b["products"].([]uuid.UUID)
		environments, narrowed := b["environments"].([]uuid.UUID)
		return g.standings(products, func(e uuid.UUID) bool { return !narrowed || slices.Contains(environments, e) }), nil
	}
	const marks = "product_id, environment_id, inc, at_ms, pos"
	columns := newCellColumns(newestCells)
	var out []standing
	err := q.read(ctx, "find the cells", "SELECT "+marks+", true AS succeeded FROM current_vN WHERE account = {account:String}"+where+`
		UNION ALL
		SELECT `+marks+", false AS succeeded FROM attempts_vN WHERE account = {account:String}"+where, b, columns.results(marks+", succeeded"), func() {
		for i := range columns.rows() {
			s := standing{spot: columns.spot(i), newest: [2]mark{noMark, noMark}}
			s.newest[kindOf(columns.succeeded[i])] = columns.mark(i)
			out = append(out, s)
		}
	})
	return slices.Values(out), err
}

// standings gives the cells of some products in the environments that within chooses.
func (g *grid) standings(products []uuid.UUID, within func(environment uuid.UUID) bool) iter.Seq[standing] {
	return func(yield func(standing) bool) {
		for _, product := range products {
			row := g.rows[event.ProductID(product)]
			if row == nil {
				continue
			}
			for i := range row.cells {
				c := &row.cells[i]
				environment := uuid.UUID(c.environment)
				if !within(environment) {
					continue
				}
				s := standing{spot{product, environment, c.inc}, [2]mark{noMark, noMark}, c}
				if c.live != nil {
					s.newest[succeeded] = markOf(c.live)
				}
				if c.attempt != nil {
					s.newest[attempted] = markOfAttempt(c.attempt)
				}
				if !yield(s) {
					return
				}
			}
		}
	}
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

// earlier gives those looks into what was before a period, where of so many cells as many are open.
func earlier(before int32, open, cells int) []periods {
	first := before - firstLook
	if open*manyOpen > cells {
		first = before - wideFirstLook
	}
	second := first - secondLook
	return []periods{{first, before - 1}, {second, first - 1}, {math.MinInt32, second - 1}}
}

// open tells whether a cell's newest attempt or success is still to be found. An
// attempt before what was live tells nothing: it is not looked for before begin where
// something was live since.
func (l *lookBack) open(c *pastCell, kind int, begin int64) bool {
	if c.newest[kind] == noMark || c.found[kind].mark != noMark {
		return false
	}
	live := c.found[succeeded].mark
	return kind == succeeded || l.tried && live.at < begin && c.newest[kind].after(live)
}

// know takes how cells stand. To find 10,000 of them takes 2 ms, so it is done while the
// engine looks.
func (l *lookBack) know(standings iter.Seq[standing]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range standings {
		at := l.cell(s.spot)
		c := &l.cells[at]
		for kind, m := range s.newest {
			if m.after(c.newest[kind]) {
				c.newest[kind] = m
			}
		}
		if l.received == always { // what is kept does not tell when it was received
			c.kept = s.kept
		}
		l.known = append(l.known, at)
	}
}

// rest finds what was not found lately of cells of which it is known how they stand.
func (l *lookBack) rest(ctx context.Context) error {
	first := l.latelyFirst()
	begin := periodBegin(first)
	slices.Sort(l.known)
	touched := slices.Compact(l.known)
	var open, unchanged [2][]int // in cells
	for _, at := range touched {
		c := &l.cells[at]
		var is [2]bool
		for kind := range is {
			is[kind] = l.open(c, kind, begin)
		}
		for kind := range is {
			switch {
			case !is[kind]:
			case c.newest[kind].at > min(l.at, l.received):
				open[kind] = append(open[kind], at)
			case c.kept != nil:
				c.found[kind] = finding{mark: c.newest[kind], kept: true}
			default:
				open[kind], unchanged[kind] = append(open[kind], at), append(unchanged[kind], at)
			}
		}
	}
	if err := l.unchanged(ctx, unchanged); err != nil {
		return err
	}
	open = l.still(open, begin)
	for _, p := range earlier(first, len(open[succeeded]), len(touched)) {
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

// unchanged reads the newest of cells that were it at the moment already. It may have
// become a newer one since: then it is found among the periods.
func (l *lookBack) unchanged(ctx context.Context, cells [2][]int) error {
	var statements []string
	newest := ""
	if l.received != always {
		newest = " FINAL" // one that is no longer the newest may have been known, and the newest not
	}
	for kind, table := range [2]string{attempted: "attempts_vN", succeeded: "current_vN"} {
		if of := cells[kind]; len(of) > 0 {
			statements = append(statements, l.from(table+newest, strconv.FormatBool(kind == succeeded))+" AND at_ms <= {at:Int64}"+l.wasKnown()+l.only(of, "unchanged"+strconv.Itoa(kind)))
		}
	}
	if len(statements) == 0 {
		return nil
	}
	l.params["at"], l.params["known"] = l.at, l.received
	return l.read(ctx, "find what has not changed", statements...)
}

// earlier looks into other periods for cells, of both kinds at once: one that has no
// success lately mostly has no attempt either.
func (l *lookBack) earlier(ctx context.Context, p periods, open [2][]int) error {
	l.params["first"], l.params["last"] = p.first, p.last
	kinds, of := "= true", open[succeeded]
	switch {
	case len(of) == 0:
		kinds, of = "= false", open[attempted]
	case len(open[attempted]) > 0:
		kinds, of = "IN (true, false)", slices.Concat(of, open[attempted])
		slices.Sort(of)
		of = slices.Compact(of)
	}
	const within = " AND period BETWEEN {first:Int32} AND {last:Int32}"
	if l.received == always {
		return l.read(ctx, "find what was before", l.from("cell_periods_vN", "succeeded")+within+" AND succeeded "+kinds+l.only(of, "open"))
	}
	var statements []string
	for kind, table := range [2]string{attempted: "past_attempts_vN", succeeded: "cells_vN"} {
		if len(open[kind]) > 0 {
			statements = append(statements, l.from(table, strconv.FormatBool(kind == succeeded))+within+l.wasKnown()+l.only(open[kind], "open"+strconv.Itoa(kind)))
		}
	}
	return l.read(ctx, "find what was known before", statements...)
}

// still leaves those open of which more may stand before begin.
func (l *lookBack) still(open [2][]int, begin int64) [2][]int {
	for kind := range open {
		open[kind] = slices.DeleteFunc(open[kind], func(at int) bool { return !l.open(&l.cells[at], kind, begin) })
	}
	return open
}

// together does several things at once.
func together(ctx context.Context, each ...func(context.Context) error) error {
	group, all := errgroup.WithContext(ctx)
	for _, do := range each {
		group.Go(func() error { return do(all) })
	}
	return group.Wait()
}

// fewCells is how many are named one by one.
const fewCells = 1000

// only narrows a statement to cells, by a parameter.
func (l *lookBack) only(cells []int, name string) string {
	if len(cells) > fewCells {
		products := map[event.ProductID]bool{}
		for _, at := range cells {
			products[event.ProductID(l.cells[at].product)] = true
		}
		l.params[name] = uuids(products)
		return " AND product_id IN {" + name + ":Array(UUID)}"
	}
	list := []byte{'['}
	for i, at := range cells {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(append(list, "('"...), l.cells[at].product.String()...)
		list = append(append(list, "','"...), l.cells[at].environment.String()...)
		list = append(list, "')"...)
	}
	l.params[name] = string(append(list, ']')) // the drivers know no tuples
	return " AND (product_id, environment_id) IN {" + name + ":Array(Tuple(UUID, UUID))}"
}

// pastCells gives what was live, and the last attempts that are news beside it, at a
// moment.
func (q question) pastCells(ctx context.Context, account, where string, b params, at asOf) ([]placedCell, error) {
	l := q.lookingBack(where, b, at, shownColumn, true)
	defer l.end()
	err := together(ctx, l.lately, func(ctx context.Context) error {
		known, err := q.standings(ctx, where, b)
		if err == nil {
			l.know(known)
		}
		return err
	})
	if err == nil {
		err = l.rest(ctx)
	}
	if err != nil {
		return nil, err
	}
	out := make([]placedCell, len(l.cells))
	return out, inTwo(len(l.cells), func(from, to int) error { return l.show(account, out[from:to], l.cells[from:to]) })
}

// show makes of cells what the matrix shows of them: nothing, of one that was never tried.
func (l *lookBack) show(account string, out []placedCell, cells []pastCell) error {
	var named namedVersions
	rows := make([]readmodel.Success, 0, len(cells))
	texts := shownTextsOf(cells, l.texts)
	for i := range cells {
		c, placed := &cells[i], &out[i]
		live, tried := &c.found[succeeded], &c.found[attempted]
		*placed = c.placed(nil, nil)
		switch {
		case live.mark == noMark:
		case live.kept:
			placed.live = c.kept.live
		default:
			rows = append(rows, readmodel.Success{ID: live.id})
			placed.live = &rows[len(rows)-1]
			if err := readSuccess(texts.of(live), live.mark, placed.live); err != nil {
				return err
			}
			placed.live.Version, placed.live.VersionID = named.of(account, placed.product, placed.live.Version)
		}
		switch {
		case !tried.isNews(live):
		case tried.kept:
			placed.attempt = c.kept.attempt
		default:
			placed.attempt = &readmodel.LastAttempt{ID: tried.id}
			if err := readAttempt(texts.of(tried), tried.mark, placed.attempt); err != nil {
				return err
			}
		}
	}
	return nil
}

// inTwo does something of so many in two halves at once, where that is worth it.
func inTwo(n int, do func(from, to int) error) error {
	const worth = 500 // a goroutine
	if n < worth {
		return do(0, n)
	}
	var group errgroup.Group
	group.Go(func() error { return do(0, n/2) })
	group.Go(func() error { return do(n/2, n) })
	return group.Wait()
}

// past is the matrix of an account at the moment that was asked about last. Its pages
// would each read all of it: products lie in the tables by their ids and on pages by
// their names, so that what a page wants is everywhere.
type past struct {
	took func(bytes int)

	mu   sync.Mutex
	at   asOf
	grid *grid // nil: no moment was asked about
}

// lookedBytes is about what a cell takes while it is looked for and put together.
const lookedBytes = 1 << 10

// pastShare is what part of an account's products a page has at least for which
// those of the other pages are read, too.
const pastShare = 4

// then gives what an account, of which the names are kept, had at the moment of f;
// nil where a page is better read on its own.
func (q question) then(ctx context.Context, account string, f readmodel.MatrixFilter, page readmodel.Page) (*state, error) {
	edges, past := q.state.edges, q.state.past
	if !f.Past() || edges == nil || past == nil {
		return nil, nil
	}
	at := asOfFilter(&f)
	if g := past.of(at); g != nil {
		return &state{edges: edges, grid: g}, nil
	}
	cells := len(edges.rows) * len(edges.columns)
	if !wantsAll(f, page, len(edges.rows)) || cells*lookedBytes > q.Model.hot.limit/hotShare/2 {
		return nil, nil
	}
	ids := make([]uuid.UUID, len(edges.rows))
	for i := range ids {
		ids[i] = uuid.UUID(edges.rows[i].ID)
	}
	found, err := q.pastCells(ctx, account, "", params{"account": account, "products": ids}, at)
	if err != nil {
		return nil, err
	}
	g := newGrid(edges, found, nil) // who asks for a page again is answered from what was written
	past.keep(at, g)
	return &state{edges: edges, grid: g}, nil
}

// wantsAll tells whether a page of f takes about as much as all of an account's products:
// many of them, or those that drift, which all have to be looked at to be known.
func wantsAll(f readmodel.MatrixFilter, page readmodel.Page, products int) bool {
	if f.Product != (event.ProductID{}) {
		return false
	}
	return f.DriftOnly || !f.Narrowed() && f.Search == "" && page.Limit*pastShare >= products
}

func (p *past) of(at asOf) *grid {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at != at {
		return nil
	}
	return p.grid
}

func (p *past) keep(at asOf, g *grid) {
	p.mu.Lock()
	bytes := g.size()
	if p.grid != nil {
		bytes -= p.grid.size()
	}
	p.at, p.grid = at, g
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

// occupantsAt gives what was live in the cells of some products and environments
// at two moments, where that is not the same, or of all of them.
func (q question) occupantsAt(ctx context.Context, account string, products, environments []uuid.UUID, first, second asOf, all bool) ([]occupants, error) {
	const where = " AND product_id IN {products:Array(UUID)} AND environment_id IN {environments:Array(UUID)}"
	b := params{"account": account, "products": products, "environments": environments}
	looks := []*lookBack{q.lookingBack(where, b, first, versionColumn, false)}
	if second != first {
		looks = append(looks, q.lookingBack(where, b, second, versionColumn, false))
	}
	var lately, rest []func(context.Context) error
	for _, l := range looks {
		defer l.end()
		lately, rest = append(lately, l.lately), append(rest, l.rest)
	}
	err := together(ctx, append(lately, func(ctx context.Context) error {
		known, err := q.standings(ctx, where, b)
		if err != nil {
			return err
		}
		for _, l := range looks {
			l.know(known)
		}
		return nil
	})...)
	if err == nil {
		err = together(ctx, rest...)
	}
	if err != nil {
		return nil, err
	}
	sides := [2]*lookBack{looks[0], looks[len(looks)-1]}
	out := map[spot]*occupants{}
	for side, l := range sides {
		other := sides[1-side]
		for i := range l.cells {
			c := &l.cells[i]
			found := &c.found[succeeded]
			if found.mark == noMark || !all && other.liveAt(c.spot) == found.mark {
				continue
			}
			o := out[c.spot]
			if o == nil {
				o = &occupants{product: c.product, environment: c.environment, inc: c.inc}
				out[c.spot] = o
			}
			o.at[side], o.id[side], o.version[side] = found.at, found.id, l.textOf(c, succeeded)
			if found.kept {
				o.id[side], o.version[side] = c.kept.live.ID, c.kept.live.Version
			}
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

// liveAt tells which success of a cell was live.
func (l *lookBack) liveAt(of spot) mark {
	if i, ok := l.place[of]; ok {
		return l.cells[i].found[succeeded].mark
	}
	return noMark
}
