package chmodel

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// changedAtOnce is how many products are compared at a time, or fewer where they
// have more cells than a page of the matrix: what it reads is bounded, and few
// answers need a second round.
const changedAtOnce = 100

// Changes implements readmodel.States.
func (m *Model) Changes(ctx context.Context, account string, f readmodel.ChangeFilter, p readmodel.Page) ([]readmodel.Change, error) {
	after := ""
	if p.After != "" {
		var err error
		if after, err = readmodel.ParseChangeKey(p.After); err != nil {
			return nil, err
		}
	}
	q, err := m.now().about(ctx, account, nameParts)
	if err != nil {
		return nil, err
	}
	columns, err := q.comparedColumns(ctx, account, f)
	if err != nil || len(columns) == 0 {
		return nil, err
	}
	atOnce := min(changedAtOnce, max(1, readmodel.MatrixCells/len(columns)))
	var out []readmodel.Change
	resumed := p.After != "" // the product of the key may have more
	for len(out) < p.Limit {
		var products []readmodel.ProductRow
		if resumed {
			products, err = q.matrixProducts(ctx, account, f.Side(false), nil, readmodel.Page{After: before(after), Limit: atOnce})
			resumed = false
		} else {
			products, err = q.matrixProducts(ctx, account, f.Side(false), nil, readmodel.Page{After: after, Limit: atOnce})
		}
		if err != nil {
			return nil, err
		}
		if len(products) == 0 {
			break
		}
		changes, err := q.changes(ctx, account, f, columns, products)
		if err != nil {
			return nil, err
		}
		for _, c := range changes {
			if p.After == "" || readmodel.CompareChangeKeys(c.Key(), p.After) > 0 {
				out = append(out, c)
			}
		}
		after = products[len(products)-1].Name
		if len(products) < atOnce {
			break
		}
	}
	return out[:min(len(out), p.Limit)], nil
}

// before gives a text that sorts below name and above every name that does.
// Names hold no control characters.
func before(name string) string {
	if name == "" {
		return ""
	}
	last := len(name) - 1
	return name[:last] + string([]byte{name[last] - 1, 0xff, 0xff, 0xff, 0xff})
}

func (q question) comparedColumns(ctx context.Context, account string, f readmodel.ChangeFilter) ([]readmodel.EnvironmentRow, error) {
	side := f.Side(false)
	if f.BetweenEnvironments() {
		side.Environment = event.EnvironmentID{}
	}
	columns, err := q.columns(ctx, account, side)
	if f.BetweenEnvironments() {
		columns = slices.DeleteFunc(columns, func(e readmodel.EnvironmentRow) bool { return e.ID != f.Left && e.ID != f.Right })
	}
	return columns, err
}

// occupants are what was live in a cell on both sides of a comparison.
type occupants struct {
	product, environment uuid.UUID
	inc                  uint32
	id                   [2]ulid.ULID
	version              [2]string
	at                   [2]int64
}

func (o *occupants) side(i int) *readmodel.Occupant {
	if o.version[i] == "" {
		return nil
	}
	return &readmodel.Occupant{Environment: event.EnvironmentID(o.environment), Deployment: o.id[i], Version: o.version[i], At: moment(o.at[i])}
}

// changes compares the cells of some products. Only what differs leaves the server.
func (q question) changes(ctx context.Context, account string, f readmodel.ChangeFilter, columns []readmodel.EnvironmentRow, products []readmodel.ProductRow) ([]readmodel.Change, error) {
	byID := make(map[event.ProductID]readmodel.ProductRow, len(products))
	ids := make([]uuid.UUID, len(products))
	for i := range products {
		ids[i], byID[products[i].ID] = uuid.UUID(products[i].ID), products[i]
	}
	columnByID := make(map[event.EnvironmentID]readmodel.EnvironmentRow, len(columns))
	environments := make([]uuid.UUID, len(columns))
	for i := range columns {
		environments[i], columnByID[columns[i].ID] = uuid.UUID(columns[i].ID), columns[i]
	}
	first, second := f.Side(false), f.Side(true)
	rows, err := q.occupantsAt(ctx, account, ids, environments, asOfFilter(&first), asOfFilter(&second), f.BetweenEnvironments())
	if err != nil {
		return nil, err
	}
	var out []readmodel.Change
	sides := map[event.ProductID]*readmodel.Change{}
	for i := range rows {
		o := &rows[i]
		product := byID[event.ProductID(o.product)]
		environment, ok := columnByID[event.EnvironmentID(o.environment)]
		if !ok || uint32(product.Incarnation)<<16|uint32(environment.Incarnation) != o.inc {
			continue
		}
		if !f.BetweenEnvironments() {
			out = append(out, readmodel.Change{Product: product, Environment: environment, From: o.side(0), To: o.side(1)})
			continue
		}
		c := sides[product.ID]
		if c == nil {
			c = &readmodel.Change{Product: product}
			sides[product.ID] = c
		}
		if environment.ID == f.Left {
			c.From = o.side(0)
		}
		if environment.ID == f.Right {
			c.To = o.side(1)
		}
	}
	for _, c := range sides {
		if c.From == nil || c.To == nil || c.From.Version != c.To.Version {
			if c.From != nil || c.To != nil {
				out = append(out, *c)
			}
		}
	}
	slices.SortFunc(out, func(a, b readmodel.Change) int { return readmodel.CompareChangeKeys(a.Key(), b.Key()) })
	return out, nil
}

// untilMS gives the last millisecond that counts; no moment leaves nothing out.
func untilMS(t time.Time) int64 {
	if t.IsZero() {
		return always
	}
	return t.UnixMilli()
}

// staysAtOnce is how many successes of a cell are read by one statement.
const staysAtOnce = 500

// firstStays is how much time a history of a cell is looked for in at first. Each
// period of it is a granule somewhere else; what lies before is read at once.
const firstStays = 24 * period

// Stays implements readmodel.States.
func (m *Model) Stays(ctx context.Context, account string, f readmodel.StayFilter, p readmodel.Page) ([]readmodel.Stay, error) {
	b := params{"account": account, "product": f.Product.String(), "environment": f.Environment.String(), "limit": uint32(staysAtOnce)}
	where := ""
	var staying readmodel.Staying
	if p.After != "" {
		from, first, err := readmodel.ParseStayKey(p.After)
		if err != nil {
			return nil, err
		}
		staying.Until, where = from, " AND (at_ms, pos) < ({at:Int64}, {pos:UInt64})"
		b["at"], b["pos"] = from.UnixMilli(), uint64(first)
	}
	q := m.now()
	shape := strings.Join([]string{"cells", account, f.Product.String(), f.Environment.String()}, " ")
	length, end := firstStays, cmp.Or(staying.Until, q.cfg.Now())
	if h, ok := q.hints.get(shape); ok && h.each > 0 && h.each < lastWindow/time.Duration(2*max(p.Limit, 1)) {
		length = h.each * time.Duration(p.Limit) * 5 / 4 // as long as it took lately, and a little
	}
	b["period"] = periodOf(end.Add(-length).UnixMilli())
	inc, names, err := q.livingCell(ctx, account, f.Product, f.Environment)
	if err != nil || names.products[f.Product].ID != f.Product || names.environments[f.Environment].ID != f.Environment {
		return nil, err
	}
	b["inc"] = inc
	known := ""
	if !f.KnownAt.IsZero() {
		known, b["known"] = " AND received_ms <= {known:Int64}", f.KnownAt.UnixMilli()
	}
	periods, older := " AND period >= {period:Int32}", false
	if p.After != "" {
		periods += " AND period <= {upto:Int32}"
		b["upto"] = periodOf(end.UnixMilli())
	}
	var out []readmodel.Stay
	for {
		cells, err := list(ctx, q, "read the history of a cell", "SELECT "+cellSelection+` FROM cells_vN
			WHERE account = {account:String} AND product_id = {product:UUID} AND environment_id = {environment:UUID} AND inc = {inc:UInt32}`+
			strings.Join([]string{known, where, periods}, "")+`
			ORDER BY at_ms DESC, pos DESC LIMIT 1 BY at_ms, stream, pos LIMIT {limit:UInt32}`,
			b, func(s scanner) (readmodel.Cell, error) { return scanCell(s, account) })
		if err != nil {
			return nil, err
		}
		for _, c := range cells {
			names.dress(&c.Record)
			if stay, ok := staying.Add(c); ok {
				if out = append(out, stay); len(out) >= p.Limit {
					if p.After == "" {
						q.hints.change(shape, func(h *hint) { h.each = max(end.Sub(c.EffectiveAt), period) / time.Duration(max(p.Limit, 1)) })
					}
					return out, nil
				}
			}
		}
		if len(cells) < staysAtOnce {
			if older {
				break
			}
			periods, older = " AND period < {period:Int32}", true
			continue
		}
		last := &cells[len(cells)-1]
		where = " AND (at_ms, pos) < ({at:Int64}, {pos:UInt64})"
		b["at"], b["pos"] = last.EffectiveAt.UnixMilli(), uint64(last.Position.Offset)
	}
	if stay, ok := staying.Last(); ok && len(out) < p.Limit {
		out = append(out, stay)
	}
	return out, nil
}

// livingCell gives the incarnations that a cell has now.
func (q question) livingCell(ctx context.Context, account string, product event.ProductID, environment event.EnvironmentID) (inc uint32, n names, err error) {
	n, err = q.namesOf(ctx, account, []identity{{product: product, environment: environment}})
	return uint32(n.products[product].Incarnation)<<16 | uint32(n.environments[environment].Incarnation), n, err
}

// CountRuns implements readmodel.States. It reads the narrow table only.
func (m *Model) CountRuns(ctx context.Context, account string, product event.ProductID, environment event.EnvironmentID) (readmodel.Counts, error) {
	out := readmodel.Counts{ByStatus: map[event.Status]int{}}
	where, b := m.now().runsWhere(account, byEnvironmentTable, readmodel.RunFilter{Product: product, Environment: environment})
	err := m.now().ask(ctx, "count deployments", "SELECT status, count(), max(id) FROM dep_by_env_vN FINAL WHERE "+where+`
		AND (product_id, `+productOf+`) IN `+livingProducts+` AND (environment_id, `+environmentOf+`) IN `+livingEnvironments+`
		GROUP BY status`, b, func(s scanner) error {
		var word string
		var n uint64
		var newest ulid.ULID
		if err := s.Scan(&word, &n, (*[16]byte)(&newest)); err != nil {
			return err
		}
		status, _ := event.StatusOf(word)
		out.ByStatus[status] = int(n)
		if newest.Compare(out.Newest) > 0 {
			out.Newest = newest
		}
		return nil
	})
	return out, err
}
