package contract_test

import (
	"net/http"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

const settingsPath = "/settings"

// set changes a setting of the account acme.
func (m *memory) set(name string, on bool) {
	m.t.Helper()
	m.manage(http.MethodPatch, settingsPath, body{name: on}, as(m.token("sk", "admin"))).is(http.StatusOK).shows(body{name: on})
}

// Rows: VF-09, VF-10
func TestSettingsAreReadByAllAndChangedByAdmins(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		defaults := body{
			"pat_write": true, "allow_never_expires": false, "mcp_allow_api_keys": false,
			"preflight_strict": false, "deployment_sha_strict": false, "honour_skip_preflight": true,
		}
		m.read(settingsPath).shows(defaults)
		for _, grant := range []string{"sync-trigger", "write"} {
			for _, kind := range []string{"pat", "sk"} {
				m.manage(http.MethodPatch, settingsPath, body{"pat_write": false}, as(m.token(kind, grant))).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
			}
		}
		m.manage(http.MethodPatch, settingsPath, body{"pat_write": false}, as(m.signedIn(acme, credential.RoleSRE))).is(http.StatusForbidden)
		before := m.frames()
		a := m.manage(http.MethodPatch, settingsPath, body{"mcp_allow_api_keys": true, "pat_write": nil, "unknown": 1}).is(http.StatusOK)
		matches(t, `^`+m.trackOf(acme)+`\.[0-9]+\.0$`, a.header.Get("X-Shipledger-Position"))
		m.manage(http.MethodPatch, settingsPath, body{"mcp_allow_api_keys": true}).is(http.StatusOK)
		if got := m.frames(); got != before+1 {
			t.Errorf("%d frames, want %d: what changes nothing is no event", got, before+1)
		}
		m.manage(http.MethodPatch, settingsPath, body{"allow_never_expires": true}, as(m.token("sk", "admin"))).is(http.StatusOK)
		want := body{"mcp_allow_api_keys": true, "allow_never_expires": true, "pat_write": true}
		m.read(settingsPath).shows(want)
		m.read(settingsPath, as(m.tokenOf(other, "pat", "read"))).shows(defaults)
		m.manage(http.MethodPatch, settingsPath, body{"pat_write": "no"}).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		m.restart()
		m.read(settingsPath).shows(want)
	})
}

// Rows: VR-15
func TestWithPATWriteOffEveryWriteWithATokenIs403(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		first := m.mint(t, credential.Record{
			Kind: credential.PAT, Account: acme, Name: "first", Mode: event.Live, PublicID: "first", UserID: m.onlyAdmin(acme),
			Scopes: credential.RoleScopes(credential.RoleAdmin), FirstStart: true,
		})
		m.secrets = append(m.secrets, first)
		id := m.deployed(m.deployment("success")).text("product_id")
		m.set("pat_write", false)
		for _, grant := range []string{"events:write", "write", "admin"} {
			token := as(m.token("pat", grant))
			for path, method := range map[string]string{
				"/deployment-events/": http.MethodPost, "/events/batch": http.MethodPost, productsPath: http.MethodPost, productsPath + id: http.MethodPatch,
				settingsPath: http.MethodPatch, "/api-keys/": http.MethodPost, "/personal-access-tokens/": http.MethodPost, "/matrix": http.MethodDelete,
			} {
				a := m.manage(method, path, m.deployment("success"), token).is(http.StatusForbidden)
				a.shows(body{"detail": "You do not have permission to perform this action", "error.type": "permission_error"})
			}
			m.read(productsPath+id, token)
		}
		m.deployed(m.deployment("success")) // keys go on
		m.deployed(m.deployment("success"), as(m.tokenOf(other, "pat", "write")))
		m.manage(http.MethodPatch, productsPath+id, body{"description": "d"}, as(first)).is(http.StatusOK)
		m.manage(http.MethodPatch, settingsPath, body{"pat_write": true}, as(first)).is(http.StatusOK)
		m.deployed(m.deployment("success"), as(m.token("pat", "write")))
	})
}

// Rows: VF-04
func TestAKeyThatNeverExpiresIsMadeOnlyWhereTheAccountAllowsIt(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		never := body{"name": "ci", "expires": "never"}
		m.manage(http.MethodPost, "/api-keys/", never).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		m.set("allow_never_expires", true)
		key, secret := m.created("/api-keys/", never)
		key.shows(body{"expires_at": nil, "status": "active", "expiring_soon": false})
		m.works(secret)
		m.manage(http.MethodPost, "/personal-access-tokens/", never).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		m.manage(http.MethodPost, "/api-keys/", never, as(m.tokenOf(other, "pat", "admin"))).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		m.set("allow_never_expires", false)
		m.manage(http.MethodPost, "/api-keys/", never).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		m.works(secret)
	})
}

// Contract 10, C-18.
func TestADeploymentOfAnotherCommitIsRefusedWhereTheAccountIsStrict(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.built(m.build("success", body{"scm_sha": shaA}))
		m.deployed(m.deployment("success", body{"scm_sha": shaB})).shows(body{"sha_mismatch": true})
		m.set("deployment_sha_strict", true)
		m.post("/deployment-events/", m.deployment("success", body{"scm_sha": shaB})).is(http.StatusConflict).shows(body{"code": "VERSION_SHA_MISMATCH"})
		m.deployed(m.deployment("success", body{"scm_sha": shaA})).shows(body{"sha_mismatch": false})
		m.deployed(m.deployment("success"))
	})
}

// Contract 12, C-32.
func TestAskingToSkipTheRulesIsHeardUnlessTheAccountIgnoresIt(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		start := func(run string) answer {
			return m.post("/deployment-events/", m.deployment("started", body{"invoke_id": run, "skip_preflight_checks": true}))
		}
		start("1").is(http.StatusOK)
		start("2").is(http.StatusOK)
		m.set("honour_skip_preflight", false)
		start("3").is(http.StatusConflict).shows(body{"code": "CONCURRENT_DEPLOYMENT"})
	})
}

// Contract 12, C-13.
func TestAnEndThatNeverStartedIsHeldToTheRulesWhereTheAccountIsStrict(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		started := m.deployed(m.deployment("started", body{"invoke_id": "1"}))
		end := func(run string) answer {
			return m.post("/deployment-events/", m.deployment("success", body{"invoke_id": run}))
		}
		end("2").is(http.StatusOK)
		m.set("preflight_strict", true)
		refused := end("3").is(http.StatusConflict)
		m.read("/deployments/" + refused.text("details.deployment_id")).shows(body{"status": "preflight_failed"})
		end("1").is(http.StatusOK).shows(body{"id": started.id(), "status": "completed"})
		end("3").is(http.StatusOK)
	})
}
