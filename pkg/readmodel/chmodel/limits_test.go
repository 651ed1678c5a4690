package chmodel_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// store fills w with what a ledger of so many deployments holds.
func store(tb testing.TB, w *chmodel.Writer, l *ledger, deployments int) {
	tb.Helper()
	if err := w.Store(tb.Context(), l.names(), readmodel.Progress{Stream: "t0"}); err != nil {
		tb.Fatal(err)
	}
	fill(tb, w, l, deployments)
}

func fill(tb testing.TB, w *chmodel.Writer, l *ledger, deployments int) {
	tb.Helper()
	var rows readmodel.Rows
	for left := 2 * deployments; left > 0; {
		n := min(left, 50_000)
		left -= n
		if err := w.Store(tb.Context(), &rows, l.fill(&rows, n)); err != nil {
			tb.Fatal(err)
		}
	}
}

// builds gives the versions and builds that the big account has of a product
// each, from one number to another.
func builds(from, to int, end time.Time) *readmodel.Rows {
	var rows readmodel.Rows
	for i := from; i < to; i++ {
		name := benchProducts[i%len(benchProducts)]
		product, at := event.ProductIDOf(big, name), end.Add(time.Duration(i-to)*time.Minute).Truncate(time.Millisecond)
		p := event.Position{Stream: "t0", Offset: event.Offset(1<<40 + i)}
		v := event.Version{ProductID: product, Version: fmt.Sprintf("2.%d.0", i/len(benchProducts)), CreatedAt: at}
		v.ID = event.VersionIDOf(big, product, v.Version)
		rec := event.Record{
			Kind: event.Build, Account: big, ProductID: product, ProductName: name, Version: v.Version, VersionID: v.ID,
			ID: ulid.MustNew(ulid.Timestamp(at), ulid.DefaultEntropy()), Status: event.Completed, CreatedAt: at, CompletedAt: at,
		}
		rows.Versions = append(rows.Versions, readmodel.VersionRow{Account: big, Version: v, Position: p})
		rows.Builds = append(rows.Builds, readmodel.RunRow{Record: rec, Position: p})
		rows.Releases = append(rows.Releases, readmodel.ReleaseRow{
			Account: big, Release: event.Release{ID: rec.ID, Name: fmt.Sprint("release ", i), CreatedAt: at}, Position: p,
		})
	}
	return &rows
}

// No question for a page reads a whole account. Rows read are those that the
// server says it read, of all statements of the question: whole granules of every
// part, 256 or 1024 rows each, so that a page of 50 rows that lie apart may read
// 50 granules. What each part adds depends on when the engine merges, so all is
// merged before. With a history twice as long each reads about as much as before,
// unless it is about a cell, a product or an environment whose own history is
// what is asked: that is a fraction of the account.
func TestAPageIsReadWithoutReadingTheAccount(t *testing.T) {
	const deployments = 200_000 // half of them of the big account
	srv := chservertest.Start(t)
	end := epoch
	var cfg chmodel.Config
	m, w := open(t, srv, func(c *chmodel.Config) {
		c.Now = func() time.Time { return end } // a list begins to look from there
		c.HotBytes = -1                         // and no question is spared by another one
		cfg = *c
	})
	l := newLedger(deployments, end)
	merge := func() {
		for table := range strings.FieldsSeq(`attempts builds cell_periods cells current dep_by_env deployments environments events names
			past_attempts products releases versions`) {
			execute(t, srv, m, "OPTIMIZE TABLE "+table+"_v1 FINAL")
		}
	}
	store(t, w, l, deployments/2)
	merge()
	half := end.Add(-183 * 24 * time.Hour) // where the ledger is now
	atHalf := readAll(t, m, w, builds(0, 5_000, half), half)
	fill(t, w, l, deployments/2)
	merge()
	atEnd := readAll(t, m, w, builds(5_000, 10_000, end), end)
	t.Run("over a limit", func(t *testing.T) { overTheLimit(t, m, cfg) })
	const account = deployments / 2
	for name, read := range atEnd {
		share := uint64(6)
		if ownHistory[name] {
			share = 2
		}
		t.Logf("%s: %d rows read, %d at half of the history", name, read, atHalf[name])
		if read > account/share {
			t.Errorf("%s: %d rows read of an account of %d deployments", name, read, account)
		}
		if before := max(atHalf[name], 6_000); !ownHistory[name] && read > before*8/5 {
			t.Errorf("%s: %d rows read, and %d at half of the history", name, read, atHalf[name])
		}
	}
}

// ownHistory are questions that read the history of what they are about, and
// lists without a key in their order, whose narrow columns are read.
var ownHistory = map[string]bool{
	"timeline of a product": true, "timeline of a cell": true, "timeline of a version": true, "a cell's deployments": true, "counts of a product": true, "counts of an environment": true,
	"versions": true, "versions of a product": true, "releases": true,
}

// readAll asks every question for a page of the big account, with rows stored
// before, and gives how many rows each reads.
func readAll(t *testing.T, m *chmodel.Model, w *chmodel.Writer, more *readmodel.Rows, end time.Time) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for name, ask := range questions(t, m, w, more, end) {
		ctx, read := countRows(t.Context())
		if err := ask(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		out[name] = read()
	}
	return out
}

// questions are those for a page of the big account, with rows stored before.
func questions(t *testing.T, m *chmodel.Model, w *chmodel.Writer, more *readmodel.Rows, end time.Time) map[string]func(context.Context) error {
	t.Helper()
	if err := w.Store(t.Context(), more, readmodel.Progress{}); err != nil {
		t.Fatal(err)
	}
	page := readmodel.Page{Limit: 50}
	product, environment := event.ProductIDOf(big, benchProducts[3]), event.EnvironmentIDOf(big, benchEnvironments[3])
	newest, err := m.Deployments(t.Context(), big, readmodel.RunFilter{}, page)
	if err != nil || len(newest) != 50 {
		t.Fatal(len(newest), err)
	}
	run, build := newest[20].Record, more.Builds[7].Record
	history, err := m.History(t.Context(), big, run.ID)
	if err != nil {
		t.Fatal(err)
	}
	changed := slices.IndexFunc(newest, func(r readmodel.RunRow) bool { return len(r.Record.Extra) > 0 })
	if changed < 0 {
		t.Fatal("no run has metadata")
	}
	var change struct{ ID string }
	if err := json.Unmarshal(newest[changed].Record.Extra["change"].Value, &change); err != nil {
		t.Fatal(err)
	}
	rows := func(n int, err error) error {
		if err == nil && n == 0 {
			err = errors.New("nothing is found")
		}
		return err
	}
	deployments := func(f readmodel.RunFilter, p readmodel.Page) func(context.Context) error {
		return func(ctx context.Context) error { got, err := m.Deployments(ctx, big, f, p); return rows(len(got), err) }
	}
	ofBuilds := func(f readmodel.RunFilter) func(context.Context) error {
		return func(ctx context.Context) error { got, err := m.Builds(ctx, big, f, page); return rows(len(got), err) }
	}
	matrix := func(f readmodel.MatrixFilter, limit int) func(context.Context) error {
		return func(ctx context.Context) error {
			got, err := m.Matrix(ctx, big, f, readmodel.Page{Limit: limit})
			return rows(len(got.Items), err)
		}
	}
	changes := func(f readmodel.ChangeFilter) func(context.Context) error {
		return func(ctx context.Context) error {
			got, err := m.Changes(ctx, big, f, page)
			return rows(len(got), err)
		}
	}
	counts := func(p event.ProductID, e event.EnvironmentID) func(context.Context) error {
		return func(ctx context.Context) error {
			got, err := m.CountRuns(ctx, big, p, e)
			return rows(len(got.ByStatus), err)
		}
	}
	versions := func(f readmodel.VersionFilter) func(context.Context) error {
		return func(ctx context.Context) error { got, err := m.Versions(ctx, big, f, page); return rows(len(got), err) }
	}
	production := event.Production
	return map[string]func(context.Context) error{
		"timeline":                       deployments(readmodel.RunFilter{}, page),
		"timeline, next page":            deployments(readmodel.RunFilter{}, readmodel.Page{After: newest[49].Key(), Limit: 50}),
		"timeline, oldest":               deployments(readmodel.RunFilter{Oldest: true}, page),
		"timeline of failures":           deployments(readmodel.RunFilter{Statuses: []event.Status{event.Failed}}, page),
		"timeline of a person":           deployments(readmodel.RunFilter{By: "user-7"}, page),
		"timeline of a change":           deployments(readmodel.RunFilter{Meta: []readmodel.MetaFilter{{Path: []string{"change", "id"}, Value: change.ID}}}, page),
		"timeline of a workflow":         deployments(readmodel.RunFilter{Meta: []readmodel.MetaFilter{{Path: []string{"workflow"}, Value: "deploy"}}}, page),
		"timeline of an environment":     deployments(readmodel.RunFilter{Environment: environment}, page),
		"timeline of a type":             deployments(readmodel.RunFilter{Class: &production}, page),
		"timeline of a source":           deployments(readmodel.RunFilter{Source: "github"}, page),
		"timeline of a mode":             deployments(readmodel.RunFilter{Mode: event.Live}, page),
		"timeline since":                 deployments(readmodel.RunFilter{Since: end.Add(-24 * time.Hour)}, page),
		"timeline of a product":          deployments(readmodel.RunFilter{Product: product}, page),
		"timeline of a cell":             deployments(readmodel.RunFilter{Product: product, Environment: environment}, page),
		"timeline of a version":          deployments(readmodel.RunFilter{Product: run.ProductID, Version: run.Version}, page),
		"a run, found among the newest":  deployments(readmodel.RunFilter{Run: run.Attributes[event.InvokeID]}, readmodel.Page{Limit: 1}),
		"runs, found among the newest":   deployments(readmodel.RunFilter{Runs: []string{run.Attributes[event.InvokeID], "none"}}, readmodel.Page{Limit: 1}),
		"builds":                         ofBuilds(readmodel.RunFilter{}),
		"builds of a version":            ofBuilds(readmodel.RunFilter{Product: build.ProductID, Version: build.Version}),
		"versions":                       versions(readmodel.VersionFilter{}),
		"versions of a product":          versions(readmodel.VersionFilter{Product: product}),
		"matrix":                         matrix(readmodel.MatrixFilter{}, 50),
		"matrix, drift":                  matrix(readmodel.MatrixFilter{DriftOnly: true}, 50),
		"matrix of a product":            matrix(readmodel.MatrixFilter{Product: product}, 50),
		"matrix of an environment":       matrix(readmodel.MatrixFilter{Environments: []string{"staging"}}, 50),
		"matrix at a past moment":        matrix(readmodel.MatrixFilter{At: end.Add(-100 * 24 * time.Hour)}, 10),
		"matrix at a past moment, drift": matrix(readmodel.MatrixFilter{At: end.Add(-100 * 24 * time.Hour), DriftOnly: true}, 10),
		"matrix as known then, drift":    matrix(readmodel.MatrixFilter{KnownAt: end.Add(-100 * 24 * time.Hour), DriftOnly: true}, 10),
		"matrix as known then":           matrix(readmodel.MatrixFilter{KnownAt: end.Add(-100 * 24 * time.Hour)}, 10),
		"matrix at a moment, as known":   matrix(readmodel.MatrixFilter{At: end.Add(-100 * 24 * time.Hour), KnownAt: end.Add(-90 * 24 * time.Hour)}, 10),
		"changes as known then":          changes(readmodel.ChangeFilter{From: end.Add(-60 * 24 * time.Hour), To: end.Add(-50 * 24 * time.Hour), KnownAt: end.Add(-40 * 24 * time.Hour), Product: product}),
		"changes of two moments":         changes(readmodel.ChangeFilter{From: end.Add(-60 * 24 * time.Hour), To: end.Add(-50 * 24 * time.Hour), Product: product}),
		"changes between environments":   changes(readmodel.ChangeFilter{Left: event.EnvironmentIDOf(big, "dev"), Right: environment, Product: product}),
		"counts of a product":            counts(product, event.EnvironmentID{}),
		"counts of an environment":       counts(event.ProductID{}, environment),
		"a deployment":                   func(ctx context.Context) error { _, err := m.Deployment(ctx, big, newest[30].Record.ID); return err },
		"a deployment's events":          func(ctx context.Context) error { _, err := m.History(ctx, big, run.ID); return err },
		"an event":                       func(ctx context.Context) error { _, err := m.Event(ctx, big, history[0].ID); return err },
		"a build":                        func(ctx context.Context) error { _, err := m.Build(ctx, big, build.ID); return err },
		"a version":                      func(ctx context.Context) error { _, err := m.Version(ctx, big, build.VersionID); return err },
		"a product":                      func(ctx context.Context) error { _, err := m.Product(ctx, big, product); return err },
		"an environment":                 func(ctx context.Context) error { _, err := m.Environment(ctx, big, environment); return err },
		"a name":                         func(ctx context.Context) error { _, err := m.ProductNamed(ctx, big, benchProducts[3]); return err },
		"products":                       func(ctx context.Context) error { got, err := m.Products(ctx, big, page); return rows(len(got), err) },
		"environments": func(ctx context.Context) error {
			got, err := m.Environments(ctx, big, nil, page)
			return rows(len(got), err)
		},
		"releases":  func(ctx context.Context) error { got, err := m.Releases(ctx, big, page); return rows(len(got), err) },
		"a release": func(ctx context.Context) error { _, err := m.Release(ctx, big, build.ID); return err },
		"an owner": func(ctx context.Context) error {
			_, err := m.Owner(ctx, readmodel.DeploymentObject, run.ID.String())
			return err
		},
		"first builds": func(ctx context.Context) error {
			_, err := m.FirstBuilds(ctx, big, []event.VersionID{build.VersionID, more.Builds[9].Record.VersionID})
			return err
		},
		"is anything newer": func(ctx context.Context) error {
			_, err := m.Newer(ctx, big, "t0", history[0].Position.Offset)
			return err
		},
		"progress": func(ctx context.Context) error { _, err := m.AsOf(ctx); return err },
		"a cell's deployments": func(ctx context.Context) error {
			return m.CellRuns(ctx, big, readmodel.CellFilter{Product: product, Environment: environment}, func(*readmodel.Cells) error { return nil })
		},
		"a cell's history": func(ctx context.Context) error {
			got, err := m.Stays(ctx, big, readmodel.StayFilter{Product: product, Environment: environment}, page)
			return rows(len(got), err)
		},
		"events of a day by credential": func(ctx context.Context) error {
			_, err := m.EventsByDay(ctx, big, event.Live, end.AddDate(0, 0, -1), end)
			return err
		},
	}
}

func overTheLimit(t *testing.T, m *chmodel.Model, cfg chmodel.Config) {
	t.Helper()
	for what, limit := range map[string]func(*chmodel.Config){
		"memory": func(c *chmodel.Config) { c.MaxQueryMemory = 1 },
		"time":   func(c *chmodel.Config) { c.MaxQueryTime = time.Millisecond },
	} {
		limited := cfg
		limit(&limited)
		narrow, err := chmodel.Open(t.Context(), limited, logger(t))
		if err != nil {
			t.Fatal(err)
		}
		defer narrow.Close()
		err = narrow.CellRuns(t.Context(), big, readmodel.CellFilter{}, func(*readmodel.Cells) error { return nil })
		var f *fault.Error
		if !errors.As(err, &f) || f.Kind != fault.Unavailable || f.Code != "QUERY_TOO_EXPENSIVE" {
			t.Errorf("over the limit of %s: %v", what, err)
		}
	}
	if _, err := m.Deployments(t.Context(), big, readmodel.RunFilter{}, readmodel.Page{Limit: 50}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
