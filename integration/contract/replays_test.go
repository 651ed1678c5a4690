package contract_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
)

const replaysPath = "/replays/"

// Rows: VF-08, VF-09, VF-10
func TestReplaysAreStartedByAdminsAndReadByOthers(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.deployed(m.deployment("success"))
		for _, grant := range []string{"read", "sync-trigger", "write"} {
			token := as(m.token("pat", grant))
			m.get("/projections/", token).is(http.StatusOK)
			m.manage(http.MethodGet, replaysPath, nil, token).is(http.StatusOK)
			m.manage(http.MethodPost, replaysPath, body{}, token).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		}
		m.manage(http.MethodPost, replaysPath, body{}, as(m.token("sk", "admin"))).fails(http.StatusForbidden, "WRONG_CREDENTIAL_KIND")
		m.manage(http.MethodPost, replaysPath, body{}, as(m.signedIn(acme, credential.RoleSRE))).is(http.StatusForbidden)
		m.manage(http.MethodPost, replaysPath, body{"switch": "sometimes"}).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		m.manage(http.MethodPost, replaysPath, body{"account": other}).fails(http.StatusForbidden, "NOT_OWNER")
		a := m.manage(http.MethodPost, replaysPath, body{"switch": "when_equal"}).is(http.StatusCreated)
		a.shows(body{"projection": "ledger", "version": 2.0, "switch": "when_equal", "verdict": nil})
		matches(t, `^o\.1\.0$`, a.header.Get("X-Shipledger-Position"))
		id := a.text("id")
		m.manage(http.MethodGet, replaysPath+id, nil, header("X-Shipledger-Position", "o.1.0")).is(http.StatusOK).shows(body{"id": id})
		foreign := as(m.tokenOf(other, "pat", "admin"))
		m.manage(http.MethodGet, replaysPath+id, nil, foreign).fails(http.StatusForbidden, "NOT_OWNER")
		m.manage(http.MethodPost, replaysPath+id+"/cancel", nil, foreign).fails(http.StatusForbidden, "NOT_OWNER")
		m.manage(http.MethodGet, replaysPath+"01JW2C5R3V0E6H7Q8S9T0A1B2D", nil).fails(http.StatusNotFound, "NOT_FOUND")
		m.manage(http.MethodGet, replaysPath+id+"/certificate", nil).fails(http.StatusNotFound, "REPLAY_NOT_VERIFIED")
		m.get("/projections/").is(http.StatusOK).shows(body{"items.0.name": "ledger", "items.0.active_version": 1.0})
	})
}

// Issue 5: who rebuilt, who switched and what the comparison found are events. They
// stand in the audit log of the account whose admin decided, and in no other.
func TestReplaysAreInTheAuditLogOfTheirAccountOnly(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.deployed(m.deployment("success"))
		id := m.manage(http.MethodPost, replaysPath, body{}).is(http.StatusCreated).id()
		// The read model in memory has one version, so that it ends by itself.
		heard := m.follow(where(liveEvents, "family", "replay", "position", "o.0.0"))
		position := ""
		for _, want := range []string{"replay.started", "replay.failed"} {
			next := heard.next()
			if position = fmt.Sprint(object(t, next.data)["position"]); next.event != want {
				t.Errorf("%s is heard, want %s", next.event, want)
			}
		}
		page := m.events(position, "family", "replay")
		differ(t, "types", []string{"replay.started", "replay.failed"}, page.each("items", "type"))
		page.shows(body{
			"items.0.subject": id, "items.0.credential_name": "acme admin", "items.0.position": "o.1.0",
			"items.0.data.replay.version": 2.0, "items.0.data.replay.state": "running", "items.1.data.replay.state": "failed",
		})
		if at(page.list("items")[0], "actor") == nil {
			t.Error("nobody started it")
		}
		started := page.text("items.0.id")
		m.read(eventsPath + started).shows(body{"id": started, "type": "replay.started"})

		foreign := as(m.tokenOf(other, "pat", "admin"))
		m.read(where(eventsPath, "family", "replay", "min_position", position), foreign).shows(body{"items": []any{}})
		m.get(eventsPath+started, foreign).fails(http.StatusForbidden, "NOT_OWNER")
	})
}
