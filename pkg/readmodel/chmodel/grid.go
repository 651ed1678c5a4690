package chmodel

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"strings"
	"unsafe"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// grid are the cells that an account has now, put together as the matrix shows
// them. It does not change, and shares what is the same with the one before.
type grid struct {
	rows map[event.ProductID]*gridRow
	list []*gridRow      // of products that live, by name
	took func(bytes int) // told of what is made of a row; nil: it is not kept
}

// gridRow are the cells of one product, of every incarnation.
type gridRow struct {
	cells []gridCell
	lives bool
	item  readmodel.MatrixItem // in every column; zero unless it lives
	bytes int
}

// gridCell is a cell of one incarnation: its newest success and its newest attempt.
type gridCell struct {
	environment event.EnvironmentID
	inc         uint32
	live        *readmodel.Success
	attempt     *readmodel.LastAttempt
}

// placedCell is a cell, and of which product.
type placedCell struct {
	product event.ProductID
	gridCell
}

func (c *spot) placed(live *readmodel.Success, attempt *readmodel.LastAttempt) placedCell {
	return placedCell{event.ProductID(c.product), gridCell{event.EnvironmentID(c.environment), c.inc, live, attempt}}
}

// paired puts the successes and the attempts of cells together.
func paired(live []*success, attempts []attempt) []placedCell {
	at := make(map[spot]int, len(live))
	out := make([]placedCell, 0, max(len(live), len(attempts)))
	for i, c := range live {
		at[c.spot] = i
		out = append(out, c.placed(&c.Success, nil))
	}
	for i := range attempts {
		a := &attempts[i]
		if j, ok := at[a.spot]; ok {
			out[j].attempt = &a.LastAttempt
		} else {
			out = append(out, a.placed(nil, &a.LastAttempt))
		}
	}
	return out
}

// newGrid puts cells together, each of which is there once.
func newGrid(e *edges, cells []placedCell, took func(int)) *grid {
	g := &grid{rows: make(map[event.ProductID]*gridRow, len(e.products)), took: took}
	for id := range e.products {
		g.rows[id] = &gridRow{}
	}
	for len(cells) > 0 { // those of a product mostly come together
		id, n := cells[0].product, 1
		for n < len(cells) && cells[n].product == id {
			n++
		}
		r := g.rows[id]
		if r == nil {
			r = &gridRow{}
			g.rows[id] = r
		}
		r.cells = slices.Grow(r.cells, n)
		for i := range cells[:n] {
			r.cells = append(r.cells, cells[i].gridCell)
		}
		cells = cells[n:]
	}
	ids := slices.Collect(maps.Keys(g.rows))
	_ = inTwo(len(ids), func(from, to int) error { // there is no error
		for _, id := range ids[from:to] {
			g.rows[id].assemble(e, id, g.took)
		}
		return nil
	})
	g.order()
	return g
}

func (g *grid) order() {
	g.list = make([]*gridRow, 0, len(g.rows))
	for _, r := range g.rows {
		if r.lives {
			g.list = append(g.list, r)
		}
	}
	slices.SortFunc(g.list, func(a, b *gridRow) int { return cmp.Compare(a.item.Product.Name, b.item.Product.Name) })
}

// with gives the grid after newer cells and attempts, and other edges.
func (g *grid) with(was, now *edges, live []*success, attempts []attempt) *grid {
	if was == now && len(live) == 0 && len(attempts) == 0 {
		return g
	}
	out := &grid{rows: maps.Clone(g.rows), took: g.took}
	touched := map[event.ProductID]*gridRow{}
	touch := func(id event.ProductID) *gridRow {
		r := touched[id]
		if r == nil {
			r = &gridRow{}
			if old := g.rows[id]; old != nil {
				r.cells = slices.Clone(old.cells)
			}
			touched[id], out.rows[id] = r, r
		}
		return r
	}
	for _, c := range live {
		if cell := touch(event.ProductID(c.product)).cell(&c.spot); cell.live == nil || markOf(&c.Success).after(markOf(cell.live)) {
			cell.live = &c.Success
		}
	}
	for i := range attempts {
		a := &attempts[i]
		if cell := touch(event.ProductID(a.product)).cell(&a.spot); cell.attempt == nil || markOfAttempt(&a.LastAttempt).after(markOfAttempt(cell.attempt)) {
			cell.attempt = &a.LastAttempt
		}
	}
	if was != now {
		same := slices.EqualFunc(was.columns, now.columns, func(a, b readmodel.EnvironmentRow) bool {
			return a.ID == b.ID && a.Name == b.Name && a.Incarnation == b.Incarnation
		})
		for id := range g.rows {
			if before, after := was.products[id], now.products[id]; !same || !sameProduct(&before, &after) {
				touch(id)
			}
		}
		for id := range now.products {
			if g.rows[id] == nil {
				touch(id)
			}
		}
	}
	for id, r := range touched {
		r.assemble(now, id, g.took)
	}
	if was != now {
		out.order()
		return out
	}
	out.list = slices.Clone(g.list) // the same products under the same names
	for _, r := range touched {
		if r.lives {
			out.list[out.from(r.item.Product.Name)] = r
		}
	}
	return out
}

// from gives where the products from this name on begin.
func (g *grid) from(name string) int {
	return sort.Search(len(g.list), func(i int) bool { return g.list[i].item.Product.Name >= name })
}

func sameProduct(a, b *readmodel.ProductRow) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Incarnation == b.Incarnation && a.Position == b.Position && a.CreatedAt.Equal(b.CreatedAt)
}

func (r *gridRow) cell(of *spot) *gridCell {
	environment := event.EnvironmentID(of.environment)
	i := slices.IndexFunc(r.cells, func(c gridCell) bool { return c.environment == environment && c.inc == of.inc })
	if i < 0 {
		i = len(r.cells)
		r.cells = append(r.cells, gridCell{environment: environment, inc: of.inc})
	}
	return &r.cells[i]
}

// assemble makes the row of the matrix. Cells of other incarnations than product
// and environment have now are left out, as assemble of statements does.
func (r *gridRow) assemble(e *edges, id event.ProductID, took func(int)) {
	product, ok := e.products[id]
	r.lives = ok
	r.bytes = int(unsafe.Sizeof(*r)) + perEntry + 16 + len(product.Name) + len(r.cells)*int(unsafe.Sizeof(gridCell{}))
	if r.lives {
		r.item.Product = product
		if took != nil {
			r.item.Memo = readmodel.NewMemo(took)
		}
		type shown struct {
			column int
			cell   readmodel.MatrixCell
		}
		row := make([]shown, 0, len(r.cells))
		for i := range r.cells {
			c := &r.cells[i]
			column, ok := e.columnAt[c.environment]
			if !ok {
				continue
			}
			environment := &e.columns[column]
			if c.inc != uint32(product.Incarnation)<<16|uint32(environment.Incarnation) {
				continue
			}
			cell := readmodel.MatrixCell{Environment: c.environment, Live: c.live}
			if c.attempt != nil && shows(c.attempt, cell.Live) {
				cell.LastAttempt = c.attempt
			}
			if cell.Live != nil || cell.LastAttempt != nil {
				row = append(row, shown{column, cell})
			}
		}
		slices.SortFunc(row, func(a, b shown) int { return cmp.Compare(a.column, b.column) })
		r.item.Cells = make([]readmodel.MatrixCell, len(row))
		for i := range row {
			r.item.Cells[i] = row[i].cell
		}
		r.item.Drift = drifts(r.item.Cells)
		r.bytes += len(row) * int(unsafe.Sizeof(readmodel.MatrixCell{}))
	}
	for i := range r.cells {
		if c := r.cells[i].live; c != nil {
			r.bytes += int(unsafe.Sizeof(success{})) + len(c.Position.Stream) + len(c.Version) + len(c.SHA) + len(c.BuildNumber) + len(c.URL) + len(c.By)
		}
		if a := r.cells[i].attempt; a != nil {
			r.bytes += int(unsafe.Sizeof(attempt{})) + len(a.Version) + len(a.Position.Stream)
		}
	}
}

// drifts tells whether cells hold different versions.
func drifts(cells []readmodel.MatrixCell) bool {
	version := ""
	for i := range cells {
		if live := cells[i].Live; live != nil {
			if version != "" && version != live.Version {
				return true
			}
			version = live.Version
		}
	}
	return false
}

func (g *grid) size() int {
	size := int(unsafe.Sizeof(*g)) + 8*len(g.list)
	for _, r := range g.rows {
		size += r.bytes
		if r.item.Memo != nil {
			size += r.item.Memo.Len()
		}
	}
	return size
}

// matrix draws a page of the matrix, of the current one or of that of then.
func (s *state) matrix(f readmodel.MatrixFilter, p readmodel.Page) readmodel.Matrix {
	var out readmodel.Matrix
	if s == nil {
		return out
	}
	columns := s.edges.columns
	in := map[event.EnvironmentID]bool{}
	narrowed := f.Narrowed() || !f.KnownAt.IsZero()
	if narrowed {
		columns = nil
		for i := range s.edges.columns {
			if e := &s.edges.columns[i]; f.Column(e) {
				columns, in[e.ID] = append(columns, *e), true
			}
		}
	}
	if f.DriftOnly && len(columns) == 0 {
		return out
	}
	cells, search := 0, strings.ToLower(f.Search)
	for _, r := range s.grid.list[s.grid.from(p.After):] {
		if product := &r.item.Product; product.Name == p.After || f.Product != (event.ProductID{}) && product.ID != f.Product || !containsFold(product.Name, search) ||
			!f.KnownAt.IsZero() && product.CreatedAt.UnixMilli() > f.KnownAt.UnixMilli() {
			continue
		}
		item := r.item
		if narrowed {
			item.Memo = nil
			item.Cells = nil
			for i := range r.item.Cells {
				if in[r.item.Cells[i].Environment] {
					item.Cells = append(item.Cells, r.item.Cells[i])
				}
			}
			item.Drift = drifts(item.Cells)
		}
		if f.DriftOnly && !item.Drift || len(item.Cells) == 0 && !f.Existed(item.Product.CreatedAt) {
			continue
		}
		if len(out.Items) >= p.Limit || len(out.Items) > 0 && cells+len(item.Cells) > readmodel.MatrixCells {
			out.More = true
			break
		}
		cells += len(item.Cells)
		out.Items = append(out.Items, item)
	}
	out.Environments = f.Columns(columns, out.Items)
	return out
}

// containsFold tells whether a name contains a text that is in lower case.
func containsFold(name, lower string) bool {
	return lower == "" || strings.Contains(strings.ToLower(name), lower)
}
