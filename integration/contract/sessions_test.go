package contract_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
)

// What the people of these scripts sign in with; the hash is a cheap one.
const (
	password     = "correct horse battery staple"
	passwordHash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdCBvZiB0aGUgdGVzdA$CPiJ9Bsyht7GDglXZa7xjSL+D5mYbLav0PHcFaWO0Jc" //nolint:gosec // of the line above
)

// roles are all there are, each with what it may do about keys and tokens
// (contract 18).
var roles = []struct {
	name                string
	lists, makes, holds bool // API keys: list, create; tokens: create
}{
	{"admin", true, true, true},
	{"developer", true, false, true},
	{"release_manager", false, false, true},
	{"product", false, false, true},
	{"sre", false, false, true},
	{"qa", false, false, true},
	{"security", false, false, true},
	{"compliance", false, false, true},
	{"billing", false, false, false},
	{"viewer", false, false, false},
}

// person makes a user who signs in with a password.
func (m *memory) person(account, role string) credential.User {
	m.t.Helper()
	id := ulid.Make().String()
	u := credential.User{
		ID: id, Account: account, Email: role + "." + strings.ToLower(id) + "@" + account + ".example", Role: role,
		PasswordHash: passwordHash, CreatedAt: startTime,
	}
	m.recorded(m.t, &u, credential.UserJoined)
	m.caughtUp()
	return u
}

// caughtUp returns when the keyring knows what the log holds.
func (m *memory) caughtUp() {
	m.t.Helper()
	if err := m.ring.Await(m.t.Context(), must(m.credentials.Last(m.t.Context()))); err != nil {
		m.t.Fatal(err)
	}
}

func (m *memory) logIn(email, password string, options ...option) answer {
	m.t.Helper()
	b := body{"email": email, "password": password}
	return m.send(http.MethodPost, "/auth/login", b.String(), append([]option{header("Content-Type", "application/json")}, options...)...)
}

// signedIn gives a session of a new user. From here on no answer may hold its token.
func (m *memory) signedIn(account, role string) string {
	m.t.Helper()
	return m.session(m.person(account, role))
}

func (m *memory) session(u credential.User) string {
	m.t.Helper()
	token := m.logIn(u.Email, password).is(http.StatusOK).text("token")
	m.secrets = append(m.secrets, token)
	return token
}

// cookie sends a session as browsers do.
func cookie(token string) option {
	return func(r *http.Request) {
		r.Header.Del("Authorization")
		r.AddCookie(&http.Cookie{Name: "__session", Value: token})
	}
}

// ownOrigin says that the request comes from a page of this server.
func ownOrigin(r *http.Request) { r.Header.Set("Origin", "http://"+r.URL.Host) }

// Rows: VR-09
func TestASessionWorksAsBearerAndAsCookie(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u := m.person(acme, credential.RoleAdmin)
		before := time.Now()
		a := m.logIn(u.Email, password).is(http.StatusOK)
		token := a.text("token")
		ends, err := time.Parse(time.RFC3339, a.text("expires_at"))
		if life := ends.Sub(before); err != nil || life < 12*time.Hour-2*time.Second || life > 13*time.Hour {
			t.Errorf("the session ends at %s, %v", a.text("expires_at"), err)
		}
		cookies, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
		if err != nil || cookies.Name != "__session" || cookies.Value != token || !cookies.HttpOnly || cookies.SameSite != http.SameSiteLaxMode ||
			cookies.Path != "/" || cookies.MaxAge != 12*60*60 || cookies.Domain != "" || cookies.Secure {
			t.Errorf("the cookie is %+v, %v", cookies, err)
		}
		m.secrets = append(m.secrets, token)
		for _, path := range []string{"/products/", "/environments/", "/versions/", "/deployments/", "/builds/", "/matrix", "/api-keys/", "/personal-access-tokens/"} {
			m.get(path, as(token)).is(http.StatusOK)
			m.get(path, cookie(token)).is(http.StatusOK)
			m.get(path, cookie(token), header("Authorization", "Bearer "+m.key)).is(http.StatusForbidden) // the header decides
		}
		m.created(keysPath, wanted("by bearer"), as(token))
		m.created(keysPath, wanted("by cookie"), cookie(token), ownOrigin)
		m.manage(http.MethodPost, keysPath, wanted("forged"), cookie(token)).fails(http.StatusForbidden, "CROSS_ORIGIN")
		m.manage(http.MethodPost, keysPath, wanted("forged"), cookie(token), header("Origin", "https://evil.example")).fails(http.StatusForbidden, "CROSS_ORIGIN")
		if names := m.manage(http.MethodGet, keysPath, nil).each("items", "name"); strings.Contains(strings.Join(names, " "), "forged") {
			t.Error("a foreign page made a key")
		}
	})
}

// Rows: VR-10
func TestASessionEndsAfterTwelveHoursAndByLogOut(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.people.set(12*time.Hour - time.Minute)
		late := m.signedIn(acme, credential.RoleAdmin)
		m.get("/deployments/", as(late)).is(http.StatusOK)
		m.people.set(12*time.Hour + time.Second)
		expired := m.signedIn(acme, credential.RoleAdmin)
		m.people.set(0)
		for _, with := range []func(string) option{as, cookie} {
			m.get("/deployments/", with(expired)).fails(http.StatusUnauthorized, "AUTH_EXPIRED_KEY").shows(body{"detail": "Invalid authentication credentials"})
		}

		u := m.person(acme, credential.RoleViewer)
		one, two := m.session(u), m.session(u)
		m.send(http.MethodPost, "/auth/logout", "", cookie(one)).fails(http.StatusForbidden, "CROSS_ORIGIN")
		a := m.send(http.MethodPost, "/auth/logout", "", cookie(one), ownOrigin).is(http.StatusNoContent)
		if c, err := http.ParseSetCookie(a.header.Get("Set-Cookie")); err != nil || c.Value != "" || c.MaxAge >= 0 {
			t.Errorf("the cookie is not taken back: %+v, %v", c, err)
		}
		for _, with := range []func(string) option{as, cookie} {
			m.get("/deployments/", with(one)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY").shows(body{"detail": "Invalid authentication credentials"})
		}
		m.send(http.MethodPost, "/auth/logout", "", as(one)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
		m.get("/deployments/", as(two)).is(http.StatusOK)
		m.send(http.MethodPost, "/auth/logout", "", as(two)).is(http.StatusNoContent)
		m.send(http.MethodPost, "/auth/logout", "", as(m.admin)).fails(http.StatusForbidden, "WRONG_CREDENTIAL_KIND")
		m.send(http.MethodPost, "/auth/logout", "").fails(http.StatusUnauthorized, "AUTH_MISSING")
	})
}

// What is over stays over, and what is not goes on, when everything is started anew.
func TestSessionsSurviveARestart(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		live, ended := m.signedIn(acme, credential.RoleQA), m.signedIn(acme, credential.RoleQA)
		m.send(http.MethodPost, "/auth/logout", "", as(ended)).is(http.StatusNoContent)
		m.restart()
		m.get("/deployments/", as(live)).is(http.StatusOK)
		m.get("/deployments/", as(ended)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
	})
}

// Rows: VR-11
func TestASessionDoesNotReachAnotherAccount(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		theirs := m.deployed(m.deployment("success"), as(m.tokenOf(other, "sk", "events:write")))
		built := m.built(m.build("success"), as(m.tokenOf(other, "sk", "events:write")))
		key, _ := m.created(keysPath, wanted("theirs"), as(m.tokenOf(other, "pat", "admin")))
		pat, _ := m.created(tokensPath, wanted("theirs"), as(m.tokenOf(other, "pat", "admin")))
		session := m.signedIn(acme, credential.RoleAdmin)
		for _, path := range []string{
			"/deployments/" + theirs.id(), "/builds/" + built.id(), "/products/" + theirs.text("product_id"),
			"/environments/" + theirs.text("environment_id"), "/versions/" + theirs.text("version_id"), keysPath + key.id(), tokensPath + pat.id(),
		} {
			behind := header("X-Shipledger-Position", built.header.Get("X-Shipledger-Position"))
			if path == keysPath+key.id() || path == tokensPath+pat.id() {
				behind = header("X-Shipledger-Position", pat.header.Get("X-Shipledger-Position"))
			}
			if m.trackOf(acme) != m.trackOf(other) { // nobody waits for a partition that is not theirs
				m.shows(other)
				behind = header("X-Shipledger-Position", "")
			}
			m.get(path, as(session), behind).fails(http.StatusForbidden, "NOT_OWNER")
			m.get(path, cookie(session), behind).fails(http.StatusForbidden, "NOT_OWNER")
		}
		for _, path := range []string{keysPath + key.id(), tokensPath + pat.id()} {
			m.manage(http.MethodDelete, path, nil, as(session)).fails(http.StatusForbidden, "NOT_OWNER")
		}
	})
}

// Rows: VR-37
func TestRolesDecideWhoManagesKeysAndTokens(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		first, _ := m.created(keysPath, wanted("the first"))
		for i, role := range roles {
			u := m.person(acme, role.name)
			if i%8 == 7 {
				m.restart() // attempts are counted, and all of these come from here
			}
			session := m.session(u)
			allowed := func(a answer, yes bool, status int) {
				t.Helper()
				if yes {
					a.is(status)
					return
				}
				a.is(http.StatusForbidden).shows(body{"detail": "You do not have permission to perform this action"})
			}
			allowed(m.get(keysPath, as(session)), role.lists, http.StatusOK)
			allowed(m.get(keysPath+first.id(), as(session)), role.lists, http.StatusOK)
			made := m.manage(http.MethodPost, keysPath, wanted(role.name), as(session))
			allowed(made, role.makes, http.StatusCreated)
			id := first.id()
			if role.makes {
				m.secrets = append(m.secrets, made.text("secret"))
				id = made.id()
			}
			allowed(m.manage(http.MethodPatch, keysPath+id, body{"name": "n"}, as(session)), role.makes, http.StatusOK)
			allowed(m.manage(http.MethodPost, keysPath+id+"/suspend", nil, as(session)), role.makes, http.StatusOK)
			allowed(m.manage(http.MethodPost, keysPath+id+"/resume", nil, as(session)), role.makes, http.StatusOK)
			allowed(m.manage(http.MethodDelete, keysPath+id, nil, as(session)), role.makes, http.StatusNoContent)

			token := m.manage(http.MethodPost, tokensPath, wanted(role.name), as(session))
			allowed(token, role.holds, http.StatusCreated)
			own := m.get(tokensPath, as(session)).is(http.StatusOK).each("items", "name")
			if !role.holds {
				differ(t, role.name+" has tokens", []string{}, own)
				continue
			}
			differ(t, "the tokens of "+role.name, []string{role.name}, own)
			secret := token.text("secret")
			m.secrets = append(m.secrets, secret)
			m.get("/deployments/", as(secret)).is(http.StatusOK)
			m.get(keysPath, as(secret)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE") // a session may, its owner's token with read may not
			m.manage(http.MethodDelete, tokensPath+token.id(), nil, as(session)).is(http.StatusNoContent)
			m.refused(secret, "AUTH_REVOKED_KEY")
		}
		m.manage(http.MethodDelete, keysPath+first.id(), nil).is(http.StatusNoContent)
	})
}

func TestAFailedLogInTellsNothing(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u, gone := m.person(acme, credential.RoleAdmin), m.person(acme, credential.RoleAdmin)
		last := must(m.credentials.Last(t.Context()))
		gone.Removed = true
		m.recordedAfter(t, &gone, credential.UserRemoved, last)
		m.caughtUp()
		stored := must(m.credentials.Last(t.Context()))
		var messages []string
		for _, c := range []struct{ email, password string }{
			{u.Email, "wrong"},
			{u.Email, password + " "},
			{"nobody@acme.example", password},
			{gone.Email, password},
			{"admin@acme.example", password}, // who has no password
			{u.ID, password},
			{u.Email, passwordHash},
		} {
			a := m.logIn(c.email, c.password).fails(http.StatusUnauthorized, "AUTH_INVALID_KEY").shows(body{"detail": "Invalid authentication credentials"})
			messages = append(messages, a.text("error.message"))
			if a.header.Get("Set-Cookie") != "" || strings.Contains(string(a.raw), c.email) {
				t.Errorf("a failed log-in answers %s", a.raw)
			}
		}
		for _, text := range messages {
			differ(t, "the messages of failed log-ins", messages[0], text)
		}
		differ(t, "what failed log-ins left in the log", stored, must(m.credentials.Last(t.Context())))
		m.logIn(" "+strings.ToUpper(u.Email)+" ", password).is(http.StatusOK)
		m.logIn(u.Email, password, header("Origin", "https://evil.example")).fails(http.StatusForbidden, "CROSS_ORIGIN")
		m.logIn(u.Email, password, ownOrigin, as("not a token")).is(http.StatusOK) // a supplied credential is not checked here
		differ(t, "what an empty body lacks", []string{"body.email", "body.password"}, m.send(http.MethodPost, "/auth/login", "{}").faults())
		m.send(http.MethodPost, "/auth/login", "no JSON").fails(http.StatusBadRequest, "INVALID_JSON")
	})
}

func TestAttemptsToSignInAreBounded(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		u, second := m.person(acme, credential.RoleAdmin), m.person(acme, credential.RoleAdmin)
		m.people.hold()
		try := func(email string) int { return m.logIn(email, "wrong").status }
		for range 10 {
			differ(t, "an attempt within the limit", http.StatusUnauthorized, try(u.Email))
		}
		a := m.logIn(u.Email, password).fails(http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
		matches(t, `^[1-9][0-9]*$`, a.header.Get("Retry-After"))
		m.logIn(strings.ToUpper(u.Email), password).is(http.StatusTooManyRequests)
		m.logIn(second.Email, password).is(http.StatusOK)
		refused := false
		for i := 0; i < 40 && !refused; i++ { // one a user: what is left is the limit of the address
			refused = try(ulid.Make().String()+"@acme.example") == http.StatusTooManyRequests
		}
		if !refused {
			t.Error("one address tries passwords of as many users as it wants")
		}
	})
}

func TestThePublishedKeyVerifiesASession(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		token := m.signedIn(acme, credential.RoleViewer)
		set := m.send(http.MethodGet, "/.well-known/jwks.json", "", as("not a token")).is(http.StatusOK)
		key := must(base64.RawURLEncoding.DecodeString(set.text("keys.0.x")))
		parts := strings.Split(token, ".")
		if len(parts) != 3 || !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), must(base64.RawURLEncoding.DecodeString(parts[2]))) {
			t.Error("the published key does not verify the token")
		}
		var head map[string]string
		if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(parts[0])), &head); err != nil {
			t.Fatal(err)
		}
		differ(t, "the header", map[string]string{"alg": "EdDSA", "typ": "JWT", "kid": set.text("keys.0.kid")}, head)
	})
}

// Neither a password nor a token of a session is in an event.
func TestTheLogHoldsNoPasswordAndNoSession(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		token := m.signedIn(acme, credential.RoleAdmin)
		m.logIn("nobody@acme.example", password)
		m.send(http.MethodPost, "/auth/logout", "", as(token)).is(http.StatusNoContent)
		parts := strings.Split(token, ".")
		for f, err := range m.credentials.Read(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{password, parts[0], parts[1], parts[2]} {
				if bytes.Contains(f.Body, []byte(secret)) {
					t.Errorf("frame %d of %s holds a secret", f.Seq, f.Subject)
				}
			}
		}
	})
}
