package contract_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/logarchive"
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

// The operator gets the whole log, sound and signed; the admin of another
// account what is its own; and nobody else anything.
func TestTheLogIsExportedToWhomItBelongs(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.deployed(m.deployment("success"))
		m.post("/deployment-events/", m.deployment("success", body{"product_name": "of-another"}), as(m.tokenOf(other, "sk", "events:write"))).is(http.StatusOK)

		signedStreams := map[string]bool{event.CredentialStream: true, m.trackOf(acme): true, m.trackOf(other): true} // those that hold anything
		whole := m.get("/log/export", as(m.token("pat", "admin"))).is(http.StatusOK).raw
		got, err := logarchive.Scan(bytes.NewReader(whole), logarchive.Expect{}, nil)
		if err != nil || !got.OK() || len(got.Signed) != len(signedStreams) || !bytes.Contains(whole, []byte("of-another")) || !bytes.Contains(whole, []byte("credential.created")) {
			t.Errorf("%+v, %v", got, err)
		}
		own := m.get("/log/export", as(m.tokenOf(other, "pat", "admin"))).is(http.StatusOK).raw
		if !bytes.Contains(own, []byte("of-another")) || bytes.Contains(own, []byte(m.product)) || bytes.Contains(own, []byte("credential.created")) ||
			!bytes.Contains(own, []byte(`{"end":true,"frames":1,"events":4,`)) {
			t.Errorf("%s", own)
		}
		m.get("/log/export", as(m.token("pat", "read"))).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		m.get("/log/export", as(m.token("sk", "admin"))).is(http.StatusForbidden)
	})
}
