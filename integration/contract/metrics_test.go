package contract_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"
)

var metrics = []string{"deployment_frequency", "lead_time", "change_failure_rate", "recovery_time", "rework_rate"}

// evidence walks the whole evidence of a metric.
func (l *ledger) evidence(metric string, limit int, pairs ...string) []any {
	l.t.Helper()
	var items []any
	pairs = append([]string{"metric", metric, "limit", fmt.Sprint(limit)}, pairs...)
	for cursor := ""; ; {
		page := pairs
		if cursor != "" {
			page = append(slices.Clone(pairs), "cursor", cursor)
		}
		a := l.read(where("/metrics/dora/evidence", page...))
		items = append(items, a.list("items")...)
		if a.at("next_cursor") == nil {
			return items
		}
		cursor = a.text("next_cursor")
	}
}

// addsUp holds the figures of an answer to the evidence of the same question.
func (l *ledger) addsUp(limit int, pairs ...string) answer {
	l.t.Helper()
	a := l.read(where("/metrics/dora", pairs...))
	var judged []string
	for _, metric := range metrics {
		counted, hits := 0.0, 0.0
		var seconds []float64
		rules := map[string]any{}
		var ids []string
		for _, e := range l.evidence(metric, limit, pairs...) {
			ids = append(ids, at(e, "deployment_id").(string))
			rule := at(e, "rule").(string)
			n, _ := rules[rule].(float64)
			rules[rule] = n + 1
			if !at(e, "counted").(bool) {
				continue
			}
			counted++
			if at(e, "hit").(bool) {
				hits++
			}
			if s, timed := at(e, "seconds").(float64); timed {
				seconds = append(seconds, s)
			}
		}
		slices.Sort(ids)
		if metric == metrics[0] {
			judged = ids
		}
		differ(l.t, metric+": every deployment once", judged, slices.Compact(ids))
		differ(l.t, metric+": count", any(counted), a.at(metric+".count"))
		differ(l.t, metric+": rules", any(rules), a.at("rules."+metric))
		inSeries := 0.0
		for _, bucket := range a.list("series") {
			inSeries += at(bucket, metric+".count").(float64)
		}
		differ(l.t, metric+": count of the series", counted, inSeries)
		switch metric {
		case "lead_time", "recovery_time":
			slices.Sort(seconds)
			for _, p := range []int{50, 75, 90, 95} {
				var want any
				if n := len(seconds); n > 0 {
					want = seconds[max((p*n+99)/100, 1)-1]
				}
				differ(l.t, fmt.Sprintf("%s: p%d", metric, p), want, a.at(fmt.Sprintf("%s.p%d", metric, p)))
			}
		case "change_failure_rate", "rework_rate":
			differ(l.t, metric+": hits", any(hits), a.at(metric+".hits"))
			if counted > 0 {
				differ(l.t, metric+": rate", any(hits/counted), a.at(metric+".rate"))
			}
		}
	}
	return a
}

func TestDeliveryMetricsFollowTheirDefinitions(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		start := time.Date(2026, 2, 2, 0, 0, 0, 0, time.UTC) // a Monday
		on := func(hours float64) string { return moment(start.Add(time.Duration(hours * float64(time.Hour)))) }
		n := 0
		run := func(version, status string, hours float64, more ...body) answer {
			t.Helper()
			n++
			all := append([]body{{"version": version, "invoke_id": fmt.Sprint("r", n), "completed_at": on(hours)}}, more...)
			return l.deployed(l.deployment(status, all...))
		}
		l.load([]any{l.build("success", body{"version": "2", "invoke_id": "b", "started_at": on(25), "completed_at": on(26)})})
		run("1", "success", 10, body{"extra_metadata": body{"commit_time": on(8)}})
		second := run("2", "success", 30)
		back := run("1", "success", 32)
		failed := run("3", "failed", 40)
		run("3", "failed", 41)
		run("3", "success", 45)
		run("4", "aborted", 46)
		run("1", "success", 12, body{"environment_name": "production-eu", "extra_metadata": body{"commit_time": on(8)}})
		run("9", "success", 12, body{"environment_name": "staging"})

		window := []string{"product", l.product, "from", on(0), "to", on(72)}
		one := l.addsUp(3, append(window, "environment", "production")...)
		one.shows(body{
			"definition": 1.0, "period": "day", "deployment_frequency.count": 4.0,
			"lead_time.count": 2.0, "lead_time.p50": 7200.0, "lead_time.p95": 18000.0,
			"change_failure_rate.count": 5.0, "change_failure_rate.hits": 3.0,
			"recovery_time.count": 2.0, "recovery_time.p50": 7200.0, "recovery_time.p75": 18000.0,
			"rework_rate.count": 4.0, "rework_rate.hits": 2.0,
			"series.0.deployment_frequency.count": 1.0, "series.1.deployment_frequency.count": 3.0, "series.2.deployment_frequency.count": 0.0, "series.3": absent,
		})
		rule := func(metric, id string) string {
			t.Helper()
			for _, e := range l.evidence(metric, 50, append(window, "environment", "production")...) {
				if at(e, "deployment_id") == id {
					return at(e, "rule").(string)
				}
			}
			return ""
		}
		differ(t, "the second version", "rolled_back", rule("change_failure_rate", second.id()))
		differ(t, "the second version", "from_first_build", rule("lead_time", second.id()))
		differ(t, "the rollback", "rollback_is_no_change", rule("change_failure_rate", back.id()))
		differ(t, "the rollback", "rollback", rule("rework_rate", back.id()))
		differ(t, "the failure", "recovered", rule("recovery_time", failed.id()))

		l.addsUp(2, append(window, "environment", "production*")...).shows(body{"deployment_frequency.count": 5.0, "lead_time.count": 3.0})
		l.addsUp(4, append(window, "period", "week")...).shows(body{"deployment_frequency.count": 6.0, "series.0.deployment_frequency.count": 6.0, "series.1": absent})
		l.addsUp(2, "product", l.name("unknown")).shows(body{"deployment_frequency.count": 0.0, "lead_time.p50": nil, "change_failure_rate.rate": nil})
		id := l.read(where("/matrix", "product", l.product)).text("items.0.product_id")
		l.manage(http.MethodPatch, "/products/"+id, body{"extra_metadata": body{"team": "payments"}}).is(http.StatusOK)
		differ(t, "a team", any(6.0), l.read(where("/metrics/dora", append(window, "team", "payments")...)).at("deployment_frequency.count"))
		differ(t, "a team without products", any(0.0), l.read(where("/metrics/dora", append(window, "team", "none.such")...)).at("deployment_frequency.count"))
		a := l.read(where("/metrics/dora", window...))
		differ(t, "unchanged", http.StatusNotModified, l.get(where("/metrics/dora", window...), header("If-None-Match", a.header.Get("ETag"))).status)

		for _, bad := range [][]string{
			{"query.to", "from", on(2), "to", on(1)},
			{"query.period", "period", "month"},
			{"query.definition", "definition", "2"},
			{"query.from", "from", "June"},
			{"query.period", "from", "1990-01-01T00:00:00Z", "to", on(0)},
			{"query.metrics", "metrics", "x"},
			{"query.limit", "limit", "1"},
		} {
			differ(t, fmt.Sprint(bad), bad[:1], l.get(where("/metrics/dora", bad[1:]...)).is(422).faults())
		}
		differ(t, "no metric", []string{"query.metric"}, l.get("/metrics/dora/evidence").is(422).faults())
		differ(t, "unknown metric", []string{"query.metric"}, l.get(where("/metrics/dora/evidence", "metric", "speed")).is(422).faults())
		differ(t, "a strange cursor", []string{"query.cursor"}, l.get(where("/metrics/dora/evidence", "metric", "lead_time", "cursor", "x")).is(422).faults())
	})
}

func TestEvidenceOfGeneratedHistoriesAddsUpToTheFigures(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		random := rand.New(rand.NewPCG(7, 11))
		start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
		var items []any
		for i := range 300 {
			end := start.Add(time.Duration(random.IntN(40*24)) * time.Hour)
			b := l.deployment([]string{"success", "success", "success", "failed", "aborted"}[random.IntN(5)], body{
				"product_name": l.name(fmt.Sprint("p", random.IntN(3))), "environment_name": []string{"staging", "production", "production-eu"}[random.IntN(3)],
				"version": fmt.Sprint(random.IntN(12)), "invoke_id": fmt.Sprint(i), "completed_at": moment(end),
			})
			if random.IntN(2) == 0 {
				b["extra_metadata"] = body{"commit_time": moment(end.Add(time.Duration(3-random.IntN(50)) * time.Hour))}
			}
			items = append(items, b)
			if random.IntN(3) == 0 {
				items = append(items, l.build("success", body{"product_name": b["product_name"], "version": b["version"], "invoke_id": fmt.Sprint("b", i), "completed_at": moment(end.Add(-5 * time.Hour))}))
			}
		}
		l.load(items)
		mine := []string{"product", "*." + l.product}
		whole := l.addsUp(37, append(mine, "from", moment(start), "to", moment(start.AddDate(0, 0, 40)))...)
		if whole.at("deployment_frequency.count").(float64) < 100 {
			t.Errorf("too few deployments: %v", whole.at("deployment_frequency"))
		}
		l.addsUp(11, append(mine, "from", moment(start.AddDate(0, 0, 3)), "to", moment(start.AddDate(0, 0, 17)), "period", "week", "environment", "production*")...)
	})
}
