package contract_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

const quarantinePath = "/quarantine/"

// poisoned makes the projection fail on deployments of a version, until it is mended.
func (m *memory) poisoned(version string) (mended func()) {
	project := projection.Func(func(r event.Recorded, rows *readmodel.Rows) (bool, error) {
		if p, ok := r.Payload.(*event.Run); ok && p.Record.Version == version {
			return false, errors.New("of a bug")
		}
		return projection.Project(r, rows), nil
	})
	m.project.Store(&project)
	return func() { m.project.Store(nil) }
}

func (m *memory) aside(query string, options ...option) answer {
	m.t.Helper()
	return m.manage(http.MethodGet, quarantinePath+query, nil, options...).is(http.StatusOK)
}

func TestAnEventThatCannotBeAppliedIsSetAsideAndTriedAgain(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		mended := m.poisoned("6.6.6")
		bad := body{"version": "6.6.6", "environment_name": "dev", "invoke_id": "1"}
		m.deployed(m.deployment("started", bad))
		m.deployed(m.deployment("success", bad))
		last := m.deployed(m.deployment("success", body{"environment_name": "dev", "version": "1.0.0"}))
		m.get("/matrix", header("X-Shipledger-Position", last.header.Get("X-Shipledger-Position"))).is(http.StatusOK)

		held := m.aside("?state=quarantined")
		held.shows(body{
			"items.0.type": "deployment.started", "items.0.reason": "of a bug", "items.0.waits_behind": nil, "items.0.attempts": 1.0,
			"items.1.type": "deployment.completed", "items.1.waits_behind": held.text("items.0.id"), "next_cursor": nil,
		})
		first, second := held.text("items.0.id"), held.text("items.1.id")
		m.aside("?limit=1&subject=" + held.text("items.0.subject")).shows(body{"items.0.id": first})
		m.aside("?type=deployment.completed").shows(body{"items.0.id": second})
		m.get("/ledger/balance").is(http.StatusOK).shows(body{"balanced": true, "quarantined": 2.0, "discarded": 0.0})

		m.manage(http.MethodPost, quarantinePath+second+"/redrive", nil).is(http.StatusOK).
			shows(body{"id": second, "state": "quarantined", "waits_behind": first})
		m.aside("").shows(body{"items.0.attempts": 2.0, "items.0.state": "quarantined"})
		// Who asked before is not given that answer again once it no longer holds.
		for range 2 {
			m.get("/deployments/?version=6.6.6").is(http.StatusOK).shows(body{"items": []any{}})
		}
		mended()
		m.manage(http.MethodPost, quarantinePath+second+"/redrive", nil).is(http.StatusOK).shows(body{"id": second, "state": "redriven"})
		m.aside("").shows(body{"items.0.state": "redriven", "items.1.state": "redriven"})
		m.manage(http.MethodPost, quarantinePath+first+"/redrive", nil).fails(http.StatusConflict, "QUARANTINE_STATE")
		m.manage(http.MethodPost, quarantinePath+first+"/discard", body{"reason": "late"}).fails(http.StatusConflict, "QUARANTINE_STATE")
		m.get("/ledger/balance").is(http.StatusOK).shows(body{"balanced": true, "quarantined": 0.0})
		m.get("/deployments/?version=6.6.6").is(http.StatusOK).shows(body{"items.0.status": "completed"})
	})
}

func TestDiscardedEventsStayInTheBalance(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.poisoned("6.6.6")
		for _, environment := range []string{"dev", "staging", "production"} {
			m.deployed(m.deployment("success", body{"version": "6.6.6", "environment_name": environment}))
		}
		m.manage(http.MethodPost, quarantinePath+"redrive", body{"all": true, "ids": []any{"t0.1.0"}}).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		last := m.deployed(m.deployment("success"))
		m.get("/matrix", header("X-Shipledger-Position", last.header.Get("X-Shipledger-Position"))).is(http.StatusOK)
		held := m.aside("?state=quarantined")
		id := held.text("items.0.id")
		m.manage(http.MethodPost, quarantinePath+id+"/discard", body{}).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		a := m.manage(http.MethodPost, quarantinePath+id+"/discard", body{"reason": "a test"}).is(http.StatusOK)
		a.shows(body{"id": id, "state": "discarded", "reason": "a test"})
		matches(t, `^o\.1\.0$`, a.header.Get("X-Shipledger-Position"))
		m.manage(http.MethodPost, quarantinePath+id+"/discard", body{"reason": "again"}).fails(http.StatusConflict, "QUARANTINE_STATE")
		m.get("/ledger/balance").is(http.StatusOK).shows(body{"balanced": true, "quarantined": 2.0, "discarded": 1.0})
		m.manage(http.MethodPost, quarantinePath+"redrive", body{"ids": []any{held.text("items.1.id")}}).is(http.StatusOK).
			shows(body{"redriven": 0.0, "quarantined": 2.0})
		m.project.Store(nil)
		m.manage(http.MethodPost, quarantinePath+"redrive", body{"all": true}).is(http.StatusOK).shows(body{"redriven": 2.0, "quarantined": 0.0})
		m.manage(http.MethodPost, quarantinePath+"redrive", body{"all": true}).fails(http.StatusConflict, "QUARANTINE_EMPTY")
		m.restart()
		m.get("/ledger/balance").is(http.StatusOK).shows(body{"balanced": true, "quarantined": 0.0, "discarded": 1.0})

		// Who decided what is in the audit log of the account, and of no other.
		decided := m.events("o.3.0", "family", "quarantine")
		differ(t, "types", []string{"quarantine.discarded", "quarantine.redriven", "quarantine.redriven"}, decided.each("items", "type"))
		decided.shows(body{
			"items.0.subject": id, "items.0.credential_name": "acme admin", "items.0.data.quarantine": body{"positions": []any{id}, "reason": "a test"},
			"items.1.data.quarantine.positions.0": held.text("items.1.id"), "items.2.subject": "all",
		})
		foreign := as(m.tokenOf(other, "pat", "admin"))
		m.read(where(eventsPath, "family", "quarantine", "min_position", "o.3.0"), foreign).shows(body{"items": []any{}})
		m.get(eventsPath+decided.text("items.0.id"), foreign).fails(http.StatusForbidden, "NOT_OWNER")
	})
}

func TestTheQuarantineIsDecidedOnByAdminsOfTheAccount(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.poisoned("6.6.6")
		m.deployed(m.deployment("success", body{"version": "6.6.6"}))
		last, err := m.track.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.track.AppendFrame(t.Context(), eventlog.Frame{ID: "poison", Body: []byte("no batch")}, last); err != nil {
			t.Fatal(err)
		}
		nobodys := event.Position{Stream: m.trackOf(acme), Offset: event.At(last+1, 0)}.String()
		m.get("/matrix", header("X-Shipledger-Position", nobodys)).is(http.StatusOK)
		held := m.aside("")
		held.shows(body{"items.1.id": nobodys, "items.1.frame": true, "items.1.type": nil})
		id := held.text("items.0.id")
		for _, grant := range []string{"read", "write"} {
			token := as(m.token("pat", grant))
			m.aside("", token)
			m.manage(http.MethodPost, quarantinePath+id+"/redrive", nil, token).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
			m.manage(http.MethodPost, quarantinePath+id+"/discard", body{"reason": "x"}, token).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
			m.manage(http.MethodPost, quarantinePath+"redrive", body{"all": true}, token).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		}
		m.manage(http.MethodPost, quarantinePath+id+"/redrive", nil, as(m.signedIn(acme, credential.RoleSRE))).is(http.StatusForbidden)
		foreign := as(m.tokenOf(other, "pat", "admin"))
		m.aside("", foreign).shows(body{"items": []any{}})
		for _, which := range []string{id, nobodys} {
			m.manage(http.MethodPost, quarantinePath+which+"/redrive", nil, foreign).fails(http.StatusForbidden, "NOT_OWNER")
			m.manage(http.MethodPost, quarantinePath+which+"/discard", body{"reason": "x"}, foreign).fails(http.StatusForbidden, "NOT_OWNER")
		}
		m.manage(http.MethodPost, quarantinePath+"redrive", body{"all": true}, foreign).fails(http.StatusConflict, "QUARANTINE_EMPTY")
		for _, nowhere := range []string{"t0.999.0", "nonsense"} {
			m.manage(http.MethodPost, quarantinePath+nowhere+"/redrive", nil).fails(http.StatusNotFound, "NOT_FOUND")
		}
		m.manage(http.MethodPost, quarantinePath+nobodys+"/discard", body{"reason": "planted"}).is(http.StatusOK).shows(body{"state": "discarded"})
	})
}

// metric gives what a gauge of the projector shows.
func (m *memory) metric(name string) float64 {
	m.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.metrics...)
	families, err := registry.Gather()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	m.t.Fatalf("there is no metric %s", name)
	return 0
}

// Issue 5: metrics and health show what is set aside. It makes no process unready:
// every other answer is as right as before.
func TestHealthAndMetricsTellWhatIsSetAside(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		feels := func(when, overall, quarantine string, events float64) {
			t.Helper()
			m.send(http.MethodGet, "/health", "").is(http.StatusOK).shows(body{"status": overall, "parts.quarantine": quarantine, "parts.projector": "ok", "parts.log": "ok"})
			m.send(http.MethodGet, "/health/live", "").is(http.StatusOK)
			if got := m.metric("shipledger_quarantined_events"); got != events {
				t.Errorf("%s the metric says %v, not %v", when, got, events)
			}
			if age := m.metric("shipledger_quarantine_oldest_seconds"); (age > 0) != (events > 0) {
				t.Errorf("%s the oldest of %v is %v s old", when, events, age)
			}
		}
		posted := 0
		readable := func() {
			t.Helper()
			posted++
			last := m.deployed(m.deployment("success", body{"invoke_id": fmt.Sprint("another ", posted)}))
			m.get("/matrix", header("X-Shipledger-Position", last.header.Get("X-Shipledger-Position"))).is(http.StatusOK)
		}
		readable()
		feels("at first", "ok", "ok", 0)

		mended := m.poisoned("6.6.6")
		bad := body{"version": "6.6.6", "environment_name": "dev", "invoke_id": "1"}
		m.deployed(m.deployment("started", bad))
		m.deployed(m.deployment("success", bad))
		readable()
		feels("with one and another that waits behind it", "degraded", "degraded", 2)
		age := m.metric("shipledger_quarantine_oldest_seconds")
		m.restart()
		readable()
		feels("after a restart", "degraded", "degraded", 2)
		if now := m.metric("shipledger_quarantine_oldest_seconds"); now < age {
			t.Errorf("a restart makes it younger: %v s, before %v s", now, age)
		}
		mended()
		m.manage(http.MethodPost, quarantinePath+"redrive", body{"all": true}).is(http.StatusOK)
		feels("when it was tried again", "ok", "ok", 0)

		m.poisoned("7.7.7")
		m.deployed(m.deployment("success", body{"version": "7.7.7", "environment_name": "staging"}))
		readable()
		feels("with another", "degraded", "degraded", 1)
		m.manage(http.MethodPost, quarantinePath+m.aside("?state=quarantined").text("items.0.id")+"/discard", body{"reason": "a test"}).is(http.StatusOK)
		feels("when it was discarded", "ok", "ok", 0)
	})
}
