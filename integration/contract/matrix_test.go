package contract_test

import (
	"net/http"
	"testing"
	"time"
)

// live gives what the matrix shows of the script's product, by environment.
func (l *ledger) live() map[string]string {
	l.t.Helper()
	out := map[string]string{}
	a := l.read(where("/matrix", "product", l.product))
	for _, cell := range a.list("items.0.cells") {
		out[at(cell, "environment_name").(string)] = at(cell, "version").(string)
	}
	return out
}

// Rows: D-17
func TestOnlyANewerSuccessChangesWhatIsLive(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		noon := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
		end := func(version string, hours int) body {
			return body{"version": version, "invoke_id": version, "completed_at": moment(noon.Add(time.Duration(hours) * time.Hour))}
		}
		is := func(version string, drift bool) {
			t.Helper()
			differ(t, "live", version, l.live()["production"])
			l.read(where("/matrix", "product", l.product)).shows(body{"items.0.drift": drift})
		}
		l.deployed(l.deployment("success", end("2", 0)))
		is("2", false)
		l.deployed(l.deployment("failed", end("3", 1)))
		is("2", false)
		l.deployed(l.deployment("aborted", end("4", 2)))
		is("2", false)
		l.deployed(l.deployment("success", end("1", -1))) // late and older
		is("2", false)
		l.deployed(l.deployment("started", body{"version": "5", "invoke_id": "5"}))
		l.post("/deployment-events/", l.deployment("started", body{"version": "6", "invoke_id": "6"})).is(409)
		l.deployed(l.deployment("pending", body{"version": "7", "invoke_id": "7"}))
		is("2", false)

		l.deployed(l.deployment("failed", body{"version": "8", "environment_name": "staging"}))
		l.deployed(l.deployment("success", end("2", 3), body{"environment_name": "qa"}))
		is("2", false) // an environment without a success has no cell
		l.deployed(l.deployment("success", end("3", 4), body{"environment_name": "qa"}))
		is("2", true)
		differ(t, "cells", map[string]string{"production": "2", "qa": "3"}, l.live())
		l.read(where("/matrix", "product", l.product, "environment", "production")).shows(body{"items.0.drift": false, "items.0.cells.1": absent})
		l.deployed(l.deployment("success", body{"version": "5", "invoke_id": "5"}))
		is("5", true)
		l.deployed(l.deployment("success", body{"version": "5", "environment_name": "qa"}))
		is("5", false)
	})
}

func TestCellShowsItsDeploymentAndANewerAttempt(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		cell := func() answer { t.Helper(); return l.read(where("/matrix", "product", l.product)) }
		first := l.deployed(l.deployment("success", body{
			"deployed_by": "ada", "scm_sha": shaA, "build_number": "7", "deploy_url": "https://ci.example/7", "completed_at": "2026-02-01T10:00:00Z",
		}))
		cell().shows(body{
			"items.0.product_id": first.text("product_id"), "items.0.product_name": l.product,
			"items.0.cells.0.environment_id": first.text("environment_id"), "items.0.cells.0.environment_name": "production",
			"items.0.cells.0.version": "1.2.3", "items.0.cells.0.version_id": first.text("version_id"), "items.0.cells.0.deployment_id": first.id(),
			"items.0.cells.0.deployed_at": time.Date(2026, 2, 1, 10, 0, 0, 0, time.UTC), "items.0.cells.0.deployed_by": "ada", "items.0.cells.0.status": "completed",
			"items.0.cells.0.scm_sha": shaA, "items.0.cells.0.build_number": "7", "items.0.cells.0.deploy_url": "https://ci.example/7", "items.0.cells.0.last_attempt": nil,
		})
		attempt := func(version, status string, id any) {
			t.Helper()
			if id == nil {
				cell().shows(body{"items.0.cells.0.last_attempt": nil})
				return
			}
			cell().shows(body{
				"items.0.cells.0.last_attempt.version": version, "items.0.cells.0.last_attempt.status": status, "items.0.cells.0.last_attempt.deployment_id": id,
			})
		}
		l.deployed(l.deployment("failed", body{"version": "0", "completed_at": "2026-02-01T09:00:00Z"}))
		attempt("", "", nil) // older than the success
		l.deployed(l.deployment("pending", body{"version": "2", "invoke_id": "2"}))
		attempt("", "", nil) // nothing runs
		failed := l.deployed(l.deployment("failed", body{"version": "2", "invoke_id": "2", "completed_at": "2026-02-01T11:00:00Z"})).id()
		attempt("2", "failed", failed)
		running := l.deployed(l.deployment("started", body{"version": "3", "invoke_id": "3"})).id()
		attempt("3", "started", running)
		l.post("/deployment-events/", l.deployment("started", body{"version": "4", "invoke_id": "4"})).is(409)
		attempt("3", "started", running)
		l.deployed(l.deployment("aborted", body{"version": "3", "invoke_id": "3"}))
		attempt("3", "aborted", running)
		l.deployed(l.deployment("success", body{"version": "5", "invoke_id": "5"}))
		attempt("", "", nil)
	})
}

func TestColumnsAreOrderedByTypeThenName(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, name := range []string{"zeta", "production", "dev-b", "live", "staging", "qa", "dev-a", "alpha", "test", "uat"} {
			m.deployed(m.deployment("success", body{"environment_name": name}))
		}
		a := m.read("/matrix")
		want := []string{"dev-a", "dev-b", "qa", "test", "staging", "uat", "live", "production", "alpha", "zeta"}
		differ(t, "columns", want, a.each("environments", "name"))
		differ(t, "cells", want, a.each("items.0.cells", "environment_name"))
		a.shows(body{"environments.0.type": "dev", "environments.9.type": nil})
		one := m.read(where("/matrix", "environment", "qa"))
		differ(t, "columns", []string{"qa"}, one.each("environments", "name"))
		differ(t, "cells", []string{"qa"}, one.each("items.0.cells", "environment_name"))
		m.read(where("/matrix", "environment", "unknown")).shows(body{"environments": []any{}})
	})
}

func TestMatrixIsSearchedAndNarrowedToDrift(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		same, apart := l.name("Same"), l.name("Apart")
		for _, p := range []string{same, apart} {
			l.deployed(l.deployment("success", body{"product_name": p}))
			l.deployed(l.deployment("success", body{"product_name": p, "environment_name": "staging"}))
		}
		l.deployed(l.deployment("success", body{"product_name": apart, "version": "2"}))
		names := func(pairs ...string) []string {
			t.Helper()
			return l.read(where("/matrix", pairs...)).each("items", "product_name")
		}
		differ(t, "search", []string{apart, same}, names("search", l.product))
		differ(t, "search in another case", []string{same}, names("search", "sAME."+l.product))
		differ(t, "search for nothing", []string{}, names("search", l.product+"%"))
		differ(t, "drift", []string{apart}, names("search", l.product, "drift", "true"))
		differ(t, "drift is asked of visible cells", []string{}, names("search", l.product, "drift", "true", "environment", "production"))
		differ(t, "no drift asked for", []string{apart, same}, names("search", l.product, "drift", "false"))
		differ(t, "product", []string{same}, names("product", same))
		differ(t, "unknown product", []string{}, names("product", l.name("unknown")))
		page := l.read(where("/matrix", "search", l.product, "limit", "1"))
		rest := l.read(where("/matrix", "search", l.product, "limit", "1", "cursor", page.text("next_cursor")))
		differ(t, "second page", []string{same}, rest.each("items", "product_name"))
		rest.shows(body{"next_cursor": nil})
	})
}

func TestMatrixHasATagThatChangesWithIt(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		path := where("/matrix", "product", l.product, "environment", l.name("production"))
		here := body{"environment_name": l.name("production")}
		l.deployed(l.deployment("success", here))
		first := l.read(path)
		tag := header("If-None-Match", first.header.Get("ETag"))
		l.deployed(l.deployment("success", body{"product_name": l.name("elsewhere")}))
		unchanged := l.get(path, tag)
		differ(t, "unchanged", http.StatusNotModified, unchanged.status)
		differ(t, "its tag", first.header.Get("ETag"), unchanged.header.Get("ETag"))
		l.deployed(l.deployment("success", here, body{"version": "2"}))
		l.get(path, tag).is(200).shows(body{"items.0.cells.0.version": "2"})
		l.get(path, tag, as("")).fails(401, "AUTH_MISSING")
	})
}

// cellAt gives what a moment's matrix shows of the script's product in
// production: the version, and the attempt beside it.
func (l *ledger) cellAt(pairs ...string) string {
	l.t.Helper()
	a := l.read(where("/matrix", append([]string{"product", l.product, "environment", "production"}, pairs...)...))
	if len(a.list("items")) == 0 {
		return "no product"
	}
	cells := a.list("items.0.cells")
	if len(cells) == 0 {
		return "nothing"
	}
	text := at(cells[0], "version").(string)
	if at(cells[0], "last_attempt") != nil {
		text += " but " + at(cells[0], "last_attempt.version").(string) + " " + at(cells[0], "last_attempt.status").(string)
	}
	return text
}

func TestPastMomentShowsWhatWasLiveThen(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		noon := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
		on := func(hours float64) string { return moment(noon.Add(time.Duration(hours * float64(time.Hour)))) }
		end := func(version string, hours float64) body {
			return body{"version": version, "invoke_id": version, "completed_at": on(hours)}
		}
		is := func(hours float64, want string) {
			t.Helper()
			differ(t, "at "+on(hours), want, l.cellAt("at", on(hours)))
		}
		l.deployed(l.deployment("success", end("1", 0)))
		l.deployed(l.deployment("success", end("3", 4)))
		is(-1, "no product") // it was created later
		is(0, "1")
		is(3.9, "1")
		is(4, "3")
		l.deployed(l.deployment("success", end("2", 2))) // told late
		is(1.9, "1")
		is(2, "2")
		is(4, "3")
		l.deployed(l.deployment("failed", end("4", 6)))
		l.deployed(l.deployment("aborted", end("5", 3)))
		is(3, "2 but 5 aborted")
		is(4, "3")
		is(6, "3 but 4 failed")
		l.load([]any{l.deployment("success", body{"version": "0", "invoke_id": "0", "completed_at": "2019-05-01T09:30:00Z"})})
		differ(t, "before the loaded history", "no product", l.cellAt("at", "2019-05-01T09:29:59.999Z"))
		differ(t, "in the loaded history", "0", l.cellAt("at", "2019-05-01T11:30:00+02:00"))
		is(-1, "0")
		differ(t, "now", "3 but 4 failed", l.cellAt())
		differ(t, "in days to come", "3 but 4 failed", l.cellAt("at", "2999-01-01T00:00:00Z"))
		differ(t, "long ago", "no product", l.cellAt("at", "1975-01-01T00:00:00Z"))

		l.deployed(l.deployment("success", end("1", 5), body{"environment_name": "staging", "invoke_id": "s"}))
		drift := func(hours float64) []string {
			t.Helper()
			return l.read(where("/matrix", "search", l.product, "drift", "true", "at", on(hours))).each("items", "product_name")
		}
		differ(t, "drift before the second environment", []string{}, drift(4.5))
		differ(t, "drift after it", []string{l.product}, drift(5))
	})
}

func TestWhatWasKnownAtAMomentStaysAsItWas(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		moments := []time.Time{m.clock.read()}
		step := func(write func()) {
			m.clock.pass(time.Hour)
			if write != nil {
				write()
			}
			moments = append(moments, m.clock.read())
			m.clock.pass(time.Hour)
		}
		run := func(version string) body { return body{"version": version, "invoke_id": version} }
		step(func() { m.deployed(m.deployment("success", run("1"))) })
		step(func() { m.deployed(m.deployment("started", run("2"))) })
		step(func() { m.deployed(m.deployment("success", run("2"))) })
		step(func() { m.deployed(m.deployment("failed", run("3"))) })
		step(func() { // told late: between 1 and 2
			m.deployed(m.deployment("success", run("1.5"), body{"completed_at": moment(moments[1].Add(30 * time.Minute))}))
		})
		step(func() {
			m.load([]any{m.deployment("success", run("0"), body{"completed_at": "2019-05-01T09:30:00Z"})})
		})
		step(func() {
			m.deployed(m.deployment("success", body{"product_name": m.name("later"), "environment_name": "later"}))
		})
		known := []string{"no product", "1", "1 but 2 started", "2", "2 but 3 failed", "2 but 3 failed", "2 but 3 failed", "2 but 3 failed"}
		for range 2 { // and again after a rebuild of the read model from the log
			for i, want := range known {
				differ(t, "known after "+moment(moments[i]), want, m.cellAt("known_at", moment(moments[i])))
			}
			between := moment(moments[1].Add(30 * time.Minute))
			differ(t, "of a moment, before the late report", "1", m.cellAt("at", between, "known_at", moment(moments[4])))
			differ(t, "of a moment, after the late report", "1.5", m.cellAt("at", between, "known_at", moment(moments[5])))
			differ(t, "of a moment, now", "1.5", m.cellAt("at", between))
			differ(t, "of an early moment, before the import", "no product", m.cellAt("at", "2020-01-01T00:00:00Z", "known_at", moment(moments[5])))
			differ(t, "of an early moment, after the import", "0", m.cellAt("at", "2020-01-01T00:00:00Z", "known_at", moment(moments[6])))
			differ(t, "known in days to come", m.cellAt(), m.cellAt("known_at", "2999-01-01T00:00:00Z"))

			a := m.read(where("/matrix", "search", m.product, "known_at", moment(moments[6])))
			differ(t, "products known", []string{m.product}, a.each("items", "product_name"))
			differ(t, "environments known", []string{"production"}, a.each("environments", "name"))
			m.restart()
		}
	})
}

func TestPastMomentThatIsNoMomentIsRefused(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		a := m.get(where("/matrix", "at", "yesterday", "known_at", "2026-02-30T00:00:00Z")).is(422)
		differ(t, "faults", []string{"query.at", "query.known_at"}, a.faults())
		m.deployed(m.deployment("success"))
		m.deployed(m.deployment("success", body{"product_name": m.name("z")}))
		page := m.read(where("/matrix", "limit", "1"))
		a = m.get(where("/matrix", "limit", "1", "at", "2026-02-01T12:00:00Z", "cursor", page.text("next_cursor"))).is(422)
		differ(t, "faults", []string{"query.cursor"}, a.faults())
	})
}
