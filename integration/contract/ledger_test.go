package contract_test

import (
	"net/http"
	"testing"
)

// Every accepted event is accounted for, of each account by itself, at the
// position that a write gave (contract 5).
func TestTheLedgerBalancesForEachAccount(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.fill(5)
		m.post("/deployment-events/", m.deployment("started"), as(m.tokenOf(other, "sk", "events:write"))).is(http.StatusOK)
		got := m.read("/ledger/balance", as(m.token("pat", "read")))
		got.shows(body{"balanced": true, "accepted": 25.0, "projected": 25.0, "quarantined": 0.0, "skipped": 0.0})
		differ(t, "types", []string{"build.completed", "deployment.completed", "environment.created", "product.created", "version.created"}, got.each("items", "type"))
		m.get("/ledger/balance", as(m.token("sk", "read"))).fails(http.StatusForbidden, "WRONG_CREDENTIAL_KIND")
	})
}
