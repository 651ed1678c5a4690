package chmodel_test

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// way is how the engine finds the rows of a statement in a table.
type way struct {
	keys  string // columns of the key that it must use, at least
	skips bool   // by an index beside the key, so that few granules are left
	all   bool   // what the account has in it is the question, or the table is as small as its names
}

const (
	byAccount = "account"
	byID      = "account id"
	byCell    = "account product_id environment_id"
)

// plans are the ways of every statement that reads, by table. Where not all is
// read, it is a quarter of the granules of the table at most, of which the account
// has half.
var plans = map[string]map[string]way{
	"find about where runs are": { // in the order of the key, and stops
		"deployments": {keys: byID, all: true}, "builds": {keys: byID, all: true},
	},
	"find the first run":                  {"deployments": {keys: byAccount, all: true}},
	"find the next run":                   {"deployments": {keys: byID, all: true}},
	"find runs":                           {"deployments": {keys: byID}, "builds": {keys: byID}, "dep_by_env": {keys: "account environment_id"}, "environments": names, "products": names},
	"read a page of runs":                 {"deployments": {keys: byID, skips: true}, "builds": {keys: byID, skips: true}, "dep_by_env": {keys: "account environment_id product_id"}},
	"read runs that an index finds":       {"deployments": {keys: byID}, "builds": {keys: byID}},
	"read runs":                           {"deployments": {keys: byID}, "builds": {keys: byID}},
	"read deployments by cell":            {"dep_by_env": {keys: "account environment_id product_id"}},
	"count deployments":                   {"dep_by_env": {keys: "account environment_id"}, "products": names, "environments": names},
	"read the history of a run":           {"events": {keys: byAccount, skips: true}},
	"read an event":                       {"events": {keys: byAccount, skips: true}},
	"read events":                         {"events": {keys: "account stream pos", all: true}}, // in the order of the key, and stops
	"read the products of an account":     {"products": names},
	"read the environments of an account": {"environments": names},
	"read the cells of an account":        {"current": {keys: byAccount, all: true}},
	"read the attempts of an account":     {"attempts": {keys: byAccount, all: true}},
	"count the cells of an account":       {"current": {keys: byAccount, all: true}, "attempts": {keys: byAccount, all: true}},
	"read what names mean":                {"names": names},
	"read newer products":                 {"products": names},
	"read newer environments":             {"environments": names},
	"read newer cells":                    {"current": {keys: byAccount, all: true}},
	"read newer attempts":                 {"attempts": {keys: byAccount, all: true}},
	"look for newer events":               {"events": {keys: "account stream pos"}},
	"count events by day":                 {"events": {keys: byAccount, skips: true}},
	"sum up events":                       {"events": {keys: byAccount, all: true}},
	"count events":                        {"events": {keys: "account stream pos", all: true}, "quarantine": {all: true}},
	"find first builds":                   {"builds": {keys: byAccount, skips: true}, "products": names},
	"count builds":                        {"builds": {keys: byAccount, skips: true}},
	"find versions":                       {"versions": {keys: byAccount, all: true}, "products": names},
	"read versions":                       {"versions": {keys: byAccount + " product_id"}},
	"read a version":                      {"versions": {keys: byAccount}},
	"read products":                       {"products": names},
	"read environments":                   {"environments": names},
	"read a product":                      {"products": {keys: byID}},
	"read an environment":                 {"environments": {keys: byID}},
	"read names of products":              {"products": {keys: byID, all: true}},
	"read names of environments":          {"environments": {keys: byID, all: true}},
	"read what a name means":              {"names": names},
	"read releases":                       {"releases": names},
	"read a release":                      {"releases": {keys: byID}},
	"read the matrix: environments":       {"environments": names},
	"read the matrix: products":           {"products": names, "current": {keys: byAccount, all: true}, "environments": names},
	"read the matrix: cells":              {"current": {keys: byAccount + " product_id", all: true}, "cells": {keys: byAccount + " product_id", all: true}},
	"read the matrix: attempts":           {"attempts": {keys: byAccount + " product_id", all: true}, "past_attempts": {keys: byAccount + " product_id", all: true}},
	"count cells":                         {"current": {keys: byAccount + " product_id", all: true}, "attempts": {keys: byAccount + " product_id", all: true}},
	"find the cells":                      {"current": {keys: byAccount + " product_id"}, "attempts": {keys: byAccount + " product_id"}},
	"find what was lately":                {"cells": {keys: "account period product_id"}, "past_attempts": {keys: "account period product_id"}, "cell_periods": {keys: "account period succeeded product_id"}},
	"find what has not changed":           {"current": {keys: byAccount + " product_id"}, "attempts": {keys: byAccount + " product_id"}},
	"find what was before":                {"cell_periods": {keys: "account period succeeded product_id"}},
	"find what was known lately":          {"cells": {keys: "account period product_id", skips: true}},
	"find what was known to be tried":     {"past_attempts": {keys: "account period product_id", skips: true}},
	"find what was known before":          {"cells": {keys: "account period product_id", skips: true}, "past_attempts": {keys: "account period product_id", skips: true}},
	"read the history of a cell":          {"cells": {keys: byCell + " inc"}},
	"find the owner of an object":         {"deployments": {skips: true}}, // of any account
	"read progress":                       {"checkpoint": {all: true}},    // a row of each stream and version
	"read the active version":             {"active_version": {all: true}},
}

// names is the way to what an account calls things, which is few.
var names = way{keys: byAccount, all: true}

// apart are statements that no question leads to here.
var apart = map[string]string{
	"read the quarantine":              "a writer's, of what was set aside",
	"count what is set aside":          "a rebuild's",
	"count parts":                      "a rebuild's",
	"count the differing rows of ":     "a rebuild's, of whole tables",
	"count the preview":                "a rebuild's",
	"list changed cells":               "a rebuild's",
	"list tables":                      "a rebuild's",
	"read the columns of ":             "a rebuild's",
	"read the event behind a row":      "a rebuild's",
	"read the first differing row of ": "a rebuild's",
	"read the key of ":                 "a rebuild's",
	"see whether tables can be cloned": "a rebuild's",
	"sum up the hashes of ":            "a rebuild's, of whole tables",
}

// takesAll are questions for which a page takes all of so small an account: one run in fifty
// is that person's, and of what was known the periods hold a granule or two in each part.
// TestAPageIsReadWithoutReadingTheAccount asks them of a larger one.
var takesAll = map[string]bool{
	"timeline of a person": true, "matrix as known then": true, "matrix as known then, drift": true, "matrix at a moment, as known": true,
}

// Every statement that reads is asked here, on tables as they are stored and not
// merged, and finds its way by the key of each table, as plans says. No question
// for a page reads more than two thirds of so small an account, unless it is about a history of its own.
func TestEveryStatementFindsItsWayByTheKey(t *testing.T) {
	const deployments, portions = 60_000, 4 // half of them of the big account
	srv := chservertest.Start(t)
	end := epoch
	clock := end
	var cfg chmodel.Config
	m, w := open(t, srv, func(c *chmodel.Config) {
		c.Now = func() time.Time { return clock }
		cfg = *c
		c.HotBytes = -1 // no question is spared by another one
	})
	warm, err := chmodel.Open(t.Context(), cfg, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer warm.Close()
	l := newLedger(deployments, end)
	store(t, w, l, 0)
	for range portions {
		fill(t, w, l, deployments/portions)
	}
	var mu sync.Mutex
	asked := map[string][]chmodel.Statement{}
	rows := uint64(0)
	note := func(s chmodel.Statement) {
		mu.Lock()
		defer mu.Unlock()
		rows += s.Rows
		asked[s.Doing] = append(asked[s.Doing], s)
	}
	chmodel.Watch(m, note)
	chmodel.Watch(warm, note)
	for name, ask := range questions(t, m, w, builds(0, 5_000, end), end) {
		rows = 0
		if err := ask(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %d rows", name, rows)
		if !ownHistory[name] && !takesAll[name] && rows > deployments/2*2/3 {
			t.Errorf("%s: %d rows read of an account of %d deployments", name, rows, deployments/2)
		}
	}
	clock = end.AddDate(1, 0, 0) // long after the last run
	askTheRest(t, m, w, end)
	askAgain(t, warm, w, l)

	source := doings(t)
	for _, doing := range source {
		if len(asked[doing]) == 0 && apart[doing] == "" {
			t.Errorf("no question leads to %q", doing)
		}
		if plans[doing] == nil && apart[doing] == "" {
			t.Errorf("nothing is said of the plan of %q", doing)
		}
	}
	for doing := range plans {
		if !slices.Contains(source, doing) {
			t.Errorf("%q is no longer asked", doing)
		}
	}
	conn := connectTo(t, srv, m)
	for _, doing := range slices.Sorted(maps.Keys(asked)) {
		if plans[doing] == nil {
			continue
		}
		seen := map[string]bool{}
		for _, s := range asked[doing] {
			if !seen[s.SQL] {
				seen[s.SQL] = true
				for _, r := range explain(t, conn, s) {
					holds(t, s, r)
				}
			}
		}
	}
}

// holds compares how a statement reads a table with what plans says.
func holds(t *testing.T, s chmodel.Statement, r tableRead) {
	t.Helper()
	want, ok := plans[s.Doing][r.table]
	if !ok {
		t.Errorf("%s: nothing is said of %s\n%s", s.Doing, r.table, s.SQL)
		return
	}
	for column := range strings.FieldsSeq(want.keys) {
		if !slices.Contains(r.keys, column) {
			t.Errorf("%s: finds its way in %s by %v, not by %s\n%s", s.Doing, r.table, r.keys, column, s.SQL)
		}
	}
	if want.skips && !r.skips {
		t.Errorf("%s: no index of %s is used\n%s", s.Doing, r.table, s.SQL)
	}
	const few = 30 // in each of five parts a granule of each environment
	if !want.all && r.selected > max(few, r.initial/4) {
		t.Errorf("%s: reads %d of %d granules of %s\n%s", s.Doing, r.selected, r.initial, r.table, s.SQL)
	}
}

// askTheRest asks what a page of the big account does not lead to.
func askTheRest(t *testing.T, m *chmodel.Model, w *chmodel.Writer, end time.Time) {
	t.Helper()
	const wide = "wide" // with more cells on a page than there is room for
	var rows readmodel.Rows
	for i := range 300 {
		name := "n" + strconv.Itoa(i)
		rows.Environments = append(rows.Environments, readmodel.EnvironmentRow{Account: wide, Environment: event.Environment{ID: event.EnvironmentIDOf(wide, name), Name: name}})
		rows.Products = append(rows.Products, readmodel.ProductRow{Account: wide, Product: event.Product{ID: event.ProductIDOf(wide, name), Name: name}})
	}
	if err := w.Store(t.Context(), &rows, readmodel.Progress{}); err != nil {
		t.Fatal(err)
	}
	product, environment := event.ProductIDOf(big, benchProducts[3]), event.EnvironmentIDOf(big, benchEnvironments[3])
	failed := []event.Status{event.Failed}
	page := readmodel.Page{Limit: 50}
	for name, ask := range map[string]func(context.Context) error{
		"failures, oldest first": func(ctx context.Context) error {
			_, err := m.Deployments(ctx, big, readmodel.RunFilter{Statuses: failed, Oldest: true}, page)
			return err
		},
		"failures, after a year without any": func(ctx context.Context) error {
			_, err := m.Deployments(ctx, big, readmodel.RunFilter{Statuses: failed, Mode: event.Live}, page)
			return err
		},
		"changes as known then": func(ctx context.Context) error {
			f := readmodel.ChangeFilter{From: end.AddDate(0, -2, 0), To: end.AddDate(0, -1, 0), KnownAt: end.AddDate(0, -1, 0), Product: product}
			_, err := m.Changes(ctx, big, f, page)
			return err
		},
		"the matrix as known then": func(ctx context.Context) error {
			_, err := m.Matrix(ctx, big, readmodel.MatrixFilter{KnownAt: end.AddDate(0, -1, 0), Product: product, Environment: environment}, page)
			return err
		},
		"a wide matrix": func(ctx context.Context) error {
			_, err := m.Matrix(ctx, wide, readmodel.MatrixFilter{}, readmodel.Page{Limit: 300})
			return err
		},
		"events": func(ctx context.Context) error {
			_, err := m.Events(ctx, big, readmodel.EventFilter{}, readmodel.Spans{"t0": {UpTo: 1 << 60}}, true, 50)
			return err
		},
		"a sum of events": func(ctx context.Context) error {
			_, err := m.Writes(ctx, big, readmodel.EventFilter{Credential: "k1"}, 50)
			return err
		},
		"the balance": func(ctx context.Context) error { _, _, err := m.EventCounts(ctx, big, "t0"); return err },
		"the version": m.Refresh,
		"no owner": func(ctx context.Context) error {
			if _, err := m.Owner(ctx, readmodel.DeploymentObject, ulid.ULID{1}.String()); !errors.Is(err, readmodel.ErrNotFound) {
				return err
			}
			return nil
		},
	} {
		if err := ask(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// askAgain asks what is kept in memory, before and after there is news.
func askAgain(t *testing.T, m *chmodel.Model, w *chmodel.Writer, l *ledger) {
	t.Helper()
	var rows readmodel.Rows
	for range 3 {
		if _, err := m.AsOf(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, asMatrix := m.Matrix(t.Context(), big, readmodel.MatrixFilter{}, readmodel.Page{Limit: 50})
			_, asName := m.ProductNamed(t.Context(), big, benchProducts[3])
			if err := errors.Join(asMatrix, asName); err != nil {
				t.Fatal(err)
			}
		}
		upTo := l.fill(&rows, 8)
		upTo.Offset++
		rows.Events = append(rows.Events, readmodel.EventRow{
			Account: big, Position: event.Position{Stream: upTo.Stream, Offset: upTo.Offset}, ID: ulid.ULID{2}, Type: event.ProductUpdated, ReceivedAt: upTo.Time, EffectiveAt: upTo.Time,
		})
		l.offset = upTo.Offset
		if err := w.Store(t.Context(), &rows, upTo); err != nil {
			t.Fatal(err)
		}
	}
}

// doings are what the statements of the package are for, as its source says.
func doings(t *testing.T) []string {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && asks[called(call.Fun)] {
				if doing, ok := firstText(call.Args); ok {
					found[doing] = true
				}
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(found))
}

// asks are the functions that are told what a statement is for.
var asks = map[string]bool{"ask": true, "askOn": true, "list": true, "one": true, "read": true, "successes": true, "attempts": true}

func called(f ast.Expr) string {
	switch f := f.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// firstText gives the first argument that is a text, or begins with one.
func firstText(args []ast.Expr) (string, bool) {
	for _, arg := range args {
		if sum, ok := arg.(*ast.BinaryExpr); ok {
			arg = sum.X
		}
		if text, ok := arg.(*ast.BasicLit); ok && text.Kind == token.STRING {
			s, err := strconv.Unquote(text.Value)
			return s, err == nil
		}
	}
	return "", false
}

// tableRead is how a plan reads a table.
type tableRead struct {
	table             string
	keys              []string // columns of the key that it finds its way by
	skips             bool     // an index beside the key is looked at
	selected, initial int      // granules
}

// planNode is a node of EXPLAIN.
type planNode struct {
	Type        string     `json:"Node Type"`
	Description string     `json:"Description"`
	Plans       []planNode `json:"Plans"`
	Indexes     []struct {
		Type     string   `json:"Type"`
		Keys     []string `json:"Keys"`
		Initial  int      `json:"Initial Granules"`
		Selected int      `json:"Selected Granules"`
	} `json:"Indexes"`
}

func (n *planNode) reads() (out []tableRead) {
	if n.Type == "ReadFromMergeTree" {
		r := tableRead{table: versioned.FindStringSubmatch(n.Description)[1]}
		for i, x := range n.Indexes {
			if i == 0 {
				r.initial = x.Initial
			}
			r.selected = x.Selected
			if x.Type == "PrimaryKey" {
				r.keys = append(r.keys, x.Keys...)
			}
			r.skips = r.skips || x.Type == "Skip"
		}
		out = append(out, r)
	}
	for i := range n.Plans {
		out = append(out, n.Plans[i].reads()...)
	}
	return out
}

var versioned = regexp.MustCompile(`^(?:.*\.)?(\w+?)(?:_v\d+)?$`)

func explain(t *testing.T, conn driver.Conn, s chmodel.Statement) []tableRead {
	t.Helper()
	rows, err := conn.Query(t.Context(), "EXPLAIN indexes = 1, json = 1 "+s.SQL, s.Args...)
	if err != nil {
		t.Fatalf("%s: %v", s.Doing, err)
	}
	defer rows.Close()
	var text strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		text.WriteString(line + "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", s.Doing, err)
	}
	var plan []struct {
		Plan planNode `json:"Plan"`
	}
	if err := json.Unmarshal([]byte(text.String()), &plan); err != nil || len(plan) != 1 {
		t.Fatalf("%s: %v in %s", s.Doing, err, text.String())
	}
	return plan[0].Plan.reads()
}

func connectTo(t testing.TB, srv *chserver.Server, m *chmodel.Model) driver.Conn {
	t.Helper()
	auth := srv.Auth()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Auth: clickhouse.Auth{Username: auth.User, Password: auth.Password, Database: m.Database()}, DialContext: srv.DialContext, ReadTimeout: hang,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
