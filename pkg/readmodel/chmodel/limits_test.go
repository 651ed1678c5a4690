package chmodel_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

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
	var rows readmodel.Rows
	for left := 2 * deployments; left > 0; {
		n := min(left, 50_000)
		left -= n
		if err := w.Store(tb.Context(), &rows, l.fill(&rows, n)); err != nil {
			tb.Fatal(err)
		}
	}
}

// No question for a page reads a whole account: rows read are those that the
// server says it read, of all statements of the question. It reads whole
// granules of every part, 256 or 1024 rows each, so that a page of 50 rows that
// lie apart may read 50 granules; that does not grow with the account.
func TestAPageIsReadWithoutReadingTheAccount(t *testing.T) {
	const deployments = 200_000 // half of them of the big account
	srv := chservertest.Start(t)
	end := time.Now()
	var cfg chmodel.Config
	m, w := open(t, srv, func(c *chmodel.Config) { c.QueryTimeout = time.Minute; cfg = *c })
	l := newLedger(deployments, end)
	store(t, w, l, deployments)
	t.Run("over a limit", func(t *testing.T) { overTheLimit(t, m, cfg) })

	page := readmodel.Page{Limit: 50}
	product, environment := event.ProductIDOf(big, benchProducts[3]), event.EnvironmentIDOf(big, benchEnvironments[3])
	newest, err := m.Deployments(t.Context(), big, readmodel.RunFilter{}, page)
	if err != nil || len(newest) != 50 {
		t.Fatal(len(newest), err)
	}
	last := newest[49].Key()
	run := newest[20].Record.Attributes[event.InvokeID]
	runs := func(f readmodel.RunFilter, p readmodel.Page, want int) func(context.Context) error {
		return func(ctx context.Context) error {
			rows, err := m.Deployments(ctx, big, f, p)
			if err == nil && len(rows) != want {
				err = fmt.Errorf("%d rows", len(rows))
			}
			return err
		}
	}
	matrix := func(f readmodel.MatrixFilter) func(context.Context) error {
		return func(ctx context.Context) error { _, err := m.Matrix(ctx, big, f, page); return err }
	}
	half := end.Add(-180 * 24 * time.Hour)
	const account = deployments / 2
	for _, q := range []struct {
		name string
		most uint64 // rows read
		ask  func(context.Context) error
	}{
		{"timeline", account / 10, runs(readmodel.RunFilter{}, page, 50)},
		{"timeline, next page", account / 10, runs(readmodel.RunFilter{}, readmodel.Page{After: last, Limit: 50}, 50)},
		{"timeline, oldest", account / 3, runs(readmodel.RunFilter{Oldest: true}, page, 50)},
		{"timeline of failures", account / 5, runs(readmodel.RunFilter{Statuses: []event.Status{event.Failed}}, page, 50)},
		{"timeline of a person", account / 5, runs(readmodel.RunFilter{By: "user-7"}, page, 50)},
		{"timeline of an environment", account / 2, runs(readmodel.RunFilter{Environment: environment}, page, 50)},
		{"timeline of a cell", account * 2 / 3, runs(readmodel.RunFilter{Product: product, Environment: environment}, page, 50)},
		{"a run, found among the newest", account / 10, runs(readmodel.RunFilter{Run: run}, readmodel.Page{Limit: 1}, 1)},
		{"a deployment", account / 10, func(ctx context.Context) error { _, err := m.Deployment(ctx, big, newest[30].Record.ID); return err }},
		{"a cell's deployments", account / 10, func(ctx context.Context) error {
			return m.CellRuns(ctx, big, readmodel.CellFilter{Product: product, Environment: environment}, func(*readmodel.Cells) error { return nil })
		}},
		{"a cell's history", account / 10, func(ctx context.Context) error {
			_, err := m.Stays(ctx, big, readmodel.StayFilter{Product: product, Environment: environment}, page)
			return err
		}},
		{"events of a month by credential", account / 3, func(ctx context.Context) error {
			_, err := m.EventsByDay(ctx, big, event.Live, end.AddDate(0, -1, 0), end)
			return err
		}},
		{"matrix", account / 5, matrix(readmodel.MatrixFilter{})},
		{"matrix of a product", account / 5, matrix(readmodel.MatrixFilter{Product: product})},
		{"matrix of an environment", account / 5, matrix(readmodel.MatrixFilter{Environments: []string{"staging"}})},
	} {
		var read atomic.Uint64
		ctx := clickhouse.Context(t.Context(), clickhouse.WithProgress(func(p *clickhouse.Progress) { read.Add(p.Rows) }))
		if err := q.ask(ctx); err != nil {
			t.Errorf("%s: %v", q.name, err)
		}
		t.Logf("%s read %d rows", q.name, read.Load())
		if n := read.Load(); n == 0 || n > q.most {
			t.Errorf("%s read %d rows of an account of %d deployments, want 1 to %d", q.name, n, account, q.most)
		}
	}
	var read atomic.Uint64
	ctx := clickhouse.Context(t.Context(), clickhouse.WithProgress(func(p *clickhouse.Progress) { read.Add(p.Rows) }))
	if _, err := m.Matrix(ctx, big, readmodel.MatrixFilter{At: half}, readmodel.Page{Limit: 10}); err != nil {
		t.Fatal(err)
	}
	t.Logf("a page of the past matrix read %d rows", read.Load())
	if n := read.Load(); n > account {
		t.Errorf("a page of the past matrix read %d rows of an account of %d deployments", n, account)
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
