package readmodeltest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
)

// both stores in two models.
type both struct {
	readmodel.Sink

	oracle *memmodel.Model
}

func (b both) store(t *testing.T, f *fixture, rows readmodel.Rows) {
	t.Helper()
	f.store(rows)
	if err := b.oracle.Store(t.Context(), &rows, readmodel.Progress{Stream: f.stream, Offset: f.offset, Time: epoch}); err != nil {
		t.Fatal(err)
	}
}

// However runs come to lie, a list holds them all: an adapter may remember how
// close they lay when it was asked last, and be wrong by any factor.
func densities(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	f := newFixture(t, sink)
	b := both{sink, memmodel.New()}
	other := event.EnvironmentIDOf(f.account, "staging")
	world := func(incarnation uint16) (rows readmodel.Rows) {
		rows = readmodel.Rows{
			Products: []readmodel.ProductRow{{Product: event.Product{ID: f.product(), Name: "svc", CreatedAt: epoch, Incarnation: incarnation}, Account: f.account, Position: f.next()}},
			Environments: []readmodel.EnvironmentRow{
				{Environment: event.Environment{ID: f.environment(), Name: "production", Class: event.Production, CreatedAt: epoch}, Account: f.account, Position: f.next()},
				{Environment: event.Environment{ID: other, Name: "staging", Class: event.ClassOf("staging"), CreatedAt: epoch}, Account: f.account, Position: f.next()},
			},
		}
		p := f.next()
		rows.Events = []readmodel.EventRow{{
			Account: f.account, Position: p, ID: ulid.MustNew(uint64(p.Offset), nil), Type: event.ProductCreated, ReceivedAt: epoch, EffectiveAt: epoch,
		}}
		return rows
	}
	random := rand.New(rand.NewPCG(3, 4))
	var known []readmodel.RunRow
	runs := func(n int, from time.Time, each time.Duration, incarnation uint16) (rows readmodel.Rows) {
		for i := range n {
			status := event.Completed
			if random.IntN(20) == 0 {
				status = event.Failed
			}
			r := f.deployment(from.Add(time.Duration(i)*each), "1", status)
			if r.Record.ProductIncarnation = incarnation; random.IntN(8) == 0 {
				r.Record.EnvironmentID, r.Record.EnvironmentName = other, "staging"
			}
			if random.IntN(3) == 0 {
				r.Record.Extra = map[string]event.Extra{"change": {Value: fmt.Appendf(nil, `{"id": "c%d"}`, random.IntN(3))}}
				r.Record.Attributes[event.By] = fmt.Sprint("hand ", random.IntN(3))
			}
			rows.Deployments = append(rows.Deployments, r)
			build := r
			build.Record.Kind, build.Record.EnvironmentID, build.Record.EnvironmentName = event.Build, event.EnvironmentID{}, ""
			rows.Builds = append(rows.Builds, build)
		}
		known = append(known, rows.Deployments...)
		return rows
	}
	for _, step := range []struct {
		what string
		rows func() readmodel.Rows
	}{
		{"nothing", func() readmodel.Rows { return world(0) }},
		{"a few in a day", func() readmodel.Rows { return runs(30, epoch.Add(-24*time.Hour), time.Hour/2, 0) }},
		{"a burst", func() readmodel.Rows { return runs(250, epoch, time.Millisecond/2, 0) }},
		{"years before", func() readmodel.Rows { return runs(60, epoch.AddDate(-11, 0, 0), 9*24*time.Hour, 0) }},
		{"one years later", func() readmodel.Rows { return runs(1, epoch.AddDate(4, 0, 0), 0, 0) }},
		{"the same again, changed", func() (rows readmodel.Rows) {
			for _, r := range known[:150] {
				r.Position, r.Record.Status = f.next(), event.Failed
				switch random.IntN(3) {
				case 0:
					r.Record.Extra, r.Record.Attributes[event.By] = nil, ""
				case 1:
					r.Record.Extra = map[string]event.Extra{"change": {Value: []byte(`{"id": "c0"}`)}}
					r.Record.Attributes[event.By] = "hand 0"
				}
				rows.Deployments = append(rows.Deployments, r)
			}
			return rows
		}},
		{"a hundred times as close", func() readmodel.Rows { return runs(150, epoch.AddDate(4, 0, 1), 30*time.Second, 0) }},
		{"of other centuries", func() readmodel.Rows {
			rows, later := runs(1, time.Unix(0, 0), 0, 0), runs(1, epoch.AddDate(150, 0, 0), 0, 0)
			rows.Deployments, rows.Builds = append(rows.Deployments, later.Deployments...), append(rows.Builds, later.Builds...)
			return rows
		}},
		{"the product made anew", func() readmodel.Rows {
			rows := runs(40, epoch.AddDate(4, 1, 0), 24*time.Hour, 1)
			anew := world(1)
			rows.Products, rows.Events = anew.Products, anew.Events
			return rows
		}},
	} {
		b.store(t, f, step.rows())
		for _, filter := range []readmodel.RunFilter{
			{},
			{Oldest: true},
			{Statuses: []event.Status{event.Failed}},
			{Environment: other, Oldest: true},
			{Product: f.product()},
			{Product: f.product(), Statuses: []event.Status{event.Failed}, Oldest: true},
			{Product: f.product(), Environment: other},
			{Product: f.product(), Environment: f.environment(), Oldest: true},
			{Meta: []readmodel.MetaFilter{{Path: []string{"change", "id"}, Value: "c0"}}},
			{Meta: []readmodel.MetaFilter{{Path: []string{"change", "id"}, Value: "c1"}}, By: "hand 1", Oldest: true},
		} {
			for _, p := range startsOf(known, random) {
				for n := range 2 { // pages, one after the other
					want, err := b.oracle.Deployments(t.Context(), f.account, filter, p)
					if err != nil {
						t.Fatal(err)
					}
					got, err := reader.Deployments(t.Context(), f.account, filter, p)
					if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
						t.Fatalf("%s: %+v after %q, page %d of %d: %v (-memmodel +this):\n%.2000s", step.what, filter, p.After, n, p.Limit, err, diff)
					}
					if len(got) < p.Limit {
						break
					}
					p.After = got[len(got)-1].Key()
				}
			}
		}
		for _, p := range startsOf(known, random) {
			want, _ := b.oracle.Builds(t.Context(), f.account, readmodel.RunFilter{}, p)
			got, err := reader.Builds(t.Context(), f.account, readmodel.RunFilter{}, p)
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
				t.Fatalf("%s: builds after %q: %v (-memmodel +this):\n%.2000s", step.what, p.After, err, diff)
			}
		}
	}
}

// startsOf gives pages at the beginning, one of them of a size that nobody asked for yet,
// behind a run, and somewhere.
func startsOf(known []readmodel.RunRow, random *rand.Rand) []readmodel.Page {
	starts := []readmodel.Page{{Limit: 20}, {Limit: 200}, {Limit: 2 + len(known)%17}}
	if len(known) > 0 {
		starts = append(starts, readmodel.Page{Limit: 20, After: known[random.IntN(len(known))].Key()})
	}
	var anywhere ulid.ULID
	_ = anywhere.SetTime(uint64(epoch.AddDate(random.IntN(20)-13, 0, 0).UnixMilli()))
	return append(starts, readmodel.Page{Limit: 20, After: fmt.Sprint(anywhere)})
}
