package contract_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

const (
	keysPath   = "/api-keys/"
	tokensPath = "/personal-access-tokens/" //nolint:gosec // a path
)

// families are the routes of credentials, which promise the same.
var families = []string{keysPath, tokensPath}

// wanted is the smallest body that makes a credential.
func wanted(name string, changes ...body) body {
	return change(body{"name": name, "expires": "90d"}, changes)
}

// manage sends a request about what is no event, as an admin.
func (l *ledger) manage(method, path string, b body, options ...option) answer {
	l.t.Helper()
	text := ""
	if b != nil {
		text = b.String()
	}
	return l.send(method, path, text, append([]option{as(l.admin), header("Content-Type", "application/json")}, options...)...)
}

// created makes a credential. From here on no answer may hold its secret.
func (m *memory) created(path string, b body, options ...option) (answer, string) {
	m.t.Helper()
	a := m.manage(http.MethodPost, path, b, options...).is(http.StatusCreated)
	secret := a.text("secret")
	m.secrets = append(m.secrets, secret)
	matches(m.t, `^c\.[0-9]+\.0$`, a.header.Get("X-Shipledger-Position"))
	return a, secret
}

func (m *memory) revoke(path, id string) {
	m.t.Helper()
	a := m.manage(http.MethodDelete, path+id, nil).is(http.StatusNoContent)
	matches(m.t, `^c\.[0-9]+\.0$`, a.header.Get("X-Shipledger-Position"))
}

// works and refused use a credential: keys report, tokens read.
func (m *memory) works(secret string) {
	m.t.Helper()
	if strings.HasPrefix(secret, "pat_") {
		m.get("/deployments/", as(secret)).is(http.StatusOK)
		return
	}
	m.deployed(m.deployment("success"), as(secret))
}

func (m *memory) refused(secret, code string) {
	m.t.Helper()
	shown := body{"detail": "Invalid authentication credentials"}
	m.get("/deployments/", as(secret)).fails(http.StatusUnauthorized, code).shows(shown)
	m.post("/deployment-events/", m.deployment("success"), as(secret)).fails(http.StatusUnauthorized, code).shows(shown)
}

// admins makes one more admin of an account, and gives a token of theirs.
func (m *memory) admins(account string) string {
	m.t.Helper()
	user := credential.User{ID: ulid.Make().String(), Account: account, Email: "second@" + account + ".example", Role: credential.RoleAdmin, CreatedAt: startTime}
	m.recorded(m.t, &user, credential.UserJoined)
	secret := m.mint(m.t, credential.Record{
		Kind: credential.PAT, Account: account, PublicID: must(credential.NewTokenID(entropy{})), Name: "second", Mode: event.Live,
		Scopes: must(credential.ParseScopes(credential.PAT, []string{"admin"})), UserID: user.ID,
	})
	last := must(m.credentials.Last(m.t.Context()))
	if err := m.ring.Await(m.t.Context(), last); err != nil {
		m.t.Fatal(err)
	}
	m.secrets = append(m.secrets, secret)
	return secret
}

// entropy makes ids that differ.
type entropy struct{}

// Read gives the random part of a ULID.
func (entropy) Read(p []byte) (int, error) {
	id := ulid.Make()
	return copy(p, bytes.Repeat(id[6:], len(p)/10+1)), nil
}

// Rows: VR-01, VR-12
func TestCreatedCredentialsAreOfTheGrammarAndCounted(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		founder := m.admins("fresh") // of an account without a key
		for _, c := range []struct {
			id   string
			mode any
		}{{"k1", absent}, {"k2", "live"}, {"t1", "test"}, {"k3", nil}, {"t2", "test"}} {
			a, secret := m.created(keysPath, wanted("ci", body{"mode": c.mode}), as(founder))
			parts := strings.Split(secret, "_")
			if len(parts) != 4 || parts[0] != "sk" || parts[1] != "fresh" || parts[2] != c.id {
				t.Errorf("key %s is %s", c.id, credential.Redact(secret))
			}
			matches(t, `^[0-9A-Za-z]{46}$`, parts[3])
			mode := "live"
			if c.id[0] == 't' {
				mode = "test"
			}
			a.shows(body{"key_id": c.id, "mode": mode, "last4": secret[len(secret)-4:], "scopes": []any{"events:write"}})
			m.works(secret)
			m.manage(http.MethodDelete, keysPath+a.id(), nil, as(founder)).is(http.StatusNoContent) // its number is not used again
		}
		a, secret := m.created(tokensPath, wanted("mine"), as(founder))
		if parts := strings.Split(secret, "_"); len(parts) != 3 || parts[0] != "pat" || parts[1] != a.text("token_id") {
			t.Errorf("the token is %s", credential.Redact(secret))
		}
		a.shows(body{"mode": "live", "last4": secret[len(secret)-4:], "scopes": []any{"read"}})
		m.works(secret)
	})
}

// Rows: VR-17, VR-18, VR-19, VF-05, VO-03, VT-02
func TestTheSecretIsShownOnceAndTheRestIsListed(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		var secrets []string
		made := map[string]string{}
		for _, path := range families {
			a, secret := m.created(path, wanted("ci", body{"description": "of my-service"}))
			secrets, made[path] = append(secrets, secret), a.id()
			shown := body{
				"id": a.id(), "name": "ci", "description": "of my-service", "mode": "live", "status": "active", "last4": secret[len(secret)-4:],
				"created_at": a.at("created_at"), "created_by": a.text("created_by"), "expires_at": a.at("expires_at"), "scopes": a.at("scopes"),
				"last_used_at": nil, "expiring_soon": false, "unused_30d": false, "legacy": false, "secret": absent,
			}
			m.manage(http.MethodGet, path+a.id(), nil).is(200).shows(shown)
			in := body{}
			for k, v := range shown {
				in["items.0."+k] = v
			}
			in["as_of.position"] = a.header.Get("X-Shipledger-Position")
			m.manage(http.MethodGet, where(path, "limit", "1"), nil).is(200).shows(in)
			m.manage(http.MethodPatch, path+a.id(), body{"name": "renamed"}).is(200).shows(body{"name": "renamed", "description": "of my-service", "secret": absent})
			m.manage(http.MethodPatch, path+a.id(), body{"description": "anew"}).is(200).shows(body{"name": "renamed", "description": "anew", "secret": absent})
			m.manage(http.MethodPost, path+a.id()+"/suspend", nil).is(200).shows(body{"status": "suspended", "secret": absent})
			m.manage(http.MethodPost, path+a.id()+"/resume", nil).is(200).shows(body{"status": "active", "secret": absent})
			m.works(secret)
			m.deployed(m.deployment("success", body{"deployed_by": "x"}))
		}
		for path, own := range map[string]string{keysPath: "key_id", tokensPath: "token_id"} {
			items := m.manage(http.MethodGet, path, nil).is(200).list("items")
			for _, item := range items {
				if id, ok := at(item, own).(string); !ok || id == absent {
					t.Errorf("%s shows %v", path, item)
				}
			}
			for other, id := range made {
				if other != path {
					m.manage(http.MethodGet, path+id, nil).fails(404, "NOT_FOUND")
					m.manage(http.MethodDelete, path+id, nil).fails(404, "NOT_FOUND")
				}
			}
		}
		for f, err := range m.credentials.Read(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range secrets {
				if bytes.Contains(f.Body, []byte(randomPart(secret))) {
					t.Errorf("event %d holds %s", f.Seq, credential.Redact(secret))
				}
			}
		}
	})
}

// Rows: VF-03
func TestScopesAreWordsOfTheTableAndShowCanonically(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, c := range []struct {
			asked      any
			key, token []any
		}{
			{"read", []any{"read"}, []any{"read"}},
			{"read-only", []any{"read"}, []any{"read"}},
			{"events:write", []any{"events:write"}, []any{"read", "events:write"}},
			{"sync-trigger", []any{"read", "events:write"}, []any{"read", "events:write"}},
			{"write", []any{"write"}, []any{"write"}},
			{"admin", []any{"admin"}, []any{"admin"}},
			{[]any{"read", "events:write"}, []any{"read", "events:write"}, []any{"read", "events:write"}},
			{[]any{"write", "read"}, []any{"write"}, []any{"write"}},
			{[]any{}, []any{"events:write"}, []any{"read"}},
			{nil, []any{"events:write"}, []any{"read"}},
			{"", []any{"events:write"}, []any{"read"}},
		} {
			for path, want := range map[string][]any{keysPath: c.key, tokensPath: c.token} {
				for _, member := range []string{"scope", "scopes"} {
					a, _ := m.created(path, wanted("s", body{member: c.asked}))
					a.shows(body{"scopes": want})
					m.manage(http.MethodGet, path+a.id(), nil).shows(body{"scopes": want})
				}
			}
		}
		for _, asked := range []any{"owner", "READ", "*", []any{"read", "delete"}, 7, body{"read": true}, []any{7}} {
			for _, path := range families {
				faults := m.manage(http.MethodPost, path, wanted("s", body{"scopes": asked})).faults()
				if len(faults) != 1 || !strings.HasPrefix(faults[0], "body.scopes") {
					t.Errorf("%v: faults at %v", asked, faults)
				}
			}
		}
	})
}

// Rows: VF-04
func TestEveryCredentialExpiresWhenItsMakerChose(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		day, moment := time.Now().AddDate(0, 0, 7).UTC().Truncate(24*time.Hour), time.Now().Add(3*time.Hour).UTC().Truncate(time.Second)
		for _, path := range families {
			for choice, want := range map[string]func(created time.Time) time.Time{
				"30d":                       func(c time.Time) time.Time { return c.AddDate(0, 0, 30) },
				"90d":                       func(c time.Time) time.Time { return c.AddDate(0, 0, 90) },
				"1y":                        func(c time.Time) time.Time { return c.AddDate(1, 0, 0) },
				day.Format(time.DateOnly):   func(time.Time) time.Time { return day },
				moment.Format(time.RFC3339): func(time.Time) time.Time { return moment },
			} {
				a, _ := m.created(path, wanted("e", body{"expires": choice}))
				created, expires := must(time.Parse(time.RFC3339Nano, a.text("created_at"))), must(time.Parse(time.RFC3339Nano, a.text("expires_at")))
				if off := expires.Sub(want(created)).Abs(); off > time.Hour || off != 0 && choice == moment.Format(time.RFC3339) {
					t.Errorf("%s: made at %s, expires at %s", choice, created, expires)
				}
				a.shows(body{"expiring_soon": expires.Sub(created) <= 14*24*time.Hour})
			}
			for _, choice := range []any{absent, nil, "", "never", "2020-01-01", "2020-01-01T00:00:00Z", "31d", "soon", 90} {
				differ(t, "faults", []string{"body.expires"}, m.manage(http.MethodPost, path, wanted("e", body{"expires": choice})).faults())
			}
		}
	})
}

func TestAnOrderIsCheckedAsAWhole(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		before := must(m.credentials.Last(t.Context()))
		for _, path := range families {
			for _, c := range []struct {
				b    body
				want []string
			}{
				{body{}, []string{"body.name", "body.expires"}},
				{wanted(""), []string{"body.name"}},
				{wanted(strings.Repeat("n", 256)), []string{"body.name"}},
				{wanted("a\nb"), []string{"body.name"}},
				{wanted("n", body{"description": strings.Repeat("d", 1001), "mode": "production"}), []string{"body.description", "body.mode"}},
				{wanted("n", body{"ip_allow": []any{"10.0.0.0/88"}, "rate_limit": 5}), []string{"body.rate_limit", "body.ip_allow"}},
				{body{"scopes": "owner", "expires": "never"}, []string{"body.name", "body.scopes", "body.expires"}},
			} {
				differ(t, "faults of "+c.b.String(), c.want, m.manage(http.MethodPost, path, c.b).faults())
			}
			m.send(http.MethodPost, path, "{", as(m.admin)).fails(400, "INVALID_JSON")
			a, _ := m.created(path, wanted(strings.Repeat("n", 255), body{"description": strings.Repeat("d", 1000), "unknown": 1}))
			for _, b := range []body{{}, {"name": nil}, {"description": ""}, {"name": 7}, {"name": strings.Repeat("n", 256)}, {"ip_allow": []any{7}}} {
				m.manage(http.MethodPatch, path+a.id(), b).faults()
			}
		}
		differ(t, "events", before+2, must(m.credentials.Last(t.Context())))
	})
}

// Rows: VR-20, VR-21, VR-22, VR-23, VF-19, VO-14, VT-17
func TestARevokedCredentialIsRefusedOnTheNextRequestAndNoOtherIs(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			one, first := m.created(path, wanted("one"))
			two, second := m.created(path, wanted("two"))
			three, third := m.created(path, wanted("three"))
			for _, secret := range []string{first, second, third, first} {
				m.works(secret)
			}
			m.revoke(path, one.id())
			m.refused(first, "AUTH_REVOKED_KEY")
			m.works(second)
			m.works(third)
			for id, status := range map[string]string{one.id(): "revoked", two.id(): "active", three.id(): "active"} {
				m.manage(http.MethodGet, path+id, nil).is(200).shows(body{"status": status})
			}
			_, fourth := m.created(path, wanted("one"))
			m.works(fourth)
			m.refused(first, "AUTH_REVOKED_KEY")
		}
	})
}

// Rows: VF-21
func TestARevocationIsFinal(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			a, secret := m.created(path, wanted("one"))
			m.manage(http.MethodPost, path+a.id()+"/suspend", nil).is(200)
			m.revoke(path, a.id())
			before := must(m.credentials.Last(t.Context()))
			for range 2 {
				m.manage(http.MethodPost, path+a.id()+"/resume", nil).fails(409, "CREDENTIAL_REVOKED")
				m.manage(http.MethodPost, path+a.id()+"/suspend", nil).fails(409, "CREDENTIAL_REVOKED")
				m.manage(http.MethodPatch, path+a.id(), body{"name": "x"}).fails(409, "CREDENTIAL_REVOKED")
				m.manage(http.MethodDelete, path+a.id(), nil).fails(409, "CREDENTIAL_REVOKED")
			}
			m.refused(secret, "AUTH_REVOKED_KEY")
			m.manage(http.MethodGet, path+a.id(), nil).is(200).shows(body{"status": "revoked", "name": "one"})
			differ(t, "events", before, must(m.credentials.Last(t.Context())))
		}
	})
}

// Rows: VT-14, VT-15
func TestASuspendedCredentialWorksAgainAndTheReasonIsToldToItsHolderOnly(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			a, secret := m.created(path, wanted("one"))
			kind, account, id := credential.APIKey, acme, a.at("key_id")
			if path == tokensPath {
				kind, account, id = credential.PAT, "", a.at("token_id")
			}
			guess := must(credential.Mint(kind, account, id.(string), "live", zeros{}))
			m.refused(guess, "AUTH_INVALID_KEY")
			m.manage(http.MethodPost, path+a.id()+"/resume", nil).fails(409, "CREDENTIAL_ACTIVE")
			m.manage(http.MethodPost, path+a.id()+"/suspend", nil).is(200).shows(body{"status": "suspended"})
			m.manage(http.MethodPost, path+a.id()+"/suspend", nil).fails(409, "CREDENTIAL_SUSPENDED")
			m.refused(secret, "AUTH_SUSPENDED_KEY")
			m.refused(guess, "AUTH_INVALID_KEY")
			m.manage(http.MethodPost, path+a.id()+"/resume", nil).is(200).shows(body{"status": "active"})
			m.works(secret)
			m.revoke(path, a.id())
			m.refused(secret, "AUTH_REVOKED_KEY")
			m.refused(guess, "AUTH_INVALID_KEY")
		}
	})
}

// Rows: VF-25, VF-27
func TestListsAreFilteredAndPagedAndKeepWhatIsOver(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		expired := m.mintAs("k90", credential.Active, startTime)
		m.secrets = append(m.secrets, expired)
		m.manage(http.MethodGet, where(keysPath, "status", "expired"), nil).is(200).shows(body{"items.0.key_id": "k90", "items.0.status": "expired", "items.1": absent})
		for _, path := range families {
			old, _ := m.created(path, wanted("deploy"))
			m.revoke(path, old.id())
			now, _ := m.created(path, wanted("deploy"))
			paused, _ := m.created(path, wanted("Deploy"))
			m.manage(http.MethodPost, path+paused.id()+"/suspend", nil).is(200)
			for _, c := range []struct {
				status, name string
				want         []string
			}{
				{"active", "deploy", []string{now.id()}},
				{"revoked", "deploy", []string{old.id()}},
				{"revoked", "", []string{old.id()}},
				{"suspended", "", []string{paused.id()}},
				{"", "Deploy", []string{paused.id()}},
				{"active", "nobody", []string{}},
			} {
				got := m.manage(http.MethodGet, where(path, "status", c.status, "name", c.name), nil).is(200).each("items", "id")
				differ(t, "with status "+c.status+" and name "+c.name, c.want, got)
			}
			both := m.manage(http.MethodGet, where(path, "name", "deploy"), nil).is(200).each("items", "id")
			slices.Sort(both)
			want := []string{old.id(), now.id()}
			slices.Sort(want)
			differ(t, "by name", want, both)

			all := m.manage(http.MethodGet, path, nil).is(200)
			var paged []string
			for cursor := ""; ; {
				page := m.manage(http.MethodGet, where(path, "limit", "2", "cursor", cursor), nil).is(200)
				paged = append(paged, page.each("items", "id")...)
				if page.at("next_cursor") == nil {
					break
				}
				cursor = page.text("next_cursor")
			}
			differ(t, "page by page", all.each("items", "id"), paged)
			if !slices.IsSortedFunc(paged, func(a, b string) int { return strings.Compare(b, a) }) {
				t.Errorf("not newest first: %v", paged)
			}
			for _, query := range []string{"?status=dead", "?limit=0", "?sort=name", "?min_position=x", "?min_position=t0.1.0", "?cursor=x"} {
				m.manage(http.MethodGet, path+query, nil).fails(422, "VALIDATION_ERROR")
			}
			m.manage(http.MethodGet, where(path, "min_position", all.text("as_of.position")), nil).is(200)
		}
	})
}

func TestCredentialsOfOthersAreNeitherSeenNorChanged(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		second, stranger := m.admins(acme), m.tokenOf(other, "pat", "admin")
		key, _ := m.created(keysPath, wanted("shared"))
		pat, _ := m.created(tokensPath, wanted("mine"))
		before := must(m.credentials.Last(t.Context()))
		attempts := func(path, id, token string) {
			t.Helper()
			for _, a := range []answer{
				m.manage(http.MethodGet, path+id, nil, as(token)), m.manage(http.MethodDelete, path+id, nil, as(token)),
				m.manage(http.MethodPatch, path+id, body{"name": "x"}, as(token)),
				m.manage(http.MethodPost, path+id+"/suspend", nil, as(token)), m.manage(http.MethodPost, path+id+"/resume", nil, as(token)),
			} {
				a.fails(403, "NOT_OWNER")
			}
			if ids := m.manage(http.MethodGet, path, nil, as(token)).is(200).each("items", "id"); slices.Contains(ids, id) {
				t.Errorf("%s is listed", path+id)
			}
		}
		attempts(keysPath, key.id(), stranger)
		attempts(tokensPath, pat.id(), stranger)
		attempts(tokensPath, pat.id(), second)
		differ(t, "events", before, must(m.credentials.Last(t.Context())))
		m.manage(http.MethodGet, keysPath+key.id(), nil, as(second)).is(200) // the account's, whoever made it
		m.manage(http.MethodDelete, keysPath+key.id(), nil, as(second)).is(204)
		for _, path := range families {
			for _, id := range []string{"01JW2C5R3V0E6H7Q8S9T0A1B2C", "k1", "x", key.text("key_id")} {
				m.manage(http.MethodGet, path+id, nil).fails(404, "NOT_FOUND")
			}
		}
	})
}

func TestOfManyRevocationsOneIsMadeAndTheOthersAreTold(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			a, secret := m.created(path, wanted("one"))
			before := must(m.credentials.Last(t.Context()))
			answers := make([]answer, 8)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() { answers[i] = m.manage(http.MethodDelete, path+a.id(), nil) })
			}
			wg.Wait()
			made := 0
			for _, a := range answers {
				if a.status == http.StatusNoContent {
					made++
				} else {
					a.fails(409, "CREDENTIAL_REVOKED")
				}
			}
			differ(t, "revocations", 1, made)
			differ(t, "events", before+1, must(m.credentials.Last(t.Context())))
			m.refused(secret, "AUTH_REVOKED_KEY")
		}
	})
}

// Decisions of contract 24: C-57.
func TestEveryChangeIsAnEventThatNamesWhoMadeIt(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			before := must(m.credentials.Last(t.Context()))
			a, _ := m.created(path, wanted("one"))
			m.manage(http.MethodPatch, path+a.id(), body{"name": "two"}).is(200)
			m.manage(http.MethodPost, path+a.id()+"/suspend", nil).is(200)
			m.manage(http.MethodPost, path+a.id()+"/resume", nil).is(200)
			m.revoke(path, a.id())
			var types []event.Type
			by := must(m.ring.Verify(m.admin))
			for f, err := range m.credentials.Read(t.Context(), before) {
				if err != nil {
					t.Fatal(err)
				}
				e := must(event.DecodeEvent(event.Position{Stream: event.CredentialStream, Offset: event.At(f.Seq, 0)}, f.Body))
				types = append(types, e.Type)
				differ(t, "author", by.Author(), e.Author)
				differ(t, "subject", a.id(), e.Subject)
				r := must(credential.Decode(&e.Event)).(*credential.Record)
				differ(t, "created by", by.UserID, r.CreatedBy)
				differ(t, "stored under", r.LogSubject(), f.Subject)
			}
			differ(t, "types", []event.Type{credential.Created, credential.Updated, credential.WasSuspended, credential.Resumed, credential.WasRevoked}, types)
		}
	})
}

func TestACredentialThatRevokesItselfIsAnsweredAndGone(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		a, secret := m.created(tokensPath, wanted("brief", body{"scope": "admin"}))
		m.manage(http.MethodDelete, tokensPath+a.id(), nil, as(secret)).is(204)
		m.manage(http.MethodGet, tokensPath+a.id(), nil, as(secret)).fails(401, "AUTH_REVOKED_KEY")
	})
}

func TestARotationGivesASuccessorAndTheOldOneEndsWithItsGrace(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			a, old := m.created(path, wanted("ci", body{"description": "of my-service", "scopes": "write"}))
			next, secret := m.created(path+a.id()+"/rotate", body{"grace": "7d"})
			next.shows(body{
				"name": "ci", "description": "of my-service", "scopes": []any{"write"}, "mode": "live", "status": "active",
				"rotated_from": a.id(), "rotated_to": nil, "grace_until": nil, "created_by": a.text("created_by"),
			})
			term := func(a answer) time.Duration {
				return must(time.Parse(time.RFC3339Nano, a.text("expires_at"))).Sub(must(time.Parse(time.RFC3339Nano, a.text("created_at"))))
			}
			differ(t, "term", term(a), term(next))
			m.works(old)
			m.works(secret)
			shown := m.manage(http.MethodGet, path+a.id(), nil).is(200).shows(body{"status": "active", "rotated_to": next.id(), "rotated_from": nil, "expiring_soon": true})
			differ(t, "the end of the grace", shown.text("grace_until"), shown.text("expires_at"))
			if left := time.Until(must(time.Parse(time.RFC3339Nano, shown.text("grace_until")))); left > 7*24*time.Hour || left < 7*24*time.Hour-time.Hour {
				t.Errorf("the grace is over in %s", left)
			}
			m.manage(http.MethodPost, path+a.id()+"/rotate", body{"grace": "0"}).fails(409, "CREDENTIAL_ROTATED")

			last, latest := m.created(path+next.id()+"/rotate", body{"grace": "0", "expires": "30d"})
			last.shows(body{"rotated_from": next.id()})
			differ(t, "term", 30*24*time.Hour, term(last).Round(time.Hour))
			m.refused(secret, "AUTH_EXPIRED_KEY")
			m.works(old)
			m.works(latest)
			m.manage(http.MethodGet, path+next.id(), nil).is(200).shows(body{"status": "expired", "rotated_from": a.id(), "rotated_to": last.id()})
			m.manage(http.MethodDelete, path+next.id(), nil).fails(409, "CREDENTIAL_EXPIRED")
			m.revoke(path, a.id()) // before its grace is over
			m.refused(old, "AUTH_REVOKED_KEY")
			m.works(latest)
		}
	})
}

func TestARotationIsRefusedWhereThereIsNothingToRotate(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			a, _ := m.created(path, wanted("one"))
			rotate := path + a.id() + "/rotate"
			before := must(m.credentials.Last(t.Context()))
			for _, grace := range []any{absent, nil, "", "31d", "721h", "-1d", "7", "d", "1w", "1.5d", 7} {
				differ(t, "faults", []string{"body.grace"}, m.manage(http.MethodPost, rotate, body{"grace": grace}).faults())
			}
			differ(t, "faults", []string{"body.grace", "body.expires"}, m.manage(http.MethodPost, rotate, body{"grace": "1y", "expires": "never"}).faults())
			m.manage(http.MethodPost, path+"x/rotate", body{"grace": "0"}).fails(404, "NOT_FOUND")
			m.manage(http.MethodPost, rotate, body{"grace": "0"}, as(m.tokenOf(other, "pat", "admin"))).fails(403, "NOT_OWNER")
			differ(t, "events", before, must(m.credentials.Last(t.Context())))
			m.manage(http.MethodPost, path+a.id()+"/suspend", nil).is(200)
			m.manage(http.MethodPost, rotate, body{"grace": "0"}).fails(409, "CREDENTIAL_SUSPENDED")
			m.revoke(path, a.id())
			m.manage(http.MethodPost, rotate, body{"grace": "0"}).fails(409, "CREDENTIAL_REVOKED")
		}
	})
}
