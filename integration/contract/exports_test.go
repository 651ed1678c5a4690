package contract_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

var exports = []string{"/exports/deployments", "/exports/builds", "/exports/events", "/exports/cells"}

// lines reads NDJSON.
func (a answer) rows() []map[string]any {
	a.t.Helper()
	var out []map[string]any
	for line := range bytes.Lines(a.raw) {
		var row map[string]any
		if err := json.Unmarshal(line, &row); err != nil {
			a.t.Fatalf("%s: %v: %s", a.of, err, line)
		}
		out = append(out, row)
	}
	return out
}

func column(rows []map[string]any, name string) []string {
	out := []string{}
	for _, row := range rows {
		s, _ := row[name].(string)
		out = append(out, s)
	}
	return out
}

// columns are those that the document publishes.
func columns(t *testing.T, l *ledger, path string) []string {
	t.Helper()
	doc := l.send(http.MethodGet, "/openapi.json", "", as("")).is(200).parsed().(map[string]any)
	var out []string
	for _, c := range at(doc["paths"].(map[string]any)[path], "get.x-shipledger-columns").([]any) {
		out = append(out, c.(string))
	}
	return out
}

func TestExportHoldsWhatTheListShows(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for i := range 3 {
			run := body{"version": fmt.Sprint(i), "invoke_id": fmt.Sprint(i), "extra_metadata": body{"team": "red"}}
			l.deployed(l.deployment("success", run))
			l.built(l.build("failed", run, body{"error_message": "=cmd|' /C calc'!A0"}))
		}
		for list, export := range map[string]string{"/deployments/": exports[0], "/builds/": exports[1]} {
			want := l.read(where(list, "product", l.product))
			a := l.read(where(export, "product", l.product))
			differ(t, "type", "application/x-ndjson", a.header.Get("Content-Type"))
			rows := a.rows()
			differ(t, export, want.each("items", "id"), column(rows, "id"))
			for i, item := range want.list("items") {
				for name, value := range rows[i] {
					differ(t, export+" "+name, at(item, name), value)
				}
			}
			differ(t, "one of them", 1, len(l.read(where(export, "product", l.product, "version", "1")).rows()))
			matches(t, `^attachment; filename="[a-z]+_`+l.trackOf(l.account)+`\.[0-9]+\.[0-9]+\.ndjson"$`, a.header.Get("Content-Disposition"))
		}
		cells := l.read(where(exports[3], "product", l.product)).rows()
		if len(cells) != 1 || cells[0]["version"] != "2" || cells[0]["environment_type"] != "production" {
			t.Errorf("cells: %v", cells)
		}
		events := l.read(where(exports[2], "subject", l.read(where("/deployments/", "product", l.product)).text("items.0.id"))).rows()
		if len(events) != 1 || at(events[0], "data.invoke_id") != "2" {
			t.Errorf("events: %v", events)
		}
	})
}

func TestExportsHaveTheirColumnsInOrderInEveryFormat(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		l.deployed(l.deployment("success", body{"deployed_by": "=HYPERLINK(\"x\")", "extra_metadata": body{"note": "a, \"b\"\r\nc"}}))
		l.built(l.build("success", body{"built_by": "@sum", "scm_branch": "-x"}))
		for _, path := range exports {
			filter := []string{"product", l.product}
			if path == "/exports/events" {
				filter = []string{"family", "deployment"}
			}
			want := columns(t, l, path)
			rows := l.read(where(path, filter...)).rows()

			a := l.read(where(path, append(filter, "format", "csv")...))
			differ(t, "type", "text/csv", a.header.Get("Content-Type"))
			if !bytes.Contains(a.raw, []byte("\r\n")) {
				t.Errorf("%s: lines do not end as RFC 4180 says", path)
			}
			table, err := csv.NewReader(bytes.NewReader(a.raw)).ReadAll()
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			differ(t, path+": header", want, table[0])
			if path != "/exports/events" { // others write meanwhile
				differ(t, path+": rows", len(rows)+1, len(table))
			}
			for _, cell := range slices.Concat(table[1:]...) {
				if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
					t.Errorf("%s: a spreadsheet runs %q", path, cell)
				}
			}

			p := l.read(where(path, filter...), header("Accept", "application/vnd.apache.parquet"))
			differ(t, "type", "application/vnd.apache.parquet", p.header.Get("Content-Type"))
			file, err := parquet.OpenFile(bytes.NewReader(p.raw), int64(len(p.raw)))
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			var names []string
			for _, c := range file.Schema().Columns() {
				names = append(names, strings.Join(c, "."))
			}
			differ(t, path+": Parquet columns", want, names)
			if path != "/exports/events" {
				differ(t, path+": Parquet rows", int64(len(rows)), file.NumRows())
			}
		}
	})
}

func TestNextExportGoesOnWhereTheLastOneEnded(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		seen := map[string][]string{}
		next := map[string]string{}
		pull := func() {
			t.Helper()
			for _, path := range exports {
				a := m.read(where(path, "from_position", next[path]))
				next[path] = a.header.Get("X-Shipledger-Position")
				name := "id"
				if path == "/exports/cells" {
					name = "deployment_id"
				}
				seen[path] = append(seen[path], column(a.rows(), name)...)
			}
		}
		m.fill(3)
		pull()
		for _, path := range exports[:2] {
			differ(t, path, 3, len(seen[path]))
		}
		pull() // nothing happened
		differ(t, "deployments", 3, len(seen[exports[0]]))
		differ(t, "cells", 3, len(seen[exports[3]]))
		started := m.deployed(m.deployment("started", body{"invoke_id": "x"})).id()
		m.created(keysPath, wanted("one more"))
		pull()
		m.deployed(m.deployment("success", body{"invoke_id": "x"})) // it changes: it comes again
		pull()
		differ(t, "deployments", []string{started, started}, seen[exports[0]][3:])
		differ(t, "cells", []string{started}, seen[exports[3]][3:])
		differ(t, "builds", 3, len(seen[exports[1]]))
		whole := m.read(where(eventsPath, "limit", "500", "order", "oldest"), header("X-Shipledger-Position", next[exports[2]])).each("items", "id")
		got := seen[exports[2]]
		if len(slices.Compact(slices.Sorted(slices.Values(got)))) != len(got) {
			t.Errorf("an event came twice")
		}
		slices.Sort(got)
		slices.Sort(whole)
		differ(t, "events", whole, got)
	})
}

func TestExportIsAnsweredInPartsOfAnySize(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		const n = 1300 // more than an export holds at a time
		for from := 0; from < n; from += 650 {
			var items []any
			for i := range 650 {
				items = append(items, m.deployment("success", body{"invoke_id": fmt.Sprint(from + i)}))
			}
			m.lines(items).is(http.StatusOK)
		}
		ids := column(m.read(exports[0]).rows(), "id")
		differ(t, "deployments", n, len(slices.Compact(slices.Sorted(slices.Values(ids)))))
		differ(t, "events", n, len(m.read(where(exports[2], "family", "deployment")).rows()))
	})
}

func TestExportRefusesWhatItDoesNotUnderstand(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		l.deployed(l.deployment("success"))
		for _, path := range exports {
			differ(t, path, []string{"query.format"}, l.get(where(path, "format", "xlsx")).faults())
			for _, bad := range []string{"x", "t0", "c.1.0"} {
				differ(t, path+" "+bad, []string{"query.from_position"}, l.get(where(path, "from_position", bad)).faults())
			}
			differ(t, path, []string{"query.limit"}, l.get(where(path, "limit", "5")).faults())
			l.get(path, as(l.key)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		}
	})
}
