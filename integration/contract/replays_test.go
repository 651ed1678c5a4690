package contract_test

import (
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
