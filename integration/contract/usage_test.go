package contract_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
)

// Rows: VR-26, VF-22, VF-24
func TestTheLastUseOfACredentialIsShown(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			a, secret := m.created(path, wanted("used"))
			m.manage(http.MethodGet, path+a.id(), nil).is(200).shows(body{"last_used_at": nil, "last_used_ip": nil, "last_used_user_agent": nil, "unused_30d": false})
			m.manage(http.MethodGet, path+a.id()+"/callers", nil).is(200).shows(body{"items": []any{}})
			before := time.Now()
			for range 2 {
				m.post("/deployment-events/", m.deployment("started", body{"source_system": "github"}), as(secret), header("User-Agent", "action/1"))
				m.usage.Share(t.Context()) // as every 2 seconds
				got := m.manage(http.MethodGet, path+a.id(), nil).is(200)
				got.shows(body{"last_used_ip": "127.0.0.1", "last_used_user_agent": "action/1", "unused_30d": false})
				last := must(time.Parse(time.RFC3339Nano, got.text("last_used_at")))
				if last.Before(before) || last.After(time.Now()) {
					t.Errorf("it was used last at %v", last)
				}
				before = last.Add(1)
				list := m.manage(http.MethodGet, where(path, "name", "used"), nil).is(200)
				differ(t, "last_used_at in the list", []string{got.text("last_used_at")}, list.each("items", "last_used_at"))
			}
			callers := m.manage(http.MethodGet, path+a.id()+"/callers", nil).is(200)
			differ(t, "callers", 1, len(callers.list("items")))
			for member, want := range map[string]any{"user_agent": "action/1", "ip": "127.0.0.1"} {
				differ(t, member, want, callers.at("items.0."+member))
			}
		}
	})
}

// Rows: VR-27, VF-26
func TestUnusedCredentialsAreFoundAndSortedByUse(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		long := time.Now().Add(-40 * 24 * time.Hour)
		made := map[string]string{}
		for name, at := range map[string]time.Time{"old": long, "new": time.Now().Add(-29 * 24 * time.Hour)} {
			r := credential.Record{Kind: credential.APIKey, Account: acme, PublicID: map[string]string{"old": "k80", "new": "k81"}[name], Name: name, Mode: "live", Scopes: credential.EventsWrite}
			made[name] = m.mintAt(t, r, at)
		}
		r := credential.Record{Kind: credential.APIKey, Account: acme, PublicID: "k82", Name: "old but used", Mode: "live", Scopes: credential.EventsWrite}
		used := m.mintAt(t, r, long)
		if err := m.ring.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.post("/deployment-events/", m.deployment("started"), as(used))
		m.usage.Share(t.Context())
		unused := m.manage(http.MethodGet, where(keysPath, "unused_30d", "true"), nil).is(200)
		for _, name := range unused.each("items", "name") {
			if name == "new" || name == "old but used" {
				t.Errorf("%s is unused", name)
			}
		}
		names := m.manage(http.MethodGet, where(keysPath, "unused_30d", "false"), nil).is(200).each("items", "name")
		if !slices.Contains(names, "new") || !slices.Contains(names, "old but used") || slices.Contains(names, "old") {
			t.Errorf("used are %v", names)
		}
		if !slices.Contains(unused.each("items", "name"), "old") {
			t.Error("the old key is not unused")
		}
		var all []string
		next := keysPath + "?sort=last_used_at&limit=2"
		for page := m.manage(http.MethodGet, next, nil).is(200); ; page = m.manage(http.MethodGet, next+"&cursor="+page.text("next_cursor"), nil).is(200) {
			all = append(all, page.each("items", "name")...)
			if page.at("next_cursor") == nil {
				break
			}
		}
		whole := m.manage(http.MethodGet, keysPath, nil).is(200).each("items", "name")
		if len(all) != len(whole) || all[0] != "old but used" {
			t.Errorf("by use: %v", all)
		}
	})
}

// mintAt makes a credential at a time.
func (m *memory) mintAt(t *testing.T, r credential.Record, at time.Time) string {
	t.Helper()
	secret := m.mint(t, r)
	m.change(r.PublicID, func(r *credential.Record) { r.CreatedAt = at })
	return secret
}

// Rows: VO-17
func TestARotationWarnsTheOldKeyAndFailsNoCall(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range families {
			a, old := m.created(path, wanted("rotating"))
			expires := must(time.Parse(time.RFC3339Nano, a.text("expires_at")))
			use := func(secret string) answer {
				return m.post("/deployment-events/", m.deployment("started"), as(secret))
			}
			got := use(old)
			differ(t, "X-Token-Expires-At", expires.UTC().Format(time.RFC3339), got.header.Get("X-Token-Expires-At"))
			differ(t, "Deprecation", "", got.header.Get("Deprecation"))
			differ(t, "Sunset", "", got.header.Get("Sunset"))
			began := time.Now()
			rotated := m.manage(http.MethodPost, path+a.id()+"/rotate", body{"grace": "7d"}).is(201)
			secret := rotated.text("secret")
			m.secrets = append(m.secrets, secret)
			got = use(old)
			end := must(http.ParseTime(got.header.Get("Sunset")))
			differ(t, "X-Token-Expires-At", end.Format(time.RFC3339), got.header.Get("X-Token-Expires-At"))
			if left := end.Sub(began); left < 7*24*time.Hour-2*time.Second || left > 7*24*time.Hour+time.Hour {
				t.Errorf("the grace ends after %v", left)
			}
			since := must(strconv.ParseInt(got.header.Get("Deprecation")[1:], 10, 64))
			if got.header.Get("Deprecation")[0] != '@' || since < began.Unix()-1 || since > time.Now().Unix() {
				t.Errorf("Deprecation: %s", got.header.Get("Deprecation"))
			}
			got = use(secret)
			differ(t, "Deprecation", "", got.header.Get("Deprecation"))
			if got.header.Get("X-Token-Expires-At") == "" {
				t.Error("the successor's end is not told")
			}
			for _, s := range []string{old, secret} {
				if got := use(s); got.status == http.StatusUnauthorized {
					t.Error("a call fails during the rotation")
				}
			}
			m.revoke(path, a.id())
			m.refused(old, "AUTH_REVOKED_KEY")
			if got := use(secret); got.status == http.StatusUnauthorized {
				t.Error("a call fails after the rotation")
			}
			// Refusals tell it too.
			differ(t, "status", http.StatusNotFound, m.send(http.MethodGet, "/deployments/01JW2C5R3V0E6H7Q8S9T0A1B2C", "", as(m.pat)).status)
		}
	})
}

// Rows: VT-06
func TestTrafficOfTestKeysIsApartFromTheUsage(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		_, live := m.created(keysPath, wanted("live one"))
		_, test := m.created(keysPath, wanted("test one").with(body{"mode": "test"}))
		var answers []int
		for i, secret := range []string{live, test, test, test} {
			answers = append(answers, m.post("/deployment-events/", m.deployment("started", body{"invoke_id": strconv.Itoa(i), "environment_name": strconv.Itoa(i)}), as(secret)).status)
			m.send(http.MethodGet, "/matrix", "", as(secret)) // refused alike, and not counted
		}
		differ(t, "answers", []int{200, 200, 200, 200}, answers)
		m.usage.Share(t.Context())
		for query, want := range map[string]map[string]any{
			"": {"live one": float64(1)}, "?mode=live": {"live one": float64(1)}, "?mode=test": {"test one": float64(3)},
			"?to=2001-01-01": {}, "?mode=test&from=2001-01-01&to=2999-01-01": {"test one": float64(3)}, "?from=2999-01-01": {},
		} {
			got := map[string]any{}
			for _, item := range m.manage(http.MethodGet, "/usage/"+query, nil).is(200).list("items") {
				u := item.(map[string]any)
				if n := u["requests"].(float64); n > 0 && (u["name"] == "live one" || u["name"] == "test one") { // events are of the script's day
					before, _ := got[u["name"].(string)].(float64) // of the day before, where midnight passes
					got[u["name"].(string)] = before + n
				}
			}
			differ(t, query, want, got)
		}
		m.manage(http.MethodGet, "/usage/?from=yesterday", nil).faults()
	})
}

// Rows: VT-06
func TestEventsOfATestKeyChangeNoNumberOfTheUsage(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		_, live := m.created(keysPath, wanted("live one"))
		_, test := m.created(keysPath, wanted("test one").with(body{"mode": "test"}))
		received := "&from=" + startTime.Format(time.DateOnly) + "&to=" + startTime.Format(time.DateOnly)
		numbers := func(mode string) map[string]any { // all that is told, save what the question itself adds
			out := map[string]any{}
			for _, query := range []string{"?mode=" + mode, "?mode=" + mode + received} {
				for _, item := range m.get("/usage/"+query, as(m.admin)).is(200).list("items") {
					if u := item.(map[string]any); u["key_id"] != nil {
						out[fmt.Sprint(u["name"], " on ", u["day"])] = []any{u["requests"], u["events"]}
					}
				}
			}
			return out
		}
		use := func(secret, name string) {
			running := body{"environment_name": name + " b", "invoke_id": name + "-2", "kind": "deployment"}
			m.post("/deployment-events/", m.deployment("success", body{"environment_name": name + " a", "invoke_id": name + "-1"}), as(secret)).is(200)
			m.post("/deployment-events/", m.deployment("success", body{"environment_name": name + " a", "invoke_id": name + "-1"}), as(secret)).is(200) // a repeat is no event
			m.post("/build-events/", m.build("success", body{"invoke_id": name}), as(secret)).is(200)
			m.post("/events/batch", m.deployment("started", running).String()+"\n"+m.deployment("completed", running).String()+"\n", as(secret), header("Content-Type", "application/x-ndjson")).is(200)
			blocked := body{"environment_name": name + " b", "invoke_id": name + "-3"}
			m.post("/deployment-events/", m.deployment("started", blocked), as(secret)).is(200)
			m.post("/deployment-events/", m.deployment("started", blocked, body{"invoke_id": name + "-4"}), as(secret)).is(409) // refused
			m.usage.Share(t.Context())
		}
		day := startTime.Format(time.DateOnly)
		use(live, "live")
		before := numbers("live")
		differ(t, "of the live key", any([]any{float64(0), float64(5)}), before["live one on "+day])
		began := time.Now().UTC().Format(time.DateOnly)
		use(test, "test")
		differ(t, "live usage", before, numbers("live"))
		differ(t, "of the test key", any([]any{float64(0), float64(5)}), numbers("test")["test one on "+day])
		if today := time.Now().UTC().Format(time.DateOnly); today == began { // else they are of two days
			differ(t, "requests of the test key", any([]any{float64(5), float64(0)}), numbers("test")["test one on "+today])
		}

		tagged := m.get("/events/?mode=test&limit=200", as(m.pat)).is(200)
		for i, by := range tagged.each("items", "credential_id") {
			differ(t, "an event that is tagged test", []string{"t2", "test"}, []string{by, tagged.each("items", "mode")[i]})
		}
		untagged := m.get("/events/?mode=live&limit=200", as(m.pat)).is(200)
		if slices.Contains(untagged.each("items", "credential_id"), "t2") || len(tagged.list("items")) < 5 {
			t.Errorf("%s", untagged.raw)
		}
		// Other accounts see neither.
		for _, item := range m.send(http.MethodGet, "/usage/?mode=live"+received, "", as(m.tokenOf(other, "pat", "admin"))).is(200).list("items") {
			t.Errorf("%v", item)
		}
	})
}

// Rows: VT-06
func TestUsageIsReadInPagesOfWholeDays(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, name := range []string{"a", "b", "c"} {
			_, secret := m.created(keysPath, wanted(name))
			m.post("/deployment-events/", m.deployment("success", body{"environment_name": name, "invoke_id": name}), as(secret)).is(200)
			m.clock.pass(24 * time.Hour)
		}
		path := "/usage/?from=" + startTime.Format(time.DateOnly) + "&to=" + startTime.AddDate(0, 0, 5).Format(time.DateOnly)
		var names []string
		for next := path + "&limit=1"; ; {
			page := m.get(next, as(m.admin)).is(200)
			names = append(names, page.each("items", "name")...)
			if page.at("next_cursor") == nil {
				break
			}
			next = path + "&limit=1&cursor=" + page.text("next_cursor")
		}
		differ(t, "pages", []string{"c", "b", "a"}, names)
	})
}
