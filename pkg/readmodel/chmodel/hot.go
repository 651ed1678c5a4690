package chmodel

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// Of accounts that are asked about again and again the rows that most answers
// need are kept in memory: the names of products and environments, what names
// mean, and the cells of the current matrix.
//
// Nothing is believed for its age. What is kept says at which progress of the
// tables it was read, and every question uses it at the progress that its caller
// was told by AsOf, or newer:
//
//   - Nothing was stored since: there is nothing to ask.
//   - Something was: the account's events behind the old places are asked for
//     their types. Where there are some, so are the rows behind those places, and
//     they are folded in as the tables fold them: by place, and cells by time and
//     place. Rows beyond the progress may be seen, since they are stored before it;
//     they come again with the next look, and change nothing.
//   - Events that had been set aside were projected to old places (Mended), the
//     progress fell, or reads use other tables: all is read anew.
//
// An account that is asked about once costs what it did without: the first question
// of each kind asks the tables for what it needs, and only the second one reads
// what is then kept.

// What an account may have at most to be kept, so that finding out that it is too
// large is cheap, and one account does not displace all others.
const (
	defaultHotBytes = 256 << 20
	hotShare        = 3 // one account takes a third at most
	hotNames        = 20_000
	hotMeanings     = 5_000
)

// parts of what is kept of an account.
type part int

const (
	nameParts part = iota // products and environments
	meaningParts
	matrixParts // cells, and with them nameParts
	partCount
)

// hot is what is kept of accounts.
type hot struct {
	limit int
	again int // judgedAgain, but for tests
	seen  seen

	mu    sync.Mutex
	bytes int
	lru   *simplelru.LRU[string, *warm]
}

func newHot(limit int64) *hot {
	h := &hot{limit: int(limit), again: judgedAgain}
	h.lru, _ = simplelru.NewLRU(maxHotAccounts, func(_ string, w *warm) { // the size is positive
		h.bytes -= w.size
		w.size = 0
	})
	return h
}

// maxHotAccounts is not reached before the bound in bytes: each takes more.
const maxHotAccounts = 1 << 20

// warmBytes is what an account takes of which nothing is kept yet.
const warmBytes = 512

// warm is one account.
type warm struct {
	turn  chan struct{} // holds a token while somebody reads
	state atomic.Pointer[state]
	asked [partCount]atomic.Bool // once
	large [partCount]passes      // it is not kept
	size  int                    // 0 when it was dropped; h.mu guards it
}

// judgedAgain is for how many questions an account counts as too large. Copies of its
// rows may have been merged by then, other tables may be read, or the store may be less
// busy than when it took too long; counting costs as much as one of the questions.
const judgedAgain = 1000

// passes counts the questions for which something is not kept.
type passes struct{ left atomic.Int64 }

func (p *passes) begin(h *hot) { p.left.Store(int64(h.again)) }
func (p *passes) are() bool    { return p.left.Load() > 0 }

// pass tells whether a question is one of them.
func (p *passes) pass() bool { return p.are() && p.left.Add(-1) >= 0 }

func (h *hot) find(account string) *warm {
	h.mu.Lock()
	defer h.mu.Unlock()
	w, ok := h.lru.Get(account)
	if !ok {
		w = &warm{turn: make(chan struct{}, 1)}
		h.lru.Add(account, w)
		h.resize(w, warmBytes+len(account))
	}
	return w
}

// resize counts what an account takes now, and drops those that were not asked
// about for the longest time. h.mu is held.
func (h *hot) resize(w *warm, size int) {
	h.bytes += size - w.size
	w.size = size
	for h.bytes > h.limit && h.lru.Len() > 0 {
		h.lru.RemoveOldest()
	}
}

// keep keeps what was read of an account, unless it is too large.
func (h *hot) keep(account string, w *warm, s *state) {
	size := warmBytes + len(account) + s.size()
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.size == 0 { // dropped meanwhile: who comes next begins anew
		return
	}
	if size > h.limit/hotShare {
		w.large[matrixParts].begin(h)
		if s.grid == nil {
			w.large[nameParts].begin(h)
			w.large[meaningParts].begin(h)
		}
		w.state.Store(nil)
		h.resize(w, warmBytes+len(account))
		return
	}
	w.state.Store(s)
	h.resize(w, size)
}

// Hot tells how many accounts something is kept of in memory, and about how many
// bytes that takes.
func (m *Model) Hot() (accounts, bytes int) {
	m.hot.mu.Lock()
	defer m.hot.mu.Unlock()
	return m.hot.lru.Len(), m.hot.bytes
}

// grew counts what a caller made of a row.
func (h *hot) grew(w *warm, bytes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.size > 0 {
		h.resize(w, w.size+bytes)
	}
}

// seen is what AsOf said last, of the tables that reads use.
type seen struct {
	mu       sync.Mutex
	version  uint32
	progress []readmodel.Progress // it does not change
	answers  uint64
	changed  uint64 // by which of them
	era      uint64 // another one where nothing of before counts
}

func (s *seen) asking() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}

// learn takes an answer to who was asking after so many.
func (s *seen) learn(version uint32, asking uint64, progress []readmodel.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers++
	joined, fell := joinProgress(s.progress, progress)
	switch {
	case s.version != version, fell && asking >= s.changed:
		s.version, s.progress, s.changed = version, progress, s.answers
		s.era++
	case !slices.Equal(joined, s.progress): // an answer may be late, and older then
		s.progress, s.changed = joined, s.answers
	}
}

// of gives what is known of a version of the tables.
func (s *seen) of(version uint32) (progress []readmodel.Progress, era uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.progress, s.era, s.answers > 0 && s.version == version
}

// joinProgress gives the farther of two answers by stream, and whether the second
// one is behind the first in any.
func joinProgress(a, b []readmodel.Progress) (joined []readmodel.Progress, fell bool) {
	joined = slices.Clone(b)
	for _, was := range a {
		i := slices.IndexFunc(joined, func(p readmodel.Progress) bool { return p.Stream == was.Stream })
		if i < 0 {
			joined, fell = append(joined, was), true
			continue
		}
		if p := &joined[i]; was.Offset > p.Offset || was.Mended > p.Mended {
			fell = true
			if was.Offset > p.Offset {
				p.Offset, p.Time = was.Offset, was.Time
			}
			p.Mended = max(p.Mended, was.Mended)
		}
	}
	slices.SortFunc(joined, func(a, b readmodel.Progress) int { return cmp.Compare(a.Stream, b.Stream) })
	return joined, fell
}

// state is what is kept of an account. It does not change.
type state struct {
	version  uint32
	era      uint64
	at       []readmodel.Progress
	edges    *edges
	meanings map[meaningOf]meant // nil: not read
	grid     *grid
	past     *past
}

type meaningOf struct {
	object readmodel.Object
	name   string
}

type meant struct {
	id  uuid.UUID
	pos uint64
}

// has tells whether a part was read.
func (s *state) has(p part) bool {
	switch {
	case s == nil:
		return false
	case p == nameParts:
		return s.edges != nil
	case p == meaningParts:
		return s.meanings != nil
	default:
		return s.grid != nil
	}
}

// serves tells whether s holds a part as far as progress.
func (s *state) serves(p part, version uint32, era uint64, progress []readmodel.Progress) bool {
	if !s.has(p) || s.version != version || s.era != era {
		return false
	}
	for _, now := range progress {
		was := s.reached(now.Stream)
		if was.Offset < now.Offset || was.Mended != now.Mended {
			return false
		}
	}
	return true
}

func (s *state) reached(stream string) readmodel.Progress {
	for _, p := range s.at {
		if p.Stream == stream {
			return p
		}
	}
	return readmodel.Progress{}
}

// names gives the names of all that an account has.
func (s *state) names() names {
	if s == nil {
		return names{}
	}
	return s.edges.names
}

// size is about how many bytes s takes.
func (s *state) size() int {
	size := int(unsafe.Sizeof(*s)) + len(s.at)*int(unsafe.Sizeof(readmodel.Progress{})+16)
	for of := range s.meanings {
		size += perEntry + int(unsafe.Sizeof(of)+unsafe.Sizeof(meant{})) + len(of.name)
	}
	if s.edges != nil {
		size += s.edges.size()
	}
	if s.grid != nil {
		size += s.grid.size()
	}
	return size + s.past.size()
}

// perEntry is what an entry of a map takes beside its key and value, about.
const perEntry = 32

// hot gives what is kept of an account, with one part at least and as far as the
// caller was told that the tables are; nil where that is not kept: then the tables
// are to be asked.
func (q question) hot(ctx context.Context, account string, want part) (*state, error) {
	h := q.Model.hot
	if h.limit <= 0 || q.version != q.Active() { // what is not live is asked about rarely
		return nil, nil
	}
	w := h.find(account)
	if w.large[want].pass() || !w.state.Load().has(want) && !w.asked[want].Swap(true) {
		return nil, nil
	}
	progress, era, ok := h.seen.of(q.version)
	if !ok || !readmodel.AskedAsOf(ctx) {
		if _, err := q.asOf(ctx); err != nil {
			return nil, err
		}
		if progress, era, ok = h.seen.of(q.version); !ok { // reads have gone on to other tables
			return nil, nil
		}
	}
	if s := w.state.Load(); s.serves(want, q.version, era, progress) {
		return s, nil
	}
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return nil, classify(ctx, "wait for others who read the same", ctx.Err())
	}
	if progress, era, ok = h.seen.of(q.version); !ok || w.large[want].are() {
		return nil, nil
	}
	s := w.state.Load()
	if s.serves(want, q.version, era, progress) { // somebody else was there
		return s, nil
	}
	s, err := q.renew(ctx, account, w, s, era, progress, want)
	if err != nil || s == nil {
		return nil, err
	}
	h.keep(account, w, s)
	return s, nil
}

// renew brings what is kept of an account to a progress, and reads a part that is
// missing; nil where it is too large.
func (q question) renew(ctx context.Context, account string, w *warm, s *state, era uint64, progress []readmodel.Progress, want part) (*state, error) {
	next := &state{version: q.version, era: era, at: progress, past: &past{took: func(bytes int) { q.Model.hot.grew(w, bytes) }}}
	var news *news
	if s != nil && s.version == q.version && s.era == era && s.goesOn(progress) {
		var err error
		if news, err = q.news(ctx, account, s, progress); err != nil {
			return nil, err
		}
		next.edges, next.meanings, next.grid = s.edges, s.meanings, s.grid
	}
	if s != nil && next.has(nameParts) && news == nil {
		next.past = s.past
	}
	missing, err := q.missing(ctx, account, w, next, want)
	if err != nil || missing == nil {
		return nil, err
	}
	if news != nil {
		next.fold(news)
	}
	if missing.edges != nil {
		next.edges = missing.edges
	}
	if missing.meanings != nil {
		next.meanings = missing.meanings
	}
	if want == matrixParts && next.grid == nil {
		next.grid = newGrid(next.edges, paired(missing.live, missing.attempts), func(bytes int) { q.Model.hot.grew(w, bytes) })
	}
	return next, nil
}

// goesOn tells whether what happened since s was read is what was stored behind it.
func (s *state) goesOn(progress []readmodel.Progress) bool {
	for _, was := range s.at {
		i := slices.IndexFunc(progress, func(p readmodel.Progress) bool { return p.Stream == was.Stream })
		if i < 0 || progress[i].Offset < was.Offset {
			return false
		}
	}
	return !slices.ContainsFunc(progress, func(p readmodel.Progress) bool { return p.Mended != s.reached(p.Stream).Mended })
}

// missing are rows of parts that were not read yet.
type missing struct {
	edges    *edges
	meanings map[meaningOf]meant
	live     []*success
	attempts []attempt
}

// missing reads the part that is wanted, if s has not got it; nil where it is too large.
func (q question) missing(ctx context.Context, account string, w *warm, s *state, want part) (*missing, error) {
	out := &missing{}
	if s.has(want) {
		return out, nil
	}
	tooLarge := func(p part, err error) (*missing, error) {
		if err == nil || tooDear(err) {
			w.large[p].begin(q.Model.hot)
			return nil, nil
		}
		return nil, err
	}
	if want == meaningParts {
		meanings, err := q.meanings(ctx, account, " LIMIT {limit:UInt32}", params{"limit": uint32(hotMeanings + 1)})
		if err != nil || len(meanings) > hotMeanings {
			return tooLarge(want, err)
		}
		out.meanings = meanings
		return out, nil
	}
	if want == matrixParts {
		n, err := q.countCells(ctx, account)
		if err != nil || n*int(unsafe.Sizeof(success{})) > q.Model.hot.limit/hotShare {
			return tooLarge(want, err)
		}
	}
	group, all := errgroup.WithContext(ctx)
	var products []readmodel.ProductRow
	var environments []readmodel.EnvironmentRow
	if s.edges == nil {
		b := params{"account": account, "limit": uint32(hotNames + 1)}
		group.Go(func() (err error) {
			products, err = list(all, q, "read the products of an account", "SELECT "+productNames+` FROM products_vN FINAL
				WHERE account = {account:String} AND NOT deleted LIMIT {limit:UInt32}`, b, scanProductOf(account))
			return err
		})
		group.Go(func() (err error) {
			environments, err = list(all, q, "read the environments of an account", "SELECT "+environmentNames+` FROM environments_vN FINAL
				WHERE account = {account:String} AND NOT deleted LIMIT {limit:UInt32}`, b, scanEnvironmentOf(account))
			return err
		})
	}
	if want == matrixParts {
		group.Go(func() (err error) {
			out.live, err = q.successes(all, "read the cells of an account", "SELECT "+shownSelection+" FROM current_vN FINAL WHERE account = {account:String}",
				account, params{"account": account})
			return err
		})
		group.Go(func() (err error) {
			out.attempts, err = q.attempts(all, "read the attempts of an account", "SELECT "+shownSelection+" FROM attempts_vN FINAL WHERE account = {account:String}",
				params{"account": account})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return tooLarge(want, err)
	}
	if len(products) > hotNames || len(environments) > hotNames {
		w.large[matrixParts].begin(q.Model.hot)
		return tooLarge(nameParts, nil)
	}
	if s.edges == nil {
		out.edges = newEdges(products, environments)
	}
	return out, nil
}

// countCells gives how many rows the cells of an account take, at most. Copies that
// are not merged yet do not count: a busy account has thirty of each cell.
func (q question) countCells(ctx context.Context, account string) (n int, err error) {
	err = q.ask(ctx, "count the cells of an account", `
		SELECT (SELECT uniqExact(product_id, environment_id, inc) FROM current_vN WHERE account = {account:String})
			+ (SELECT uniqExact(product_id, environment_id, inc) FROM attempts_vN WHERE account = {account:String})`,
		params{"account": account}, func(s scanner) error {
			var rows uint64
			err := s.Scan(&rows)
			n = int(rows) //nolint:gosec // of one account
			return err
		})
	return n, err
}

// meanings reads what names mean.
func (q question) meanings(ctx context.Context, account, narrowed string, b params) (map[meaningOf]meant, error) {
	out := map[meaningOf]meant{}
	b = maps.Clone(b) // others may be asking with it
	b["account"] = account
	err := q.ask(ctx, "read what names mean", "SELECT object, name, id, pos FROM names_vN WHERE account = {account:String}"+narrowed, b, func(s scanner) error {
		var of meaningOf
		var m meant
		err := s.Scan((*string)(&of.object), &of.name, &m.id, &m.pos)
		if was, ok := out[of]; !ok || m.pos >= was.pos {
			out[of] = m
		}
		return err
	})
	return out, err
}

// news are rows behind what was read before, of the parts that are kept.
type news struct {
	products     []readmodel.ProductRow
	environments []readmodel.EnvironmentRow
	meanings     map[meaningOf]meant
	live         []*success
	attempts     []attempt
}

// news reads what was stored of an account since s; nil where there is nothing.
func (q question) news(ctx context.Context, account string, s *state, progress []readmodel.Progress) (*news, error) {
	behind, b := []string(nil), params{"account": account}
	for _, p := range progress {
		if was := s.reached(p.Stream); p.Offset > was.Offset {
			n := strconv.Itoa(len(behind))
			b["stream"+n], b["pos"+n] = p.Stream, uint64(was.Offset)
			behind = append(behind, "stream = {stream"+n+":String} AND pos > {pos"+n+":UInt64}")
		}
	}
	if len(behind) == 0 {
		return nil, nil
	}
	where := " AND (" + strings.Join(behind, " OR ") + ")"
	ofNames, ofCells := false, false
	err := q.ask(ctx, "look for newer events", "SELECT DISTINCT type FROM events_vN WHERE account = {account:String}"+where, b, func(s scanner) error {
		var kind string
		err := s.Scan(&kind)
		switch kind, _, _ := strings.Cut(kind, "."); kind {
		case "build", "version", "release": // nothing that is kept
		case "deployment":
			ofCells = true
		default:
			ofNames, ofCells = true, true
		}
		return err
	})
	if err != nil || !ofNames && !ofCells {
		return nil, err
	}
	out := &news{}
	group, all := errgroup.WithContext(ctx)
	if ofNames && s.edges != nil {
		group.Go(func() (err error) {
			out.products, err = list(all, q, "read newer products", "SELECT "+productNames+", deleted FROM products_vN WHERE account = {account:String}"+where, b,
				func(s scanner) (readmodel.ProductRow, error) {
					var deleted bool
					r, err := scanProduct(behindOf{s, &deleted}, account)
					r.Deleted = deleted
					return r, err
				})
			return err
		})
		group.Go(func() (err error) {
			out.environments, err = list(all, q, "read newer environments", "SELECT "+environmentNames+", deleted FROM environments_vN WHERE account = {account:String}"+where, b,
				func(s scanner) (readmodel.EnvironmentRow, error) {
					var deleted bool
					r, err := scanEnvironment(behindOf{s, &deleted}, account)
					r.Deleted = deleted
					return r, err
				})
			return err
		})
	}
	if ofNames && s.meanings != nil {
		group.Go(func() (err error) {
			out.meanings, err = q.meanings(all, account, where, b)
			return err
		})
	}
	if ofCells && s.grid != nil {
		group.Go(func() (err error) {
			out.live, err = q.successes(all, "read newer cells", "SELECT "+shownSelection+" FROM current_vN WHERE account = {account:String}"+where, account, b)
			return err
		})
		group.Go(func() (err error) {
			out.attempts, err = q.attempts(all, "read newer attempts", "SELECT "+shownSelection+" FROM attempts_vN WHERE account = {account:String}"+where, b)
			return err
		})
	}
	return out, group.Wait()
}

// behindOf scans one column more than a row is made of.
type behindOf struct {
	scanner
	last any
}

func (s behindOf) Scan(dest ...any) error { return s.scanner.Scan(append(dest, s.last)...) }

// fold takes news into s, whose parts are shared with an older state.
func (s *state) fold(n *news) {
	edges := s.edges.with(n.products, n.environments)
	if len(n.meanings) > 0 {
		s.meanings = maps.Clone(s.meanings)
		for of, m := range n.meanings {
			if was, ok := s.meanings[of]; !ok || m.pos >= was.pos {
				s.meanings[of] = m
			}
		}
	}
	if s.grid != nil {
		s.grid = s.grid.with(s.edges, edges, n.live, n.attempts)
	}
	s.edges = edges
}

// edges are the products and environments that an account has now. They do not
// change.
type edges struct {
	names

	rows     []readmodel.ProductRow     // by name
	columns  []readmodel.EnvironmentRow // in the order of the matrix
	columnAt map[event.EnvironmentID]int
}

func newEdges(products []readmodel.ProductRow, environments []readmodel.EnvironmentRow) *edges {
	n := names{make(map[event.ProductID]readmodel.ProductRow, len(products)), make(map[event.EnvironmentID]readmodel.EnvironmentRow, len(environments))}
	for _, p := range products {
		n.products[p.ID] = p
	}
	for _, e := range environments {
		n.environments[e.ID] = e
	}
	return orderEdges(n)
}

func orderEdges(n names) *edges {
	e := &edges{names: n, columnAt: make(map[event.EnvironmentID]int, len(n.environments))}
	e.rows = slices.SortedFunc(maps.Values(n.products), func(a, b readmodel.ProductRow) int { return cmp.Compare(a.Name, b.Name) })
	e.columns = slices.SortedFunc(maps.Values(n.environments), func(a, b readmodel.EnvironmentRow) int { return compareColumns(&a, &b) })
	for i := range e.columns {
		e.columnAt[e.columns[i].ID] = i
	}
	return e
}

// with gives edges after newer rows. Of each the highest place counts.
func (e *edges) with(products []readmodel.ProductRow, environments []readmodel.EnvironmentRow) *edges {
	if len(products) == 0 && len(environments) == 0 {
		return e
	}
	n := names{maps.Clone(e.products), maps.Clone(e.environments)}
	slices.SortFunc(products, func(a, b readmodel.ProductRow) int { return cmp.Compare(a.Position.Offset, b.Position.Offset) })
	for _, p := range products {
		if was, ok := n.products[p.ID]; ok && was.Position.Offset > p.Position.Offset {
			continue
		}
		if p.Deleted {
			delete(n.products, p.ID)
		} else {
			n.products[p.ID] = p
		}
	}
	slices.SortFunc(environments, func(a, b readmodel.EnvironmentRow) int { return cmp.Compare(a.Position.Offset, b.Position.Offset) })
	for _, v := range environments {
		if was, ok := n.environments[v.ID]; ok && was.Position.Offset > v.Position.Offset {
			continue
		}
		if v.Deleted {
			delete(n.environments, v.ID)
		} else {
			n.environments[v.ID] = v
		}
	}
	return orderEdges(n)
}

// about takes what is kept of an account, with a part at best.
func (q question) about(ctx context.Context, account string, best part) (question, error) {
	for _, want := range []part{best, nameParts} {
		s, err := q.hot(ctx, account, want)
		if err != nil {
			return q, err
		}
		if s != nil {
			q.state = *s
			break
		}
	}
	return q, nil
}

// knowing takes the names that are kept of an account, if they are.
func (q question) knowing(ctx context.Context, account string) (question, error) {
	if q.Model.hot.limit <= 0 || !q.Model.hot.find(account).state.Load().has(nameParts) { // nor is it a reason to keep them
		return q, nil
	}
	s, err := q.hot(ctx, account, nameParts)
	if s != nil {
		q.state = *s
	}
	return q, err
}

// columnsOf gives the environments that may be columns.
func (e *edges) columnsOf(f readmodel.MatrixFilter) []readmodel.EnvironmentRow {
	return slices.DeleteFunc(slices.Clone(e.columns), func(r readmodel.EnvironmentRow) bool { return !f.Column(&r) })
}

// productsOf gives a page of the products that may be rows.
func (e *edges) productsOf(f readmodel.MatrixFilter, p readmodel.Page) []readmodel.ProductRow {
	var out []readmodel.ProductRow
	search := strings.ToLower(f.Search)
	first := sort.Search(len(e.rows), func(i int) bool { return e.rows[i].Name > p.After })
	for i := first; i < len(e.rows) && len(out) < p.Limit; i++ {
		r := &e.rows[i]
		if (f.Product == event.ProductID{} || f.Product == r.ID) && containsFold(r.Name, search) &&
			(f.KnownAt.IsZero() || r.CreatedAt.UnixMilli() <= f.KnownAt.UnixMilli()) {
			out = append(out, *r)
		}
	}
	return out
}

func (e *edges) size() int {
	size := int(unsafe.Sizeof(*e))
	for i := range e.rows {
		size += 2*int(unsafe.Sizeof(e.rows[i])) + perEntry + 16 + len(e.rows[i].Name) + len(e.rows[i].Position.Stream)
	}
	for i := range e.columns {
		size += 2*int(unsafe.Sizeof(e.columns[i])) + 2*perEntry + 40 + len(e.columns[i].Name) + len(e.columns[i].Position.Stream)
	}
	return size
}
