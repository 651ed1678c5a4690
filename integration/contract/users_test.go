package contract_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

const usersPath = "/users/"

// onlyAdmin gives the one admin that an account has from its start.
func (m *memory) onlyAdmin(account string) string {
	m.t.Helper()
	users := m.manage(http.MethodGet, usersPath, nil, as(m.tokenOf(account, "pat", "admin"))).is(http.StatusOK)
	for i, role := range users.each("items", "role") {
		if role == credential.RoleAdmin {
			return users.each("items", "id")[i]
		}
	}
	m.t.Fatalf("%s has no admin", account)
	return ""
}

// Rows: D-20
func TestTheLastAdminStaysAndNobodyChangesTheirOwnRole(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		first := m.onlyAdmin(acme)
		m.manage(http.MethodPatch, usersPath+first, body{"role": "viewer"}).fails(http.StatusConflict, "LAST_ADMIN")
		m.manage(http.MethodDelete, usersPath+first, nil).fails(http.StatusConflict, "LAST_ADMIN")
		m.manage(http.MethodPatch, usersPath+first, body{"role": "admin"}).fails(http.StatusForbidden, "SELF_ROLE_CHANGE")

		second := m.person(acme, credential.RoleDeveloper)
		m.person(other, credential.RoleAdmin) // of another account: no help here
		m.manage(http.MethodPatch, usersPath+first, body{"role": "viewer"}).fails(http.StatusConflict, "LAST_ADMIN")
		m.manage(http.MethodPatch, usersPath+second.ID, body{"role": "admin"}).is(http.StatusOK).shows(body{"role": "admin", "email": second.Email})
		m.manage(http.MethodPatch, usersPath+first, body{"role": "viewer"}).fails(http.StatusForbidden, "SELF_ROLE_CHANGE")
		session := m.session(second)
		m.manage(http.MethodPatch, usersPath+second.ID, body{"role": "qa"}, as(session)).fails(http.StatusForbidden, "SELF_ROLE_CHANGE")
		m.manage(http.MethodPatch, usersPath+first, body{"role": "qa"}, as(session)).is(http.StatusOK).shows(body{"role": "qa"})
		m.manage(http.MethodDelete, usersPath+second.ID, nil, as(session)).fails(http.StatusConflict, "LAST_ADMIN")
		m.manage(http.MethodPatch, usersPath+second.ID, body{"role": "qa"}).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE") // the first is none any more
	})
}

// Each of two admins may downgrade the other; of both, one does.
func TestOfTwoAdminsWhoDowngradeEachOtherOneStays(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		first := m.onlyAdmin(acme)
		for range 4 {
			second := m.person(acme, credential.RoleAdmin)
			session := m.session(second)
			before := must(m.credentials.Last(t.Context()))
			var wg sync.WaitGroup
			var status [2]int
			for i, c := range []struct {
				id string
				as option
			}{{second.ID, as(m.admin)}, {first, as(session)}} {
				wg.Go(func() { status[i] = m.manage(http.MethodPatch, usersPath+c.id, body{"role": "viewer"}, c.as).status })
			}
			wg.Wait()
			slices.Sort(status[:])
			differ(t, "what two were told", [2]int{http.StatusOK, http.StatusForbidden}, status)
			differ(t, "how many were changed", before+1, must(m.credentials.Last(t.Context())))
			if m.get("/deployments/", as(session)).is(http.StatusOK); m.manage(http.MethodGet, keysPath, nil).status == http.StatusOK {
				m.manage(http.MethodDelete, usersPath+second.ID, nil).is(http.StatusNoContent)
				continue
			}
			m.manage(http.MethodPatch, usersPath+first, body{"role": "admin"}, as(session)).is(http.StatusOK)
			m.manage(http.MethodDelete, usersPath+second.ID, nil).is(http.StatusNoContent)
		}
	})
}

func TestOnlyAdminsChangeUsersAndEveryRoleSeesThem(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		victim := m.person(acme, credential.RoleViewer)
		for i, role := range roles {
			if i%8 == 7 {
				m.restart() // attempts are counted, and all of these come from here
			}
			session := m.signedIn(acme, role.name)
			m.get(usersPath, as(session)).is(http.StatusOK)
			a := m.manage(http.MethodPatch, usersPath+victim.ID, body{"role": role.name}, as(session))
			if role.name == credential.RoleAdmin {
				a.is(http.StatusOK).shows(body{"role": "admin", "id": victim.ID})
				m.manage(http.MethodPatch, usersPath+victim.ID, body{"role": "viewer"}, as(session)).is(http.StatusOK)
				continue
			}
			a.fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
			m.manage(http.MethodDelete, usersPath+victim.ID, nil, as(session)).is(http.StatusForbidden)
		}
		for _, role := range roles { // all ten can be assigned
			m.manage(http.MethodPatch, usersPath+victim.ID, body{"role": role.name}).is(http.StatusOK).shows(body{"role": role.name})
		}
		before := must(m.credentials.Last(t.Context()))
		m.manage(http.MethodPatch, usersPath+victim.ID, body{"role": "viewer"}).is(http.StatusOK) // which they have
		differ(t, "what no change left in the log", before, must(m.credentials.Last(t.Context())))
		for _, b := range []body{{"role": "owner"}, {"role": "Admin"}, {"role": ""}, {"role": nil}, {}} {
			differ(t, "the fault of "+b.String(), []string{"body.role"}, m.manage(http.MethodPatch, usersPath+victim.ID, b).faults())
		}
		m.manage(http.MethodPatch, usersPath+victim.ID, body{"role": "qa"}, as(m.token("pat", "write"))).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		m.manage(http.MethodPatch, usersPath+victim.ID, body{"role": "qa"}, as(m.token("sk", "admin"))).fails(http.StatusForbidden, "WRONG_CREDENTIAL_KIND")
		m.manage(http.MethodPatch, usersPath+m.onlyAdmin(other), body{"role": "qa"}).fails(http.StatusForbidden, "NOT_OWNER")
		m.manage(http.MethodDelete, usersPath+m.onlyAdmin(other), nil).fails(http.StatusForbidden, "NOT_OWNER")
		m.manage(http.MethodDelete, usersPath+"nobody", nil).fails(http.StatusNotFound, "NOT_FOUND")
	})
}

// What only a session or an admin's token shows (contract 3.4) apart.
//
// Rows: VR-13
func TestATokenSeesWhatItsUserSeesUntilTheUserIsRemoved(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, account := range []string{acme, other} {
			key := as(m.tokenOf(account, "sk", "events:write"))
			m.built(m.build("success"), key)
			m.deployed(m.deployment("success"), key)
		}
		for _, role := range []string{credential.RoleDeveloper, credential.RoleQA, credential.RoleCompliance} {
			u := m.person(acme, role)
			session := m.session(u)
			_, pat := m.created(tokensPath, wanted(role), as(session))
			for _, path := range []string{"/deployments/", "/builds/", "/versions/", "/products/", "/environments/", "/matrix"} {
				seen := m.get(path, as(session)).is(http.StatusOK)
				if len(seen.list("items")) == 0 {
					t.Errorf("%s shows nothing to compare", path)
				}
				differ(t, path+" as a token sees it", seen.at("items"), m.get(path, as(pat)).is(http.StatusOK).at("items"))
			}
			users := m.manage(http.MethodGet, usersPath, nil, as(session)).is(http.StatusOK)
			differ(t, "the users as a token sees them", users.each("items", "id"), m.manage(http.MethodGet, usersPath, nil, as(pat)).is(http.StatusOK).each("items", "id"))
			m.manage(http.MethodDelete, usersPath+u.ID, nil).is(http.StatusNoContent)
			m.refused(pat, "AUTH_INVALID_KEY")
		}
	})
}

func TestARemovedUsersTokensAndSessionsAreRefusedAtOnce(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u := m.person(acme, credential.RoleAdmin)
		session := m.session(u)
		_, pat := m.created(tokensPath, wanted("theirs"), as(session))
		_, key := m.created(keysPath, wanted("the account's"), as(session))
		m.works(pat)
		a := m.manage(http.MethodDelete, usersPath+u.ID, nil).is(http.StatusNoContent)
		matches(t, `^c\.[0-9]+\.0$`, a.header.Get("X-Shipledger-Position"))
		m.refused(pat, "AUTH_INVALID_KEY")
		m.get("/deployments/", as(session)).fails(http.StatusUnauthorized, "AUTH_INVALID_KEY")
		m.get("/deployments/", cookie(session)).fails(http.StatusUnauthorized, "AUTH_INVALID_KEY")
		m.logIn(u.Email, password).fails(http.StatusUnauthorized, "AUTH_INVALID_KEY")
		m.works(key) // it is the account's
		m.manage(http.MethodDelete, usersPath+u.ID, nil).fails(http.StatusNotFound, "NOT_FOUND")
		if slices.Contains(m.manage(http.MethodGet, usersPath, nil).each("items", "id"), u.ID) {
			t.Error("a removed user is listed")
		}
		m.restart()
		m.refused(pat, "AUTH_INVALID_KEY")
	})
}

func TestARoleChangeHoldsFromTheNextRequestAndKeepsSessions(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u := m.person(acme, credential.RoleDeveloper)
		session := m.session(u)
		_, pat := m.created(tokensPath, wanted("theirs", body{"scope": "write"}), as(session))
		m.deployed(m.deployment("success"), as(pat))
		m.manage(http.MethodGet, keysPath, nil, as(session)).is(http.StatusOK)
		m.manage(http.MethodPatch, usersPath+u.ID, body{"role": "viewer"}).is(http.StatusOK)
		m.post("/deployment-events/", m.deployment("success"), as(pat)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		m.manage(http.MethodGet, keysPath, nil, as(session)).fails(http.StatusForbidden, "INSUFFICIENT_ROLE")
		m.get("/deployments/", as(session)).is(http.StatusOK)
		m.get("/deployments/", as(pat)).is(http.StatusOK)
	})
}

// Who changed what is in the log, and no answer shows how anybody signs in.
func TestUserChangesAreEventsWithTheirAuthor(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u, admin := m.person(acme, credential.RoleQA), m.person(acme, credential.RoleAdmin)
		session := m.session(admin)
		m.manage(http.MethodPatch, usersPath+u.ID, body{"role": "sre"}, as(session)).is(http.StatusOK)
		list := m.get(usersPath, as(session)).is(http.StatusOK)
		if strings.Contains(string(list.raw), "argon2") {
			t.Errorf("the list shows a hash: %s", list.raw)
		}
		m.manage(http.MethodDelete, usersPath+u.ID, nil, as(session)).is(http.StatusNoContent)
		var told []string
		for f, err := range m.credentials.Read(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			e := must(event.DecodeEvent(event.Position{Stream: event.CredentialStream, Offset: event.At(f.Seq, 0)}, f.Body))
			if e.Subject != u.ID {
				continue
			}
			state := must(credential.Decode(&e.Event)).(*credential.User)
			told = append(told, string(e.Type)+" "+state.Role)
			if e.Type == credential.UserJoined {
				continue
			}
			differ(t, "the author of "+string(e.Type), admin.ID, e.Actor)
			if state.Removed && state.PasswordHash != "" {
				t.Error("the hash of a removed user is kept")
			}
		}
		differ(t, "what the log tells", []string{"user.joined qa", "user.role_changed sre", "user.removed sre"}, told)
	})
}

func TestUsersArePagedNewestFirst(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for range 4 {
			m.person(acme, credential.RoleViewer)
		}
		m.person(other, credential.RoleViewer)
		all := m.get(usersPath, header("X-Shipledger-Position", "")).is(http.StatusOK).each("items", "id")
		var paged []string
		for path := where(usersPath, "limit", "2"); path != ""; {
			a := m.get(path).is(http.StatusOK)
			paged = append(paged, a.each("items", "id")...)
			path = ""
			if c, ok := a.at("next_cursor").(string); ok {
				path = where(usersPath, "limit", "2", "cursor", c)
			}
		}
		differ(t, "the pages", all, paged)
		if len(all) != 5 || !slices.IsSortedFunc(all, func(a, b string) int { return strings.Compare(b, a) }) {
			t.Errorf("the list is %v", all)
		}
	})
}
