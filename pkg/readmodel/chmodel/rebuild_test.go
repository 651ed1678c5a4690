package chmodel_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/pkg/replay"
)

// fewRows gives rows of every table, of two accounts.
func fewRows() *readmodel.Rows {
	rows := &readmodel.Rows{}
	offset := event.Offset(1 << 10)
	next := func() event.Position { offset++; return event.Position{Stream: "t0", Offset: offset} }
	for _, account := range []string{"acme", "other"} {
		product, environment := event.ProductIDOf(account, "shop"), event.EnvironmentIDOf(account, "prod")
		rows.Products = append(rows.Products, readmodel.ProductRow{Product: event.Product{ID: product, Name: "shop", Incarnation: 1, CreatedAt: epoch}, Account: account, Position: next()})
		rows.Environments = append(rows.Environments, readmodel.EnvironmentRow{Environment: event.Environment{ID: environment, Name: "prod", Incarnation: 1, CreatedAt: epoch}, Account: account, Position: next()})
		rows.Versions = append(rows.Versions, readmodel.VersionRow{Version: event.Version{ID: event.VersionID(product), ProductID: product, Version: "1.0", Incarnation: 1, CreatedAt: epoch}, Account: account, Position: next()})
		rows.Names = append(rows.Names, readmodel.NameRow{Account: account, Object: readmodel.ProductObject, Name: "store", ID: [16]byte(product), Position: next()})
		rows.Releases = append(rows.Releases, readmodel.ReleaseRow{
			Release: event.Release{ID: ulid.MustNew(1, nil), Name: "spring", Status: "draft", CreatedAt: epoch}, Account: account, Position: next(),
		})
		for i := range 5 {
			at, p := epoch.Add(time.Duration(i)*time.Minute), next()
			rec := event.Record{
				ID: ulid.MustNew(uint64(at.UnixMilli()), nil), Account: account, ProductID: product, EnvironmentID: environment, ProductName: "shop", EnvironmentName: "prod",
				ProductIncarnation: 1, EnvironmentIncarnation: 1, Version: fmt.Sprintf("1.%d", i), Kind: event.Deployment, Status: event.Completed, CreatedAt: at, StartedAt: at, CompletedAt: at,
			}
			rows.Deployments = append(rows.Deployments, readmodel.RunRow{Record: rec, Position: p})
			rows.Cells = append(rows.Cells, readmodel.Cell{Record: rec, EffectiveAt: at, ReceivedAt: at, Position: p})
			rows.Events = append(rows.Events, readmodel.EventRow{Account: account, Position: p, ID: rec.ID, Type: "deployment.completed", Subject: rec.ID.String(), ReceivedAt: at, EffectiveAt: at})
			rec.Status = event.Failed
			rows.Attempts = append(rows.Attempts, readmodel.Attempt{Record: rec, At: at, ReceivedAt: at, Position: next()})
			rec.Kind = event.Build
			rows.Builds = append(rows.Builds, readmodel.RunRow{Record: rec, Position: p})
		}
	}
	return rows
}

func execute(t *testing.T, srv *chserver.Server, m *chmodel.Model, statement string) {
	t.Helper()
	auth := srv.Auth()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Auth: clickhouse.Auth{Username: auth.User, Password: auth.Password, Database: m.Database()}, DialContext: srv.DialContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func(c driver.Conn) { _ = c.Close() }(conn)
	if err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// twice gives a model whose versions 1 and 2 hold the same rows, stored in
// other portions.
func twice(t *testing.T, srv *chserver.Server) *chmodel.Model {
	t.Helper()
	m, w := open(t, srv)
	if err := m.EnsureVersion(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	second := m.Writer(2)
	t.Cleanup(func() { _ = second.Close() })
	rows := fewRows()
	for _, sink := range []readmodel.Sink{w, second, second} { // again changes nothing
		if err := sink.Store(t.Context(), rows, readmodel.Progress{Stream: "t0", Offset: 99 << 10, Time: epoch}); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func compare(t *testing.T, m *chmodel.Model, part replay.Part) replay.Findings {
	t.Helper()
	for _, version := range []uint32{1, 2} {
		began := time.Now()
		if err := m.Clone(t.Context(), version); err != nil {
			t.Fatal(err)
		}
		t.Logf("version %d is cloned in %s", version, time.Since(began).Round(time.Millisecond))
	}
	f, err := m.Compare(t.Context(), replay.Comparison{ReplayID: "r", To: "t0.99.0", Old: 1, New: 2, Part: part})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DropClones(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestVersionsOfTheSameRowsAreEqual(t *testing.T) {
	m := twice(t, chservertest.Start(t))
	for _, part := range []replay.Part{{}, {Account: "acme"}, {From: event.Position{Stream: "t0", Offset: 1<<10 + 15}}} {
		f := compare(t, m, part)
		if !f.Equal() || f.First != nil || f.Cells != 0 {
			t.Errorf("%+v: %+v", part, f)
		}
		want := uint64(10)
		if part.Check() {
			want = 5
		}
		if part.From.Offset == 0 && (f.Events != want || f.Deployments != want) {
			t.Errorf("%+v: %d events, %d deployments", part, f.Events, f.Deployments)
		}
		for _, table := range f.Tables {
			if table.Rows == 0 || table.HashOld == "00000000000000000000000000000000" {
				t.Errorf("%+v: nothing of %s was compared: %+v", part, table.Name, table)
			}
		}
	}
	if err := m.DropVersion(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	versions, err := m.TableVersions(t.Context())
	if diff := cmp.Diff([]uint32{1}, versions); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// One column of one row, in each table in turn.
func TestADefectOfOneColumnOfOneRowIsFoundInEachTable(t *testing.T) {
	srv := chservertest.Start(t)
	m := twice(t, srv)
	for _, d := range []struct{ table, key, column, wrong, shown string }{
		{"events", "pos", "flag", "'odd'", "flag"},
		{"deployments", "id", "source_system", "'mallory'", "source_system"},
		{"dep_by_env", "id", "status", "'aborted'", "status"},
		{"builds", "id", "rest", "concat(substring(rest, 1, 1), char(1), substring(rest, 3))", "sha_mismatch"},
		{"cells", "pos", "rest", "concat(substring(rest, 1, 1), char(bitXor(ascii(substring(rest, 2, 1)), 2)), substring(rest, 3))", "sha_mismatch"},
		{"current", "pos", "version", "'9.9'", "version"},
		{"past_attempts", "pos", "rest", "concat(substring(rest, 1, 1), char(bitXor(ascii(substring(rest, 2, 1)), 2)), substring(rest, 3))", "sha_mismatch"},
		{"attempts", "pos", "rest", "concat(substring(rest, 1, 1), char(bitXor(ascii(substring(rest, 2, 1)), 2)), substring(rest, 3))", "sha_mismatch"},
		{"cell_periods", "pos", "version", "'9.9'", "version"},
		{"products", "id", "name", "'ship'", "name"},
		{"environments", "id", "class", "'production'", "class"},
		{"versions", "id", "sha_fixed", "true", "sha_fixed"},
		{"releases", "id", "status", "'completed'", "status"},
		{"names", "name", "id", "toUUID('01900000-0000-0000-0000-000000000000')", "id"},
	} {
		t.Run(d.table, func(t *testing.T) {
			pick := fmt.Sprintf(" FROM %s_v1 FINAL WHERE account = 'other' ORDER BY %s DESC LIMIT 1", d.table, d.key)
			execute(t, srv, m, fmt.Sprintf("INSERT INTO %s_v2 SELECT * REPLACE (%s AS %s)%s", d.table, d.wrong, d.column, pick))
			f := compare(t, m, replay.Part{})
			// Heal it: of rows with the same version the last one counts.
			defer execute(t, srv, m, fmt.Sprintf("INSERT INTO %s_v2 SETTINGS insert_deduplicate = 0 SELECT *%s", d.table, pick))
			if f.Equal() || f.First == nil {
				t.Fatalf("it is not found: %+v", f)
			}
			if f.First.Table != d.table || f.First.Account != "other" || !slices.Equal(f.First.Columns, []string{d.shown}) {
				t.Errorf("%+v", f.First)
			}
			if f.First.Event == nil && (d.table == "events" || d.table == "deployments") {
				t.Errorf("the event behind the row is not named: %+v", f.First)
			}
			for _, table := range f.Tables {
				want := replay.Table{Name: table.Name, Rows: table.Rows, HashOld: table.HashOld, HashNew: table.HashNew}
				if table.Name == d.table {
					want.Changed, want.Accounts = 1, []string{"other"}
				}
				if diff := cmp.Diff(want, table); diff != "" {
					t.Error(diff)
				}
			}
			wantCells := 0
			if d.table == "current" {
				wantCells = 1
			}
			cells, err := m.ChangedCells(t.Context(), "other", "r", "t0.99.0", 0, 10)
			if err != nil || len(cells) != wantCells || f.Cells != uint64(wantCells) {
				t.Errorf("%d cells: %+v, %v", f.Cells, cells, err)
			}
			if wantCells == 1 && (cells[0].ProductName != "shop" || cells[0].From.Version != "1.4" || cells[0].To.Version != "9.9") {
				t.Errorf("%+v", cells)
			}
			execute(t, srv, m, "TRUNCATE TABLE replay_cells")
		})
	}
	if f := compare(t, m, replay.Part{}); !f.Equal() {
		t.Errorf("healed, it differs: %+v", f.First)
	}
}

func TestRowsThatAreMissingOrTooManyAreCounted(t *testing.T) {
	srv := chservertest.Start(t)
	m := twice(t, srv)
	execute(t, srv, m, "INSERT INTO builds_v2 SELECT * REPLACE (unhex('01900000000000000000000000000000') AS id) FROM builds_v1 LIMIT 1")
	execute(t, srv, m, "ALTER TABLE deployments_v2 DELETE WHERE account = 'acme' AND version = '1.3' SETTINGS mutations_sync = 1")
	f := compare(t, m, replay.Part{})
	for _, table := range f.Tables {
		switch {
		case table.Name == "builds" && (table.Added != 1 || table.Removed != 0):
			t.Errorf("%+v", table)
		case table.Name == "deployments" && (table.Added != 0 || table.Removed != 1):
			t.Errorf("%+v", table)
		}
	}
	if f.First == nil || f.First.Table != "deployments" || f.First.Old == nil || f.First.New != nil || f.First.Event == nil {
		t.Errorf("%+v", f.First)
	}
}

// Whatever is added bit by bit, and whether parts are merged beside it or later.
func TestBatchesStoreWhatOneStoreOfTheirRowsDoes(t *testing.T) {
	srv := chservertest.Start(t)
	m, w := open(t, srv)
	if err := w.Store(t.Context(), fewRows(), readmodel.Progress{}); err != nil {
		t.Fatal(err)
	}
	if err := m.EnsureVersion(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for range 2 { // doing it again changes nothing
		if err := m.DeferMerges(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
	}
	second := m.Writer(2)
	t.Cleanup(func() { _ = second.Close() })
	all := fewRows()
	const portions, events = 24, 10 // no two events in one portion
	first, end := all.Products[0].Position.Offset, all.Attempts[len(all.Attempts)-1].Position.Offset+1
	batches := [2]readmodel.Batch{second.Batch(), second.Batch()}
	for n := range portions {
		b := batches[n%2]
		for from := first + event.Offset(n); from < end; from += portions {
			rows := all.Between(from, from+1)
			b.Add(&rows)
		}
		if n == 0 { // what another one stores is nobody else's business
			if err := batches[1].Store(t.Context(), readmodel.Progress{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Store(t.Context(), readmodel.Progress{Stream: "t0", Offset: end}); err != nil {
			t.Fatal(err)
		}
	}
	apart, err := m.Parts(t.Context(), 2)
	if err != nil || apart < events {
		t.Errorf("%d parts, %v; want %d at least, for merges are put off", apart, err, events)
	}
	if f := compare(t, m, replay.Part{}); !f.Equal() || f.Events != events {
		t.Errorf("%+v", f)
	}
	if err := m.AllowMerges(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(hang); ; <-poll.C { // until the engine gets to it
		parts, err := m.Parts(t.Context(), 2)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%d parts, %v: nothing is merged", parts, err)
		}
		if parts < apart {
			break
		}
	}
	if f := compare(t, m, replay.Part{}); !f.Equal() || f.Events != events {
		t.Errorf("%+v", f)
	}
}
