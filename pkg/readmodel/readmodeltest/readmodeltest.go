// Package readmodeltest holds every adapter of readmodel to the same contract.
//
// Its heart is a property: whatever the order, the portions and the repetition
// in which rows are stored, every question is answered as by memmodel, which was
// given them once, in order.
package readmodeltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
)

// Run holds an adapter to the contract. open gives an empty model; one that
// shares its store with those opened before must not see what they hold.
func Run(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	t.Run("any order, portions and repetition give the same answers", func(t *testing.T) {
		sink, reader := open(t)
		rapid.Check(t, func(t *rapid.T) { converges(t, sink, reader) })
	})
	t.Run("paging visits each item once while others arrive", func(t *testing.T) { paging(t, open) })
	t.Run("a list holds all runs however close they lie", func(t *testing.T) { densities(t, open) })
	t.Run("progress never goes back", func(t *testing.T) { progress(t, open) })
	t.Run("a store that failed is not progress", func(t *testing.T) { failedStore(t, open) })
	t.Run("values come back as they were", func(t *testing.T) { roundTrip(t, open) })
	t.Run("an older success that comes late is not live", func(t *testing.T) { lateSuccess(t, open) })
	t.Run("a past moment is as it was, and as it was known", func(t *testing.T) { pastMoments(t, open) })
	t.Run("a cell lists what was live in it, and what changed", func(t *testing.T) { staysAndChanges(t, open) })
	t.Run("a cell lists what was live in it however far back", func(t *testing.T) { longStays(t, open) })
	t.Run("events of several streams make one list", func(t *testing.T) { auditAcrossStreams(t, open) })
	t.Run("what operators decided is read by their account only", func(t *testing.T) { auditOfOperations(t, open) })
	t.Run("a name means what the last event says", func(t *testing.T) { names(t, open) })
	t.Run("releases hold what lives", func(t *testing.T) { releases(t, open) })
	t.Run("what was set aside is listed and counted", func(t *testing.T) { setAside(t, open) })
	t.Run("an empty model has nothing", func(t *testing.T) { empty(t, open) })
	t.Run("a key that no list gave is refused", func(t *testing.T) { badKey(t, open) })
}

// serial tells histories apart that end up in one store.
var serial atomic.Int64

func converges(t *rapid.T, sink readmodel.Sink, reader readmodel.Reader) {
	ctx := context.Background()
	h := drawHistory(t, serial.Add(1))
	oracle := memmodel.New()
	if err := oracle.Store(ctx, join(h.events), upTo(h.events)); err != nil {
		t.Fatal(err)
	}
	for _, portion := range h.portions(t) {
		if err := sink.Store(ctx, join(portion), upTo(portion)); err != nil {
			t.Fatalf("store: %v", err)
		}
	}
	// A part of the questions for each history; many histories ask them all.
	const parts = 5
	part := rapid.IntRange(0, parts-1).Draw(t, "part of the questions")
	for i, q := range h.questions() {
		if i%parts != part {
			continue
		}
		want, got := q.answer(oracle), q.answer(reader)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s (-memmodel +this):\n%s", q.text, diff)
		}
	}
	for _, a := range h.accounts {
		whole := readmodel.Page{Limit: 1000}
		current := a.matrix(ctx, readmodel.MatrixFilter{}, whole)
		later := a.matrix(ctx, readmodel.MatrixFilter{At: epoch.Add(time.Hour), KnownAt: epoch.Add(time.Hour)}, whole)
		if diff := cmp.Diff(current.answer(reader), later.answer(reader), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s (-now +after everything):\n%s", later.text, diff)
		}
	}
	wantProgress, _ := oracle.Progress(ctx, h.stream)
	gotProgress, err := sink.Progress(ctx, h.stream)
	if diff := cmp.Diff(wantProgress, gotProgress); diff != "" || err != nil {
		t.Fatalf("progress, error %v (-memmodel +this):\n%s", err, diff)
	}
}

// A question is one read of a model.
type question struct {
	text string
	ask  func(readmodel.Reader) (any, error)
}

func (q question) answer(r readmodel.Reader) any {
	result, err := q.ask(r)
	switch {
	case errors.Is(err, readmodel.ErrNotFound):
		return "not found"
	case err != nil:
		return "error: " + err.Error()
	}
	return result
}

// questions gives every question that the history suggests.
func (h *history) questions() []question {
	ctx := context.Background()
	out := []question{{"as of", func(r readmodel.Reader) (any, error) {
		asOf, err := r.AsOf(ctx)
		return slices.DeleteFunc(asOf, func(p readmodel.Progress) bool { return p.Stream != h.stream }), err
	}}}
	add := func(ask func(readmodel.Reader) (any, error), format string, args ...any) {
		out = append(out, question{fmt.Sprintf(format, args...), ask})
	}
	for i, a := range h.accounts {
		out = append(out, a.deliveryQuestions(ctx)...)
		out = append(out, a.usageQuestions(ctx)...)
		for _, limit := range []int{1000, 2} {
			out = append(out, a.listQuestions(ctx, readmodel.Page{Limit: limit})...)
			out = append(out, h.auditQuestions(ctx, a, limit)...)
		}
		for _, e := range h.events {
			id := e.Events[0].ID // also of events of the other account
			add(func(r readmodel.Reader) (any, error) { return r.Event(ctx, a.name, id) }, "event %s of %s", id, a.name)
		}
		others := h.accounts[1-i] // asks for its own, and for one that is not
		for _, id := range slices.Concat(a.deployments, a.builds, others.deployments[:min(1, len(others.deployments))], others.builds[:min(1, len(others.builds))]) {
			add(func(r readmodel.Reader) (any, error) { return r.Deployment(ctx, a.name, id) }, "deployment %s of %s", id, a.name)
			add(func(r readmodel.Reader) (any, error) { return r.Build(ctx, a.name, id) }, "build %s of %s", id, a.name)
			add(func(r readmodel.Reader) (any, error) { return r.History(ctx, a.name, id) }, "history of %s of %s", id, a.name)
			add(func(r readmodel.Reader) (any, error) { return r.Owner(ctx, readmodel.DeploymentObject, id.String()) }, "owner of deployment %s", id)
			add(func(r readmodel.Reader) (any, error) { return r.Owner(ctx, readmodel.BuildObject, id.String()) }, "owner of build %s", id)
		}
		for _, id := range append(slices.Clone(a.products), others.products[0]) {
			add(func(r readmodel.Reader) (any, error) { return r.Product(ctx, a.name, id) }, "product %s of %s", id, a.name)
			add(func(r readmodel.Reader) (any, error) { return r.Owner(ctx, readmodel.ProductObject, id.String()) }, "owner of product %s", id)
			for _, version := range versionNames {
				id := event.VersionIDOf(a.name, id, version)
				add(func(r readmodel.Reader) (any, error) { return r.Version(ctx, a.name, id) }, "version %s of %s", id, a.name)
				add(func(r readmodel.Reader) (any, error) { return r.Owner(ctx, readmodel.VersionObject, id.String()) }, "owner of version %s", id)
			}
		}
		for _, id := range append(slices.Clone(a.environments), others.environments[0]) {
			add(func(r readmodel.Reader) (any, error) { return r.Environment(ctx, a.name, id) }, "environment %s of %s", id, a.name)
			add(func(r readmodel.Reader) (any, error) { return r.Owner(ctx, readmodel.EnvironmentObject, id.String()) }, "owner of environment %s", id)
		}
	}
	return append(append(out, h.ledgerQuestions(ctx)...), h.freshnessQuestions(ctx)...)
}

// listQuestions walks each list to its end by pages like p.
func (a *account) listQuestions(ctx context.Context, p readmodel.Page) []question {
	var out []question
	add := func(what string, filter any, ask func(readmodel.Reader) (any, error)) {
		out = append(out, question{fmt.Sprintf("%s of %s %+v by %d", what, a.name, filter, p.Limit), ask})
	}
	for _, f := range a.runFilters() {
		add("deployments", f, func(r readmodel.Reader) (any, error) {
			return all(p, func(p readmodel.Page) ([]readmodel.RunRow, error) { return r.Deployments(ctx, a.name, f, p) }, (*readmodel.RunRow).Key)
		})
		add("builds", f, func(r readmodel.Reader) (any, error) {
			return all(p, func(p readmodel.Page) ([]readmodel.RunRow, error) { return r.Builds(ctx, a.name, f, p) }, (*readmodel.RunRow).Key)
		})
	}
	add("products", nil, func(r readmodel.Reader) (any, error) {
		return all(p, func(p readmodel.Page) ([]readmodel.ProductRow, error) { return r.Products(ctx, a.name, p) }, (*readmodel.ProductRow).Key)
	})
	production, other := event.Production, event.Other
	for _, class := range []*event.Class{nil, &production, &other} {
		add("environments", class, func(r readmodel.Reader) (any, error) {
			return all(p, func(p readmodel.Page) ([]readmodel.EnvironmentRow, error) {
				return r.Environments(ctx, a.name, class, p)
			}, (*readmodel.EnvironmentRow).Key)
		})
	}
	versions := []readmodel.VersionFilter{{}, {Product: a.products[0]}, {Product: a.products[1], SHA: "0123456"}}
	for _, sha := range commits[1:] {
		versions = append(versions, readmodel.VersionFilter{SHA: sha})
	}
	for _, f := range versions {
		add("versions", f, func(r readmodel.Reader) (any, error) {
			return all(p, func(p readmodel.Page) ([]readmodel.VersionRow, error) { return r.Versions(ctx, a.name, f, p) }, (*readmodel.VersionRow).Key)
		})
	}
	for _, f := range []readmodel.MatrixFilter{
		{},
		{Product: a.products[0]},
		{Environment: a.environments[0]},
		{Search: "CHECK"},
		{Search: "%"},
		{Search: "_"},
		{Search: "Ü"},
		{DriftOnly: true},
		{DriftOnly: true, Environment: a.environments[0]},
		{DriftOnly: true, Search: "check_"},
		{At: epoch.Add(time.Second)},
		{At: epoch.Add(700*time.Millisecond + 500*time.Microsecond).In(time.FixedZone("", 5400)), Environment: a.environments[0]},
		{At: time.Unix(-1, 0)},
		{At: epoch.AddDate(0, 0, -15)},
		{At: epoch.AddDate(0, 0, -31), DriftOnly: true},
		{At: epoch.AddDate(0, 0, -62).Add(time.Second), Environments: []string{"*o*"}},
		{At: epoch.AddDate(0, 0, -94)},
		{At: epoch.AddDate(0, 0, -365*70).Add(time.Second)},
		{KnownAt: epoch.Add(time.Second)},
		{KnownAt: epoch.Add(300 * time.Millisecond), Product: a.products[0]},
		{At: epoch.Add(1500 * time.Millisecond), KnownAt: epoch.Add(1200 * time.Millisecond)},
		{At: epoch.Add(1500 * time.Millisecond), DriftOnly: true},
		{At: epoch.Add(1800 * time.Millisecond), KnownAt: epoch.Add(1600 * time.Millisecond), DriftOnly: true},
		{KnownAt: epoch.Add(1500 * time.Millisecond), DriftOnly: true, Environment: a.environments[0]},
		{Environments: []string{"prod*", "dev"}},
		{Environments: []string{"*d"}, DriftOnly: true},
		{Environments: []string{"nothing like it*"}, DriftOnly: true},
		{Environments: []string{"*"}, At: epoch.Add(900 * time.Millisecond)},
	} {
		out = append(out, a.matrix(ctx, f, p))
	}
	return append(out, a.stateQuestions(ctx, p)...)
}

// matrix walks the matrix to its end by pages like p.
func (a *account) matrix(ctx context.Context, f readmodel.MatrixFilter, p readmodel.Page) question {
	return question{fmt.Sprintf("matrix of %s %+v by %d", a.name, f, p.Limit), func(r readmodel.Reader) (any, error) {
		var pages []readmodel.Matrix
		for p := p; ; {
			m, err := r.Matrix(ctx, a.name, f, p)
			if err != nil {
				return nil, err
			}
			pages = append(pages, m)
			if !m.More {
				return pages, nil
			}
			p.After = m.Items[len(m.Items)-1].Key()
		}
	}}
}

func (a *account) runFilters() []readmodel.RunFilter {
	production, other := event.Production, event.Other
	return []readmodel.RunFilter{
		{},
		{Product: a.products[0]},
		{Environment: a.environments[1]},
		{Product: a.products[1], Environment: a.environments[0]},
		{Version: versionNames[1]},
		{Changed: event.At(4, 0)},
		{Changed: event.At(2, 1), Product: a.products[1]},
		{Statuses: []event.Status{event.Completed}},
		{Product: a.products[0], Statuses: []event.Status{event.Started, event.Failed}, Version: versionNames[0]},
		{Since: epoch.Add(500 * time.Millisecond), Until: epoch.Add(1500 * time.Millisecond)},
		{Environment: a.environments[0], Until: epoch.Add(time.Second)},
		{Oldest: true},
		{Oldest: true, Environment: a.environments[0]},
		{Oldest: true, Product: a.products[0], Environment: a.environments[0]},
		{Class: &production, Oldest: true},
		{Class: &other, Product: a.products[1], Mode: event.Live},
		{By: "value 7"},
		{By: fmt.Sprintf("value %d", event.ByEmail), Mode: event.Test},
		{Source: "it's \"ü\"\t\\", Environment: a.environments[0]},
		{Run: fmt.Sprintf("value %d", event.InvokeID)},
		{Runs: []string{"another", fmt.Sprintf("value %d", event.InvokeID)}, Oldest: true},
		{Product: a.products[0], Version: versionNames[0]},
		{SHA: commits[1]},
		{SHA: "012345"},
		{SHA: "0123456", Product: a.products[0]},
		{Meta: []readmodel.MetaFilter{{Path: []string{"z"}, Value: "é"}}},
		{Meta: []readmodel.MetaFilter{{Path: []string{"o", "n"}, Value: "-7"}, {Path: []string{"o", "b"}, Value: "true"}}},
		{Meta: []readmodel.MetaFilter{{Path: []string{"o", "f"}, Value: "2.5"}}},
		{Meta: []readmodel.MetaFilter{{Path: []string{"o", "s"}, Value: "it's 'x'"}}, Statuses: []event.Status{event.Completed}},
		{Meta: []readmodel.MetaFilter{{Path: []string{"o", "n", "x"}, Value: ""}}},
	}
}

// all walks a list to its end.
func all[R any](p readmodel.Page, list func(readmodel.Page) ([]R, error), key func(*R) string) ([]R, error) {
	var out []R
	for {
		rows, err := list(p)
		if err != nil {
			return nil, err
		}
		if len(rows) > p.Limit {
			return nil, fmt.Errorf("%d rows in a page of %d", len(rows), p.Limit)
		}
		out = append(out, rows...)
		if len(rows) < p.Limit {
			return out, nil
		}
		p.After = key(&rows[len(rows)-1])
	}
}

// fixture makes rows by hand for one account with one product and environment.
type fixture struct {
	t       *testing.T
	sink    readmodel.Sink
	account string
	stream  string
	offset  event.Offset
}

func newFixture(t *testing.T, sink readmodel.Sink) *fixture {
	n := serial.Add(1)
	f := &fixture{t: t, sink: sink, account: fmt.Sprintf("acc%d", n), stream: event.TrackStream(int(n % 10000))}
	f.store(readmodel.Rows{
		Products:     []readmodel.ProductRow{{Product: event.Product{ID: f.product(), Name: "svc", CreatedAt: epoch}, Account: f.account, Position: f.next()}},
		Environments: []readmodel.EnvironmentRow{{Environment: event.Environment{ID: f.environment(), Name: "production", Class: event.Production, CreatedAt: epoch}, Account: f.account, Position: f.next()}},
	})
	return f
}

func (f *fixture) product() event.ProductID { return event.ProductIDOf(f.account, "svc") }
func (f *fixture) environment() event.EnvironmentID {
	return event.EnvironmentIDOf(f.account, "production")
}

func (f *fixture) next() event.Position {
	f.offset++
	return event.Position{Stream: f.stream, Offset: f.offset}
}

func (f *fixture) store(rows readmodel.Rows) {
	f.t.Helper()
	if err := f.sink.Store(f.t.Context(), &rows, readmodel.Progress{Stream: f.stream, Offset: f.offset, Time: epoch}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) deployment(at time.Time, version string, status event.Status) readmodel.RunRow {
	rec := event.Record{
		Kind: event.Deployment, Account: f.account, ProductID: f.product(), ProductName: "svc",
		EnvironmentID: f.environment(), EnvironmentName: "production", Version: version,
		VersionID: event.VersionIDOf(f.account, f.product(), version), Status: status, CreatedAt: at,
	}
	_ = rec.ID.SetTime(uint64(at.UnixMilli()))
	p := f.next()
	copy(rec.ID[6:], fmt.Sprintf("%05d%s", p.Offset, f.account))
	return readmodel.RunRow{Record: rec, Position: p}
}

func paging(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	f := newFixture(t, sink)
	var want []ulid.ULID
	var rows readmodel.Rows
	for i := range 50 { // over 100 weeks, so that no look-back holds them all
		rows.Deployments = append(rows.Deployments, f.deployment(epoch.Add(time.Duration(-i)*14*24*time.Hour), "1", event.Completed))
		want = append(want, rows.Deployments[i].Record.ID)
	}
	f.store(rows)
	for _, filter := range []readmodel.RunFilter{{}, {Product: f.product()}, {Environment: f.environment()}} {
		var got []ulid.ULID
		for p := (readmodel.Page{Limit: 7}); ; {
			page, err := reader.Deployments(t.Context(), f.account, filter, p)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				got = append(got, r.Record.ID)
			}
			if len(page) < p.Limit {
				break
			}
			p.After = page[len(page)-1].Key()
			// A newer one, and a known one again, later in the log.
			again := page[0]
			again.Position = f.next()
			f.store(readmodel.Rows{Deployments: []readmodel.RunRow{f.deployment(epoch.Add(time.Hour), "2", event.Started), again}})
		}
		got = slices.DeleteFunc(got, func(id ulid.ULID) bool { return !slices.Contains(want, id) })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", filter, diff)
		}
	}
}

func progress(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	stream := event.TrackStream(int(serial.Add(1) % 10000))
	ctx := t.Context()
	if got, err := sink.Progress(ctx, stream); err != nil || got.Offset != 0 || got.Stream != stream {
		t.Errorf("of an unknown stream: %+v, %v", got, err)
	}
	last := readmodel.Progress{Stream: stream, Offset: event.At(9, 1), Time: epoch}
	for _, p := range []readmodel.Progress{
		{Stream: stream, Offset: event.At(3, 2), Time: epoch.Add(-time.Second)}, last, {Stream: stream, Offset: event.At(5, 0), Time: epoch.Add(time.Second)},
	} {
		if err := sink.Store(ctx, &readmodel.Rows{}, p); err != nil {
			t.Fatal(err)
		}
	}
	got, err := sink.Progress(ctx, stream)
	if diff := cmp.Diff(last, got); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	for _, decision := range []uint64{7, 3} {
		if err := sink.Store(ctx, &readmodel.Rows{}, readmodel.Progress{Stream: stream, Mended: decision}); err != nil {
			t.Fatal(err)
		}
	}
	last.Mended = 7
	if got, err := sink.Progress(ctx, stream); err != nil || !cmp.Equal(got, last) {
		t.Errorf("behind decisions that are done: %+v, %v", got, err)
	}
	asOf, err := reader.AsOf(ctx)
	if err != nil || !slices.ContainsFunc(asOf, func(p readmodel.Progress) bool { return cmp.Equal(p, last) }) {
		t.Errorf("as of %+v, %v", asOf, err)
	}
}

func failedStore(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, _ := open(t)
	f := newFixture(t, sink)
	before := f.offset
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rows := readmodel.Rows{Deployments: []readmodel.RunRow{f.deployment(epoch, "1", event.Completed)}}
	if err := sink.Store(ctx, &rows, readmodel.Progress{Stream: f.stream, Offset: f.offset, Time: epoch}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled store gave %v", err)
	}
	if got, err := sink.Progress(t.Context(), f.stream); err != nil || got.Offset != before {
		t.Errorf("progress is %+v, %v; want offset %d", got, err, before)
	}
}

func roundTrip(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	f := newFixture(t, sink)
	times := []time.Time{
		{}, time.Unix(0, 0).UTC(), time.Date(1895, 2, 3, 4, 5, 6, 789e6, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
	}
	for i, sha := range commits {
		run := f.deployment(epoch.Add(time.Duration(i)*time.Second), "v' \\ \"\n\t\x00 – ü", event.Completed)
		run.Record.Attributes[event.SCMSHA] = sha
		run.Record.Attributes[event.URL] = "https://ci.example/\\%_'"
		run.Record.StartedAt, run.Record.CompletedAt = times[i%len(times)], times[(i+1)%len(times)]
		run.Record.VersionID = event.VersionIDOf(f.account, f.product(), run.Record.Version)
		run.Record.Extra = map[string]event.Extra{"": {Value: []byte(`{"b":1e400, "a":"\ud83d\ude00"}`)}, "k'": {Value: []byte(`[ ]`)}}
		f.store(readmodel.Rows{Deployments: []readmodel.RunRow{run}})
		got, err := reader.Deployment(t.Context(), f.account, run.Record.ID)
		if diff := cmp.Diff(run, got); diff != "" || err != nil {
			t.Errorf("error %v (-want +got):\n%s", err, diff)
		}
		if zone := got.Record.CompletedAt.Location(); zone != time.UTC {
			t.Errorf("a time is in %v", zone)
		}
		list, err := reader.Deployments(t.Context(), f.account, readmodel.RunFilter{Version: run.Record.Version}, readmodel.Page{Limit: 1})
		if diff := cmp.Diff([]readmodel.RunRow{run}, list); diff != "" || err != nil {
			t.Errorf("by version, error %v (-want +got):\n%s", err, diff)
		}
	}
}

func lateSuccess(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	f := newFixture(t, sink)
	cell := func(r readmodel.RunRow, at time.Time) readmodel.Rows {
		return readmodel.Rows{
			Events:      []readmodel.EventRow{{Account: f.account, Position: r.Position, Type: event.TypeOf(event.Deployment, event.Completed)}}, // every event has a row, which tells of the others
			Deployments: []readmodel.RunRow{r}, Cells: []readmodel.Cell{{Record: r.Record, EffectiveAt: at, Position: r.Position}},
		}
	}
	live := func() string {
		t.Helper()
		m, err := reader.Matrix(t.Context(), f.account, readmodel.MatrixFilter{}, readmodel.Page{Limit: 10})
		if err != nil || len(m.Items) != 1 || len(m.Items[0].Cells) != 1 || m.Items[0].Cells[0].Live == nil {
			t.Fatalf("matrix %+v, %v", m, err)
		}
		return m.Items[0].Cells[0].Live.Version
	}
	f.store(cell(f.deployment(epoch, "before 1970", event.Completed), time.Unix(-1, 0)))
	for _, step := range []struct {
		version string
		at      time.Time
		live    string
	}{
		{"2", epoch, "2"},
		{"1, late", epoch.Add(-time.Minute), "2"},
		{"3, at the same time", epoch, "3, at the same time"},
		{"older than the epoch", time.Unix(-100, 0), "3, at the same time"},
	} {
		f.store(cell(f.deployment(epoch, step.version, event.Completed), step.at))
		if got := live(); got != step.live {
			t.Errorf("after %q live is %q", step.version, got)
		}
	}
}

func pastMoments(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	f := newFixture(t, sink)
	at := func(minutes int) time.Time { return epoch.Add(time.Duration(minutes) * time.Minute) }
	report := func(r readmodel.RunRow, status event.Status, effective, received int) {
		r.Record.Status, r.Position = status, f.next()
		rows := readmodel.Rows{Deployments: []readmodel.RunRow{r}}
		if status == event.Completed {
			rows.Cells = []readmodel.Cell{{Record: r.Record, EffectiveAt: at(effective), ReceivedAt: at(received), Position: r.Position}}
		} else {
			rows.Attempts = []readmodel.Attempt{{Record: r.Record, At: at(effective), ReceivedAt: at(received), Position: r.Position}}
		}
		f.store(rows)
	}
	one, two, three := f.deployment(epoch, "1", event.Pending), f.deployment(epoch, "2", event.Pending), f.deployment(epoch, "3", event.Pending)
	report(one, event.Started, 1, 1)
	report(one, event.Completed, 2, 2)
	report(two, event.Started, 5, 5)
	report(two, event.Completed, 6, 6)
	report(three, event.Completed, 4, 8) // told late, of before two
	report(f.deployment(epoch, "4", event.Pending), event.Failed, 7, 9)
	never := -1 << 20
	for _, step := range []struct {
		at, known int
		want      string
	}{
		{never, never, "2 but 4 failed"},
		{-1, never, "no product"},
		{0, never, "nothing"},
		{1, never, " but 1 started"},
		{2, never, "1"},
		{3, never, "1"},
		{4, never, "3"},
		{5, never, "3 but 2 started"},
		{6, never, "2"},
		{7, never, "2 but 4 failed"},
		{never, -1, "no product"},
		{never, 0, "nothing"},
		{never, 1, " but 1 started"},
		{never, 2, "1"},
		{never, 5, "1 but 2 started"},
		{never, 7, "2"},
		{never, 8, "2"},
		{never, 9, "2 but 4 failed"},
		{4, 7, "1"},
		{4, 8, "3"},
		{5, 7, "1 but 2 started"},
		{1 << 20, 1 << 20, "2 but 4 failed"},
	} {
		var filter readmodel.MatrixFilter
		if step.at != never {
			filter.At = at(step.at)
		}
		if step.known != never {
			filter.KnownAt = at(step.known)
		}
		m, err := reader.Matrix(t.Context(), f.account, filter, readmodel.Page{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		if got := cellText(m); got != step.want {
			t.Errorf("at %d, known at %d: %q, want %q", step.at, step.known, got, step.want)
		}
	}
}

// cellText shows the only cell of a matrix.
func cellText(m readmodel.Matrix) string {
	switch {
	case len(m.Items) == 0 && len(m.Environments) == 0:
		return "no product"
	case len(m.Items) != 1 || len(m.Environments) != len(m.Items[0].Cells) || len(m.Items[0].Cells) > 1:
		return fmt.Sprintf("%+v", m)
	case len(m.Items[0].Cells) == 0:
		return "nothing"
	}
	text, c := "", m.Items[0].Cells[0]
	if c.Live != nil {
		text = c.Live.Version
	}
	if c.LastAttempt != nil {
		text += " but " + c.LastAttempt.Version + " " + c.LastAttempt.Status.String()
	}
	return text
}

func empty(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	_, r := open(t)
	ctx, page := t.Context(), readmodel.Page{Limit: 10}
	var id ulid.ULID
	_ = id.SetTime(uint64(epoch.UnixMilli()))
	unknown := uuid.NewSHA1(uuid.NameSpaceDNS, []byte("unknown"))
	one := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, readmodel.ErrNotFound) {
			t.Errorf("%s gave %v", what, err)
		}
	}
	_, err := r.Deployment(ctx, "nobody", id)
	one("deployment", err)
	_, err = r.Build(ctx, "nobody", id)
	one("build", err)
	_, err = r.History(ctx, "nobody", id)
	one("history", err)
	_, err = r.Product(ctx, "nobody", event.ProductID(unknown))
	one("product", err)
	_, err = r.Environment(ctx, "nobody", event.EnvironmentID(unknown))
	one("environment", err)
	_, err = r.Version(ctx, "nobody", event.VersionID(unknown))
	one("version", err)
	for _, id := range []string{id.String(), unknown.String(), "", "' OR 1"} {
		for _, object := range []readmodel.Object{readmodel.DeploymentObject, readmodel.BuildObject, readmodel.ProductObject, readmodel.EnvironmentObject, readmodel.VersionObject} {
			_, err = r.Owner(ctx, object, id)
			one("owner of "+string(object), err)
		}
	}
	list := func(what string, n int, err error) {
		t.Helper()
		if n != 0 || err != nil {
			t.Errorf("%s gave %d, %v", what, n, err)
		}
	}
	runs, err := r.Deployments(ctx, "nobody", readmodel.RunFilter{}, page)
	list("deployments", len(runs), err)
	runs, err = r.Builds(ctx, "nobody", readmodel.RunFilter{}, page)
	list("builds", len(runs), err)
	products, err := r.Products(ctx, "nobody", page)
	list("products", len(products), err)
	environments, err := r.Environments(ctx, "nobody", nil, page)
	list("environments", len(environments), err)
	versions, err := r.Versions(ctx, "nobody", readmodel.VersionFilter{}, page)
	list("versions", len(versions), err)
	m, err := r.Matrix(ctx, "nobody", readmodel.MatrixFilter{}, page)
	list("matrix", len(m.Items)+len(m.Environments), err)
}

func badKey(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	_, r := open(t)
	for _, after := range []string{"x", "20260101T000000.000/x", "' OR 1"} {
		p := readmodel.Page{After: after, Limit: 1}
		_, err := r.Deployments(t.Context(), "nobody", readmodel.RunFilter{}, p)
		_, err2 := r.Builds(t.Context(), "nobody", readmodel.RunFilter{}, p)
		_, err3 := r.Versions(t.Context(), "nobody", readmodel.VersionFilter{}, p)
		for _, err := range []error{err, err2, err3} {
			if fault.KindOf(err) != fault.Unprocessable {
				t.Errorf("%q gave %v", after, err)
			}
		}
	}
}
