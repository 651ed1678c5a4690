package contract_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// readable gives the documented reads that need no parameter in their path and
// answer with one JSON object, save those that only admins have.
func readable(kind credential.Kind, wanted func(*httpapi.Operation) bool) []*httpapi.Operation {
	return slices.DeleteFunc(document.Operations(), func(op *httpapi.Operation) bool {
		return op.Public || op.Method != http.MethodGet || strings.Contains(op.Path, "{") || !slices.Contains(op.Kinds, kind) ||
			strings.HasSuffix(op.Path, "/stream") || strings.HasPrefix(op.Path, "/exports/") || op.Path == "/log/export" || !wanted(op)
	})
}

// reads checks that a read is answered: 200, or 422 where it wants parameters.
func (m *memory) reads(op *httpapi.Operation, token string) {
	m.t.Helper()
	a := m.send(http.MethodGet, op.Path, "", as(token))
	switch a.status {
	case http.StatusOK:
	case http.StatusUnprocessableEntity:
		if strings.HasSuffix(op.Path, "/") {
			m.t.Errorf("GET %s wants parameters: %s", op.Path, a.raw)
		}
	default:
		m.t.Errorf("GET %s: %d %s", op.Path, a.status, a.raw)
	}
}

// Rows: VR-08
func TestASessionOfAnAdminReadsEverything(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		session := m.signedIn(acme, credential.RoleAdmin)
		found := readable(credential.Session, func(*httpapi.Operation) bool { return true })
		for _, op := range found {
			m.reads(op, session)
		}
		var paths []string
		for _, op := range found {
			paths = append(paths, op.Path)
		}
		for _, path := range []string{"/products/", "/environments/", "/versions/", "/deployments/", keysPath} {
			if !slices.Contains(paths, path) {
				t.Errorf("%s was not read", path)
			}
		}
	})
}

// Rows: VT-07
func TestATokenWithoutAScopeReadsEverythingThatReadAllows(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		a, secret := m.created(tokensPath, wanted("no scope"))
		a.shows(body{"scopes": []any{"read"}})
		for _, op := range readable(credential.PAT, func(op *httpapi.Operation) bool { return slices.Contains(op.Scopes, credential.Read) }) {
			m.reads(op, secret)
		}
		m.post("/deployment-events/", m.deployment("success"), as(secret)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
	})
}
