package contract_test

import (
	"fmt"
	"slices"
	"testing"
)

func TestDeploymentsAreFilteredByEverythingTheyHave(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		a := l.deployed(l.deployment("success", body{
			"invoke_id": "run-1", "version": "1", "deployed_by": "ada", "deployed_by_email": "ada@acme.example", "source_system": "github", "scm_sha": shaA,
			"extra_metadata": body{"team": "payments", "change": body{"ticket": "OPS-7", "risk": 3, "urgent": true}},
		})).id()
		b := l.deployed(l.deployment("failed", body{
			"invoke_id": "run-1", "version": "2", "environment_name": "staging", "deployed_by": "bot", "source_system": "jenkins", "scm_sha": "8d1c0a7",
			"extra_metadata": body{"team": "search", "change": body{"ticket": "OPS-8"}},
		})).id()
		c := l.deployed(l.deployment("aborted", body{"invoke_id": "run-2", "version": "2", "environment_name": "somewhere"})).id()
		for _, q := range []struct {
			filter []string
			want   []string
		}{
			{nil, []string{c, b, a}},
			{[]string{"order", "oldest"}, []string{a, b, c}},
			{[]string{"order", "newest", "version", "2"}, []string{c, b}},
			{[]string{"environment_type", "production"}, []string{a}},
			{[]string{"environment_type", "other"}, []string{c}},
			{[]string{"environment_type", "staging", "status", "failed"}, []string{b}},
			{[]string{"status", "failed,aborted"}, []string{c, b}},
			{[]string{"status", "failed", "status", "success,cancelled"}, []string{c, b, a}},
			{[]string{"deployed_by", "ada"}, []string{a}},
			{[]string{"deployed_by", "ada@acme.example"}, []string{a}},
			{[]string{"deployed_by", "Ada"}, []string{}},
			{[]string{"source_system", "jenkins"}, []string{b}},
			{[]string{"invoke_id", "run-1"}, []string{b, a}},
			{[]string{"invoke_id", "run-1", "environment", "staging"}, []string{b}},
			{[]string{"scm_sha", shaA}, []string{a}},
			{[]string{"scm_sha", shaA[:7]}, []string{a}},
			{[]string{"scm_sha", shaA[:6]}, []string{}},
			{[]string{"scm_sha", "8d1c0a7fffffffff"}, []string{b}},
			{[]string{"mode", "live"}, []string{c, b, a}},
			{[]string{"mode", "test"}, []string{}},
			{[]string{"meta.team", "payments"}, []string{a}},
			{[]string{"meta.change.ticket", "OPS-8"}, []string{b}},
			{[]string{"meta.change.risk", "3", "meta.change.urgent", "true"}, []string{a}},
			{[]string{"meta.change.risk", "3", "meta.team", "search"}, []string{}},
			{[]string{"meta.change", "OPS-8"}, []string{}},
			{[]string{"meta.team", "' OR 1 --"}, []string{}},
		} {
			path := where("/deployments/", append([]string{"product", l.product}, q.filter...)...)
			differ(t, fmt.Sprint(q.filter), q.want, l.read(path).each("items", "id"))
		}
		for _, path := range []string{"/deployments/", "/builds/"} {
			for name, value := range map[string]string{
				"environments": "x", "color": "red", "order": "upwards", "mode": "both", "status": "failed,purple", "since": "today", "until": "1",
				"limit": "many", "cursor": "x", "meta.": "x", "meta.a..b": "x", "meta.a b": "x", "meta.a'b": "x", "meta.a.b.c.d.e.f.g.h.i": "x",
			} {
				differ(t, path+name, []string{"query." + name}, l.get(where(path, name, value)).is(422).faults())
			}
		}
		differ(t, "a type that is none", []string{"query.environment_type"}, l.get(where("/deployments/", "environment_type", "prod")).is(422).faults())
	})
}

func TestBuildsAreFilteredByEverythingTheyHave(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		a := l.built(l.build("success", body{"invoke_id": "1", "built_by": "ada", "source_system": "github", "extra_metadata": body{"team": "x"}})).id()
		b := l.built(l.build("failed", body{"invoke_id": "2", "version": "2", "built_by_name": "Bot", "scm_sha": shaB})).id()
		for _, q := range []struct {
			filter []string
			want   []string
		}{
			{[]string{"order", "oldest"}, []string{a, b}},
			{[]string{"built_by", "Bot"}, []string{b}},
			{[]string{"source_system", "github"}, []string{a}},
			{[]string{"invoke_id", "2"}, []string{b}},
			{[]string{"scm_sha", shaB[:8]}, []string{b}},
			{[]string{"meta.team", "x"}, []string{a}},
			{[]string{"status", "success,failed", "version", "2"}, []string{b}},
		} {
			differ(t, fmt.Sprint(q.filter), q.want, l.read(where("/builds/", append([]string{"product", l.product}, q.filter...)...)).each("items", "id"))
		}
	})
}

func TestCursorsHoldWhileOthersWrite(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		var want []string
		for i := range 9 {
			want = append(want, l.deployed(l.deployment("success", body{"invoke_id": fmt.Sprint("old", i)})).id())
		}
		for _, order := range []string{"oldest", "newest"} {
			var got []string
			cursor := ""
			for i := 0; ; i++ {
				pairs := []string{"product", l.product, "order", order, "limit", "2"}
				if cursor != "" {
					pairs = append(pairs, "cursor", cursor)
				}
				a := l.read(where("/deployments/", pairs...))
				got = append(got, a.each("items", "id")...)
				if a.at("next_cursor") == nil {
					break
				}
				cursor = a.text("next_cursor")
				if i < 5 {
					l.deployed(l.deployment("success", body{"invoke_id": fmt.Sprint("new", order, i)}))
				}
			}
			got = slices.DeleteFunc(got, func(id string) bool { return !slices.Contains(want, id) })
			if order == "newest" {
				slices.Reverse(got)
			}
			differ(t, order, want, got)
		}
	})
}
