package contract_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const eventsPath = "/events/"

// events lists the events that a filter lets through, oldest first, behind a
// position.
func (l *ledger) events(position string, filter ...string) answer {
	l.t.Helper()
	return l.read(where(eventsPath, append(filter, "order", "oldest")...), header("X-Shipledger-Position", position))
}

// Rows: VF-02, VT-06
func TestEveryEventNamesTheCredentialThatWroteIt(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, c := range []struct{ token, id, name, mode string }{
			{m.key, "k1", "acme events:write", "live"},
			{m.token("sk", "test"), "t1", "acme test", "test"},
			{m.token("sk", "admin"), "k5", "acme admin", "live"},
		} {
			posted := m.deployed(m.deployment("success", body{"invoke_id": c.name, "version": c.name}), as(c.token))
			page := m.events(posted.header.Get("X-Shipledger-Position"), "subject", posted.id())
			page.shows(body{
				"items.0.id": posted.text("event_id"), "items.0.type": "deployment.completed", "items.0.subject": posted.id(),
				"items.0.position": posted.header.Get("X-Shipledger-Position"), "items.0.received_at": startTime,
				"items.0.credential_id": c.id, "items.0.credential_name": c.name, "items.0.mode": c.mode, "items.0.actor": nil,
				"items.0.data.invoke_id": c.name, "items.1": absent,
			})
			for _, e := range m.read(where(eventsPath, "credential", c.id)).list("items") {
				if at(e, "credential_name") != c.name || at(e, "mode") != c.mode {
					t.Errorf("of %s: %v", c.id, e)
				}
			}
		}
		m.read(where(eventsPath, "mode", "test", "family", "deployment")).shows(body{"items.0.credential_id": "t1", "items.1": absent})
	})
}

// Rows: VO-06
func TestWhatATokenWroteCarriesItsUser(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		posted := l.deployed(l.deployment("success"), as(l.admin))
		page := l.events(posted.header.Get("X-Shipledger-Position"), "subject", posted.id())
		actor := at(page.list("items")[0], "actor")
		if user, ok := actor.(string); !ok || len(user) != 26 {
			t.Fatalf("the actor is %v", actor)
		}
		for _, e := range l.read(where(eventsPath, "actor", actor.(string), "family", "deployment")).list("items") {
			if at(e, "actor") != actor {
				t.Errorf("not of that user: %v", e)
			}
		}
		made := l.send(http.MethodPost, tokensPath, wanted("by hand").String(), as(l.admin), header("Content-Type", "application/json")).is(http.StatusCreated)
		made.shows(body{"created_by": actor})
		l.events(made.header.Get("X-Shipledger-Position"), "subject", made.id()).shows(body{"items.0.type": "credential.created", "items.0.actor": actor, "items.1": absent})
	})
}

// Rows: VR-19, VF-02
func TestLifeOfACredentialIsInTheAuditLogWithoutItsSecret(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			made, secret := m.created(path, wanted("audited"))
			id := made.id()
			m.manage(http.MethodPatch, path+id, body{"name": "renamed"}).is(http.StatusOK)
			m.manage(http.MethodPost, path+id+"/suspend", nil).is(http.StatusOK)
			m.manage(http.MethodPost, path+id+"/resume", nil).is(http.StatusOK)
			last := m.manage(http.MethodDelete, path+id, nil).is(http.StatusNoContent)
			page := m.events(last.header.Get("X-Shipledger-Position"), "family", "credential", "subject", id)
			differ(t, "types", []string{"credential.created", "credential.updated", "credential.suspended", "credential.resumed", "credential.revoked"}, page.each("items", "type"))
			for i, e := range page.list("items") {
				if at(e, "credential_name") != "acme admin" || at(e, "actor") == nil {
					t.Errorf("nobody did %v", e)
				}
				want := []string{"audited", "renamed"}[min(i, 1)]
				if at(e, "data.credential.name") != want || at(e, "data.credential.last4") != secret[len(secret)-4:] {
					t.Errorf("event %d: %v", i, at(e, "data"))
				}
			}
			for _, word := range []string{"digest", "hash", "secret"} {
				if strings.Contains(string(page.raw), `"`+word) {
					t.Errorf("%s: %s is shown: %s", path, word, page.raw)
				}
			}
			matches(t, `^c\.[0-9]+\.0(,o\.[0-9]+\.0)?(,`+m.trackOf(m.account)+`\.[0-9]+\.[0-9]+)?$`, page.text("as_of.position"))
			first := page.text("items.0.id")
			m.read(eventsPath + first).shows(body{"id": first, "type": "credential.created", "subject": id})
		}
	})
}

// Rows: VF-08
func TestAuditLogIsReadWithReadAndWrittenByNobody(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		posted := l.deployed(l.deployment("success"))
		l.read(eventsPath)
		l.read(eventsPath + posted.text("event_id"))
		l.get(eventsPath, as(l.key)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			l.send(method, eventsPath, "{}", as(l.pat)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
			l.send(method, eventsPath+posted.text("event_id"), "{}", as(l.pat)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		}
	})
}

// receipt gives when an event was received. As texts 01.1Z is behind 01.12Z.
func receipt(t *testing.T, e any) time.Time {
	t.Helper()
	received, err := time.Parse(time.RFC3339Nano, at(e, "received_at").(string))
	if err != nil {
		t.Fatal(err)
	}
	return received
}

func TestAuditLogIsWalkedOnceWhileItGrows(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.fill(20)
		m.created(keysPath, wanted("one more"))
		last := m.manage(http.MethodPost, tokensPath, wanted("another")).is(http.StatusCreated).header.Get("X-Shipledger-Position")
		whole := m.read(where(eventsPath, "limit", "500"), header("X-Shipledger-Position", last+","+m.seen.String()))
		if n := len(whole.list("items")); n < 100 || whole.at("next_cursor") != nil {
			t.Fatalf("%d events", n)
		}
		for i, e := range whole.list("items")[1:] {
			if receipt(t, e).After(receipt(t, whole.list("items")[i])) {
				t.Errorf("event %d was received later than the one before it", i+1)
			}
		}
		for _, limit := range []string{"7", "50"} {
			for _, order := range []string{"newest", "oldest"} {
				want := whole.each("items", "id")
				var got []string
				for cursor, n := "", 0; ; n++ {
					page := m.read(where(eventsPath, "limit", limit, "order", order, "cursor", cursor))
					got = append(got, page.each("items", "id")...)
					next, more := page.at("next_cursor").(string)
					if !more {
						break
					}
					if cursor = next; n < 3 && order == "newest" {
						m.deployed(m.deployment("success", body{"invoke_id": fmt.Sprint(limit, n)}))
						m.created(keysPath, wanted("meanwhile"))
					}
				}
				if once := slices.Compact(slices.Sorted(slices.Values(got))); len(once) != len(got) {
					t.Errorf("%s by %s: an event came twice", order, limit)
				}
				got = slices.DeleteFunc(got, func(id string) bool { return !slices.Contains(want, id) })
				if order == "oldest" { // it begins with what is turned round here, and goes on into what came meanwhile
					slices.Sort(got)
					slices.Sort(want)
				}
				differ(t, order+" by "+limit, want, got)
			}
		}
	})
}

func TestAuditLogFiltersByWhatEventsAre(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		began := time.Now().Add(-time.Hour)
		a := l.built(l.build("success"))
		b := l.deployed(l.deployment("started"))
		position := b.header.Get("X-Shipledger-Position")
		for _, q := range []struct {
			filter []string
			want   []string
		}{
			{[]string{"subject", a.id()}, []string{"build.completed"}},
			{[]string{"subject", b.id(), "family", "deployment"}, []string{"deployment.started"}},
			{[]string{"subject", b.id(), "family", "build"}, []string{}},
			{[]string{"subject", b.id(), "type", "deployment.started"}, []string{"deployment.started"}},
			{[]string{"subject", b.id(), "type", "deployment.failed"}, []string{}},
			{[]string{"subject", b.text("product_id")}, []string{"product.created"}},
			{[]string{"subject", b.id(), "until", moment(began.AddDate(-20, 0, 0))}, []string{}},
		} {
			differ(t, fmt.Sprint(q.filter), q.want, l.events(position, q.filter...).each("items", "type"))
		}
		for param, bad := range map[string]string{"family": "colour", "order": "up", "mode": "dry", "since": "yesterday", "limit": "0", "cursor": "x", "colour": "red"} {
			differ(t, param, []string{"query." + param}, l.get(where(eventsPath, param, bad)).faults())
		}
	})
}

func TestEventsOfAnotherAccountAreNotSeen(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		posted := m.deployed(m.deployment("success"))
		m.events(posted.header.Get("X-Shipledger-Position"))
		stranger := as(m.tokenOf(other, "pat", "read"))
		m.get(eventsPath+posted.text("event_id"), stranger).fails(http.StatusForbidden, "NOT_OWNER")
		m.get(eventsPath+"01JW2C5R3V0E6H7Q8S9T0A1B2C", stranger).fails(http.StatusNotFound, "NOT_FOUND")
		m.get(eventsPath+"x", stranger).fails(http.StatusNotFound, "NOT_FOUND")
		m.get(where(eventsPath, "subject", posted.id()), stranger).is(200).shows(body{"items": []any{}})
		m.get(where(eventsPath, "family", "deployment"), stranger).is(200).shows(body{"items": []any{}})
	})
}

func TestPastOfACredentialAndOfARequestIsExplained(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			m.people.set(time.Hour) // what follows is an hour old
			made, _ := m.created(path, wanted("first", body{"scope": "read"}))
			id := made.id()
			m.people.set(50 * time.Minute)
			m.manage(http.MethodPatch, path+id, body{"name": "second"}).is(http.StatusOK)
			m.people.set(40 * time.Minute)
			m.manage(http.MethodPost, path+id+"/suspend", nil).is(http.StatusOK)
			m.people.set(30 * time.Minute)
			m.manage(http.MethodPost, path+id+"/resume", nil).is(http.StatusOK)
			m.people.set(20 * time.Minute)
			m.revoke(path, id)
			m.people.set(0)
			for _, c := range []struct {
				ago              time.Duration
				ask              []string
				name, event, why any
			}{
				{2 * time.Hour, nil, absent, nil, "AUTH_INVALID_KEY"},
				{55 * time.Minute, nil, "first", "credential.created", nil},
				{55 * time.Minute, []string{"scope", "read", "ip", "192.0.2.1"}, "first", "credential.created", nil},
				{55 * time.Minute, []string{"scope", "write"}, "first", "credential.created", "INSUFFICIENT_SCOPE"},
				{45 * time.Minute, nil, "second", "credential.updated", nil},
				{35 * time.Minute, nil, "second", "credential.suspended", "AUTH_SUSPENDED_KEY"},
				{25 * time.Minute, nil, "second", "credential.resumed", nil},
				{0, nil, "second", "credential.revoked", "AUTH_REVOKED_KEY"},
			} {
				ask := c.ask
				if c.ago > 0 {
					ask = append(ask, "at", moment(time.Now().Add(-c.ago)))
				}
				a := m.manage(http.MethodGet, where(path+id+"/state", ask...), nil).is(http.StatusOK)
				a.shows(body{"credential.name": c.name, "explain.code": c.why, "explain.accepted": c.why == nil})
				if c.event == nil {
					a.shows(body{"event": nil, "credential": nil})
					continue
				}
				a.shows(body{"event.type": c.event, "event.credential_name": "acme admin"})
			}
			differ(t, "at", []string{"query.at"}, m.manage(http.MethodGet, where(path+id+"/state", "at", "yesterday"), nil).faults())
			differ(t, "ip", []string{"query.ip"}, m.manage(http.MethodGet, where(path+id+"/state", "ip", "here"), nil).faults())
			differ(t, "scope", []string{"query.scope"}, m.manage(http.MethodGet, where(path+id+"/state", "scope", "all"), nil).faults())
			m.get(path+id+"/state", as(m.pat)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
			m.get(path+id+"/state", as(m.tokenOf(other, "pat", "admin"))).fails(http.StatusForbidden, "NOT_OWNER")
		}
	})
}

// Rows: D-18
func TestEventsOfADeletedProductStayInTheAuditLog(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		posted := l.deployed(l.deployment("success"))
		gone := l.send(http.MethodDelete, "/products/"+posted.text("product_id"), "", as(l.admin)).is(http.StatusNoContent)
		position := gone.header.Get("X-Shipledger-Position")
		l.get("/deployments/"+posted.id(), header("X-Shipledger-Position", position)).fails(http.StatusNotFound, "NOT_FOUND")
		differ(t, "deployments", []string{}, l.read(where("/deployments/", "product", l.product)).each("items", "id"))
		l.events(position, "subject", posted.id()).shows(body{"items.0.id": posted.text("event_id"), "items.0.data.product_name": l.product, "items.1": absent})
		differ(t, "of the product", []string{"product.created", "product.deleted"}, l.events(position, "subject", posted.text("product_id")).each("items", "type"))
		l.read(eventsPath + posted.text("event_id")).shows(body{"type": "deployment.completed"})
	})
}

func TestWhatACredentialWroteIsSummedUp(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		made, secret := m.created(keysPath, wanted("leaked"))
		for i := range 3 {
			m.deployed(m.deployment("success", body{"invoke_id": fmt.Sprint(i)}), as(secret))
		}
		m.clock.pass(time.Hour)
		m.built(m.build("success"), as(secret))
		last := m.deployed(m.deployment("success", body{"environment_name": absent, "environment": "qa"}), as(secret))
		m.deployed(m.deployment("success", body{"invoke_id": "another"})) // of another key
		ask := func(pairs ...string) answer {
			return m.manage(http.MethodGet, where(keysPath+made.id()+"/writes", pairs...), nil, header("X-Shipledger-Position", last.header.Get("X-Shipledger-Position"))).is(http.StatusOK)
		}
		whole := ask()
		whole.shows(body{
			"groups.0.type": "deployment.completed", "groups.0.product_name": m.product, "groups.0.environment_name": "production", "groups.0.events": 3,
			"groups.0.first_at": startTime, "groups.0.last_at": startTime, "items.0.id": last.text("event_id"), "next_cursor": nil,
		})
		if !slices.Contains(whole.each("groups", "environment_name"), "qa") || !slices.Contains(whole.each("groups", "type"), "build.completed") {
			t.Errorf("groups: %s", whole.raw)
		}
		middle := moment(startTime.Add(time.Minute))
		differ(t, "before", 3, len(slices.DeleteFunc(ask("before", middle).each("items", "type"), func(s string) bool { return s != "deployment.completed" })))
		differ(t, "after", []string{"deployment.completed"}, slices.DeleteFunc(ask("after", middle).each("items", "type"), func(s string) bool { return s != "deployment.completed" }))
		page := ask("limit", "2")
		next := ask("limit", "2", "cursor", page.text("next_cursor"))
		differ(t, "paged", whole.each("items", "id")[:4], append(page.each("items", "id"), next.each("items", "id")...))
		m.get(keysPath+made.id()+"/writes", as(m.pat)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		m.get(keysPath+made.id()+"/writes", as(m.tokenOf(other, "pat", "admin"))).fails(http.StatusForbidden, "NOT_OWNER")
	})
}

func TestAChangeOfACredentialTellsFromWhereAndWhyItWasMade(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		order := body{"name": l.name("ci"), "expires": "90d"}
		made := l.send(http.MethodPost, keysPath, order.String(), as(l.admin), header("Content-Type", "application/json")).is(http.StatusCreated)
		l.secrets = append(l.secrets, made.text("secret"))
		why := "left the team, was " + made.text("secret")
		gone := l.send(http.MethodDelete, where(keysPath+made.id(), "reason", why), "", as(l.admin)).is(http.StatusNoContent)
		position := gone.header.Get("X-Shipledger-Position")
		found := l.get(where("/events/", "subject", made.id(), "order", "oldest", "min_position", position), as(l.admin), header("X-Shipledger-Position", "")).is(http.StatusOK)
		found.shows(body{
			"items.0.type": "credential.created", "items.0.data.change.from": "127.0.0.1", "items.0.data.change.reason": absent,
			"items.1.type": "credential.revoked", "items.1.data.change.from": "127.0.0.1",
		})
		if said := found.text("items.1.data.change.reason"); !strings.HasPrefix(said, "left the team, was sk_") || strings.Contains(said, randomPart(made.text("secret"))) {
			t.Errorf("the reason is told as %q", said)
		}
		l.send(http.MethodDelete, where(keysPath+made.id(), "reason", strings.Repeat("x", 256)), "", as(l.admin)).is(http.StatusUnprocessableEntity)
	})
}
