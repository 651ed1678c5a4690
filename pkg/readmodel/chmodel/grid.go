package chmodel

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"strings"
	"unsafe"

	"github.com/google/uuid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// grid are the cells that an account has now, put together as the matrix shows
// them. It does not change, and shares what is the same with the one before.
type grid struct {
	rows map[event.ProductID]*gridRow
	list []*gridRow // of products that live, by name
	took func(bytes int)
}

// gridRow are the cells of one product, of every incarnation.
type gridRow struct {
	cells []gridCell
	lives bool
	item  readmodel.MatrixItem // in every column; zero unless it lives
	bytes int
}

// gridCell is a cell of one incarnation: its newest success, which bears the names of
// now if it shows, and its newest attempt.
type gridCell struct {
	environment event.EnvironmentID
	inc         uint32
	live        *readmodel.Cell
	attempt     *readmodel.LastAttempt
}

func newGrid(e *edges, live []*readmodel.Cell, attempts []attempt, took func(int)) *grid {
	g := &grid{rows: make(map[event.ProductID]*gridRow, len(e.products)), took: took}
	at := make(map[spot]int, len(live))
	row := func(id event.ProductID) *gridRow {
		r := g.rows[id]
		if r == nil {
			r = &gridRow{}
			g.rows[id] = r
		}
		return r
	}
	for id := range e.products {
		row(id)
	}
	for _, c := range live {
		r, s := row(c.Record.ProductID), spotOf(c)
		at[s] = len(r.cells)
		r.cells = append(r.cells, gridCell{environment: c.Record.EnvironmentID, inc: s.inc, live: c})
	}
	for i := range attempts {
		a := &attempts[i]
		r, s := row(a.product), a.spot()
		if j, ok := at[s]; ok {
			r.cells[j].attempt = &a.LastAttempt
		} else {
			r.cells = append(r.cells, gridCell{environment: a.environment, inc: s.inc, attempt: &a.LastAttempt})
		}
	}
	for id, r := range g.rows {
		r.assemble(e, id, g.took)
	}
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
func (g *grid) with(was, now *edges, live []*readmodel.Cell, attempts []attempt) *grid {
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
		if cell := touch(c.Record.ProductID).cell(c.Record.EnvironmentID, inc(&c.Record)); cell.live == nil || markOf(c).after(markOf(cell.live)) {
			cell.live = c
		}
	}
	for i := range attempts {
		a := &attempts[i]
		if cell := touch(a.product).cell(a.environment, a.spot().inc); cell.attempt == nil || markOfAttempt(&a.LastAttempt).after(markOfAttempt(cell.attempt)) {
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

func (r *gridRow) cell(environment event.EnvironmentID, inc uint32) *gridCell {
	i := slices.IndexFunc(r.cells, func(c gridCell) bool { return c.environment == environment && c.inc == inc })
	if i < 0 {
		i = len(r.cells)
		r.cells = append(r.cells, gridCell{environment: environment, inc: inc})
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
		r.item.Memo = readmodel.NewMemo(took)
		type shown struct {
			column int
			cell   readmodel.MatrixCell
		}
		var row []shown
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
			cell := readmodel.MatrixCell{Environment: c.environment}
			if c.live != nil {
				if rec := &c.live.Record; rec.ProductName != product.Name || rec.EnvironmentName != environment.Name {
					named := *c.live // the old one is that of answers given before
					named.Record.ProductName, named.Record.EnvironmentName = product.Name, environment.Name
					c.live = &named
				}
				cell.Live = c.live
			}
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
			r.bytes += int(unsafe.Sizeof(*c)) + len(c.Position.Stream) + len(c.Record.Version)
			for _, a := range c.Record.Attributes {
				r.bytes += len(a)
			}
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
			if version != "" && version != live.Record.Version {
				return true
			}
			version = live.Record.Version
		}
	}
	return false
}

// kept gives what is kept of a cell; nothing where it is not.
func (s *state) kept(c spot) gridCell {
	if s == nil || s.grid == nil {
		return gridCell{}
	}
	if r := s.grid.rows[event.ProductID(c.product)]; r != nil {
		for i := range r.cells {
			if cell := &r.cells[i]; uuid.UUID(cell.environment) == c.environment && cell.inc == c.inc {
				return *cell
			}
		}
	}
	return gridCell{}
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
	if f.Narrowed() {
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
		if product := &r.item.Product; product.Name == p.After || f.Product != (event.ProductID{}) && product.ID != f.Product || !containsFold(product.Name, search) {
			continue
		}
		item := r.item
		if f.Narrowed() {
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
