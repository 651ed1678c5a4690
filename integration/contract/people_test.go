package contract_test

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
)

const newPassword = "another horse another staple"

var asJSON = header("Content-Type", "application/json")

// invited invites somebody, and gives their id and the path of their link.
func (m *memory) invited(email, role string) (id, link string) {
	m.t.Helper()
	a := m.manage(http.MethodPost, usersPath, body{"email": email, "role": role}).is(http.StatusCreated)
	a.shows(body{"status": "invited", "email": email, "role": role})
	if cache := a.header.Get("Cache-Control"); cache != "no-store" {
		m.t.Errorf("Cache-Control is %q", cache)
	}
	link = "/auth/invitations/" + a.text("invitation.token")
	if want := m.url + link; a.text("invitation.link") != want {
		m.t.Errorf("the link is %s, want %s", a.text("invitation.link"), want)
	}
	return a.id(), link
}

// unsigned sends a request without a credential.
func (m *memory) unsigned(method, path string, b body, options ...option) answer {
	m.t.Helper()
	text := ""
	if b != nil {
		text = b.String()
	}
	return m.send(method, path, text, append([]option{asJSON}, options...)...)
}

func TestAnInvitedUserJoinsOnceByTheirLink(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		id, link := m.invited("ann@acme.example", "developer")
		m.unsigned(http.MethodGet, link, nil).is(http.StatusOK).shows(body{"account": acme, "email": "ann@acme.example", "role": "developer"})
		m.logIn("ann@acme.example", newPassword).is(http.StatusUnauthorized)
		join := body{"password": newPassword, "name": "Ann"}
		differ(t, "a short password", []string{"body.password"}, m.unsigned(http.MethodPost, link, body{"password": "short"}).faults())
		m.unsigned(http.MethodPost, link, join, header("Origin", "https://evil.example")).fails(http.StatusForbidden, "CROSS_ORIGIN")
		m.unsigned(http.MethodPost, link[:len(link)-1]+"!", join).is(http.StatusNotFound)
		m.unsigned(http.MethodPost, strings.Replace(link, "invitations", "password-reset", 1), join).is(http.StatusNotFound)
		m.unsigned(http.MethodPost, link, join).is(http.StatusOK).shows(body{"id": id, "name": "Ann", "status": "active", "role": "developer"})
		m.unsigned(http.MethodPost, link, join).is(http.StatusNotFound)
		m.unsigned(http.MethodGet, link, nil).is(http.StatusNotFound)
		session := m.logIn("ann@acme.example", newPassword).is(http.StatusOK).text("token")
		m.get("/deployments/", as(session)).is(http.StatusOK)
		m.manage(http.MethodPost, usersPath, body{"email": "ANN@acme.example", "role": "qa"}).fails(http.StatusConflict, "USER_EXISTS")
		m.manage(http.MethodPost, usersPath, body{"email": "bob@acme.example", "role": "qa"}, as(session)).is(http.StatusForbidden)
		differ(t, "faults", []string{"body.email", "body.role"}, m.manage(http.MethodPost, usersPath, body{"email": "bob", "role": "king"}).faults())

		events := m.eventsAbout(id)
		differ(t, "what happened to Ann", []string{"user.invited", "user.joined"}, events)
		token := []byte(link[strings.LastIndexByte(link, '/')+1:][26:])
		for f, err := range m.credentials.Read(t.Context(), 0) {
			if err != nil || bytes.Contains(f.Body, token) || bytes.Contains(f.Body, []byte(newPassword)) {
				t.Errorf("frame %d holds a secret, %v", f.Seq, err)
			}
		}
	})
}

// eventsAbout gives the types of the events about a subject, in their order.
func (m *memory) eventsAbout(id string) []string {
	m.t.Helper()
	var out []string
	for f, err := range m.credentials.Read(m.t.Context(), 0) {
		if err != nil {
			m.t.Fatal(err)
		}
		if !strings.HasSuffix(f.Subject, "."+id) {
			continue
		}
		_, typ, _ := strings.Cut(string(f.Body), `"type":"`)
		typ, _, _ = strings.Cut(typ, `"`)
		out = append(out, typ)
	}
	return out
}

func TestALinkIsVoidOnceItIsReplacedWithdrawnOrOld(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		join := body{"password": newPassword}
		id, first := m.invited("ann@acme.example", "qa")
		again, second := m.invited("Ann@acme.example", "sre")
		differ(t, "the user invited again", id, again)
		m.unsigned(http.MethodPost, first, join).is(http.StatusNotFound)
		m.manage(http.MethodDelete, usersPath+id, nil).is(http.StatusNoContent)
		m.unsigned(http.MethodPost, second, join).is(http.StatusNotFound)

		m.people.set(7*24*time.Hour + time.Minute)
		_, old := m.invited("old@acme.example", "qa")
		m.people.set(7*24*time.Hour - time.Minute)
		_, late := m.invited("late@acme.example", "qa")
		m.people.set(0)
		m.unsigned(http.MethodPost, old, join).is(http.StatusNotFound)
		m.unsigned(http.MethodPost, late, join).is(http.StatusOK).shows(body{"email": "late@acme.example"})
	})
}

func TestOfTwoUsesOfALinkOneCounts(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for i := range 4 {
			_, link := m.invited(string(rune('a'+i))+"@acme.example", "qa")
			var wg sync.WaitGroup
			var status [2]int
			for j := range status {
				wg.Go(func() { status[j] = m.unsigned(http.MethodPost, link, body{"password": newPassword}).status })
			}
			wg.Wait()
			differ(t, "the sum of what two were told", http.StatusOK+http.StatusNotFound, status[0]+status[1])
		}
	})
}

// Rows: D-20
func TestAnInvitedAdminIsNoneYet(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		first := m.onlyAdmin(acme)
		m.invited("ann@acme.example", "admin")
		m.manage(http.MethodDelete, usersPath+first, nil).fails(http.StatusConflict, "LAST_ADMIN")
		m.manage(http.MethodPatch, usersPath+first, body{"role": "qa"}).fails(http.StatusConflict, "LAST_ADMIN")
	})
}

func TestANewPasswordEndsEverySession(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u := m.person(acme, credential.RoleAdmin)
		one, two := m.session(u), m.session(u)
		bystander := m.signedIn(acme, credential.RoleQA)
		token, secret := m.created(tokensPath, wanted("of the user"), as(one))
		a := m.manage(http.MethodPost, usersPath+u.ID+"/password-reset", nil).is(http.StatusCreated)
		link := "/auth/password-reset/" + a.text("token")
		m.get("/deployments/", as(one)).is(http.StatusOK) // nothing has happened yet
		m.unsigned(http.MethodPost, strings.Replace(link, "password-reset", "invitations", 1), body{"password": newPassword}).is(http.StatusNotFound)
		m.unsigned(http.MethodPost, link, body{"password": newPassword}).is(http.StatusOK).shows(body{"id": u.ID})
		m.unsigned(http.MethodPost, link, body{"password": newPassword}).is(http.StatusNotFound)
		for range 2 {
			m.get("/deployments/", as(one)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
			m.get("/deployments/", as(two)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
			m.get("/deployments/", as(bystander)).is(http.StatusOK)
			m.restart()
		}
		m.works(secret) // tokens are revoked one by one
		m.get(tokensPath+token.id(), as(secret)).is(http.StatusForbidden)
		m.logIn(u.Email, password).is(http.StatusUnauthorized)
		m.get("/deployments/", as(m.logIn(u.Email, newPassword).is(http.StatusOK).text("token"))).is(http.StatusOK)
		differ(t, "what happened", []string{"user.joined", "user.reset_opened", "user.password_changed"}, m.eventsAbout(u.ID))
	})
}

func TestOnlyAdminsMakeLinks(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u := m.person(acme, credential.RoleDeveloper)
		theirs := m.person(other, credential.RoleDeveloper)
		m.manage(http.MethodPost, usersPath+u.ID+"/password-reset", nil, as(m.session(u))).is(http.StatusForbidden)
		m.manage(http.MethodPost, usersPath+theirs.ID+"/password-reset", nil).fails(http.StatusForbidden, "NOT_OWNER")
		id, _ := m.invited("ann@acme.example", "qa")
		m.manage(http.MethodPost, usersPath+id+"/password-reset", nil).fails(http.StatusConflict, "USER_INVITED")
	})
}

func TestAskingForANewPasswordTellsNothing(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u := m.person(acme, credential.RoleQA)
		m.people.hold()
		stored := must(m.credentials.Last(t.Context()))
		known := m.unsigned(http.MethodPost, "/auth/password-reset", body{"email": u.Email}).is(http.StatusAccepted)
		unknown := m.unsigned(http.MethodPost, "/auth/password-reset", body{"email": "nobody@acme.example"}).is(http.StatusAccepted)
		differ(t, "the answers", string(known.raw), string(unknown.raw))
		differ(t, "events", stored, must(m.credentials.Last(t.Context())))
		limited := false
		for i := 0; i < 11 && !limited; i++ {
			limited = m.unsigned(http.MethodPost, "/auth/password-reset", body{"email": u.Email}).status == http.StatusTooManyRequests
		}
		if !limited {
			t.Error("one asks as often as one wants")
		}
	})
}

func TestChangingAPasswordKeepsThisSessionOnly(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u := m.person(acme, credential.RoleViewer)
		here, there := m.session(u), m.session(u)
		change := body{"current": password, "new": newPassword}
		m.unsigned(http.MethodPost, "/auth/password", body{"current": "wrong", "new": newPassword}, as(here)).fails(http.StatusForbidden, "WRONG_PASSWORD")
		m.unsigned(http.MethodPost, "/auth/password", change, cookie(here)).fails(http.StatusForbidden, "CROSS_ORIGIN")
		m.unsigned(http.MethodPost, "/auth/password", change, as(m.admin)).fails(http.StatusForbidden, "WRONG_CREDENTIAL_KIND")
		differ(t, "faults", []string{"body.new"}, m.unsigned(http.MethodPost, "/auth/password", body{"current": password, "new": "short"}, as(here)).faults())
		m.unsigned(http.MethodPost, "/auth/password", change, cookie(here), ownOrigin).is(http.StatusNoContent)
		m.get("/deployments/", as(here)).is(http.StatusOK)
		m.get("/deployments/", as(there)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
		m.unsigned(http.MethodPost, "/auth/password", change, as(here)).fails(http.StatusForbidden, "WRONG_PASSWORD")
		m.logIn(u.Email, password).is(http.StatusUnauthorized)
		m.logIn(u.Email, newPassword).is(http.StatusOK)
	})
}

// Rows: VO-09
func TestAccountsAreMadeByTheOperatorAndShareNothing(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		const path = "/accounts/"
		order := body{"account": "fresh-1", "name": "Fresh", "admin_email": "ann@fresh.example"}
		a := m.manage(http.MethodPost, path, order).is(http.StatusCreated)
		a.shows(body{"account": "fresh-1", "admin_email": "ann@fresh.example", "url": m.url})
		key, pat, admin := a.text("api_key"), a.text("pat"), a.text("admin_pat")
		m.secrets = append(m.secrets, key, pat, admin)
		if !strings.HasPrefix(key, "sk_fresh-1_k1_") {
			t.Errorf("the key is %s", credential.Redact(key))
		}
		m.manage(http.MethodPost, path, order).fails(http.StatusConflict, "NAME_IN_USE")
		m.manage(http.MethodPost, path, order.with(body{"account": acme})).fails(http.StatusConflict, "NAME_IN_USE")
		for _, slug := range []string{"Fresh", "a_b", "", strings.Repeat("a", 41), "ä", "a.b"} {
			differ(t, "faults of "+slug, []string{"body.account"}, m.manage(http.MethodPost, path, order.with(body{"account": slug})).faults())
		}
		for _, token := range []string{admin, m.tokenOf(other, "pat", "admin"), m.pat, m.key} {
			m.manage(http.MethodPost, path, order.with(body{"account": "theirs"}), as(token)).is(http.StatusForbidden)
			m.get(path, as(token)).is(http.StatusForbidden)
		}
		list := m.get(path, as(m.admin)).is(http.StatusOK)
		differ(t, "accounts", []string{acme, "fresh-1", other}, list.each("items", "account"))
		page := m.get(path+"?limit=2", as(m.admin)).is(http.StatusOK)
		rest := m.get(where(path, "limit", "2", "cursor", page.text("next_cursor")), as(m.admin)).is(http.StatusOK)
		differ(t, "the second page", []string{other}, rest.each("items", "account"))

		d := m.deployed(m.deployment("success"), as(key))
		m.get("/deployments/"+d.id(), as(pat)).is(http.StatusOK)
		m.get("/deployments/"+d.id()).fails(http.StatusForbidden, "NOT_OWNER")
		differ(t, "what others see", []string{}, m.get("/deployments/").is(http.StatusOK).each("items", "id"))
		differ(t, "the users of the new account", []string{"ann@fresh.example"}, m.manage(http.MethodGet, usersPath, nil, as(admin)).is(http.StatusOK).each("items", "email"))
		mine := m.onlyAdmin(acme)
		for _, c := range []struct{ method, path string }{
			{http.MethodPatch, usersPath + mine},
			{http.MethodDelete, usersPath + mine},
			{http.MethodPost, usersPath + mine + "/password-reset"},
			{http.MethodGet, keysPath + a.text("api_key_id")},
			{http.MethodDelete, keysPath + a.text("api_key_id")},
			{http.MethodGet, tokensPath + a.text("pat_id")},
			{http.MethodDelete, tokensPath + a.text("pat_id")},
		} {
			who := as(admin)
			if strings.HasPrefix(c.path, keysPath) || strings.HasPrefix(c.path, tokensPath) {
				who = as(m.admin)
			}
			m.manage(c.method, c.path, body{"role": "qa", "name": "x"}, who).fails(http.StatusForbidden, "NOT_OWNER").shows(body{"error.type": "permission_error"})
		}
		session := m.logIn("ann@fresh.example", a.text("admin_password")).is(http.StatusOK).text("token")
		m.manage(http.MethodGet, keysPath, nil, as(session)).is(http.StatusOK)
		m.get(path, as(session)).is(http.StatusForbidden)
		m.restart()
		m.get("/deployments/", as(pat)).is(http.StatusOK)
		operator := m.signedIn(acme, credential.RoleAdmin)
		m.manage(http.MethodGet, path, nil, as(operator)).is(http.StatusOK)
	})
}

func TestOfTwoAccountsOfOneNameOneIsMade(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		var wg sync.WaitGroup
		var status [2]int
		for i := range status {
			wg.Go(func() {
				status[i] = m.manage(http.MethodPost, "/accounts/", body{"account": "twice", "admin_email": "a@b"}).status
			})
		}
		wg.Wait()
		differ(t, "the sum of what two were told", http.StatusCreated+http.StatusConflict, status[0]+status[1])
	})
}
