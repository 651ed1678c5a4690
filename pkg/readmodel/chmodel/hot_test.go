package chmodel_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// coldBeside gives a second model on the tables of one that keeps nothing.
func coldBeside(tb testing.TB, m *chmodel.Model, cfg chmodel.Config) *chmodel.Model {
	tb.Helper()
	cfg.HotBytes = -1
	cold, err := chmodel.Open(tb.Context(), cfg, logger(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cold.Close() })
	if cold.Database() != m.Database() {
		tb.Fatal("not the same tables")
	}
	return cold
}

// countStatements counts the statements behind ctx.
func countStatements(ctx context.Context) (counted context.Context, count func() int64) {
	var cost chmodel.Cost
	return chmodel.WithCost(ctx, &cost), func() int64 { return int64(cost.Statements.Load()) }
}

// life is a history of two accounts that goes on between reads.
type life struct {
	t      *rapid.T
	stream string
	all    []readmodel.Rows // of each event, by offset
	at     event.Position
	counts map[uuid.UUID]uint16 // incarnations of products and environments
	gone   map[uuid.UUID]bool
	titles map[uuid.UUID]string
	people []string
	nth    int
}

var (
	lifeProducts     = []string{"api", "Web", "jobs"}
	lifeEnvironments = []string{"dev", "qa", "production"}
)

func (l *life) next() event.Position {
	l.at.Offset++
	return l.at
}

// event gives the rows of one event of an account.
func (l *life) event(account string) readmodel.Rows {
	pick := func(of []string, label string) string { return rapid.SampledFrom(of).Draw(l.t, label) }
	product, environment := pick(lifeProducts, "product"), pick(lifeEnvironments, "environment")
	productID, environmentID := event.ProductIDOf(account, product), event.EnvironmentIDOf(account, environment)
	at := epoch.Add(time.Duration(rapid.IntRange(0, 50).Draw(l.t, "time")) * time.Hour)
	received := at.Add(rapid.SampledFrom([]time.Duration{0, 0, -8 * time.Hour, 15 * time.Hour, 40 * 24 * time.Hour}).Draw(l.t, "received"))
	created := epoch.Add(rapid.SampledFrom([]time.Duration{0, 0, 25 * time.Hour}).Draw(l.t, "created"))
	p := l.next()
	l.nth++
	var rows readmodel.Rows
	kind := event.Type("deployment.completed")
	switch what := rapid.IntRange(0, 11).Draw(l.t, "what"); what {
	case 0, 1: // made, deleted, renamed or made again
		id := uuid.UUID(productID)
		l.turn(id, product)
		rows.Products = []readmodel.ProductRow{{Account: account, Position: p, Product: event.Product{
			ID: productID, Name: l.titles[id], Incarnation: l.counts[id], Deleted: l.gone[id], CreatedAt: created,
		}}}
		rows.Names = []readmodel.NameRow{{Account: account, Object: readmodel.ProductObject, Name: l.titles[id], ID: id, Position: p}}
		kind = "product.renamed"
	case 2, 3:
		id := uuid.UUID(environmentID)
		l.turn(id, environment)
		rows.Environments = []readmodel.EnvironmentRow{{Account: account, Position: p, Environment: event.Environment{
			ID: environmentID, Name: l.titles[id], Incarnation: l.counts[id], Deleted: l.gone[id], CreatedAt: created,
			Class: rapid.SampledFrom([]event.Class{event.Other, event.Development, event.Production}).Draw(l.t, "class"),
		}}}
		rows.Names = []readmodel.NameRow{{Account: account, Object: readmodel.EnvironmentObject, Name: l.titles[id], ID: id, Position: p}}
		kind = "environment.renamed"
	case 4:
		kind = "version.created" // nothing of what is kept
	default:
		rec := event.Record{
			Kind: event.Deployment, Account: account, ProductID: productID, EnvironmentID: environmentID,
			ProductIncarnation: l.counts[uuid.UUID(productID)], EnvironmentIncarnation: l.counts[uuid.UUID(environmentID)],
			Version: pick([]string{"1", "2"}, "version"), CreatedAt: at, CompletedAt: at,
			Status: rapid.SampledFrom([]event.Status{event.Completed, event.Completed, event.Failed}).Draw(l.t, "status"),
		}
		rec.VersionID = event.VersionIDOf(account, productID, rec.Version)
		_ = rec.ID.SetTime(ulid.Timestamp(at))
		copy(rec.ID[8:], fmt.Sprintf("%08d", l.nth))
		rec.Attributes[event.By] = pick([]string{"", "ann"}, "by")
		rows.Deployments = []readmodel.RunRow{{Record: rec, Position: p}}
		if rec.Status == event.Completed {
			rows.Cells = []readmodel.Cell{{Record: rec, EffectiveAt: at, ReceivedAt: received, Position: p}}
		} else {
			kind = "deployment.failed"
			rows.Attempts = []readmodel.Attempt{{Record: rec, At: at, ReceivedAt: received, Position: p}}
		}
	}
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(epoch))
	copy(id[6:], fmt.Sprintf("%s%06d", l.stream, l.nth))
	rows.Events = []readmodel.EventRow{{Account: account, Position: p, ID: id, Type: kind, Subject: "s", ReceivedAt: epoch, EffectiveAt: epoch}}
	l.all = append(l.all, rows)
	return rows
}

// turn changes a product or an environment in some way.
func (l *life) turn(id uuid.UUID, name string) {
	switch {
	case l.titles[id] == "":
		l.titles[id] = name
	case l.gone[id]:
		l.gone[id] = false
		l.counts[id]++
	default:
		switch rapid.IntRange(0, 2).Draw(l.t, "turn") {
		case 0:
			l.gone[id] = true
		case 1:
			l.titles[id] = fmt.Sprint(name, l.nth)
		}
	}
}

func joined(events []readmodel.Rows) *readmodel.Rows {
	var out readmodel.Rows
	for _, r := range events {
		out.Events = append(out.Events, r.Events...)
		out.Deployments = append(out.Deployments, r.Deployments...)
		out.Cells = append(out.Cells, r.Cells...)
		out.Attempts = append(out.Attempts, r.Attempts...)
		out.Products = append(out.Products, r.Products...)
		out.Environments = append(out.Environments, r.Environments...)
		out.Names = append(out.Names, r.Names...)
	}
	return &out
}

// What is kept of accounts tells what the tables tell, whatever is stored between
// two reads, and in whichever way.
func TestWhatIsKeptTellsWhatTheTablesTell(t *testing.T) {
	srv := chservertest.Start(t)
	var cfg chmodel.Config
	m, w := open(t, srv, func(c *chmodel.Config) { cfg = *c })
	cold := coldBeside(t, m, cfg)
	fewerChecks(t, 3) // each asks as much as several histories do
	version, decision, serial := uint32(1), uint64(0), 0
	rapid.Check(t, func(rt *rapid.T) {
		serial++
		l := &life{
			t: rt, stream: event.TrackStream(serial), counts: map[uuid.UUID]uint16{}, gone: map[uuid.UUID]bool{}, titles: map[uuid.UUID]string{},
			people: []string{fmt.Sprintf("kept%da", serial), fmt.Sprintf("kept%db", serial)},
		}
		l.at.Stream = l.stream
		must := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		var reached event.Position // as far as everything is stored but what was set aside
		var aside, held []readmodel.Rows
		mended := uint64(0)
		store := func(events []readmodel.Rows) {
			must(w.Store(t.Context(), joined(events), readmodel.Progress{Stream: l.stream, Offset: reached.Offset, Time: epoch}))
		}
		draw := func() []readmodel.Rows {
			var out []readmodel.Rows
			for range rapid.IntRange(1, 6).Draw(rt, "events") {
				out = append(out, l.event(rapid.SampledFrom(l.people).Draw(rt, "account")))
			}
			return out
		}
		compare := func() {
			ctx := t.Context()
			if rapid.Bool().Draw(rt, "asked before") {
				_, err := m.AsOf(ctx)
				must(err)
				ctx = readmodel.AfterAsOf(ctx)
			}
			const parts = 3 // of the questions at a time
			part := rapid.IntRange(0, parts-1).Draw(rt, "part of the questions")
			for _, account := range l.people {
				for i, q := range lifeQuestions(ctx, account) {
					if i%parts != part {
						continue
					}
					want, err := q.ask(cold)
					must(err)
					for range 2 { // the second time it is kept
						got, err := q.ask(m)
						must(err)
						if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(readmodel.Stay{})); diff != "" {
							rt.Fatalf("%s of %s (-tables +kept):\n%s", q.name, account, diff)
						}
					}
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"store": func(*rapid.T) {
				events := append(held, draw()...)
				held, reached = nil, l.at
				store(events)
			},
			"store again": func(rt *rapid.T) {
				if stored := len(l.all) - len(held); stored > 0 {
					from := rapid.IntRange(0, stored-1).Draw(rt, "from")
					events := slices.DeleteFunc(slices.Clone(l.all[from:stored]), func(r readmodel.Rows) bool {
						return slices.ContainsFunc(aside, func(a readmodel.Rows) bool { return a.Events[0].ID == r.Events[0].ID })
					})
					if rapid.Bool().Draw(rt, "backwards") {
						slices.Reverse(events)
					}
					store(events)
				}
			},
			// A Store under way is seen in parts.
			"begin to store": func(*rapid.T) {
				if len(held) > 0 {
					rt.Skip("one at a time")
				}
				held = draw()
				must(w.Store(t.Context(), joined(held[:len(held)/2+1]), readmodel.Progress{}))
				for _, account := range l.people {
					for _, q := range lifeQuestions(t.Context(), account) {
						_, err := q.ask(m)
						must(err)
					}
				}
			},
			"set aside": func(*rapid.T) {
				if len(held) > 0 {
					rt.Skip("in the order of the log")
				}
				aside = append(aside, draw()...)
				reached = l.at
				store(nil)
			},
			"mend": func(*rapid.T) {
				must(w.Store(t.Context(), joined(aside), readmodel.Progress{}))
				aside = nil
				mended++
				must(w.Store(t.Context(), &readmodel.Rows{}, readmodel.Progress{Stream: l.stream, Mended: mended}))
			},
			"switch": func(*rapid.T) {
				if len(held) > 0 || rapid.IntRange(0, 3).Draw(rt, "really") > 0 {
					rt.Skip("rarely")
				}
				version++
				must(m.EnsureVersion(t.Context(), version))
				_ = w.Close()
				w = m.Writer(version)
				aside = nil // another code projects them
				store(l.all)
				decision++
				must(m.Activate(t.Context(), version, decision))
				must(m.Refresh(t.Context()))
				must(cold.Refresh(t.Context()))
			},
			"": func(*rapid.T) {
				if len(held) == 0 && rapid.IntRange(0, 4).Draw(rt, "compare") == 0 {
					compare()
				}
			},
		})
	})
	_ = w.Close()
}

// fewerChecks lets a property be checked a fraction as often as -rapid.checks says.
func fewerChecks(t *testing.T, fraction int) {
	t.Helper()
	checks := flag.Lookup("rapid.checks").Value
	before := checks.String()
	n, err := strconv.Atoi(before)
	if err == nil {
		err = checks.Set(strconv.Itoa(max(1, n/fraction)))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = checks.Set(before) })
}

type lifeQuestion struct {
	name string
	ask  func(*chmodel.Model) (any, error)
}

func lifeQuestions(ctx context.Context, account string) []lifeQuestion {
	matrix := func(name string, f readmodel.MatrixFilter, limit int) lifeQuestion {
		return lifeQuestion{name, func(m *chmodel.Model) (any, error) {
			var pages []readmodel.Matrix
			for p := (readmodel.Page{Limit: limit}); ; {
				got, err := m.Matrix(ctx, account, f, p)
				if err != nil || !got.More {
					return append(pages, got), err
				}
				pages, p.After = append(pages, got), got.Items[len(got.Items)-1].Key()
			}
		}}
	}
	out := []lifeQuestion{
		matrix("matrix", readmodel.MatrixFilter{}, 100),
		matrix("matrix by one", readmodel.MatrixFilter{}, 1),
		matrix("drift", readmodel.MatrixFilter{DriftOnly: true}, 100),
		matrix("search", readmodel.MatrixFilter{Search: "WEB"}, 100),
		matrix("product", readmodel.MatrixFilter{Product: event.ProductIDOf(account, "api")}, 100),
		matrix("environment", readmodel.MatrixFilter{Environment: event.EnvironmentIDOf(account, "qa")}, 100),
		matrix("environments", readmodel.MatrixFilter{Environments: []string{"d*", "qa"}, DriftOnly: true}, 100),
		matrix("environments that are not", readmodel.MatrixFilter{Environments: []string{"nowhere"}}, 100),
		matrix("drift then", readmodel.MatrixFilter{At: epoch.Add(24 * time.Hour), DriftOnly: true}, 1),
		matrix("past", readmodel.MatrixFilter{At: epoch.Add(25 * time.Hour)}, 100),
		matrix("drift of some then", readmodel.MatrixFilter{At: epoch.Add(26 * time.Hour), DriftOnly: true, Environments: []string{"d*", "qa"}, Search: "E"}, 100),
		matrix("known", readmodel.MatrixFilter{KnownAt: epoch.Add(24 * time.Hour)}, 100),
		matrix("drift as known", readmodel.MatrixFilter{KnownAt: epoch.Add(24 * time.Hour), DriftOnly: true}, 1),
		matrix("past as known", readmodel.MatrixFilter{At: epoch.Add(30 * time.Hour), KnownAt: epoch.Add(25 * time.Hour)}, 100),
		matrix("drift of some as known", readmodel.MatrixFilter{At: epoch.Add(24 * time.Hour), KnownAt: epoch.Add(35 * time.Hour), DriftOnly: true, Environments: []string{"d*", "qa"}}, 100),
		{"timeline", func(m *chmodel.Model) (any, error) {
			return m.Deployments(ctx, account, readmodel.RunFilter{}, readmodel.Page{Limit: 100})
		}},
		{"changes", func(m *chmodel.Model) (any, error) {
			return m.Changes(ctx, account, readmodel.ChangeFilter{From: epoch.Add(10 * time.Hour), To: epoch.Add(40 * time.Hour)}, readmodel.Page{Limit: 100})
		}},
		{"changes as known", func(m *chmodel.Model) (any, error) {
			return m.Changes(ctx, account, readmodel.ChangeFilter{From: epoch.Add(10 * time.Hour), To: epoch.Add(40 * time.Hour), KnownAt: epoch.Add(20 * time.Hour)}, readmodel.Page{Limit: 100})
		}},
	}
	for _, name := range lifeProducts {
		out = append(out, lifeQuestion{"history of " + name, func(m *chmodel.Model) (any, error) {
			return m.Stays(ctx, account, readmodel.StayFilter{Product: event.ProductIDOf(account, name), Environment: event.EnvironmentIDOf(account, "qa")}, readmodel.Page{Limit: 100})
		}}, lifeQuestion{"meaning of " + name, func(m *chmodel.Model) (any, error) { return m.ProductNamed(ctx, account, name) }})
	}
	return append(out, lifeQuestion{"meaning of qa", func(m *chmodel.Model) (any, error) { return m.EnvironmentNamed(ctx, account, "qa") }})
}

// keeping gives a model of so many accounts, each with so many products that are
// live in one environment, which keeps so many bytes.
func keeping(t *testing.T, bytes int64, accounts, products int) (m *chmodel.Model, w *chmodel.Writer, upTo readmodel.Progress) {
	t.Helper()
	m, w = open(t, chservertest.Start(t), func(c *chmodel.Config) { c.HotBytes = bytes })
	var rows readmodel.Rows
	at := event.Position{Stream: "t0"}
	for i := range accounts {
		for j := range products {
			at.Offset++
			liveIn(&rows, fmt.Sprint("account", i), fmt.Sprintf("product%03d", j), "1", at)
		}
	}
	upTo = readmodel.Progress{Stream: "t0", Offset: at.Offset, Time: epoch}
	if err := w.Store(t.Context(), &rows, upTo); err != nil {
		t.Fatal(err)
	}
	return m, w, upTo
}

// liveIn adds the rows of a deployment to production that succeeded.
func liveIn(rows *readmodel.Rows, account, product, version string, at event.Position) {
	rec := event.Record{
		Kind: event.Deployment, Account: account, ProductID: event.ProductIDOf(account, product), EnvironmentID: event.EnvironmentIDOf(account, "production"),
		Version: version, Status: event.Completed, CreatedAt: epoch, CompletedAt: epoch.Add(time.Duration(at.Offset) * time.Second),
	}
	rec.VersionID = event.VersionIDOf(account, rec.ProductID, version)
	_ = rec.ID.SetTime(ulid.Timestamp(epoch))
	copy(rec.ID[6:], fmt.Sprintf("%010d", at.Offset))
	rows.Events = append(rows.Events, readmodel.EventRow{Account: account, Position: at, ID: rec.ID, Type: event.TypeOf(event.Deployment, event.Completed), Subject: rec.ID.String()})
	rows.Products = append(rows.Products, readmodel.ProductRow{Account: account, Position: at, Product: event.Product{ID: rec.ProductID, Name: product}})
	rows.Environments = append(rows.Environments, readmodel.EnvironmentRow{Account: account, Position: at, Environment: event.Environment{ID: rec.EnvironmentID, Name: "production"}})
	rows.Cells = append(rows.Cells, readmodel.Cell{Record: rec, EffectiveAt: rec.CompletedAt, ReceivedAt: rec.CompletedAt, Position: at})
}

// asked gives how many statements a question took of a caller who had asked AsOf.
func asked(t *testing.T, m *chmodel.Model, account string) (statements int64, matrix readmodel.Matrix) {
	t.Helper()
	if _, err := m.AsOf(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, count := countStatements(readmodel.AfterAsOf(t.Context()))
	matrix, err := m.Matrix(ctx, account, readmodel.MatrixFilter{}, readmodel.Page{Limit: 500})
	if err != nil {
		t.Fatal(err)
	}
	for i := range matrix.Items {
		if got := matrix.Items[i].Product.Account; got != account {
			t.Fatalf("%s is shown what is of %s", account, got)
		}
	}
	return count(), matrix
}

// A question that nothing was stored before asks nothing; what was stored of others
// is one statement, and of the account a few that read its new rows.
func TestNothingIsAskedWhereNothingWasStored(t *testing.T) {
	m, w, upTo := keeping(t, 0, 2, 20)
	first, _ := asked(t, m, "account0")
	asked(t, m, "account0")
	if n, got := asked(t, m, "account0"); n != 0 || len(got.Items) != 20 {
		t.Errorf("%d statements for %d products, the first time %d", n, len(got.Items), first)
	}
	store := func(account string) {
		t.Helper()
		upTo.Offset++
		var rows readmodel.Rows
		liveIn(&rows, account, "product007", "2", event.Position{Stream: "t0", Offset: upTo.Offset})
		rows.Products, rows.Environments = nil, nil
		if err := w.Store(t.Context(), &rows, upTo); err != nil {
			t.Fatal(err)
		}
	}
	store("account1")
	if n, _ := asked(t, m, "account0"); n != 1 {
		t.Errorf("%d statements after an event of another account", n)
	}
	store("account0")
	n, got := asked(t, m, "account0")
	if version := got.Items[7].Cells[0].Live.Version; n != 3 || version != "2" {
		t.Errorf("%d statements after an event, and version %s is live", n, version)
	}
	if n, _ := asked(t, m, "account0"); n != 0 {
		t.Errorf("%d statements where nothing was stored since", n)
	}
	memo := got.Items[3].Memo
	if _, got := asked(t, m, "account0"); got.Items[3].Memo != memo || memo == nil {
		t.Error("a row that is the same has another memo")
	}
}

// What is kept of accounts stays within its bound: those that were not asked about
// for the longest time are dropped, and one that is too large is never kept.
func TestWhatIsKeptIsBounded(t *testing.T) {
	const limit, accounts = 1 << 20, 40
	m, w, upTo := keeping(t, limit, accounts, 30)
	for range 3 {
		for i := range accounts {
			_, got := asked(t, m, fmt.Sprint("account", i))
			for j := range got.Items {
				if _, err := got.Items[j].Memo.Made(func() ([]byte, error) { return make([]byte, 100), nil }); err != nil {
					t.Fatal(err)
				}
			}
			if _, bytes := m.Hot(); bytes > limit {
				t.Fatalf("%d bytes are kept", bytes)
			}
		}
	}
	for range 2 {
		asked(t, m, "account0")
	}
	if n, _ := asked(t, m, "account0"); n != 0 {
		t.Errorf("%d statements about the account that was asked about last", n)
	}
	if kept, bytes := m.Hot(); kept == accounts || kept < 2 || bytes < limit/2 {
		t.Errorf("%d of %d accounts are kept in %d of %d bytes", kept, accounts, bytes, limit)
	}
	var rows readmodel.Rows
	for i := range 1000 {
		upTo.Offset++
		liveIn(&rows, "large", fmt.Sprintf("product%04d", i), "1", event.Position{Stream: "t0", Offset: upTo.Offset})
	}
	if err := w.Store(t.Context(), &rows, upTo); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if n, got := asked(t, m, "large"); n == 0 || len(got.Items) != 500 {
			t.Errorf("%d products by %d statements of an account that is too large", len(got.Items), n)
		}
	}
	if _, bytes := m.Hot(); bytes > limit {
		t.Errorf("%d bytes are kept", bytes)
	}
}

// cellsOf gives a success of each of so many products of an account, and an event of it.
func cellsOf(account string, products int, p event.Position) *readmodel.Rows {
	rows := &readmodel.Rows{Events: []readmodel.EventRow{{Account: account, Position: p, ID: ulid.MustNew(uint64(p.Offset), nil), Type: "deployment.completed", ReceivedAt: epoch, EffectiveAt: epoch}}}
	environment := event.EnvironmentIDOf(account, "production")
	rows.Environments = []readmodel.EnvironmentRow{{Account: account, Position: p, Environment: event.Environment{ID: environment, Name: "production", CreatedAt: epoch}}}
	for i := range products {
		name := fmt.Sprint("p", i)
		product := event.ProductIDOf(account, name)
		rows.Products = append(rows.Products, readmodel.ProductRow{Account: account, Position: p, Product: event.Product{ID: product, Name: name, CreatedAt: epoch}})
		rec := event.Record{
			Kind: event.Deployment, Account: account, ProductID: product, EnvironmentID: environment, ID: ulid.MustNew(uint64(i+1), nil),
			Version: "1", VersionID: event.VersionIDOf(account, product, "1"), Status: event.Completed, CreatedAt: epoch, CompletedAt: epoch,
		}
		rows.Cells = append(rows.Cells, readmodel.Cell{Record: rec, EffectiveAt: epoch, ReceivedAt: epoch, Position: p})
	}
	return rows
}

// keeps asks for the matrix of an account, and tells whether the last one came from
// memory: by then it asks how far the tables are and nothing else.
func keeps(t *testing.T, m *chmodel.Model, account string, questions int) bool {
	t.Helper()
	var statements int64
	for range questions {
		ctx, count := countStatements(t.Context())
		got, err := m.Matrix(ctx, account, readmodel.MatrixFilter{}, readmodel.Page{Limit: 500})
		if err != nil || len(got.Items) == 0 {
			t.Fatal(len(got.Items), err)
		}
		statements = count()
	}
	return statements <= 1
}

// cellBytes is more than what a cell takes that is the only one of its product, and less than two of them.
const cellBytes = 1 << 10

// A busy account has many copies of each cell that are not merged yet: they are
// no reason not to keep it.
func TestCopiesOfACellThatAreNotMergedAreNotCountedAsCells(t *testing.T) {
	const products, copies, account = 200, 12, "acme"
	srv := chservertest.Start(t)
	// A third of it, which one account may take, is twice what its cells take, and less than their copies would.
	m, w := open(t, srv, func(c *chmodel.Config) { c.HotBytes = 3 * 2 * products * cellBytes })
	if err := m.DeferMerges(t.Context(), m.Active()); err != nil {
		t.Fatal(err)
	}
	for i := range copies {
		p := event.Position{Stream: "t0", Offset: event.At(uint64(i+1), 0)}
		if err := w.Store(t.Context(), cellsOf(account, products, p), readmodel.Progress{Stream: p.Stream, Offset: p.Offset}); err != nil {
			t.Fatal(err)
		}
	}
	if !keeps(t, m, account, 3) {
		t.Error("an account whose cells were stored again and again is not kept")
	}
}

// What was too large once is looked at again: other tables may be smaller.
func TestAnAccountThatWasTooLargeIsJudgedAgain(t *testing.T) {
	const many, few, account, again = 400, 20, "acme", 5
	srv := chservertest.Start(t)
	m, w := open(t, srv, func(c *chmodel.Config) { c.HotBytes = 3 * many / 2 * cellBytes })
	chmodel.JudgeAgainAfter(m, again)
	p := event.Position{Stream: "t0", Offset: event.At(1, 0)}
	upTo := readmodel.Progress{Stream: p.Stream, Offset: p.Offset}
	if err := w.Store(t.Context(), cellsOf(account, many, p), upTo); err != nil {
		t.Fatal(err)
	}
	if keeps(t, m, account, 2*again) {
		t.Fatal("an account is kept that is too large")
	}
	if err := m.EnsureVersion(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	second := m.Writer(2)
	t.Cleanup(func() { _ = second.Close() })
	if err := second.Store(t.Context(), cellsOf(account, few, p), upTo); err != nil {
		t.Fatal(err)
	}
	if err := m.Activate(t.Context(), 2, 1); err != nil {
		t.Fatal(err)
	}
	if !keeps(t, m, account, 2*again) {
		t.Error("an account that was too large once is never kept")
	}
}
