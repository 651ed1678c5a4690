package contract_test

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// Values that other systems made, by the routes that take them.
var foreign = map[string][]string{
	keysPath: {
		"sk_acme_k1_" + strings.Repeat("Zq7", 11), "sk_old-name_9fJx_" + strings.Repeat("Zq7", 12) + "Ab1z",
		"vrt_live_" + strings.Repeat("Zq7", 11) + "_Ab1z", "vrt_test_" + strings.Repeat("Zq7", 11) + "_Ab1z", "vf_tok_" + strings.Repeat("Zq7", 11),
	},
	tokensPath: {
		"pat_versioner_io_" + strings.Repeat("Zq7", 11), "pat_" + strings.Repeat("Zq7", 11), "vso_" + strings.Repeat("0a1b2c", 8),
	},
}

// Rows: VO-01, VT-03, VF-11
func TestImportedCredentialsWorkAndAreKeptAsDigestsOnly(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for path, values := range foreign {
			for _, value := range values {
				m.get("/deployments/", as(value)).is(http.StatusUnauthorized)
				mode := "live"
				if strings.HasPrefix(value, "vrt_test_") {
					mode = "test"
				}
				a := m.manage(http.MethodPost, path+"import", wanted("old", body{"value": value, "scope": "read"})).is(http.StatusCreated)
				a.shows(body{"legacy": true, "last4": value[len(value)-4:], "scopes": []any{"read"}, "mode": mode, "status": "active", "secret": absent, "value": absent})
				if bytes.Contains(a.raw, []byte(value)) {
					t.Errorf("the answer holds the value: %s", a.raw)
				}
				m.get("/deployments/", as(value)).is(http.StatusOK)
				m.post("/deployment-events/", m.deployment("success"), as(value)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
				m.get("/deployments/", as(value[:len(value)-1]+"9")).is(http.StatusUnauthorized)
				m.manage(http.MethodPost, path+"import", wanted("again", body{"value": value})).fails(http.StatusConflict, "CREDENTIAL_EXISTS")
				theirs := as(m.tokenOf(other, "pat", "admin"))
				m.manage(http.MethodPost, path+"import", wanted("again", body{"value": value}), theirs).fails(http.StatusConflict, "CREDENTIAL_EXISTS")
				m.manage(http.MethodPost, path+a.id()+"/suspend", nil).is(http.StatusOK)
				m.get("/deployments/", as(value)).fails(http.StatusUnauthorized, "AUTH_SUSPENDED_KEY")
				m.manage(http.MethodPost, path+a.id()+"/resume", nil).is(http.StatusOK)
				m.restart()
				m.get("/deployments/", as(value)).is(http.StatusOK)
				m.revoke(path, a.id())
				m.get("/deployments/", as(value)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
				m.manage(http.MethodPost, path+"import", wanted("again", body{"value": value})).fails(http.StatusConflict, "CREDENTIAL_EXISTS")
				m.get(path+a.id(), as(m.admin)).shows(body{"legacy": true, "status": "revoked"})
			}
		}
		for f, err := range m.credentials.Read(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(f.Body, []byte(strings.Repeat("Zq7", 3))) || bytes.Contains(f.Body, []byte("0a1b2c0a")) {
				t.Errorf("frame %d holds an imported value", f.Seq)
			}
		}
	})
}

// Rows: VO-01, VF-11
func TestOnlyKnownFormsAreImported(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		before := must(m.credentials.Last(t.Context()))
		for path, others := range map[string]string{keysPath: tokensPath, tokensPath: keysPath} {
			for _, value := range append(foreign[others], "short", "vso_"+strings.Repeat("0A1b2c", 8), "vrt_live_"+strings.Repeat("Zq7", 11), "vf_tok_") {
				differ(t, "faults of "+value, []string{"body.value"}, m.manage(http.MethodPost, path+"import", wanted("old", body{"value": value})).faults())
			}
			differ(t, "faults of nothing", []string{"body.value", "body.name", "body.expires"}, m.manage(http.MethodPost, path+"import", body{}).faults())
			m.manage(http.MethodPost, path+"import", wanted("old", body{"value": foreign[path][0]}), as(m.key)).is(http.StatusForbidden)
		}
		for _, value := range []string{"vso_" + strings.Repeat("0a", 23), "vso_" + strings.Repeat("0A", 24)} {
			m.get("/deployments/", as(value)).fails(http.StatusUnauthorized, "AUTH_INVALID_FORMAT")
		}
		m.get("/deployments/", as("vf_tok_"+strings.Repeat("x", 32))).fails(http.StatusUnauthorized, "AUTH_INVALID_KEY")
		m.manage(http.MethodPost, keysPath+"import", wanted("minted here", body{"value": m.key})).fails(http.StatusConflict, "CREDENTIAL_EXISTS")
		differ(t, "events", before, must(m.credentials.Last(t.Context())))
	})
}

func TestOfTwoImportsOfOneValueOneIsMade(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for i := range 8 {
			value := "vf_tok_" + strings.Repeat(string(rune('a'+i)), 32)
			var wg sync.WaitGroup
			var status [2]int
			for j, account := range []string{acme, other} {
				wg.Go(func() {
					status[j] = m.manage(http.MethodPost, keysPath+"import", wanted("old", body{"value": value}), as(m.tokenOf(account, "pat", "admin"))).status
				})
			}
			wg.Wait()
			differ(t, "the sum of what two were told", http.StatusCreated+http.StatusConflict, status[0]+status[1])
		}
	})
}

// Rows: VF-07
func TestNoRouteRevealsASecretAgain(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		a, _ := m.created(keysPath, wanted("lost"))
		for _, word := range []string{"reveal", "recover", "secret", "value"} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				m.manage(method, keysPath+a.id()+"/"+word, nil).is(http.StatusNotFound)
			}
		}
		m.revoke(keysPath, a.id())
		m.created(keysPath, wanted("its successor"))
	})
}

func TestACredentialWorksFromItsAddressesOnly(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			scope := body{"scope": "read"}
			a, here := m.created(path, wanted("here", scope, body{"ip_allow": []any{"127.0.0.1", "10.0.0.0/8"}}))
			a.shows(body{"ip_allow": []any{"127.0.0.1/32", "10.0.0.0/8"}})
			_, elsewhere := m.created(path, wanted("elsewhere", scope, body{"ip_allow": []any{"192.0.2.0/24"}}))
			m.get("/deployments/", as(here)).is(http.StatusOK)
			m.get("/deployments/", as(elsewhere)).fails(http.StatusForbidden, "IP_NOT_ALLOWED").shows(body{"error.type": "permission_error"})
			m.get("/deployments/", as(elsewhere), header("X-Forwarded-For", "192.0.2.1")).fails(http.StatusForbidden, "IP_NOT_ALLOWED")
			m.manage(http.MethodPatch, path+a.id(), body{"ip_allow": []any{"10.0.0.0/8"}}).is(http.StatusOK).shows(body{"name": "here", "ip_allow": []any{"10.0.0.0/8"}})
			m.get("/deployments/", as(here)).fails(http.StatusForbidden, "IP_NOT_ALLOWED")
			m.manage(http.MethodPatch, path+a.id(), body{"ip_allow": []any{}}).is(http.StatusOK).shows(body{"ip_allow": []any{}})
			m.get("/deployments/", as(here)).is(http.StatusOK)
			differ(t, "faults", []string{"body.ip_allow"}, m.manage(http.MethodPatch, path+a.id(), body{"ip_allow": []any{"everywhere"}}).faults())
		}
	})
}

func TestACredentialMayHaveABudgetOfItsOwn(t *testing.T) {
	limited(t, ratelimit.Default(), func(t *testing.T, m *memory) {
		a, own := m.created(keysPath, wanted("own", body{"scope": "sync-trigger", "rate_limit": "2/1m,burst=3"}))
		a.shows(body{"rate_limit": body{"tokens": 2.0, "per": "1m", "burst": 3.0}})
		for left := 2; left >= 0; left-- {
			if got := m.look(own, left).is(http.StatusOK).header.Get("X-RateLimit-Remaining"); got != string(rune('0'+left)) {
				t.Errorf("%s left, want %d", got, left)
			}
		}
		m.look(own, 0).overBudget()
		if got := m.post("/deployment-events/", m.deployment("success"), as(own)).is(http.StatusOK).header.Get("X-RateLimit-Limit"); got != "3" {
			t.Errorf("the limit on ingestion is %s", got)
		}
		m.manage(http.MethodPatch, keysPath+a.id(), body{"rate_limit": body{"tokens": 9, "per": "1m"}}).is(http.StatusOK).
			shows(body{"rate_limit": body{"tokens": 9.0, "per": "1m", "burst": 9.0}})
		m.manage(http.MethodPatch, keysPath+a.id(), body{"rate_limit": "default"}).is(http.StatusOK).shows(body{"rate_limit": nil})
		if got := m.look(own, 0).header.Get("X-RateLimit-Limit"); got != "60" {
			t.Errorf("the limit of the class is %s", got)
		}
		for _, bad := range []any{"fast", "1/48h", 5, body{"tokens": 0, "per": "1m"}, body{"tokens": 1}, body{"tokens": 1, "per": "often"}} {
			if f := m.manage(http.MethodPatch, keysPath+a.id(), body{"rate_limit": bad}).faults(); !strings.HasPrefix(f[0], "body.rate_limit") {
				t.Errorf("%v: %v", bad, f)
			}
		}
	})
}
