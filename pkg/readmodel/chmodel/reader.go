package chmodel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// params are the values of a statement's {name:Type}; values never become SQL text.
type params map[string]any

// ask runs a question and hands each row to scan.
func (m *Model) ask(ctx context.Context, doing, sql string, p params, scan func(scanner) error) error {
	return askOn(ctx, m.conn, m.cfg.QueryTimeout, doing, sql+m.limited(doing), p, scan)
}

// limited ends a statement. The limit stands in the statement itself: the driver puts
// a time of its own over the setting of a connection wherever the context has a
// deadline. The comment tells an operator who looks at what runs what it is for.
func (m *Model) limited(doing string) string {
	return " SETTINGS max_execution_time = " + strconv.FormatFloat(max(m.cfg.MaxQueryTime, time.Millisecond).Seconds(), 'f', -1, 64) +
		", log_comment = '" + doing + "'"
}

func (p params) args() []any {
	args := make([]any, 0, len(p))
	for name, value := range p {
		args = append(args, clickhouse.Named(name, value))
	}
	return args
}

func askOn(ctx context.Context, conn driver.Conn, timeout time.Duration, doing, sql string, p params, scan func(scanner) error) error {
	bound, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	args := p.args()
	started := false
	attempt := func() error {
		rows, err := conn.Query(bound, sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			started = true
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	err := attempt()
	if e, ok := errors.AsType[enough](err); ok {
		return e.error
	}
	if broken(err) && !started && bound.Err() == nil {
		// A pooled connection may have died with the server it led to.
		err = attempt()
	}
	return classify(ctx, doing, err)
}

// enough ends a question from within scan, with an error that is not the store's.
type enough struct{ error }

func (e enough) Unwrap() error { return e.error }

// question is what a reader asks of one version of the tables. A statement
// names a table events_vN.
type question struct {
	*Model
	version uint32
	state   state // what is kept of the account that it is about, where about has looked
}

// now fixes the version of the tables for all statements of one question.
func (m *Model) now() question { return question{Model: m, version: m.Active()} }

func (q question) ask(ctx context.Context, doing, sql string, p params, scan func(scanner) error) error {
	return q.Model.ask(ctx, doing, strings.ReplaceAll(sql, "_vN", suffix(q.version)), p, scan)
}

// askSlowly runs a question over whole tables that nobody waits for: on one thread,
// and for as long as a comparison may take.
func (q question) askSlowly(ctx context.Context, doing, sql string, p params, scan func(scanner) error) error {
	return askOn(ctx, q.slow, compareTimeout, doing, strings.ReplaceAll(sql, "_vN", suffix(q.version))+" SETTINGS log_comment = '"+doing+"'", p, scan)
}

// list asks for rows.
func list[R any](ctx context.Context, q question, doing, sql string, p params, scan func(scanner) (R, error)) ([]R, error) {
	var out []R
	err := q.ask(ctx, doing, sql, p, func(s scanner) error {
		r, err := scan(s)
		out = append(out, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// one asks for a row that may not be there.
func one[R any](ctx context.Context, q question, doing, sql string, p params, scan func(scanner) (R, error)) (R, error) {
	rows, err := list(ctx, q, doing, sql, p, scan)
	if err == nil && len(rows) == 0 {
		err = readmodel.ErrNotFound
	}
	if err != nil {
		var none R
		return none, err
	}
	return rows[0], nil
}

// AsOf implements readmodel.Reader.
func (m *Model) AsOf(ctx context.Context) ([]readmodel.Progress, error) {
	return m.now().asOf(ctx)
}

// asOf tells how far the tables are, for the caller and for what is kept.
func (q question) asOf(ctx context.Context) ([]readmodel.Progress, error) {
	asking := q.Model.hot.seen.asking()
	progress, err := q.told(ctx)
	if err == nil {
		q.Model.hot.seen.learn(q.version, asking, progress)
	}
	return progress, err
}

// told asks how far the tables are, unless this model wrote all that there is.
func (q question) told(ctx context.Context) ([]readmodel.Progress, error) {
	known := &q.known
	if q.cfg.Alone {
		if progress, ok := known.of(q.version); ok {
			return progress, nil
		}
	}
	stores := known.asking()
	progress, err := q.progress(ctx, q.version)
	if err == nil {
		known.learn(q.version, stores, progress)
	}
	return progress, err
}

// What an account has now: earlier incarnations of products and environments
// are not shown.
const (
	livingProducts     = `(SELECT id, incarnation FROM products_vN FINAL WHERE account = {account:String} AND NOT deleted)`
	livingEnvironments = `(SELECT id, incarnation FROM environments_vN FINAL WHERE account = {account:String} AND NOT deleted)`

	productOf     = `toUInt16(bitShiftRight(inc, 16))`
	environmentOf = `toUInt16(bitAnd(inc, 65535))`
)

// identity is what a row remembers of its product and environment.
type identity struct {
	product                event.ProductID
	environment            event.EnvironmentID
	productIncarnation     uint16
	environmentIncarnation uint16
}

func identityOf(rec *event.Record) identity {
	return identity{rec.ProductID, rec.EnvironmentID, rec.ProductIncarnation, rec.EnvironmentIncarnation}
}

// names are those that products and environments have now.
type names struct {
	products     map[event.ProductID]readmodel.ProductRow
	environments map[event.EnvironmentID]readmodel.EnvironmentRow
}

// namesOf looks up what rows speak of. Two small reads by key cost a third of a
// join, which also could not stop at a page.
func (q question) namesOf(ctx context.Context, account string, rows []identity) (names, error) {
	if len(rows) == 0 {
		return names{}, nil
	}
	if s, err := q.hot(ctx, account, nameParts); err != nil || s != nil {
		return s.names(), err
	}
	products, environments := map[event.ProductID]bool{}, map[event.EnvironmentID]bool{}
	for _, r := range rows {
		products[r.product] = true
		if r.environment != (event.EnvironmentID{}) {
			environments[r.environment] = true
		}
	}
	n := names{map[event.ProductID]readmodel.ProductRow{}, map[event.EnvironmentID]readmodel.EnvironmentRow{}}
	group, both := errgroup.WithContext(ctx)
	if len(products) > 0 {
		group.Go(func() error {
			rows, err := list(both, q, "read names of products", `
				SELECT `+productNames+` FROM products_vN FINAL WHERE account = {account:String} AND NOT deleted AND id IN {ids:Array(UUID)}`,
				params{"account": account, "ids": uuids(products)}, scanProductOf(account))
			for _, r := range rows {
				n.products[r.ID] = r
			}
			return err
		})
	}
	if len(environments) > 0 {
		group.Go(func() error {
			rows, err := list(both, q, "read names of environments", `
				SELECT `+environmentNames+` FROM environments_vN FINAL WHERE account = {account:String} AND NOT deleted AND id IN {ids:Array(UUID)}`,
				params{"account": account, "ids": uuids(environments)}, scanEnvironmentOf(account))
			for _, r := range rows {
				n.environments[r.ID] = r
			}
			return err
		})
	}
	return n, group.Wait()
}

func uuids[ID ~[16]byte](set map[ID]bool) []uuid.UUID {
	out := make([]uuid.UUID, 0, len(set))
	for id := range set {
		out = append(out, uuid.UUID(id))
	}
	return out
}

// dress gives a record the names of now; false for one of an earlier incarnation.
func (n names) dress(rec *event.Record) bool {
	p, ok := n.products[rec.ProductID]
	if !ok || p.Incarnation != rec.ProductIncarnation {
		return false
	}
	rec.ProductName = p.Name
	if rec.Kind == event.Build {
		return true
	}
	e, ok := n.environments[rec.EnvironmentID]
	if !ok || e.Incarnation != rec.EnvironmentIncarnation {
		return false
	}
	rec.EnvironmentName = e.Name
	return true
}

// Deployment implements readmodel.Reader.
func (m *Model) Deployment(ctx context.Context, account string, id ulid.ULID) (readmodel.RunRow, error) {
	return m.now().run(ctx, event.Deployment, account, id)
}

// Build implements readmodel.Reader.
func (m *Model) Build(ctx context.Context, account string, id ulid.ULID) (readmodel.RunRow, error) {
	return m.now().run(ctx, event.Build, account, id)
}

func (q question) run(ctx context.Context, kind event.Kind, account string, id ulid.ULID) (readmodel.RunRow, error) {
	rows, err := q.runsOf(ctx, kind, account, []ulid.ULID{id}, nil)
	if err == nil && len(rows) == 0 {
		err = readmodel.ErrNotFound
	}
	if err != nil {
		return readmodel.RunRow{}, err
	}
	return rows[0], nil
}

// Deployments implements readmodel.Reader.
func (m *Model) Deployments(ctx context.Context, account string, f readmodel.RunFilter, p readmodel.Page) ([]readmodel.RunRow, error) {
	table := deploymentsTable
	wide := f.By != "" || f.Source != "" || ofRuns(&f) || f.SHA != "" || f.Mode != "" || len(f.Meta) > 0
	if !wide && f.Product != (event.ProductID{}) {
		table = byEnvironmentTable
	}
	return m.now().runs(ctx, event.Deployment, account, table, f, p)
}

const (
	buildsTable        = "builds_vN"
	deploymentsTable   = "deployments_vN"
	byEnvironmentTable = "dep_by_env_vN" // its key begins with environment and product
)

// Builds implements readmodel.Reader.
func (m *Model) Builds(ctx context.Context, account string, f readmodel.RunFilter, p readmodel.Page) ([]readmodel.RunRow, error) {
	if f.Class != nil { // builds are not made for an environment
		return nil, nil
	}
	return m.now().runs(ctx, event.Build, account, buildsTable, f, p)
}

// firstWindow is how much time a list reads at first; each next window is
// windowGrowth times longer. FINAL over a whole account is dear and ORDER BY …
// LIMIT does not stop it early, a range of the key does.
const (
	firstWindow   = 7 * 24 * time.Hour
	productWindow = 16 * firstWindow // of one product, whose range of the key is short
	windowGrowth  = 4
	lastWindow    = 4 * 365 * 24 * time.Hour // beyond it the rest is read at once

	// Of an environment the newest deployments stand among the newest of all. One
	// that has few is looked up by its key after so much.
	environmentWindow = windowGrowth * windowGrowth * firstWindow
)

// window is a range of ids that a list reads, from inclusive to exclusive.
type window struct {
	from, to ulid.ULID
	length   time.Duration
	middle   ulid.ULID // about where half of what is wanted lies; noID: nobody knows
	oldest   bool      // the list goes forward
	last     bool      // nothing lies beyond
}

// halves gives what lies on either side of the middle, what the list shows first first.
func (w *window) halves() []window {
	if w.middle.Compare(w.from) <= 0 || w.middle.Compare(w.to) >= 0 {
		return []window{*w}
	}
	older, newer := *w, *w
	older.to, newer.from = w.middle, w.middle
	if w.oldest {
		return []window{older, newer}
	}
	return []window{newer, older}
}

var (
	noID  ulid.ULID
	topID = func() (id ulid.ULID) {
		for i := range id {
			id[i] = 0xff // above every id
		}
		return id
	}()
)

// after takes what was read out of the window.
func (w *window) after(id ulid.ULID) {
	if w.oldest {
		w.from = idAfter(id)
	} else {
		w.to = id
	}
}

func idAfter(id ulid.ULID) ulid.ULID {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			break
		}
	}
	return id
}

// next goes on to the window that follows.
func (w *window) next() {
	w.length *= windowGrowth
	if w.oldest {
		w.from = w.to
	} else {
		w.to = w.from
	}
	w.stretch()
}

// stretch gives the window its length.
func (w *window) stretch() {
	switch {
	case w.last || w.length > lastWindow:
		w.last = true
		if w.oldest {
			w.to = topID
		} else {
			w.from = noID
		}
	case w.oldest:
		w.to = idAt(ulid.Time(w.from.Time()).Add(w.length))
	default:
		w.from = idAt(ulid.Time(w.to.Time()).Add(-w.length))
		w.last = w.from == noID
	}
}

// idAt is the first id of a moment.
func idAt(t time.Time) (id ulid.ULID) {
	if ms := t.UnixMilli(); ms > 0 {
		_ = id.SetTime(min(uint64(ms), ulid.MaxTime()))
	}
	return id
}

// begin gives the window in which a list begins.
func (q question) begin(ctx context.Context, account, table string, f readmodel.RunFilter, p readmodel.Page) (window, error) {
	w := window{to: topID, length: firstWindow, oldest: f.Oldest}
	if p.After != "" {
		id, err := readmodel.ParseRunKey(p.After)
		if err != nil {
			return w, err
		}
		w.after(id)
	}
	switch {
	case ofCell(table, &f), ofRuns(&f), ofVersion(table, &f):
		w.last = true // one cell is a short range of the key as it is, and an index finds a run
	case f.Product != (event.ProductID{}) && f.Version != "" && table == byEnvironmentTable: // and so is one product, where few of its rows match
		w.last = true
	case settled(table, &f): // nor is it long, without FINAL
		w.length = lastWindow / windowGrowth
	case f.Product != (event.ProductID{}):
		w.length = productWindow
	}
	switch {
	case f.Oldest && p.After == "" && !w.last: // there may be years before the first one
		if table == byEnvironmentTable {
			table = deploymentsTable
		}
		err := q.ask(ctx, "find the first run", "SELECT id FROM "+table+" WHERE account = {account:String} ORDER BY id LIMIT 1",
			params{"account": account}, func(s scanner) error { return s.Scan((*[16]byte)(&w.from)) })
		if err != nil {
			return w, err
		}
	case !f.Oldest && p.After == "" && !w.last: // what is newer than the clock as well
		w.from = idAt(q.cfg.Now().Add(-w.length))
		return w, nil
	}
	w.stretch()
	return w, nil
}

// within narrows a list to a window.
const within = ` AND id >= toFixedString(unhex({from:String}), 16) AND id < toFixedString(unhex({to:String}), 16)`

// livingRuns narrows runs to those of no earlier incarnation.
func livingRuns(kind event.Kind) string {
	living := " AND (product_id, " + productOf + ") IN " + livingProducts
	if kind == event.Deployment {
		living += " AND (environment_id, " + environmentOf + ") IN " + livingEnvironments
	}
	return living
}

// runs finds a page of ids in a narrow read of table, then reads those rows. Where
// it is known about where the page ends, it reads them at once.
func (q question) runs(ctx context.Context, kind event.Kind, account, table string, f readmodel.RunFilter, p readmodel.Page) ([]readmodel.RunRow, error) {
	if indexed(&f) {
		return q.search(ctx, kind, account, table, f, p)
	}
	if f.Environment == (event.EnvironmentID{}) && (f.Class != nil || table == byEnvironmentTable) {
		var err error
		if q, err = q.knowing(ctx, account); err != nil {
			return nil, err
		}
	}
	where, b := q.runsWhere(account, table, f)
	living := livingRuns(kind)
	shape := shapeOf(table, where, b, f.Oldest, p)
	hinted := hintable(table, &f, p)
	var w window
	var whole bool
	var err error
	if hinted {
		w, whole, err = q.near(ctx, account, table, &f, p, shape, len(b) == 1)
	}
	if err == nil && !whole {
		w, err = q.begin(ctx, account, table, f, p)
	}
	if err != nil {
		return nil, err
	}
	candidates := " AND id IN (SELECT id FROM " + table + " WHERE " + where + within + anyTime + ")"
	likely := ""
	if ofRuns(&f) || ofVersion(table, &f) {
		likely = candidates
	}
	var out []readmodel.RunRow
	onlyLiving := ""
	for len(out) < p.Limit {
		want := p.Limit - len(out)
		b["from"], b["to"], b["limit"] = ulidHex(w.from), ulidHex(w.to), uint32(want)
		var found page
		if whole {
			found, err = q.wholePage(ctx, kind, account, table, where+within+onlyLiving, b, f.Oldest)
			if errors.Is(err, errTooMany) { // more than it seemed; the ids alone are cheap to find
				q.hints.refused(shape)
				if whole = false; len(out) == 0 {
					if w, err = q.begin(ctx, account, table, f, p); err != nil {
						return nil, err
					}
				}
				continue
			}
		} else {
			found, err = q.pageByIDs(ctx, kind, account, narrow(table, &f)+" WHERE "+where+within+likely+onlyLiving, inOrder(f.Oldest)+once(table, &f), b, f.Oldest)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, found.rows...)
		if found.ids < want {
			if w.last {
				break
			}
			w.next()
			if found.ids == 0 { // a gap, perhaps
				if err := q.skip(ctx, account, kind, &w); err != nil {
					return nil, err
				}
			}
			if few := f.Environment != (event.EnvironmentID{}) || f.Class != nil; few && !searches(&f) && table == deploymentsTable &&
				w.length > environmentWindow && f.Source == "" && f.Mode == "" {
				table, whole = byEnvironmentTable, false
				where, b = q.runsWhere(account, table, f)
				w.length = lastWindow + 1
				w.stretch()
			}
			if searches(&f) && len(out) < p.Limit/4 { // and rarely finds
				likely = candidates
			}
			continue
		}
		// A short page means the end to the caller, so go on for what is missing:
		// rows whose Store is under way, or of earlier incarnations. Those are rare
		// enough to be looked for only once one was met.
		if len(found.rows) < found.ids {
			onlyLiving = living
		}
		w.after(found.last)
	}
	if hinted {
		q.hints.learn(shape, out, p, whole)
	}
	return out, nil
}

// page is what one step of a list found.
type page struct {
	rows []readmodel.RunRow // of the living, in the order of the list
	ids  int                // of all
	last ulid.ULID          // of the ids
}

// settled tells whether a filter asks only what no later event changes, of a table
// in whose key all that stands. Then any copy of a row will do, and FINAL, which
// takes half of the engine's time for the ids of a product, is not needed.
func settled(table string, f *readmodel.RunFilter) bool {
	return table == byEnvironmentTable && f.Version == "" && len(f.Statuses) == 0 && f.Mode == "" && f.Changed == 0 && f.Since.IsZero() && f.Until.IsZero()
}

func narrow(table string, f *readmodel.RunFilter) string {
	if settled(table, f) {
		return table
	}
	return table + " FINAL"
}

func once(table string, f *readmodel.RunFilter) string {
	if settled(table, f) {
		return " LIMIT 1 BY id"
	}
	return ""
}

// findRuns finds ids in a narrow read, and of which cells they are.
func (q question) findRuns(ctx context.Context, from, order string, b params) (ids []ulid.ULID, of []identity, err error) {
	err = q.ask(ctx, "find runs", "SELECT id, product_id, environment_id FROM "+from+order+" LIMIT {limit:UInt32}", b, func(s scanner) error {
		var id ulid.ULID
		var i identity
		err := s.Scan((*[16]byte)(&id), (*uuid.UUID)(&i.product), (*uuid.UUID)(&i.environment))
		ids, of = append(ids, id), append(of, i)
		return err
	})
	return ids, of, err
}

// pageByIDs finds ids in a narrow read, then reads those rows.
func (q question) pageByIDs(ctx context.Context, kind event.Kind, account, from, order string, b params, oldest bool) (page, error) {
	ids, of, err := q.findRuns(ctx, from, order, b)
	if err != nil || len(ids) == 0 {
		return page{}, err
	}
	rows, err := q.runsOf(ctx, kind, account, ids, of)
	if oldest {
		slices.Reverse(rows)
	}
	return page{rows, len(ids), ids[len(ids)-1]}, err
}

func inOrder(oldest bool) string {
	if oldest {
		return " ORDER BY id ASC"
	}
	return " ORDER BY id DESC"
}

// skip takes a window to where the account has runs, so that it does not grow
// over a time without any.
func (q question) skip(ctx context.Context, account string, kind event.Kind, w *window) error {
	order, beyond := "DESC", "id < toFixedString(unhex({at:String}), 16)"
	at := w.to
	if w.oldest {
		order, beyond, at = "ASC", "id >= toFixedString(unhex({at:String}), 16)", w.from
	}
	next, err := list(ctx, q, "find the next run", "SELECT id FROM "+kind.String()+"s_vN WHERE account = {account:String} AND "+beyond+" ORDER BY id "+order+" LIMIT 1",
		params{"account": account, "at": ulidHex(at)}, func(s scanner) (id ulid.ULID, err error) {
			err = s.Scan((*[16]byte)(&id))
			return id, err
		})
	if err != nil {
		return err
	}
	if len(next) == 0 { // nothing is left: the window that follows is the last
		w.last = true
		w.stretch()
		return nil
	}
	if near := w.from.Compare(next[0]) <= 0 && next[0].Compare(w.to) < 0; near {
		return nil
	}
	w.length /= windowGrowth
	if w.oldest {
		w.from = next[0]
	} else {
		w.to = idAfter(next[0])
	}
	w.stretch()
	return nil
}

// searches tells whether few rows may match a filter that the key knows nothing
// of. Those are looked for first without FINAL, where an index may skip what
// cannot match; what they have become is asked of them alone.
func searches(f *readmodel.RunFilter) bool { return indexed(f) || ofRuns(f) || f.SHA != "" }

// ofRuns and ofVersion tell that few rows match, and that an index finds them.
func ofRuns(f *readmodel.RunFilter) bool { return f.Run != "" || len(f.Runs) > 0 }

func ofVersion(table string, f *readmodel.RunFilter) bool {
	return table == buildsTable && f.Version != "" && f.Product != (event.ProductID{})
}

func (q question) runsWhere(account, table string, f readmodel.RunFilter) (string, params) {
	where, b := "account = {account:String}", params{"account": account}
	equal := func(column, name, kind, value string) {
		if value != "" {
			where += " AND " + column + " = {" + name + ":" + kind + "}"
			b[name] = value
		}
	}
	if f.Environment != (event.EnvironmentID{}) {
		equal("environment_id", "environment", "UUID", f.Environment.String())
	}
	if f.Class != nil || f.Environment == (event.EnvironmentID{}) && table == byEnvironmentTable { // to use the key, name all environments
		where += q.inEnvironments(&f, b)
	}
	if f.Product != (event.ProductID{}) {
		equal("product_id", "product", "UUID", f.Product.String())
	}
	equal("version", "version", "String", f.Version)
	if len(f.Statuses) > 0 {
		words := make([]string, len(f.Statuses))
		for i, s := range f.Statuses {
			words[i] = s.String()
		}
		where, b["statuses"] = where+" AND status IN {statuses:Array(String)}", words
	}
	if f.By != "" {
		where, b["by"] = where+" AND has(leaves, {by:UInt32})", handOf(f.By)
	}
	equal("source_system", "source", "String", f.Source)
	equal("invoke_id", "run", "String", f.Run)
	if len(f.Runs) > 0 {
		where, b["runs"] = where+" AND invoke_id IN {runs:Array(String)}", f.Runs
	}
	if ofVersion(table, &f) {
		equal("version_id", "version_id", "UUID", event.VersionIDOf(account, f.Product, f.Version).String())
	}
	equal("mode", "mode", "String", string(f.Mode))
	if f.SHA != "" {
		where += " AND " + storedSHA + " != '' AND " + commitMatches
		b["sha"] = f.SHA
	}
	for i, m := range f.Meta {
		leaf := fmt.Sprintf("leaf%d", i)
		where, b[leaf] = where+" AND has(leaves, {"+leaf+":UInt32})", leafOf(m)
	}
	if f.Changed > 0 {
		where += " AND pos > {changed:UInt64}"
		b["changed"] = uint64(f.Changed)
	}
	if !f.Since.IsZero() {
		where += " AND at_ms >= {since:Int64}"
		b["since"] = f.Since.UnixMilli()
	}
	if !f.Until.IsZero() {
		where += " AND at_ms < {until:Int64}"
		b["until"] = f.Until.UnixMilli()
	}
	return where, b
}

// mostNamed is up to how many environments are named in a statement.
const mostNamed = 100

// inEnvironments narrows runs to environments that there are, of the class that f asks for.
func (q question) inEnvironments(f *readmodel.RunFilter, b params) string {
	if e := q.state.edges; e != nil { // half of a statement that reads little is to look them up
		var ids []uuid.UUID
		for id, row := range e.environments {
			if f.Class == nil || row.Class == *f.Class {
				ids = append(ids, uuid.UUID(id))
			}
		}
		if len(ids) > 0 && len(ids) <= mostNamed {
			slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }) // the same list is the same shape
			b["environments"] = ids
			return " AND environment_id IN {environments:Array(UUID)}"
		}
	}
	class := ""
	if f.Class != nil {
		class, b["class"] = " AND class = {class:String}", f.Class.String()
	}
	return " AND environment_id IN (SELECT id FROM environments_vN FINAL WHERE account = {account:String} AND NOT deleted" + class + ")"
}

// runsOf reads the rows of ids, newest first, those of the living. Whose products
// and environments are known gets their names at the same time.
func (q question) runsOf(ctx context.Context, kind event.Kind, account string, ids []ulid.ULID, of []identity) ([]readmodel.RunRow, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	b := params{"account": account}
	where := "id = toFixedString(unhex({id:String}), 16)"
	if len(ids) == 1 {
		b["id"] = ulidHex(ids[0])
	} else {
		texts := make([]string, len(ids))
		for i, id := range ids {
			texts[i] = ulidHex(id)
		}
		// The set is small and known beforehand, so it is used on the key.
		where, b["ids"] = "id IN (SELECT toFixedString(unhex(arrayJoin({ids:Array(String)})), 16))", texts
	}
	var rows []readmodel.RunRow
	var n names
	group, both := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		rows, err = list(both, q, "read runs",
			"SELECT "+runSelection+" FROM "+kind.String()+"s_vN FINAL WHERE account = {account:String} AND "+where+" ORDER BY id DESC",
			b, func(s scanner) (readmodel.RunRow, error) { return scanRun(s, kind, account) })
		return err
	})
	if len(of) > 0 {
		group.Go(func() (err error) {
			n, err = q.namesOf(both, account, of)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if len(of) == 0 {
		return q.dressed(ctx, account, rows)
	}
	return n.living(rows), nil
}

// dressed gives the rows of the living, with the names of now.
func (q question) dressed(ctx context.Context, account string, rows []readmodel.RunRow) ([]readmodel.RunRow, error) {
	of := make([]identity, len(rows))
	for i := range rows {
		of[i] = identityOf(&rows[i].Record)
	}
	n, err := q.namesOf(ctx, account, of)
	if err != nil {
		return nil, err
	}
	return n.living(rows), nil
}

// living gives the rows that are of no earlier incarnation, dressed.
func (n names) living(rows []readmodel.RunRow) []readmodel.RunRow {
	living := rows[:0]
	for _, r := range rows {
		if n.dress(&r.Record) {
			living = append(living, r)
		}
	}
	return living
}

// History implements readmodel.Reader. An event never changes, so any of its
// copies will do; FINAL would read every part at the granules of one.
func (m *Model) History(ctx context.Context, account string, id ulid.ULID) ([]readmodel.EventRow, error) {
	rows, err := list(ctx, m.now(), "read the history of a run", `
		SELECT `+eventSelection+` FROM events_vN
		WHERE account = {account:String} AND subject = {subject:String}
		ORDER BY stream, pos LIMIT 1 BY stream, pos`,
		params{"account": account, "subject": id.String()},
		func(s scanner) (readmodel.EventRow, error) { return scanEvent(s, account) })
	if err == nil && len(rows) == 0 {
		err = readmodel.ErrNotFound
	}
	return rows, err
}

func scanProductOf(account string) func(scanner) (readmodel.ProductRow, error) {
	return func(s scanner) (readmodel.ProductRow, error) { return scanProduct(s, account) }
}

// Products implements readmodel.Reader.
func (m *Model) Products(ctx context.Context, account string, p readmodel.Page) ([]readmodel.ProductRow, error) {
	return list(ctx, m.now(), "read products", `
		SELECT `+productSelection+` FROM products_vN FINAL
		WHERE account = {account:String} AND NOT deleted AND name > {after:String}
		ORDER BY name LIMIT {limit:UInt32}`,
		params{"account": account, "after": p.After, "limit": limit(p)}, scanProductOf(account))
}

func limit(p readmodel.Page) uint32 { return uint32(min(max(p.Limit, 0), math.MaxUint32)) }

// Product implements readmodel.Reader.
func (m *Model) Product(ctx context.Context, account string, id event.ProductID) (readmodel.ProductRow, error) {
	return one(ctx, m.now(), "read a product", `
		SELECT `+productSelection+` FROM products_vN FINAL WHERE account = {account:String} AND NOT deleted AND id = {id:UUID}`,
		params{"account": account, "id": id.String()}, scanProductOf(account))
}

func scanEnvironmentOf(account string) func(scanner) (readmodel.EnvironmentRow, error) {
	return func(s scanner) (readmodel.EnvironmentRow, error) { return scanEnvironment(s, account) }
}

// Environments implements readmodel.Reader.
func (m *Model) Environments(ctx context.Context, account string, class *event.Class, p readmodel.Page) ([]readmodel.EnvironmentRow, error) {
	where, b := "", params{"account": account, "after": p.After, "limit": limit(p)}
	if class != nil {
		where, b["class"] = "AND class = {class:String}", class.String()
	}
	return list(ctx, m.now(), "read environments", `
		SELECT `+environmentSelection+` FROM environments_vN FINAL
		WHERE account = {account:String} AND NOT deleted AND name > {after:String} `+where+`
		ORDER BY name LIMIT {limit:UInt32}`, b, scanEnvironmentOf(account))
}

// Environment implements readmodel.Reader.
func (m *Model) Environment(ctx context.Context, account string, id event.EnvironmentID) (readmodel.EnvironmentRow, error) {
	return one(ctx, m.now(), "read an environment", `
		SELECT `+environmentSelection+` FROM environments_vN FINAL WHERE account = {account:String} AND NOT deleted AND id = {id:UUID}`,
		params{"account": account, "id": id.String()}, scanEnvironmentOf(account))
}

func scanVersionOf(account string) func(scanner) (readmodel.VersionRow, error) {
	return func(s scanner) (readmodel.VersionRow, error) { return scanVersion(s, account) }
}

const (
	versionRows = "SELECT " + versionSelection + " FROM versions_vN FINAL WHERE account = {account:String}"

	storedSHA = "lower(if(scm_sha = toFixedString('', 20), scm_sha_text, hex(scm_sha)))"
	askedSHA  = "lower({sha:String})"

	// commitMatches is readmodel.SameCommit.
	commitMatches = "(" + storedSHA + " = " + askedSHA + " OR least(length(" + storedSHA + "), length(" + askedSHA + ")) >= 7" +
		" AND (startsWith(" + storedSHA + ", " + askedSHA + ") OR startsWith(" + askedSHA + ", " + storedSHA + ")))"
)

// Versions implements readmodel.Reader.
func (m *Model) Versions(ctx context.Context, account string, f readmodel.VersionFilter, p readmodel.Page) ([]readmodel.VersionRow, error) {
	where, b := "", params{"account": account}
	if f.Product != (event.ProductID{}) {
		where += " AND product_id = {product:UUID}"
		b["product"] = f.Product.String()
	}
	if f.SHA != "" {
		where += " AND " + commitMatches
		b["sha"] = f.SHA
	}
	if p.After != "" {
		at, id, err := readmodel.ParseVersionKey(p.After)
		if err != nil {
			return nil, err
		}
		b["at"], b["id"] = at.UnixMilli(), id.String()
	}
	q := m.now()
	var out []readmodel.VersionRow
	onlyLiving := ""
	for len(out) < p.Limit {
		narrow, want := where+onlyLiving, p.Limit-len(out)
		if _, ok := b["at"]; ok { // as text: the UUID type sorts in another order
			narrow += " AND (created_ms, toString(id)) < ({at:Int64}, {id:String})"
		}
		b["limit"] = uint32(want)
		// No key is in the order of the list. So all are looked at, but for a few
		// narrow columns, and only those of the page are read.
		const newestFirst = " ORDER BY created_ms DESC, toString(id) DESC"
		ids, err := list(ctx, q, "find versions", "SELECT product_id, id FROM versions_vN FINAL WHERE account = {account:String}"+narrow+newestFirst+" LIMIT {limit:UInt32}", b,
			func(s scanner) (of [2]uuid.UUID, err error) { return of, s.Scan(&of[0], &of[1]) })
		if err != nil {
			return nil, err
		}
		if len(ids) == 0 {
			break
		}
		found := len(ids)
		b["products"], b["ids"] = column(ids, 0), column(ids, 1)
		rows, err := list(ctx, q, "read versions", versionRows+" AND product_id IN {products:Array(UUID)} AND id IN {ids:Array(UUID)}"+newestFirst, b, scanVersionOf(account))
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			last := &rows[len(rows)-1]
			b["at"], b["id"] = last.CreatedAt.UnixMilli(), last.ID.String()
		}
		if rows, err = q.dressVersions(ctx, account, rows); err != nil {
			return nil, err
		}
		out = append(out, rows...)
		if found < want {
			break
		}
		if len(rows) < found { // also of one that changed meanwhile
			onlyLiving = " AND (product_id, incarnation) IN " + livingProducts
		}
	}
	return out, nil
}

func column(of [][2]uuid.UUID, n int) []uuid.UUID {
	out := make([]uuid.UUID, len(of))
	for i := range of {
		out[i] = of[i][n]
	}
	return out
}

// Version implements readmodel.Reader.
func (m *Model) Version(ctx context.Context, account string, id event.VersionID) (readmodel.VersionRow, error) {
	q := m.now()
	rows, err := list(ctx, q, "read a version", versionRows+" AND id = {id:UUID}",
		params{"account": account, "id": id.String()}, scanVersionOf(account))
	if err == nil {
		rows, err = q.dressVersions(ctx, account, rows)
	}
	if err == nil && len(rows) == 0 {
		err = readmodel.ErrNotFound
	}
	if err != nil {
		return readmodel.VersionRow{}, err
	}
	return rows[0], nil
}

// dressVersions keeps the versions of living products, and fills in what other
// tables know of them.
func (q question) dressVersions(ctx context.Context, account string, versions []readmodel.VersionRow) ([]readmodel.VersionRow, error) {
	if len(versions) == 0 {
		return nil, nil
	}
	of := make([]identity, len(versions))
	for i := range versions {
		of[i].product = versions[i].ProductID
	}
	group, both := errgroup.WithContext(ctx)
	var n names
	group.Go(func() (err error) {
		n, err = q.namesOf(both, account, of)
		return err
	})
	group.Go(func() error { return q.countBuilds(both, account, versions) })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	living := versions[:0]
	for _, v := range versions {
		if p, ok := n.products[v.ProductID]; ok && p.Incarnation == v.Incarnation {
			v.ProductName = p.Name
			living = append(living, v)
		}
	}
	return living, nil
}

// countBuilds fills in how many builds each version has, and how the newest stands.
func (q question) countBuilds(ctx context.Context, account string, versions []readmodel.VersionRow) error {
	ids := make([]uuid.UUID, len(versions))
	at := make(map[event.VersionID]int, len(versions))
	for i := range versions {
		ids[i], at[versions[i].ID] = uuid.UUID(versions[i].ID), i
	}
	return q.ask(ctx, "count builds", `
		SELECT version_id, `+productOf+` AS incarnation, count(), argMax(status, id) FROM builds_vN FINAL
		WHERE account = {account:String} AND version_id IN {ids:Array(UUID)}
		GROUP BY version_id, incarnation`,
		params{"account": account, "ids": ids}, func(s scanner) error {
			var id uuid.UUID
			var incarnation uint16
			var n uint64
			var status string
			if err := s.Scan(&id, &incarnation, &n, &status); err != nil {
				return err
			}
			if i, ok := at[event.VersionID(id)]; ok && versions[i].Incarnation == incarnation {
				versions[i].Builds = int(n)
				versions[i].BuildStatus, _ = event.StatusOf(status)
			}
			return nil
		})
}

// Which products drifted at a past moment is found by looking at one portion of them after
// the other, each siftGrowth times larger, up to about as many cells as 1,000 products have in
// 10 environments. To ask for them took the newest successes of all periods of the account.
const (
	siftGrowth = 4
	siftCells  = lookCells
)

// Matrix implements readmodel.Reader.
func (m *Model) Matrix(ctx context.Context, account string, f readmodel.MatrixFilter, p readmodel.Page) (readmodel.Matrix, error) {
	q := m.now()
	q, err := q.about(ctx, account, matrixParts)
	if err != nil {
		return readmodel.Matrix{}, err
	}
	if q.state.grid != nil && !f.Past() {
		return q.state.matrix(f, p), nil
	}
	if then, err := q.then(ctx, account, f, p); err != nil || then != nil {
		return then.matrix(f, p), err
	}
	environments, products, err := q.margins(ctx, account, f, readmodel.Page{After: p.After, Limit: p.Limit + 1})
	if err != nil {
		return readmodel.Matrix{}, err
	}
	var out readmodel.Matrix
	if f.DriftOnly && len(environments) == 0 {
		return out, nil
	}
	sifted := f.DriftOnly && f.Past() // here: matrixProducts did not
	room, portion := readmodel.MatrixCells, p.Limit+1
	for first, ended := true, false; !ended && !out.More && len(out.Items) <= p.Limit; first = false { // one more than asked for, to know that there is one
		want := p.Limit + 1 - len(out.Items)
		if sifted {
			want = portion
			portion = min(portion*siftGrowth, max(siftCells/len(environments), portion))
		}
		if !first {
			if products, err = q.matrixProducts(ctx, account, f, environments, readmodel.Page{After: p.After, Limit: want}); err != nil {
				return readmodel.Matrix{}, err
			}
		}
		ended = len(products) < want
		fit, err := q.fitting(ctx, account, products, len(environments), room, len(out.Items) == 0)
		if err != nil {
			return readmodel.Matrix{}, err
		}
		if fit < len(products) {
			ended, out.More = false, !sifted || fit == 0
		}
		products = products[:fit]
		cells, err := q.cells(ctx, account, f, environments, products)
		if err != nil {
			return readmodel.Matrix{}, err
		}
		for _, item := range assemble(environments, products, cells) {
			if sifted && !item.Drift || len(item.Cells) == 0 && !f.Existed(item.Product.CreatedAt) {
				continue
			}
			room -= len(item.Cells)
			out.Items = append(out.Items, item)
		}
		if len(products) > 0 {
			p.After = products[len(products)-1].Name
		}
	}
	if len(out.Items) > p.Limit {
		out.Items, out.More = out.Items[:p.Limit], true
	}
	out.Environments = f.Columns(environments, out.Items)
	return out, nil
}

// margins gives the columns, and the products of a page: side by side, unless it takes
// the columns to know the products.
func (q question) margins(ctx context.Context, account string, f readmodel.MatrixFilter, p readmodel.Page) (columns []readmodel.EnvironmentRow, products []readmodel.ProductRow, err error) {
	if f.DriftOnly {
		if columns, err = q.columns(ctx, account, f); err != nil || len(columns) == 0 {
			return nil, nil, err
		}
		products, err = q.matrixProducts(ctx, account, f, columns, p)
		return columns, products, err
	}
	group, both := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		columns, err = q.columns(both, account, f)
		return err
	})
	group.Go(func() (err error) {
		products, err = q.matrixProducts(both, account, f, nil, p)
		return err
	})
	return columns, products, group.Wait()
}

// fitting gives how many of products may be on a page that has room for some
// more cells. It counts them only where there may be too many.
func (q question) fitting(ctx context.Context, account string, products []readmodel.ProductRow, columns, room int, first bool) (int, error) {
	if len(products)*columns <= room {
		return len(products), nil
	}
	ids := make([]uuid.UUID, len(products))
	for i := range products {
		ids[i] = uuid.UUID(products[i].ID)
	}
	held := map[event.ProductID]int{}
	for _, table := range []string{"current_vN", "attempts_vN"} {
		err := q.ask(ctx, "count cells", "SELECT product_id, count() FROM "+table+`
			WHERE account = {account:String} AND product_id IN {products:Array(UUID)} GROUP BY product_id`,
			params{"account": account, "products": ids}, func(s scanner) error {
				var id uuid.UUID
				var n uint64
				err := s.Scan(&id, &n)
				held[event.ProductID(id)] += int(n)
				return err
			})
		if err != nil {
			return 0, err
		}
	}
	for i := range products {
		if room -= min(held[products[i].ID], columns); room < 0 && (i > 0 || !first) {
			return i, nil
		}
	}
	return len(products), nil
}

// columns gives the environments that may be columns, in the order of the matrix.
func (q question) columns(ctx context.Context, account string, f readmodel.MatrixFilter) ([]readmodel.EnvironmentRow, error) {
	if q.state.edges != nil {
		return q.state.edges.columnsOf(f), nil
	}
	b := params{"account": account}
	where := createdBy(f, b)
	if f.Environment != (event.EnvironmentID{}) {
		where += " AND id = {environment:UUID}"
		b["environment"] = f.Environment.String()
	}
	out, err := list(ctx, q, "read the matrix: environments", `
		SELECT `+environmentNames+` FROM environments_vN FINAL WHERE account = {account:String} AND NOT deleted `+where,
		b, scanEnvironmentOf(account))
	out = slices.DeleteFunc(out, func(e readmodel.EnvironmentRow) bool { return !f.Column(&e) })
	slices.SortFunc(out, func(a, b readmodel.EnvironmentRow) int { return compareColumns(&a, &b) })
	return out, err
}

// compareColumns orders the columns of the matrix.
func compareColumns(a, b *readmodel.EnvironmentRow) int {
	return cmp.Or(cmp.Compare(a.Class.Order(), b.Class.Order()), cmp.Compare(a.Name, b.Name))
}

// inColumns narrows cells to the columns that a filter names.
func inColumns(f readmodel.MatrixFilter, columns []readmodel.EnvironmentRow, b params) string {
	if !f.Narrowed() {
		return ""
	}
	ids := make([]uuid.UUID, len(columns))
	for i := range columns {
		ids[i] = uuid.UUID(columns[i].ID)
	}
	b["environments"] = ids
	return " AND environment_id IN {environments:Array(UUID)}"
}

func (q question) matrixProducts(ctx context.Context, account string, f readmodel.MatrixFilter, columns []readmodel.EnvironmentRow, p readmodel.Page) ([]readmodel.ProductRow, error) {
	drifting := f.DriftOnly && !f.Past() // at a past moment that is for whoever knows their cells
	if q.state.edges != nil && !drifting {
		return q.state.edges.productsOf(f, p), nil
	}
	b := params{"account": account, "after": p.After, "limit": limit(p)}
	where := createdBy(f, b)
	if f.Product != (event.ProductID{}) {
		where += " AND id = {product:UUID}"
		b["product"] = f.Product.String()
	}
	if f.Search != "" {
		where += " AND positionCaseInsensitiveUTF8(name, {search:String}) > 0"
		b["search"] = f.Search
	}
	if drifting {
		versions := "SELECT product_id, version AS live FROM current_vN FINAL WHERE account = {account:String} AND (product_id, " + productOf + ") IN " + livingProducts +
			" AND (environment_id, " + environmentOf + ") IN " + livingEnvironments + inColumns(f, columns, b)
		if f.Product != (event.ProductID{}) {
			versions += " AND product_id = {product:UUID}"
		}
		where += " AND id IN (SELECT product_id FROM (" + versions + ") GROUP BY product_id HAVING uniqExact(live) > 1)"
	}
	return list(ctx, q, "read the matrix: products", `
		SELECT `+productNames+` FROM products_vN FINAL
		WHERE account = {account:String} AND NOT deleted AND name > {after:String}`+where+`
		ORDER BY name LIMIT {limit:UInt32}`, b, scanProductOf(account))
}

// cells gives what is live, and the last attempts, of products.
func (q question) cells(ctx context.Context, account string, f readmodel.MatrixFilter, columns []readmodel.EnvironmentRow, products []readmodel.ProductRow) ([]placedCell, error) {
	if len(products) == 0 || len(columns) == 0 {
		return nil, nil
	}
	ids := make([]uuid.UUID, len(products))
	for i := range products {
		ids[i] = uuid.UUID(products[i].ID)
	}
	// By key, however many they are: an account may have a million cells.
	where, b := " AND product_id IN {products:Array(UUID)}", params{"account": account, "products": ids}
	where += inColumns(f, columns, b)
	if f.Past() {
		return q.pastCells(ctx, account, where, b, asOfFilter(&f))
	}
	succeeded, tried := "SELECT "+shownSelection+" FROM current_vN FINAL WHERE account = {account:String}"+where, "SELECT "+shownSelection+" FROM attempts_vN FINAL WHERE account = {account:String}"+where
	var live []*success
	var attempts []attempt
	err := together(ctx, func(ctx context.Context) (err error) {
		live, err = q.successes(ctx, "read the matrix: cells", succeeded, account, b)
		return err
	}, func(ctx context.Context) (err error) {
		attempts, err = q.attempts(ctx, "read the matrix: attempts", tried, b)
		return err
	})
	return paired(live, attempts), err
}

// successes asks for what the matrix shows of successes, by shownSelection.
func (q question) successes(ctx context.Context, doing, sql, account string, b params) (out []*success, err error) {
	var bad error
	var named namedVersions
	columns := newCellColumns(newestCells)
	err = q.read(ctx, doing, sql, b, columns.results(shownSelection), func() {
		for i := range columns.rows() {
			c := &success{spot: columns.spot(i)} // on its own, so that one which is displaced is freed
			c.ID = columns.id[i]
			bad = cmp.Or(readSuccess(columns.display.Row(i), columns.mark(i), &c.Success), bad)
			c.Version, c.VersionID = named.of(account, event.ProductID(c.product), c.Version)
			out = append(out, c)
		}
	})
	return out, cmp.Or(err, bad)
}

// attempts does so for attempts.
func (q question) attempts(ctx context.Context, doing, sql string, b params) (out []attempt, err error) {
	var bad error
	columns := newCellColumns(newestCells)
	err = q.read(ctx, doing, sql, b, columns.results(shownSelection), func() {
		for i := range columns.rows() {
			a := attempt{spot: columns.spot(i)}
			a.ID = columns.id[i]
			bad = cmp.Or(readAttempt(columns.display.Row(i), columns.mark(i), &a.LastAttempt), bad)
			out = append(out, a)
		}
	})
	return out, cmp.Or(err, bad)
}

// createdBy narrows products or environments to those that f knows of.
func createdBy(f readmodel.MatrixFilter, b params) string {
	if f.KnownAt.IsZero() {
		return ""
	}
	b["known"] = f.KnownAt.UnixMilli()
	return " AND created_ms <= {known:Int64}"
}

type place struct {
	product     event.ProductID
	environment event.EnvironmentID
}

// assemble puts the rows of the matrix together. Cells of other incarnations
// than the rows and columns have are left out.
func assemble(environments []readmodel.EnvironmentRow, products []readmodel.ProductRow, cells []placedCell) []readmodel.MatrixItem {
	out := make([]readmodel.MatrixItem, 0, len(products))
	rows := make(map[event.ProductID]*readmodel.ProductRow, len(products))
	for i := range products {
		rows[products[i].ID] = &products[i]
	}
	columns := make(map[event.EnvironmentID]*readmodel.EnvironmentRow, len(environments))
	for i := range environments {
		columns[environments[i].ID] = &environments[i]
	}
	at := make(map[place]*gridCell, len(cells))
	for i := range cells {
		c := &cells[i]
		row, column := rows[c.product], columns[c.environment]
		if row != nil && column != nil && uint32(row.Incarnation)<<16|uint32(column.Incarnation) == c.inc {
			at[place{c.product, c.environment}] = &c.gridCell
		}
	}
	for _, p := range products {
		item := readmodel.MatrixItem{Product: p}
		for _, e := range environments {
			cell := at[place{p.ID, e.ID}]
			if cell == nil {
				continue
			}
			c := readmodel.MatrixCell{Environment: e.ID, Live: cell.live}
			if cell.attempt != nil && shows(cell.attempt, c.Live) {
				c.LastAttempt = cell.attempt
			}
			if c.Live != nil || c.LastAttempt != nil {
				item.Cells = append(item.Cells, c)
			}
		}
		item.Drift = drifts(item.Cells)
		out = append(out, item)
	}
	return out
}

// shows tells whether an attempt is news beside what is live.
func shows(a *readmodel.LastAttempt, live *readmodel.Success) bool {
	if live == nil {
		return true
	}
	if a.ID == live.ID {
		return false
	}
	if !a.At.Equal(live.At) {
		return a.At.After(live.At)
	}
	return a.Position.Offset > live.Position.Offset
}

// Owner implements readmodel.Reader.
func (m *Model) Owner(ctx context.Context, object readmodel.Object, id string) (string, error) {
	var table, where string
	switch object {
	case readmodel.DeploymentObject, readmodel.BuildObject, readmodel.EventObject, readmodel.ReleaseObject:
		run, err := ulid.ParseStrict(id)
		if err != nil {
			return "", readmodel.ErrNotFound
		}
		id, table, where = ulidHex(run), string(object)+"s_vN", "id = toFixedString(unhex({id:String}), 16)"
	case readmodel.ProductObject, readmodel.EnvironmentObject, readmodel.VersionObject:
		of, err := uuid.Parse(id)
		if err != nil {
			return "", readmodel.ErrNotFound
		}
		id, table, where = of.String(), string(object)+"s_vN", "id = {id:UUID}"
	default:
		return "", errors.New("nothing is known of objects called " + string(object))
	}
	if object == readmodel.ProductObject || object == readmodel.EnvironmentObject {
		where += " GROUP BY account HAVING NOT argMax(deleted, pos)"
	}
	return one(ctx, m.now(), "find the owner of an object",
		"SELECT account FROM "+table+" WHERE "+where+" ORDER BY account LIMIT 1",
		params{"id": id}, func(s scanner) (account string, err error) {
			err = s.Scan(&account)
			return account, err
		})
}
