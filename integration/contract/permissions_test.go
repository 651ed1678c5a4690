package contract_test

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// A bearer is one row of the matrix: a credential in some state.
type bearer struct {
	name, token string
	dead        string // the code of the 401; empty for one that is alive
	kind        credential.Kind
	scopes      credential.Scopes
	role        string // of a web session
}

// bearers are a credential of each kind, scope, role and state.
func (m *memory) bearers() []bearer {
	m.t.Helper()
	all := []bearer{
		{name: "none", dead: "AUTH_MISSING"},
		{name: "malformed", token: "sk_acme_k1", dead: "AUTH_INVALID_FORMAT"},
		{name: "unknown key", token: must(credential.Mint(credential.APIKey, acme, "k99", "live", zeros{})), dead: "AUTH_INVALID_KEY"},
		{name: "revoked key", token: m.mintAs("k90", credential.Revoked, time.Time{}), dead: "AUTH_REVOKED_KEY"},
		{name: "suspended key", token: m.mintAs("k91", credential.Suspended, time.Time{}), dead: "AUTH_SUSPENDED_KEY"},
		{name: "expired key", token: m.mintAs("k92", credential.Active, startTime), dead: "AUTH_EXPIRED_KEY"},
	}
	admin := m.person(acme, credential.RoleAdmin)
	token := func(owner credential.User, status credential.Status, expires time.Time, scopes credential.Scopes) string {
		m.t.Helper()
		r := credential.Record{
			Kind: credential.PAT, Account: owner.Account, UserID: owner.ID, Name: string(status),
			Mode: "live", Scopes: scopes, ExpiresAt: expires,
		}
		r.PublicID = strings.ToLower(ulid.Make().String())
		secret := m.mint(m.t, r)
		if status != credential.Active {
			m.change(r.PublicID, func(r *credential.Record) { r.Status = status })
		}
		m.caughtUp()
		return secret
	}
	all = append(all,
		bearer{name: "revoked token", token: token(admin, credential.Revoked, time.Time{}, credential.Read), dead: "AUTH_REVOKED_KEY"},
		bearer{name: "suspended token", token: token(admin, credential.Suspended, time.Time{}, credential.Read), dead: "AUTH_SUSPENDED_KEY"},
		bearer{name: "expired token", token: token(admin, credential.Active, startTime, credential.Read), dead: "AUTH_EXPIRED_KEY"},
	)
	for _, grant := range []string{"read", "events:write", "sync-trigger", "write", "admin"} {
		for kind, word := range map[credential.Kind]string{credential.APIKey: "sk", credential.PAT: "pat"} {
			all = append(all, bearer{
				name: word + " " + grant, token: m.token(word, grant), kind: kind, scopes: must(credential.ParseScopes(kind, []string{grant})),
			})
		}
	}
	for i, role := range roles {
		if i%8 == 7 {
			m.restart() // attempts to sign in are counted, and all of these come from here
		}
		u := m.person(acme, role.name)
		all = append(all,
			bearer{name: "session of " + role.name, token: m.session(u), kind: credential.Session, scopes: credential.RoleScopes(role.name), role: role.name},
			bearer{
				name: "admin token of " + role.name, token: token(u, credential.Active, time.Time{}, credential.RoleScopes(credential.RoleAdmin)),
				kind: credential.PAT, scopes: credential.RoleScopes(role.name), // never more than its owner
			})
	}
	return all
}

// says gives what the document says of a bearer at an operation: the status and
// code of the refusal, or 0 where the bearer is let in.
func (b *bearer) says(op *httpapi.Operation) (status int, code string) {
	switch {
	case b.dead != "":
		return http.StatusUnauthorized, b.dead
	case !slices.Contains(op.Kinds, b.kind):
		return http.StatusForbidden, "WRONG_CREDENTIAL_KIND"
	case b.kind == credential.Session && len(op.SessionRoles) > 0:
		if !slices.Contains(op.SessionRoles, b.role) {
			return http.StatusForbidden, "INSUFFICIENT_ROLE"
		}
		return 0, ""
	case !slices.ContainsFunc(op.Scopes, b.scopes.Has):
		return http.StatusForbidden, "INSUFFICIENT_SCOPE"
	}
	return 0, ""
}

// Every operation is asked by every bearer, with a body or a query that cannot
// be acted upon, so that nothing changes for those who come after. Whoever is
// let in is told what is wrong with the request, and nobody else is.
//
// Rows: VF-01, VO-08, VO-10, VO-16, VT-01, VT-09, VF-10
func TestEveryCredentialIsAnsweredByEveryOperationAsTheDocumentSays(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		bearers := m.bearers()
		asked := 0
		operations := document.Operations()
		slices.SortStableFunc(operations, func(a, b *httpapi.Operation) int { // log-out ends the sessions: it comes last
			return cmp.Compare(strings.Count(a.Path, "logout"), strings.Count(b.Path, "logout"))
		})
		for _, op := range operations {
			if op.Public {
				continue
			}
			for _, b := range bearers {
				path, text := spoiled(op)
				a := m.send(op.Method, path, text, as(b.token), header("Content-Type", "application/json"))
				asked++
				status, code := b.says(op)
				if status != 0 {
					if a.status != status || a.at("error.code") != code {
						t.Errorf("%s %s with %s: %d %v, want %d %s", op.Method, op.Path, b.name, a.status, a.at("error.code"), status, code)
					}
					continue
				}
				if a.status == http.StatusUnauthorized || a.status == http.StatusForbidden && !ofTheHandler(a) || a.status >= 500 {
					t.Errorf("%s %s with %s: %d %s", op.Method, op.Path, b.name, a.status, a.raw)
				}
			}
		}
		if asked < 1000 {
			t.Errorf("only %d requests were made", asked)
		}
	})
}

// ofTheHandler tells whether a 403 is about the object and not about the route.
func ofTheHandler(a answer) bool {
	return slices.Contains([]any{"INSUFFICIENT_ROLE", "SELF_ROLE_CHANGE", "NOT_OWNER"}, a.at("error.code"))
}

// spoiled gives a request for op that reaches its handler and changes nothing.
func spoiled(op *httpapi.Operation) (path, text string) {
	path = op.Path
	for strings.Contains(path, "{") {
		from, to := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
		path = path[:from] + "x" + path[to+1:]
	}
	if op.Method == http.MethodGet {
		return path + "?limit=0&position=x&cursor=x", ""
	}
	return path, "{"
}

// Rows: VO-09, VR-11
func TestNoItemRouteReachesAnotherAccountsObject(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		owner, key := as(m.tokenOf(other, "pat", "admin")), as(m.tokenOf(other, "sk", "events:write"))
		deployment, build := m.deployed(m.deployment("success"), key), m.built(m.build("success"), key)
		m.read("/builds/", owner) // they can be read now
		order := wanted("of other")
		made := func(path string) string {
			t.Helper()
			a := m.manage(http.MethodPost, path, order, owner).is(http.StatusCreated)
			m.secrets = append(m.secrets, a.text("secret"))
			return a.id()
		}
		// By the first segment of the path: an object of the account other, and
		// what an answer calls it.
		release := m.manage(http.MethodPost, "/releases/", body{"name": "of other"}, owner).is(http.StatusCreated)
		m.read("/releases/", owner)
		objects := map[string]struct{ id, kind string }{
			"releases":               {release.id(), "release"},
			"deployments":            {deployment.id(), "deployment"},
			"builds":                 {build.id(), "build"},
			"products":               {deployment.text("product_id"), "product"},
			"environments":           {deployment.text("environment_id"), "environment"},
			"versions":               {deployment.text("version_id"), "version"},
			"events":                 {deployment.text("event_id"), "event"},
			"api-keys":               {made(keysPath), "API key"},
			"personal-access-tokens": {made(tokensPath), "personal access token"},
			"users":                  {m.person(other, credential.RoleViewer).ID, "user"},
		}
		all := credential.RoleScopes(credential.RoleAdmin)
		strangers := []bearer{
			{name: "an admin's token", token: m.admin, kind: credential.PAT, scopes: all},
			{name: "an admin's session", token: m.signedIn(acme, credential.RoleAdmin), kind: credential.Session, scopes: all, role: credential.RoleAdmin},
		}
		asked := 0
		for _, op := range document.Operations() {
			segments := strings.Split(op.Path, "/")
			if op.Public || len(segments) < 3 || segments[2] != "{id}" || op.Service == "projector" {
				continue // replays have a test of their own, with tables to rebuild
			}
			object, known := objects[segments[1]]
			if !known {
				t.Errorf("%s %s: this test knows no object of that kind", op.Method, op.Path)
				continue
			}
			path := strings.NewReplacer("{id}", object.id, "{version_id}", deployment.text("version_id")).Replace(op.Path)
			text := "" // one that every operation would take
			if op.Method != http.MethodGet && op.Method != http.MethodDelete {
				text = body{"name": "n", "role": "qa", "version_id": deployment.text("version_id")}.String()
			}
			for _, stranger := range strangers {
				if status, _ := stranger.says(op); status != 0 {
					continue
				}
				asked++
				a := m.send(op.Method, path, text, as(stranger.token), header("Content-Type", "application/json"))
				if a.status != http.StatusForbidden || a.at("error.code") != "NOT_OWNER" ||
					a.at("error.message") != "access denied: this "+object.kind+" does not belong to your account" {
					t.Errorf("%s %s with %s: %d %s", op.Method, op.Path, stranger.name, a.status, a.raw)
				}
			}
		}
		if asked < 20 {
			t.Errorf("only %d requests were made", asked)
		}
	})
}
