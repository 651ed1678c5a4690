package contract_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// history loads items as an admin.
func (l *ledger) load(items []any, options ...option) answer {
	l.t.Helper()
	var text strings.Builder
	for _, item := range items {
		fmt.Fprintln(&text, item)
	}
	usual := []option{as(l.admin), header("Content-Type", "application/x-ndjson")}
	return l.batchAt("/events/batch?backfill=true", text.String(), append(usual, options...)...)
}

// derivedID computes the id of a run that is loaded as history, by contract 4.4.
func derivedID(at time.Time, parts ...string) string {
	var id ulid.ULID
	if err := id.SetTime(uint64(at.UnixMilli())); err != nil {
		panic(err)
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	copy(id[6:], sum[:10])
	return id.String()
}

func TestLoadingHistoryNeedsAdmin(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		item := []any{m.deployment("success", body{"invoke_id": "1"})}
		for _, token := range []string{m.key, m.token("sk", "write"), m.token("pat", "write"), m.pat} {
			m.load(item, as(token)).fails(403, "INSUFFICIENT_SCOPE")
		}
		differ(t, "frames", uint64(0), m.frames())
		m.load(item, as(m.token("sk", "admin"))).is(200)
		m.load(item).is(200)
		m.batchAt("/events/batch?backfill=false", "["+item[0].(body).String()+"]").is(200)
		m.batchAt("/events/batch?backfill=perhaps", "[]", as(m.admin)).fails(422, "VALIDATION_ERROR")
	})
}

func TestHistoryKeepsItsTimesAndDerivesItsIds(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		start, end := time.Date(2019, 5, 1, 8, 0, 0, 123e6, time.UTC), time.Date(2019, 5, 1, 9, 30, 0, 0, time.UTC)
		future, epoch := time.Date(2101, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 0).UTC()
		times := func(start, end time.Time) body {
			b := body{}
			if !start.IsZero() {
				b["started_at"] = moment(start)
			}
			if !end.IsZero() {
				b["completed_at"] = moment(end)
			}
			return b
		}
		a := l.load([]any{
			l.deployment("success", body{"invoke_id": "1"}, times(start, end)),
			l.deployment("failed", body{"invoke_id": "2"}, times(time.Time{}, end)),
			l.build("success", body{"invoke_id": "1"}, times(start, end)),
			l.deployment("success", body{"invoke_id": "3"}, times(epoch, future)),
			l.deployment("started", body{"invoke_id": "4"}, times(future, time.Time{})),
		})
		differ(t, "statuses", []int{200, 200, 200, 200, 200}, a.statuses())
		differ(t, "ids", []string{
			derivedID(start, l.account, l.product, "production", "1.2.3", "1"),
			derivedID(end, l.account, l.product, "production", "1.2.3", "2"),
			derivedID(start, l.account, l.product, "", "1.2.3", "1"),
			derivedID(epoch, l.account, l.product, "production", "1.2.3", "3"),
			derivedID(future, l.account, l.product, "production", "1.2.3", "4"),
		}, a.each("results", "id"))
		l.read("/deployments/" + a.text("results.0.id")).shows(body{
			"started_at": start, "deployed_at": start, "completed_at": end, "backfilled": true, "status": "completed",
			"events.0.backfilled": true, "events.0.effective_at": end, "invoke_id": "1",
		})
		l.read("/deployments/" + a.text("results.1.id")).shows(body{"started_at": nil, "deployed_at": end, "completed_at": end, "status": "failed"})
		l.read("/builds/" + a.text("results.2.id")).shows(body{"started_at": start, "completed_at": end, "backfilled": true})
		l.read("/deployments/" + a.text("results.3.id")).shows(body{"started_at": epoch, "completed_at": future})
		l.read("/deployments/" + a.text("results.4.id")).shows(body{"started_at": future, "completed_at": nil, "events.0.effective_at": future})
	})
}

func TestHistoryNeedsARunIdAndTimesFrom1970On(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		before := "1969-12-31T23:59:59Z"
		a := l.load([]any{
			l.deployment("success"), l.build("success", body{"invoke_id": ""}),
			l.deployment("success", body{"invoke_id": "1", "started_at": before}), l.build("success", body{"invoke_id": "1", "completed_at": before}),
			l.deployment("success", body{"invoke_id": "1", "started_at": before, "completed_at": "1969-01-01T00:00:00Z"}),
			l.deployment("?"), l.build("?", body{"invoke_id": 7}), l.deployment("?", body{"version": 7, "invoke_id": "1"}), "7",
		})
		differ(t, "statuses", []int{422, 422, 422, 422, 422, 422, 422, 422, 422}, a.statuses())
		a.shows(body{
			"results.0.detail.0":       body{"loc": []any{"body", "invoke_id"}, "msg": "field required", "type": "value_error.missing"},
			"results.1.detail.0.loc.1": "invoke_id", "results.2.detail.0.loc.1": "started_at", "results.3.detail.0.loc.1": "completed_at",
			"results.4.detail.0.loc.1": "started_at", "results.4.detail.1.loc.1": "completed_at",
			"results.5.detail.0.loc.1": "status", "results.5.detail.1.loc.1": "invoke_id", "results.5.detail.2": absent, // every fault at once
			"results.6.detail.0.loc.1": "status", "results.6.detail.1.loc.1": "invoke_id", "results.6.detail.1.type": "type_error.str", "results.6.detail.2": absent,
			"results.7.detail.1.loc.1": "status", "results.7.detail.2": absent, "results.8.detail.0.loc": []any{"body"}, "results.8.detail.1": absent,
		})
	})
}

func TestHistoryLoadedAgainIsADuplicateAtAnyTime(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		end := body{"completed_at": "2019-05-01T09:30:00Z"}
		items := []any{
			m.deployment("started", body{"invoke_id": "1", "started_at": "2019-05-01T09:00:00Z"}), m.deployment("success", body{"invoke_id": "1"}, end),
			m.build("success", body{"invoke_id": "1"}, end), m.deployment("started", body{"invoke_id": "2", "started_at": "2019-05-02T09:00:00Z"}),
		}
		first := m.load(items).shows(body{"accepted": 4, "duplicate": 0})
		frames := m.frames()
		same := func(items []any, what string) {
			t.Helper()
			again := m.load(items).shows(body{"accepted": 0, "duplicate": 4, "refused": 0})
			differ(t, what, first.each("results", "id"), again.each("results", "id"))
			differ(t, "frames "+what, frames, m.frames())
		}
		same(items, "at once")
		m.clock.pass(3 * 365 * 24 * time.Hour)
		same(items, "years later")
		m.restart()
		same(items, "after a restart")
		var other []any
		for _, item := range items {
			other = append(other, item.(body).with(body{"deploy_url": "elsewhere", "completed_at": "2019-05-01T09:31:00Z"}))
		}
		same(other, "with other fields")
		same([]any{other[1], items[1], items[2], items[3]}[:4:4], "in another order")
	})
}

func TestHistoryIsNotHeldToRules(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		l.deployed(l.deployment("started", body{"invoke_id": "now"}))
		a := l.load([]any{l.deployment("started", body{"invoke_id": "1"}), l.deployment("started", body{"invoke_id": "2"})})
		differ(t, "statuses", []int{200, 200}, a.statuses())
	})
}

func TestRunThatTheLedgerKnowsKeepsItsId(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		run := body{"invoke_id": "1"}
		live := l.deployed(l.deployment("started", run))
		a := l.load([]any{
			l.deployment("started", run, body{"started_at": "2019-05-01T09:00:00Z"}),
			l.deployment("success", run, body{"started_at": "2019-05-01T09:00:00Z", "completed_at": "2019-05-01T09:30:00Z"}),
		})
		a.shows(body{"duplicate": 1, "accepted": 1, "results.0.id": live.id(), "results.1.id": live.id()})
		l.deployed(l.deployment("success", run)).shows(body{"id": live.id(), "status": "completed"})
		loaded := l.load([]any{l.deployment("success", body{"invoke_id": "2", "completed_at": "2019-05-01T09:30:00Z"})})
		l.deployed(l.deployment("started", body{"invoke_id": "2"})).shows(body{"id": loaded.text("results.0.id"), "status": "completed"})
	})
}

func TestLoadedBuildsAreHeldToTheirCommit(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		a := l.load([]any{
			l.build("success", body{"invoke_id": "1", "scm_sha": shaA, "completed_at": "2019-05-01T09:30:00Z"}),
			l.build("success", body{"invoke_id": "2", "scm_sha": shaB, "completed_at": "2019-05-01T09:30:00Z"}),
		})
		differ(t, "statuses", []int{200, 409}, a.statuses())
		a.shows(body{"results.1.code": "VERSION_SHA_MISMATCH"})
	})
}
