package contract_test

import (
	"net/http"
	"testing"
	"time"
)

func TestMatrixDiffShowsWhatChanged(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		noon := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
		on := func(hours int) string { return moment(noon.Add(time.Duration(hours) * time.Hour)) }
		end := func(version, environment string, hours int) body {
			return body{"version": version, "environment_name": environment, "invoke_id": environment + version, "completed_at": on(hours)}
		}
		l.deployed(l.deployment("success", end("1", "staging", 0)))
		first := l.deployed(l.deployment("success", end("1", "production", 1)))
		second := l.deployed(l.deployment("success", end("2", "production", 3)))
		l.deployed(l.deployment("failed", end("3", "staging", 3)))
		l.deployed(l.deployment("success", end("1", "staging", 4), body{"invoke_id": "again"}))
		diff := func(pairs ...string) answer {
			t.Helper()
			return l.read(where("/matrix/diff", append([]string{"search", l.product}, pairs...)...))
		}
		a := diff("from", on(2), "to", on(5))
		a.shows(body{
			"items.0.product_name": l.product, "items.0.environment_name": "production", "items.1": absent, "next_cursor": nil,
			"items.0.from.version": "1", "items.0.from.deployment_id": first.id(), "items.0.from.at": noon.Add(time.Hour),
			"items.0.to.version": "2", "items.0.to.deployment_id": second.id(), "items.0.to.at": noon.Add(3 * time.Hour),
		})
		diff("from", on(-1)).shows(body{"items.0.environment_name": "staging", "items.0.from": nil, "items.1.to.version": "2"})
		page := diff("from", on(-1), "limit", "1")
		differ(t, "second page", []string{"production"}, diff("from", on(-1), "limit", "1", "cursor", page.text("next_cursor")).each("items", "environment_name"))
		diff("from", on(-1), "environment", "prod*", "environment", "x").shows(body{"items.0.environment_name": "production", "items.1": absent})
		diff("from", on(3), "to", on(5)).shows(body{"items": []any{}})
		diff("left", "staging", "right", "production").shows(body{
			"items.0.from.version": "1", "items.0.to.version": "2", "items.0.environment_name": nil, "items.1": absent,
			"items.0.from.environment_id": l.read(where("/matrix", "product", l.product, "environment", "staging")).text("environments.0.id"),
		})
		diff("left", "staging", "right", "production", "at", on(2)).shows(body{"items": []any{}})
		diff("left", "staging", "right", "nowhere").shows(body{"items.0.from.version": "1", "items.0.to": nil})
		tag := header("If-None-Match", a.header.Get("ETag"))
		differ(t, "unchanged", http.StatusNotModified, l.get(where("/matrix/diff", "search", l.product, "from", on(2), "to", on(5)), tag).status)

		for _, bad := range []struct {
			pairs []string
			want  []string
		}{
			{nil, []string{"query.from"}},
			{[]string{"left", "staging"}, []string{"query.right"}},
			{[]string{"right", "staging", "to", on(1)}, []string{"query.left", "query.to"}},
			{[]string{"from", "yesterday"}, []string{"query.from"}},
			{[]string{"from", on(0), "at", on(1)}, []string{"query.at"}},
			{[]string{"from", on(0), "sort", "x"}, []string{"query.sort"}},
			{[]string{"from", on(0), "cursor", "x"}, []string{"query.cursor"}},
			{[]string{"from", on(0), "limit", "0"}, []string{"query.limit"}},
		} {
			differ(t, "faults", bad.want, l.get(where("/matrix/diff", bad.pairs...)).is(422).faults())
		}
	})
}

func TestCellHistoryListsHowLongEachVersionWasLive(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		noon := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
		on := func(hours int) string { return moment(noon.Add(time.Duration(hours) * time.Hour)) }
		var ids []string
		for i, version := range []string{"1", "2", "1"} {
			ids = append([]string{l.deployed(l.deployment("success", body{"version": version, "invoke_id": on(i), "completed_at": on(i), "deployed_by": "ada"})).id()}, ids...)
		}
		l.deployed(l.deployment("failed", body{"version": "3", "invoke_id": "f", "completed_at": on(9)}))
		path := where("/matrix/history", "product", l.product, "environment", "production")
		a := l.read(path)
		differ(t, "deployments", ids, a.each("items", "deployment_id"))
		a.shows(body{
			"items.0.until": nil, "items.0.from": noon.Add(2 * time.Hour), "items.0.version": "1", "items.0.deployed_by": "ada",
			"items.1.from": noon.Add(time.Hour), "items.1.until": noon.Add(2 * time.Hour), "items.1.version": "2",
		})
		page := l.read(path + "&limit=2")
		rest := l.read(path + "&limit=2&cursor=" + page.text("next_cursor"))
		rest.shows(body{"items.0.deployment_id": ids[2], "items.0.until": noon.Add(time.Hour), "next_cursor": nil})
		differ(t, "unchanged", http.StatusNotModified, l.get(path, header("If-None-Match", a.header.Get("ETag"))).status)
		l.read(where("/matrix/history", "product", l.name("unknown"), "environment", "production")).shows(body{"items": []any{}})
		differ(t, "faults", []string{"query.product", "query.environment"}, l.get("/matrix/history").is(422).faults())
	})
}

func TestMatrixColumnsMayBeNamedByPatterns(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, name := range []string{"production-eu", "production-us", "staging", "dev"} {
			m.deployed(m.deployment("success", body{"environment_name": name}))
		}
		columns := func(pairs ...string) []string {
			t.Helper()
			a := m.read(where("/matrix", pairs...))
			differ(t, "cells", a.each("environments", "name"), a.each("items.0.cells", "environment_name"))
			return a.each("environments", "name")
		}
		differ(t, "a pattern", []string{"production-eu", "production-us"}, columns("environment", "production*"))
		differ(t, "several", []string{"dev", "production-us"}, columns("environment", "*-us", "environment", "dev"))
	})
}
