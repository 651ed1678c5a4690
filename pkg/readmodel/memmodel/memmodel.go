// Package memmodel keeps the read model in memory. It is the plain statement of
// the rules: tests hold other adapters to its answers, so it prefers being
// obviously right to being fast.
package memmodel

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

var (
	_ readmodel.Sink   = (*Model)(nil)
	_ readmodel.Reader = (*Model)(nil)
)

// Model is a readmodel.Sink and a readmodel.Reader of what was stored in it.
type Model struct {
	mu       sync.RWMutex
	accounts map[string]*tables
	progress map[string]readmodel.Progress
	aside    map[event.Position]readmodel.QuarantineRow
}

// New returns an empty model.
func New() *Model {
	return &Model{accounts: map[string]*tables{}, progress: map[string]readmodel.Progress{}, aside: map[event.Position]readmodel.QuarantineRow{}}
}

// tables are what one account has, by key.
type tables struct {
	events       map[event.Position]readmodel.EventRow
	deployments  map[ulid.ULID]readmodel.RunRow
	builds       map[ulid.ULID]readmodel.RunRow
	cells        map[cellKey]map[event.Position]readmodel.Cell
	attempts     map[cellKey]map[event.Position]readmodel.Attempt
	products     map[event.ProductID]readmodel.ProductRow
	environments map[event.EnvironmentID]readmodel.EnvironmentRow
	versions     map[event.VersionID]readmodel.VersionRow
	names        map[nameKey]readmodel.NameRow
	releases     map[ulid.ULID]readmodel.ReleaseRow
}

type cellKey struct {
	product                event.ProductID
	environment            event.EnvironmentID
	productIncarnation     uint16
	environmentIncarnation uint16
}

func cellOf(rec *event.Record) cellKey {
	return cellKey{rec.ProductID, rec.EnvironmentID, rec.ProductIncarnation, rec.EnvironmentIncarnation}
}

func (m *Model) account(name string) *tables {
	t := m.accounts[name]
	if t == nil {
		t = &tables{
			events:       map[event.Position]readmodel.EventRow{},
			deployments:  map[ulid.ULID]readmodel.RunRow{},
			builds:       map[ulid.ULID]readmodel.RunRow{},
			cells:        map[cellKey]map[event.Position]readmodel.Cell{},
			attempts:     map[cellKey]map[event.Position]readmodel.Attempt{},
			products:     map[event.ProductID]readmodel.ProductRow{},
			environments: map[event.EnvironmentID]readmodel.EnvironmentRow{},
			versions:     map[event.VersionID]readmodel.VersionRow{},
			names:        map[nameKey]readmodel.NameRow{},
			releases:     map[ulid.ULID]readmodel.ReleaseRow{},
		}
		m.accounts[name] = t
	}
	return t
}

// put stores row under key unless the row there is from a later event.
func put[K comparable, R any](table map[K]R, key K, row R, offset func(*R) event.Offset) {
	if old, ok := table[key]; ok && offset(&old) > offset(&row) {
		return
	}
	table[key] = row
}

// Store implements readmodel.Sink.
func (m *Model) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range rows.Events {
		r.ReceivedAt, r.EffectiveAt = readmodel.Moment(r.ReceivedAt), readmodel.Moment(r.EffectiveAt)
		m.account(r.Account).events[r.Position] = r
	}
	runOffset := func(r *readmodel.RunRow) event.Offset { return r.Position.Offset }
	for _, r := range rows.Deployments {
		r.Record = readmodel.Kept(r.Record)
		put(m.account(r.Record.Account).deployments, r.Record.ID, r, runOffset)
	}
	for _, r := range rows.Builds {
		r.Record = readmodel.Kept(r.Record)
		put(m.account(r.Record.Account).builds, r.Record.ID, r, runOffset)
	}
	for _, c := range rows.Cells {
		c.Record = readmodel.Brief(c.Record)
		c.EffectiveAt, c.ReceivedAt = readmodel.Moment(c.EffectiveAt), readmodel.Moment(c.ReceivedAt)
		within(m.account(c.Record.Account).cells, cellOf(&c.Record))[c.Position] = c
	}
	for _, a := range rows.Attempts {
		a.Record = readmodel.Brief(a.Record)
		a.At, a.ReceivedAt = readmodel.Moment(a.At), readmodel.Moment(a.ReceivedAt)
		within(m.account(a.Record.Account).attempts, cellOf(&a.Record))[a.Position] = a
	}
	for _, r := range rows.Products {
		r.CreatedAt = readmodel.Moment(r.CreatedAt)
		put(m.account(r.Account).products, r.ID, r, func(r *readmodel.ProductRow) event.Offset { return r.Position.Offset })
	}
	for _, r := range rows.Environments {
		r.CreatedAt = readmodel.Moment(r.CreatedAt)
		put(m.account(r.Account).environments, r.ID, r, func(r *readmodel.EnvironmentRow) event.Offset { return r.Position.Offset })
	}
	for _, r := range rows.Versions {
		r.CreatedAt = readmodel.Moment(r.CreatedAt)
		put(m.account(r.Account).versions, r.ID, r, func(r *readmodel.VersionRow) event.Offset { return r.Position.Offset })
	}
	m.storeNames(rows.Names)
	m.storeReleases(rows.Releases)
	m.storeQuarantine(rows.Quarantine)
	upTo.Time = readmodel.Moment(upTo.Time)
	if upTo.Stream != "" {
		was := m.progress[upTo.Stream]
		mended := max(was.Mended, upTo.Mended)
		if upTo.Offset < was.Offset || upTo.Offset == 0 && upTo.Mended > 0 {
			upTo.Offset, upTo.Time = was.Offset, was.Time
		}
		upTo.Mended = mended
		m.progress[upTo.Stream] = upTo
	}
	return nil
}

// within gives what table has of a cell, to be added to.
func within[R any](table map[cellKey]map[event.Position]R, key cellKey) map[event.Position]R {
	rows := table[key]
	if rows == nil {
		rows = map[event.Position]R{}
		table[key] = rows
	}
	return rows
}

// later tells whether the moment a comes after b; of equal ones the one with
// the higher place in the log does.
func later(a time.Time, atA event.Position, b time.Time, atB event.Position) bool {
	if !a.Equal(b) {
		return a.After(b)
	}
	return atA.Offset > atB.Offset
}

// Progress implements readmodel.Sink.
func (m *Model) Progress(_ context.Context, stream string) (readmodel.Progress, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if p, ok := m.progress[stream]; ok {
		return p, nil
	}
	return readmodel.Progress{Stream: stream}, nil
}

// AsOf implements readmodel.Reader.
func (m *Model) AsOf(context.Context) ([]readmodel.Progress, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.SortedFunc(maps.Values(m.progress), func(a, b readmodel.Progress) int {
		return cmp.Compare(a.Stream, b.Stream)
	}), nil
}

// view gives what an account has, to be read only.
func (m *Model) view(account string) *tables {
	if t := m.accounts[account]; t != nil {
		return t
	}
	return &tables{}
}

// dress gives a record the names its product and environment have now. It is
// false for a record of an earlier incarnation, which no read shows.
func (t *tables) dress(rec *event.Record) bool {
	p, ok := t.products[rec.ProductID]
	if !ok || p.Deleted || p.Incarnation != rec.ProductIncarnation {
		return false
	}
	rec.ProductName = p.Name
	if rec.Kind == event.Build {
		return true
	}
	e, ok := t.environments[rec.EnvironmentID]
	if !ok || e.Deleted || e.Incarnation != rec.EnvironmentIncarnation {
		return false
	}
	rec.EnvironmentName = e.Name
	return true
}

// Deployments implements readmodel.Reader.
func (m *Model) Deployments(_ context.Context, account string, f readmodel.RunFilter, p readmodel.Page) ([]readmodel.RunRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	return t.runs(t.deployments, f, p)
}

// Builds implements readmodel.Reader.
func (m *Model) Builds(_ context.Context, account string, f readmodel.RunFilter, p readmodel.Page) ([]readmodel.RunRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	return t.runs(t.builds, f, p)
}

func (t *tables) runs(table map[ulid.ULID]readmodel.RunRow, f readmodel.RunFilter, p readmodel.Page) ([]readmodel.RunRow, error) {
	var after ulid.ULID
	if p.After != "" {
		var err error
		if after, err = readmodel.ParseRunKey(p.After); err != nil {
			return nil, err
		}
	}
	forward := func(a, b ulid.ULID) int {
		if f.Oldest {
			return a.Compare(b)
		}
		return b.Compare(a)
	}
	var out []readmodel.RunRow
	for id, r := range table {
		if p.After != "" && forward(id, after) <= 0 {
			continue
		}
		if t.dress(&r.Record) && f.Matches(&r, t.environments[r.Record.EnvironmentID].Class) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b readmodel.RunRow) int { return forward(a.Record.ID, b.Record.ID) })
	return first(out, p.Limit), nil
}

func first[R any](rows []R, n int) []R { return rows[:min(len(rows), max(n, 0))] }

// Deployment implements readmodel.Reader.
func (m *Model) Deployment(_ context.Context, account string, id ulid.ULID) (readmodel.RunRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	return t.run(t.deployments, id)
}

// Build implements readmodel.Reader.
func (m *Model) Build(_ context.Context, account string, id ulid.ULID) (readmodel.RunRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	return t.run(t.builds, id)
}

func (t *tables) run(table map[ulid.ULID]readmodel.RunRow, id ulid.ULID) (readmodel.RunRow, error) {
	r, ok := table[id]
	if !ok || !t.dress(&r.Record) {
		return readmodel.RunRow{}, readmodel.ErrNotFound
	}
	return r, nil
}

// History implements readmodel.Reader.
func (m *Model) History(_ context.Context, account string, id ulid.ULID) ([]readmodel.EventRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []readmodel.EventRow
	for _, e := range m.view(account).events {
		if e.Subject == id.String() {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return nil, readmodel.ErrNotFound
	}
	slices.SortFunc(out, func(a, b readmodel.EventRow) int {
		return cmp.Or(cmp.Compare(a.Position.Stream, b.Position.Stream), cmp.Compare(a.Position.Offset, b.Position.Offset))
	})
	return out, nil
}

// Products implements readmodel.Reader.
func (m *Model) Products(_ context.Context, account string, p readmodel.Page) ([]readmodel.ProductRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return named(m.view(account).products, p, func(r readmodel.ProductRow) bool { return !r.Deleted },
		func(r readmodel.ProductRow) string { return r.Key() }), nil
}

// named gives a page of rows by name.
func named[K comparable, R any](table map[K]R, p readmodel.Page, want func(R) bool, name func(R) string) []R {
	var out []R
	for _, r := range table {
		if want(r) && (p.After == "" || name(r) > p.After) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b R) int { return cmp.Compare(name(a), name(b)) })
	return first(out, p.Limit)
}

// Product implements readmodel.Reader.
func (m *Model) Product(_ context.Context, account string, id event.ProductID) (readmodel.ProductRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, ok := m.view(account).products[id]
	if !ok || r.Deleted {
		return readmodel.ProductRow{}, readmodel.ErrNotFound
	}
	return r, nil
}

// Environments implements readmodel.Reader.
func (m *Model) Environments(_ context.Context, account string, class *event.Class, p readmodel.Page) ([]readmodel.EnvironmentRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return named(m.view(account).environments, p,
		func(r readmodel.EnvironmentRow) bool { return !r.Deleted && (class == nil || r.Class == *class) },
		func(r readmodel.EnvironmentRow) string { return r.Key() }), nil
}

// Environment implements readmodel.Reader.
func (m *Model) Environment(_ context.Context, account string, id event.EnvironmentID) (readmodel.EnvironmentRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, ok := m.view(account).environments[id]
	if !ok || r.Deleted {
		return readmodel.EnvironmentRow{}, readmodel.ErrNotFound
	}
	return r, nil
}

// Versions implements readmodel.Reader.
func (m *Model) Versions(_ context.Context, account string, f readmodel.VersionFilter, p readmodel.Page) ([]readmodel.VersionRow, error) {
	if p.After != "" {
		if _, _, err := readmodel.ParseVersionKey(p.After); err != nil {
			return nil, err
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	var out []readmodel.VersionRow
	for _, v := range t.versions {
		switch {
		case !t.dressVersion(&v),
			f.Product != event.ProductID{} && f.Product != v.ProductID,
			f.SHA != "" && !readmodel.SameCommit(v.SHA, f.SHA),
			p.After != "" && v.Key() >= p.After:
		default:
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b readmodel.VersionRow) int { return cmp.Compare(b.Key(), a.Key()) })
	return first(out, p.Limit), nil
}

// Version implements readmodel.Reader.
func (m *Model) Version(_ context.Context, account string, id event.VersionID) (readmodel.VersionRow, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	v, ok := t.versions[id]
	if !ok || !t.dressVersion(&v) {
		return readmodel.VersionRow{}, readmodel.ErrNotFound
	}
	return v, nil
}

// dressVersion does for versions what dress does for runs, and counts builds.
func (t *tables) dressVersion(v *readmodel.VersionRow) bool {
	p, ok := t.products[v.ProductID]
	if !ok || p.Deleted || p.Incarnation != v.Incarnation {
		return false
	}
	v.ProductName, v.Builds, v.BuildStatus = p.Name, 0, 0
	var newest ulid.ULID
	for id, b := range t.builds {
		rec := &b.Record
		if rec.ProductID != v.ProductID || rec.Version != v.Version.Version || rec.ProductIncarnation != v.Incarnation {
			continue
		}
		if v.Builds++; id.Compare(newest) >= 0 {
			newest, v.BuildStatus = id, rec.Status
		}
	}
	return true
}

// Matrix implements readmodel.Reader.
func (m *Model) Matrix(_ context.Context, account string, f readmodel.MatrixFilter, p readmodel.Page) (readmodel.Matrix, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.view(account)
	environments := t.columns(f)
	var out readmodel.Matrix
	for _, product := range t.products {
		if product.Deleted || f.Product != (event.ProductID{}) && f.Product != product.ID ||
			!strings.Contains(strings.ToLower(product.Name), strings.ToLower(f.Search)) ||
			p.After != "" && product.Name <= p.After || !by(f.KnownAt, product.CreatedAt) {
			continue
		}
		product.Description, product.Extra = "", nil
		item := readmodel.MatrixItem{Product: product}
		versions := map[string]bool{}
		for _, e := range environments {
			c := t.cell(cellKey{product.ID, e.ID, product.Incarnation, e.Incarnation}, f)
			if c.Live != nil {
				versions[c.Live.Version] = true
			}
			if c.Live != nil || c.LastAttempt != nil {
				item.Cells = append(item.Cells, c)
			}
		}
		item.Drift = len(versions) > 1
		if (item.Drift || !f.DriftOnly) && (len(item.Cells) > 0 || f.Existed(product.CreatedAt)) {
			out.Items = append(out.Items, item)
		}
	}
	slices.SortFunc(out.Items, func(a, b readmodel.MatrixItem) int { return cmp.Compare(a.Key(), b.Key()) })
	page, cells := 0, 0
	for page < len(out.Items) && page < p.Limit && (page == 0 || cells+len(out.Items[page].Cells) <= readmodel.MatrixCells) {
		cells += len(out.Items[page].Cells)
		page++
	}
	out.Items, out.More = out.Items[:page], page < len(out.Items)
	out.Environments = f.Columns(environments, out.Items)
	return out, nil
}

// columns gives the environments that may be columns, in their order.
func (t *tables) columns(f readmodel.MatrixFilter) []readmodel.EnvironmentRow {
	var out []readmodel.EnvironmentRow
	for _, e := range t.environments {
		if !e.Deleted && f.Column(&e) {
			e.Description, e.Extra = "", nil
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b readmodel.EnvironmentRow) int {
		return cmp.Or(cmp.Compare(a.Class.Order(), b.Class.Order()), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// by tells whether t was not after a moment; nothing is after no moment.
func by(moment, t time.Time) bool { return moment.IsZero() || t.UnixMilli() <= moment.UnixMilli() }

func (t *tables) cell(key cellKey, f readmodel.MatrixFilter) readmodel.MatrixCell {
	out := readmodel.MatrixCell{Environment: key.environment}
	for _, c := range t.cells[key] {
		if !by(f.At, c.EffectiveAt) || !by(f.KnownAt, c.ReceivedAt) {
			continue
		}
		if out.Live == nil || later(c.EffectiveAt, c.Position, out.Live.At, out.Live.Position) {
			shown := c.Shown()
			out.Live = &shown
		}
	}
	for _, a := range t.attempts[key] {
		if !by(f.At, a.At) || !by(f.KnownAt, a.ReceivedAt) {
			continue
		}
		if last := out.LastAttempt; last == nil || later(a.At, a.Position, last.At, last.Position) {
			out.LastAttempt = &readmodel.LastAttempt{ID: a.Record.ID, Version: a.Record.Version, Status: a.Record.Status, At: a.At, Position: a.Position}
		}
	}
	if a, live := out.LastAttempt, out.Live; a != nil && live != nil &&
		(a.ID == live.ID || !later(a.At, a.Position, live.At, live.Position)) {
		out.LastAttempt = nil
	}
	return out
}

// Owner implements readmodel.Reader.
func (m *Model) Owner(_ context.Context, object readmodel.Object, id string) (string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, account := range slices.Sorted(maps.Keys(m.accounts)) {
		if m.accounts[account].has(object, id) {
			return account, nil
		}
	}
	return "", readmodel.ErrNotFound
}

func (t *tables) has(object readmodel.Object, id string) bool {
	var ok bool
	switch object {
	case readmodel.EventObject:
		for _, e := range t.events {
			ok = ok || e.ID.String() == id
		}
	case readmodel.DeploymentObject, readmodel.BuildObject:
		run, err := ulid.ParseStrict(id)
		if err != nil {
			return false
		}
		if object == readmodel.BuildObject {
			_, ok = t.builds[run]
		} else {
			_, ok = t.deployments[run]
		}
	case readmodel.ReleaseObject:
		of, err := ulid.ParseStrict(id)
		if err != nil {
			return false
		}
		_, ok = t.releases[of]
	case readmodel.ProductObject, readmodel.EnvironmentObject, readmodel.VersionObject:
		of, err := uuid.Parse(id)
		if err != nil {
			return false
		}
		switch object {
		case readmodel.ProductObject:
			var p readmodel.ProductRow
			p, ok = t.products[event.ProductID(of)]
			ok = ok && !p.Deleted
		case readmodel.EnvironmentObject:
			var e readmodel.EnvironmentRow
			e, ok = t.environments[event.EnvironmentID(of)]
			ok = ok && !e.Deleted
		default:
			_, ok = t.versions[event.VersionID(of)]
		}
	}
	return ok
}
