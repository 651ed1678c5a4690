package contract_test

import (
	"net/http"
	"testing"
	"time"
)

func TestDeploymentTellsItsPlaceAmongOthers(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		noon := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
		on := func(hours int) string { return moment(noon.Add(time.Duration(hours) * time.Hour)) }
		run := func(id, version, status string, hours int) string {
			t.Helper()
			return l.deployed(l.deployment(status, body{"version": version, "invoke_id": id, "completed_at": on(hours)})).id()
		}
		one := run("a", "1", "success", 0)
		two := run("b", "2", "success", 1)
		failed := run("c", "3", "failed", 2)
		back := run("d", "1", "success", 3)
		again := run("e", "1", "success", 4)
		read := func(id string) answer { t.Helper(); return l.read("/deployments/" + id) }
		read(one).shows(body{"previous": nil, "next.deployment_id": two, "replaced_version": nil, "rollback": nil, "taken_back_by": nil})
		read(two).shows(body{
			"previous.deployment_id": one, "previous.version": "1", "previous.at": noon, "next.deployment_id": back, "replaced_version": "1",
			"rollback": nil, "taken_back_by.deployment_id": back,
		})
		read(failed).shows(body{"previous.deployment_id": two, "next.deployment_id": back, "replaced_version": nil, "rollback": nil, "taken_back_by": nil})
		read(back).shows(body{
			"previous.deployment_id": two, "replaced_version": "2", "rollback.of.deployment_id": two, "rollback.of.version": "2",
			"rollback.to.deployment_id": one, "rollback.to.at": noon, "taken_back_by": nil,
		})
		read(again).shows(body{"previous.deployment_id": back, "next": nil, "replaced_version": nil, "rollback": nil})
	})
}

func TestDeploymentTellsHowLongItsPhasesTook(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		step := func(status string) answer {
			t.Helper()
			a := m.deployed(m.deployment(status, body{"invoke_id": "1"}))
			return m.read("/deployments/" + a.id())
		}
		step("pending").shows(body{"phases.0.name": "pending", "phases.0.until": nil, "phases.0.seconds": nil, "phases.1": absent})
		m.clock.pass(30 * time.Second)
		step("started").shows(body{"phases.0.seconds": 30.0, "phases.1.name": "running", "phases.1.seconds": nil})
		m.clock.pass(90 * time.Second)
		step("success").shows(body{"phases.0.seconds": 30.0, "phases.1.seconds": 90.0, "phases.2": absent})
		only := m.deployed(m.deployment("success", body{"invoke_id": "2"}))
		m.read("/deployments/" + only.id()).shows(body{"phases": []any{}})
	})
}

func TestVersionTellsWhereItIsAndHowItGotThere(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		noon := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
		on := func(hours int) string { return moment(noon.Add(time.Duration(hours) * time.Hour)) }
		run := func(id, version, environment string, hours int, more ...body) answer {
			t.Helper()
			all := append([]body{{"version": version, "environment_name": environment, "invoke_id": l.name(id), "completed_at": on(hours)}}, more...)
			return l.deployed(l.deployment("success", all...))
		}
		built := l.built(l.build("success", body{"version": "1", "scm_sha": shaA})).id()
		first := run("a", "1", "staging", 0)
		run("b", "1", "production", 3)
		run("b", "7", "production", 3, body{"product_name": l.name("other")})
		run("c", "2", "production", 5)
		run("d", "1", "dev", 6)
		l.read("/versions/" + first.text("version_id")).shows(body{
			"version": "1", "scm_sha": shaA, "builds": 1.0, "build_runs.0.id": built, "build_runs.1": absent,
			"live_in.0.environment_name": "staging", "live_in.0.deployment_id": first.id(), "live_in.0.from": noon, "live_in.0.until": nil,
			"live_in.1.environment_name": "dev", "live_in.2": absent,
			"was_in.0.environment_name": "production", "was_in.0.from": noon.Add(3 * time.Hour), "was_in.0.until": noon.Add(5 * time.Hour), "was_in.1": absent,
			"promotions.0.from_environment": "staging", "promotions.0.to_environment": "production", "promotions.0.seconds": 10800.0,
			"promotions.1.to_environment": "dev", "promotions.1.seconds": 10800.0, "promotions.2": absent,
			"shipped_with.0.product_name": l.name("other"), "shipped_with.0.version": "7", "shipped_with.0.invoke_id": l.name("b"), "shipped_with.1": absent,
		})
	})
}

func TestProductAndEnvironmentTellWhatIsLive(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		here := l.name("production")
		first := l.deployed(l.deployment("success", body{"environment_name": here, "invoke_id": l.name("1"), "deployed_by": "ada"}))
		l.deployed(l.deployment("success", body{"environment_name": l.name("staging"), "version": "2", "invoke_id": l.name("2")}))
		l.deployed(l.deployment("failed", body{"environment_name": here, "version": "2", "invoke_id": l.name("3")}))
		open := l.deployed(l.deployment("started", body{"environment_name": here, "version": "3", "invoke_id": l.name("4")}))
		product := l.read("/products/" + first.text("product_id"))
		product.shows(body{
			"name": l.product, "drift": true, "live.0.environment_name": l.name("staging"), "live.0.version": "2",
			"live.1.environment_name": here, "live.1.version": "1.2.3", "live.1.deployment_id": first.id(), "live.1.deployed_by": "ada", "live.2": absent,
			"deployments.total": 4.0, "deployments.completed": 2.0, "deployments.failed": 1.0, "deployments.started": 1.0,
			"last_deployment.deployment_id": open.id(), "last_deployment.status": "started",
		})
		environment := l.read("/environments/" + first.text("environment_id"))
		environment.shows(body{
			"name": here, "live.0.product_name": l.product, "live.0.version": "1.2.3", "live.1": absent, "live_more": false,
			"open.0.deployment_id": open.id(), "open.0.version": "3", "open.1": absent, "deployments.total": 3.0, "last_deployment.deployment_id": open.id(),
		})
		for path, a := range map[string]answer{
			"/products/" + first.text("product_id"): product, "/environments/" + first.text("environment_id"): environment,
			"/versions/" + first.text("version_id"): l.read("/versions/" + first.text("version_id")), "/deployments/" + first.id(): l.read("/deployments/" + first.id()),
		} {
			tag := header("If-None-Match", a.header.Get("ETag"))
			differ(t, path, http.StatusNotModified, l.get(path, tag).status)
			l.get(path, tag, as("")).fails(401, "AUTH_MISSING")
		}
		l.deployed(l.deployment("success", body{"environment_name": here, "version": "3", "invoke_id": l.name("4")}))
		l.get("/products/"+first.text("product_id"), header("If-None-Match", product.header.Get("ETag"))).is(200).shows(body{"live.1.version": "3", "drift": true})
		l.read("/environments/" + first.text("environment_id")).shows(body{"open": []any{}})
		waits := l.deployed(l.deployment("pending", body{"environment_name": here, "version": "4", "invoke_id": l.name("5")}))
		runs := l.deployed(l.deployment("started", body{"environment_name": here, "product_name": l.name("other"), "invoke_id": l.name("6")}))
		l.read("/environments/" + first.text("environment_id")).shows(body{
			"open.0.deployment_id": runs.id(), "open.1.deployment_id": waits.id(), "open.1.status": "pending", "open.2": absent, "deployments.pending": 1.0, "deployments.started": 1.0,
		})
	})
}
