package httpapi_test

import (
	"crypto/tls"
	"net/http/httptest"
	"testing"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

func TestTheCookieCountsOnlyForSessionsAndWhereNoHeaderIs(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct {
		name, token string
		header      []string
		status      int
		code        string
	}{
		{"the cookie alone", "", []string{"Cookie", "__session=eyJ.admin"}, 200, ""},
		{"beside other cookies", "", []string{"Cookie", "a=b; __session=eyJ.admin; c=d"}, 200, ""},
		{"the header decides", "sk_unknown", []string{"Cookie", "__session=eyJ.admin"}, 401, "AUTH_INVALID_KEY"},
		{"also where it is empty", "", []string{"Cookie", "__session=eyJ.admin", "Authorization", ""}, 401, "AUTH_INVALID_FORMAT"},
		{"no API key", "", []string{"Cookie", "__session=sk_sync"}, 401, "AUTH_INVALID_FORMAT"},
		{"no token", "", []string{"Cookie", "__session=pat_admin"}, 401, "AUTH_INVALID_FORMAT"},
		{"not two", "", []string{"Cookie", "__session=eyJ.admin; __session=eyJ.dev"}, 401, "AUTH_INVALID_FORMAT"},
		{"not an empty one", "", []string{"Cookie", "__session="}, 401, "AUTH_INVALID_FORMAT"},
		{"another cookie", "", []string{"Cookie", "session=eyJ.admin"}, 401, "AUTH_MISSING"},
	} {
		a := f.send("GET", "/deployments/", c.token, "", c.header...)
		if a.status != c.status || c.code != "" && a.code(t) != c.code {
			t.Errorf("%s: %d %s, want %d %s", c.name, a.status, a.body, c.status, c.code)
		}
	}
}

func TestAWriteWithTheCookieComesFromAPageOfThisServer(t *testing.T) {
	plain := newFixture(t, nil)
	proxied := newFixture(t, nil, func(c *httpapi.Config) { c.ForwardedProto = true })
	for _, c := range []struct {
		f         *fixture
		tls       bool
		origins   []string
		forwarded string
		want      int
	}{
		{plain, false, nil, "", 403},
		{plain, false, []string{"http://ledger.example"}, "", 200},
		{plain, false, []string{"https://ledger.example"}, "", 200}, // behind a proxy that nobody told us of
		{plain, false, []string{"https://LEDGER.example"}, "", 200},
		{plain, false, []string{"http://evil.example"}, "", 403},
		{plain, false, []string{"http://ledger.example.evil.example"}, "", 403},
		{plain, false, []string{"http://ledger.example:8080"}, "", 403},
		{plain, false, []string{"null"}, "", 403},
		{plain, false, []string{""}, "", 403},
		{plain, false, []string{"http://ledger.example", "http://evil.example"}, "", 403},
		{plain, true, []string{"http://ledger.example"}, "", 403},
		{plain, true, []string{"https://ledger.example"}, "", 200},
		{proxied, false, []string{"http://ledger.example"}, "https", 403},
		{proxied, false, []string{"https://ledger.example"}, "https", 200},
		{proxied, true, []string{"https://ledger.example"}, "https", 200},
		{proxied, true, []string{"http://ledger.example"}, "http", 200}, // only what stands in front speaks TLS with us
		{proxied, true, []string{"http://ledger.example"}, "", 403},
	} {
		send := func(method, path string, bearer bool) answer {
			r := httptest.NewRequest(method, path, nil)
			r.Host = "ledger.example"
			if c.tls {
				r.TLS = &tls.ConnectionState{}
			}
			r.Header["Origin"] = c.origins
			if c.forwarded != "" {
				r.Header.Set("X-Forwarded-Proto", c.forwarded)
			}
			if bearer {
				r.Header.Set("Authorization", "Bearer eyJ.admin")
			} else {
				r.Header.Set("Cookie", "__session=eyJ.admin")
			}
			return c.f.do(r)
		}
		a := send("POST", "/auth/logout", false)
		if a.status != c.want || c.want == 403 && a.code(t) != "CROSS_ORIGIN" {
			t.Errorf("%+v: %d %s, want %d", c.origins, a.status, a.body, c.want)
		}
		if c.want == 403 { // nor does it learn what there is
			if a := send("DELETE", "/deployments/", false); a.status != 403 {
				t.Errorf("%+v: a method that is not there: %d", c.origins, a.status)
			}
		}
		if a := send("GET", "/deployments/", false); a.status != 200 {
			t.Errorf("%+v: a read: %d %s", c.origins, a.status, a.body)
		}
		if a := send("POST", "/auth/logout", true); a.status != 200 {
			t.Errorf("%+v: as Bearer: %d %s", c.origins, a.status, a.body)
		}
	}
}

func TestSessionsOfNamedRolesNeedNoScope(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/api-keys/", 200},
		{"GET", "/api-keys/x", 200},
		{"POST", "/api-keys/", 403},
		{"DELETE", "/api-keys/x", 403},
		{"POST", "/api-keys/x/rotate", 403},
		{"POST", "/personal-access-tokens/", 200},
		{"DELETE", "/personal-access-tokens/x", 200},
	} {
		if a := f.send(c.method, c.path, "eyJ.dev", "{}"); a.status != c.status {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, a.status, a.body, c.status)
		}
	}
	if a := f.send("GET", "/api-keys/", "pat_read", ""); a.status != 403 {
		t.Errorf("a token without admin: %d", a.status)
	}
}
