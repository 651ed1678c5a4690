package contract_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// Rows: D-04
func TestEventsOfOneRunAreOneDeployment(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		run := body{"invoke_id": "1"}
		started := l.deployed(l.deployment("started", run))
		completed := l.deployed(l.deployment("success", run)).shows(body{"id": started.id(), "status": "completed"})
		l.read("/deployments/" + started.id()).shows(body{
			"id": started.id(), "status": "completed", "events.0.type": "deployment.started", "events.1.type": "deployment.completed", "events.2": absent,
			"events.0.id": started.text("event_id"), "events.1.id": completed.text("event_id"),
			"events.0.credential_id": "k1", "events.0.subject": started.id(), "events.0.data.status": "started", "events.1.data.status": "success",
		})
		differ(t, "records", []string{started.id()}, l.read(where("/deployments/", "product", l.product)).each("items", "id"))
	})
}

// Rows: D-05
func TestLateStartLeavesTheEndAsItIs(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		run := body{"invoke_id": "1"}
		completed := l.deployed(l.deployment("success", run, body{"deploy_url": "end"}))
		late := l.deployed(l.deployment("started", run, body{"deploy_url": "start", "source_system": "late"}))
		late.shows(body{
			"id": completed.id(), "status": "completed", "completed_at": completed.text("completed_at"), "deploy_url": "end", "source_system": "late",
		})
		l.read("/deployments/" + completed.id()).shows(body{"status": "completed", "events.1.type": "deployment.started", "events.2": absent})
		l.deployed(l.deployment("pending", run)).shows(body{"id": completed.id(), "status": "completed"})
	})
}

// Contract 11.2 and 11.6.
func TestLateStartFillsTheStartAndIsNotHeldToRules(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		run := body{"invoke_id": "1"}
		end := startTime.Add(-10 * time.Minute)
		completed := m.deployed(m.deployment("success", run, body{"completed_at": moment(end)})).shows(body{"completed_at": end, "deployed_at": end})
		m.deployed(m.deployment("started", body{"invoke_id": "2"}))
		m.clock.pass(time.Minute)
		m.deployed(m.deployment("started", run)).shows(body{"id": completed.id(), "status": "completed", "completed_at": end, "deployed_at": end})
		m.read("/deployments/" + completed.id()).shows(body{"started_at": end, "completed_at": end, "created_at": startTime})

		b := m.built(m.build("success", run))
		m.read("/builds/" + b.id()).shows(body{"started_at": nil})
		start := startTime.Add(-time.Hour)
		m.built(m.build("started", run, body{"started_at": moment(start)})).shows(body{"id": b.id(), "status": "completed", "started_at": start})
	})
}

// Rows: D-06
func TestSameVersionDeployedByTwoRunsIsTwoRecords(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		one := l.deployed(l.deployment("success", body{"invoke_id": "1"}))
		two := l.deployed(l.deployment("success", body{"invoke_id": "2"}))
		differ(t, "records", []string{two.id(), one.id()}, l.read(where("/deployments/", "product", l.product)).each("items", "id"))
		l.built(l.build("success", body{"invoke_id": "1"}))
		l.built(l.build("success", body{"invoke_id": "2"}))
		l.read("/versions/" + one.text("version_id")).shows(body{"builds": 2, "status": "completed"})
	})
}

// The client's exit code 5 of this row follows from the status 409 (contract 8.3).
//
// Decisions of contract 24: C-10, C-11.
//
// Rows: D-07
func TestOneDeploymentAtATimeIsUnderWayInAnEnvironment(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		one, two := body{"invoke_id": "1"}, body{"invoke_id": "2", "version": "1.2.4"}
		first := m.deployed(m.deployment("started", one))
		refused := m.post("/deployment-events/", m.deployment("started", two)).fails(409, "CONCURRENT_DEPLOYMENT")
		refused.shows(body{
			"error": "deployment_blocked", "success": false, "details.conflicting_deployment_id": first.id(),
			"details.conflicting_deployment_status": "started", "details.conflicting_deployment_started": startTime,
		})
		m.deployed(m.deployment("started", two, body{"environment_name": "staging"}))
		m.deployed(m.deployment("started", one, body{"product_name": m.name("other")}))
		m.deployed(m.deployment("started", one)).shows(body{"id": first.id()})
		m.deployed(m.deployment("started", one, body{"deploy_url": "again"})).shows(body{"id": first.id()})

		m.deployed(m.deployment("success", one))
		second := m.deployed(m.deployment("started", two))

		m.clock.pass(time.Hour)
		m.post("/deployment-events/", m.deployment("started", body{"invoke_id": "3"})).fails(409, "CONCURRENT_DEPLOYMENT")
		m.clock.pass(time.Millisecond)
		m.deployed(m.deployment("started", body{"invoke_id": "3"}))
		m.read("/deployments/" + second.id()).shows(body{"status": "started"})
		m.deployed(m.deployment("failed", two)).shows(body{"id": second.id(), "status": "failed"})

		var ends [8]int
		var wg sync.WaitGroup
		for i := range ends {
			wg.Go(func() {
				b := m.deployment("started", body{"environment_name": "parallel", "invoke_id": fmt.Sprint(i)})
				ends[i] = m.post("/deployment-events/", b).status
			})
		}
		wg.Wait()
		count := map[int]int{}
		for _, status := range ends {
			count[status]++
		}
		differ(t, "of parallel starts", map[int]int{200: 1, 409: len(ends) - 1}, count)
	})
}

func TestOnlyAStartedDeploymentStandsInTheWay(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		l.deployed(l.deployment("pending", body{"invoke_id": "1"}))
		second := l.deployed(l.deployment("started", body{"invoke_id": "2"}))
		l.deployed(l.deployment("pending", body{"invoke_id": "3"}))
		l.post("/deployment-events/", l.deployment("started", body{"invoke_id": "3"})).fails(409, "CONCURRENT_DEPLOYMENT")
		for _, end := range []string{"success", "failed", "aborted"} { // what has ended is recorded, whoever is under way
			l.deployed(l.deployment(end, body{"invoke_id": end}))
		}
		l.deployed(l.deployment("aborted", body{"invoke_id": "2"})).shows(body{"id": second.id(), "status": "aborted"})
		l.deployed(l.deployment("started", body{"invoke_id": "1"})).shows(body{"status": "started"})
		l.built(l.build("started", body{"invoke_id": "1"})) // builds are not held to it
		l.built(l.build("started", body{"invoke_id": "2"}))
		l.deployed(l.deployment("started", body{"invoke_id": "4", "skip_preflight_checks": true}))
	})
}

// Rows: S-05
func TestRefusalIsSaidInBothShapes(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		l.deployed(l.deployment("started", body{"invoke_id": "1"}))
		a := l.post("/deployment-events/", l.deployment("started", body{"invoke_id": "2"})).is(409)
		detail, ok := a.at("detail").(map[string]any)
		if !ok || detail["error"] != "deployment_blocked" {
			t.Fatalf("detail is %s", a.raw)
		}
		for member, v := range detail {
			differ(t, member, v, a.at(member))
		}
		if a.text("details.rule_name") == "" {
			t.Error("the rule has no name")
		}
		a.shows(body{"success": false, "meta.request_id": a.header.Get("X-Request-Id")})
		l.read("/deployments/" + a.text("details.deployment_id")).shows(body{"status": "preflight_failed", "events.0.type": "deployment.preflight_failed"})
		differ(t, "refused", []string{a.text("details.deployment_id")},
			l.read(where("/deployments/", "product", l.product, "status", "preflight_failed")).each("items", "id"))
	})
}

// Decisions of contract 24: C-14.
//
// Rows: S-04
func TestRefusedRunIsCheckedAgainAndBeginsAnew(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		one, two := body{"invoke_id": "1"}, body{"invoke_id": "2"}
		first := l.deployed(l.deployment("started", one))
		refused := l.post("/deployment-events/", l.deployment("started", two)).is(409).text("details.deployment_id")
		l.post("/deployment-events/", l.deployment("started", two)).is(409)
		again := l.post("/deployment-events/", l.deployment("started", two, body{"deploy_url": "other bytes"})).is(409).text("details.deployment_id")
		if again == refused {
			t.Error("a start with other bytes is not recorded by itself")
		}
		l.read(where("/matrix", "product", l.product)).shows(body{"items.0.cells": []any{}})
		l.deployed(l.deployment("success", one)).shows(body{"id": first.id()})
		started := l.deployed(l.deployment("started", two)).shows(body{"status": "started"})
		if started.id() == refused || started.id() == again {
			t.Error("the run goes on in a record that was refused")
		}
		l.deployed(l.deployment("success", two)).shows(body{"id": started.id()})
		differ(t, "history of what was refused", []string{"deployment.preflight_failed"}, l.history(refused, "type"))

		l.deployed(l.deployment("started", one, body{"version": "2"}))
		l.post("/deployment-events/", l.deployment("started", two, body{"version": "2"})).is(409)
		l.deployed(l.deployment("success", two, body{"version": "2"})).shows(body{"status": "completed"}) // the next event may be any
	})
}

// Contract 11.1.
func TestRunAttemptsAreRunsOfTheirOwn(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		attempt := func(n string) body {
			return body{"invoke_id": "1", "extra_metadata": body{"vi_gh_run_attempt": n, "vi_gh_job": "deploy"}}
		}
		one := l.deployed(l.deployment("failed", attempt("1")))
		two := l.deployed(l.deployment("success", attempt("2")))
		none := l.deployed(l.deployment("success", body{"invoke_id": "1"}))
		if one.id() == two.id() || two.id() == none.id() || one.id() == none.id() {
			t.Error("two attempts are one record")
		}
		l.deployed(l.deployment("started", attempt("1"))).shows(body{"id": one.id(), "status": "failed"})
		l.deployed(l.deployment("started", attempt("2"))).shows(body{"id": two.id(), "status": "completed"})
		if l.built(l.build("failed", attempt("1"))).id() == l.built(l.build("success", attempt("2"))).id() {
			t.Error("two attempts are one build")
		}
	})
}

func TestWithoutARunIdTheNewestOpenRecordIsMeant(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		pending := l.deployed(l.deployment("pending"))
		l.deployed(l.deployment("started")).shows(body{"id": pending.id(), "status": "started"})
		newer := l.deployed(l.deployment("pending", body{"invoke_id": "1"}))
		l.deployed(l.deployment("failed")).shows(body{"id": newer.id(), "status": "failed"})
		l.deployed(l.deployment("success")).shows(body{"id": pending.id(), "status": "completed"})
		alone := l.deployed(l.deployment("success"))
		if alone.id() == pending.id() || alone.id() == newer.id() {
			t.Error("a report without an open record joins a closed one")
		}
		other := l.deployed(l.deployment("pending", body{"version": "2"}))
		if l.deployed(l.deployment("success")).id() == other.id() {
			t.Error("a report joins a record of another version")
		}
		l.deployed(l.deployment("success", body{"version": "2", "environment_name": "staging"}))
		l.deployed(l.deployment("success", body{"version": "2"})).shows(body{"id": other.id()})
	})
}

// Contract 11.3.
func TestSecondTerminalStatusIsFlaggedAndTheFirstStays(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		run := body{"invoke_id": "1"}
		first := l.deployed(l.deployment("failed", run))
		l.deployed(l.deployment("failed", run, body{"deploy_url": "again"})).shows(body{"id": first.id(), "status": "failed"})
		l.deployed(l.deployment("success", run)).shows(body{"id": first.id(), "status": "failed", "completed_at": first.text("completed_at")})
		l.read("/deployments/" + first.id()).shows(body{
			"status": "failed", "completed_at": first.text("completed_at"),
			"events.0.flag": nil, "events.1.flag": nil, "events.2.flag": "second_terminal", "events.2.type": "deployment.completed",
		})
		l.read(where("/matrix", "product", l.product)).shows(body{"items.0.cells": []any{}})
	})
}

// Contract 11.6.
func TestTimesAreClampedToWhatCanBe(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		at := func(minutes int) time.Time { return startTime.Add(time.Duration(minutes) * time.Minute) }
		future, past := body{"completed_at": moment(at(30))}, body{"completed_at": moment(at(-30))}

		m.deployed(m.deployment("success", future)).shows(body{"completed_at": startTime, "deployed_at": startTime})
		m.deployed(m.deployment("failed", past)).shows(body{"completed_at": at(-30), "deployed_at": at(-30), "created_at": startTime})
		m.deployed(m.deployment("started", past)).shows(body{"completed_at": nil, "deployed_at": startTime})
		m.clock.pass(10 * time.Minute)
		m.deployed(m.deployment("success", past)).shows(body{"completed_at": startTime, "deployed_at": startTime})

		m.deployed(m.deployment("pending", body{"invoke_id": "1"})).shows(body{"deployed_at": at(10)})
		m.clock.pass(10 * time.Minute)
		run := m.deployed(m.deployment("started", body{"invoke_id": "1", "started_at": moment(at(1))})).shows(body{"deployed_at": at(20), "created_at": at(10)})
		m.clock.pass(10 * time.Minute)
		m.deployed(m.deployment("started", body{"invoke_id": "1"})).shows(body{"deployed_at": at(20)})
		m.deployed(m.deployment("success", body{"invoke_id": "1", "completed_at": moment(at(25))})).shows(body{"completed_at": at(25), "deployed_at": at(20)})
		m.deployed(m.deployment("success", body{"invoke_id": "1", "completed_at": moment(at(22))})).shows(body{"completed_at": at(25), "deployed_at": at(20)})
		m.read("/deployments/" + run.id()).shows(body{
			"started_at": at(20), "created_at": at(10), "completed_at": at(25),
			"events.0.effective_at": at(10), "events.1.effective_at": at(20), "events.3.effective_at": at(25), "events.3.received_at": at(30),
		})
	})
}

// Contract 4.2: the action stamps started_at on every build event.
func TestLaterBuildEventNeverOverwritesAnEarlierStart(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		at := func(minutes int) body {
			return body{"started_at": moment(startTime.Add(time.Duration(minutes) * time.Minute))}
		}
		run := body{"invoke_id": "1"}
		m.built(m.build("started", run, at(-10))).shows(body{"started_at": startTime.Add(-10 * time.Minute)})
		m.built(m.build("success", run, at(-5))).shows(body{"started_at": startTime.Add(-10 * time.Minute)})
		m.built(m.build("success", run, at(-20))).shows(body{"started_at": startTime.Add(-20 * time.Minute)})
		m.built(m.build("started", body{"invoke_id": "2"}, at(30))).shows(body{"started_at": startTime})
		m.built(m.build("success", body{"invoke_id": "3"}, at(-7))).shows(body{"started_at": startTime.Add(-7 * time.Minute), "completed_at": startTime})
		m.built(m.build("success", body{"invoke_id": "4", "completed_at": moment(startTime.Add(-8 * time.Minute))}, at(-7))).
			shows(body{"started_at": startTime.Add(-7 * time.Minute), "completed_at": startTime.Add(-7 * time.Minute)})
	})
}

// Contract 11.8.
func TestFieldsKeepTheValueOfTheFurthestReport(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		run := body{"invoke_id": "1"}
		l.deployed(l.deployment("started", run, body{
			"deploy_url": "start", "source_system": "github", "deployed_by": "ada", "extra_metadata": body{"a": 1, "b": 1},
		}))
		end := l.deployed(l.deployment("success", run, body{"deploy_url": "end", "extra_metadata": body{"b": 2, "c": 2}}))
		end.shows(body{"deploy_url": "end", "source_system": "github", "deployed_by": "ada", "extra_metadata": body{"a": 1.0, "b": 2.0, "c": 2.0}})
		late := l.deployed(l.deployment("pending", run, body{"deploy_url": "queue", "build_number": "7", "extra_metadata": body{"b": 3, "d": 3}}))
		late.shows(body{"deploy_url": "end", "extra_metadata": body{"a": 1.0, "b": 2.0, "c": 2.0, "d": 3.0}})
		l.read("/deployments/" + end.id()).shows(body{"build_number": "7", "deploy_url": "end", "extra_metadata": late.at("extra_metadata")})
	})
}

func TestMetadataThatWouldGrowOver128KBIsTakenAsAWhole(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		run := body{"invoke_id": "1"}
		half := strings.Repeat("x", 70<<10)
		l.deployed(l.deployment("started", run, body{"extra_metadata": body{"start": half}}))
		end := l.deployed(l.deployment("success", run, body{"extra_metadata": body{"end": half}}))
		end.shows(body{"extra_metadata": body{"end": half}})
		l.deployed(l.deployment("pending", run, body{"extra_metadata": body{"late": half}})).shows(body{"extra_metadata": body{"end": half}})
		l.read("/deployments/" + end.id()).shows(body{"extra_metadata": body{"end": half}})
	})
}

func TestStatusOfAVersionFollowsItsLatestBuild(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		version := l.built(l.build("success", body{"invoke_id": "1"})).text("version_id")
		for i, status := range []string{"failed", "started", "pending"} {
			l.built(l.build(status, body{"invoke_id": fmt.Sprint("again", i)}))
			l.read("/versions/" + version).shows(body{"status": status, "builds": 2 + i})
		}
		l.built(l.build("failed", body{"invoke_id": "1", "build_url": "late"}))
		l.read("/versions/" + version).shows(body{"status": "pending", "builds": 4})
	})
}
