package httpapi_test

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

func TestOnlyTrustedProxiesTellWhereARequestComesFrom(t *testing.T) {
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, text := range texts {
			out = append(out, netip.MustParsePrefix(text))
		}
		return out
	}
	for _, c := range []struct {
		name, remote string
		forwarded    []string
		trusted      []netip.Prefix
		want         string
	}{
		{"a connection", "192.0.2.1:50", nil, nil, "192.0.2.1"},
		{"a header that anybody can send", "192.0.2.1:50", []string{"10.0.0.1"}, nil, "192.0.2.1"},
		{"a header past the proxy", "192.0.2.1:50", []string{"10.0.0.1"}, prefixes("10.9.0.0/16"), "192.0.2.1"},
		{"behind the proxy", "10.9.0.1:50", []string{"198.51.100.7"}, prefixes("10.9.0.0/16"), "198.51.100.7"},
		{"what the client itself wrote", "10.9.0.1:50", []string{"203.0.113.9, 198.51.100.7"}, prefixes("10.9.0.0/16"), "198.51.100.7"},
		{"behind two proxies", "10.9.0.1:50", []string{"203.0.113.9", "198.51.100.7, 10.9.0.2"}, prefixes("10.9.0.0/16"), "198.51.100.7"},
		{"a header that is none", "10.9.0.1:50", []string{"unknown"}, prefixes("10.9.0.0/16"), "invalid IP"},
		{"a proxy that says nothing", "10.9.0.1:50", nil, prefixes("10.9.0.0/16"), "10.9.0.1"},
		{"IPv4 in IPv6", "[::ffff:192.0.2.1]:50", nil, nil, "192.0.2.1"},
		{"with a port", "[::1]:50", []string{"[2001:db8::1]:443"}, prefixes("::1/128"), "2001:db8::1"},
		{"a socket", "@", nil, nil, "invalid IP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			f := newFixture(t, httpapi.Handlers{"getHealth": func(w http.ResponseWriter, r *httpapi.Request) error {
				got = r.ClientAddr().String()
				w.WriteHeader(http.StatusNoContent)
				return nil
			}}, func(cfg *httpapi.Config) { cfg.TrustedProxies = c.trusted })
			r := httptest.NewRequest(http.MethodGet, "/health", nil)
			r.RemoteAddr, r.Header["X-Forwarded-For"] = c.remote, c.forwarded
			f.do(r)
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// The path of a one-time link is a secret: neither logs nor metrics know it.
func TestTheTokenOfALinkIsNeitherLoggedNorCounted(t *testing.T) {
	const token = "01JW2C5R3V0E6H7Q8S9T0A1B2Dsecretsecretsecret"
	var counted []string
	fails := func(http.ResponseWriter, *httpapi.Request) error { return errors.New("the log is away") }
	f := newFixture(t, httpapi.Handlers{"joinByInvitation": fails, "getInvitation": fails, "resetPassword": fails}, func(cfg *httpapi.Config) {
		cfg.Observe = func(operation string, _ int, _ time.Duration) { counted = append(counted, operation) }
	})
	for _, path := range []string{"/auth/invitations/" + token, "/auth/password-reset/" + token} {
		if got := f.send(http.MethodPost, path, "", `{"password":"a long enough one"}`); got.status != http.StatusInternalServerError || bytes.Contains(got.body, []byte(token)) {
			t.Errorf("%d %s", got.status, got.body)
		}
		f.send(http.MethodDelete, path, "", "")
	}
	if log := f.log.String(); !strings.Contains(log, "joinByInvitation") || strings.Contains(log, token) || strings.Contains(strings.Join(counted, " "), token) {
		t.Errorf("the log is %s, counted were %v", log, counted)
	}
}

// FuzzAuthorization feeds the header to the API: whatever it holds, the answer is
// one of contract 6.1, and only the exact form lets somebody in.
func FuzzAuthorization(f *testing.F) {
	for _, seed := range []string{"", "Bearer", "Bearer ", "Bearer x", "Basic eA==", "Bearer  x", "bearer sk_acme_k1_x", "Bearer eyJ.a.b", "Bearer \x00", "Bearer a b", "vso_0"} {
		f.Add(seed, "")
		f.Add("", "__session="+seed)
	}
	api := newFixture(f, nil)
	f.Fuzz(func(t *testing.T, authorization, cookie string) {
		r := httptest.NewRequest(http.MethodGet, "/deployments/", nil)
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		if cookie != "" {
			r.Header["Cookie"] = []string{cookie}
		}
		switch got := api.do(r); got.status {
		case http.StatusUnauthorized:
		case http.StatusOK, http.StatusForbidden:
			if authorization == "" && cookie == "" {
				t.Error("nobody is let in")
			}
		default:
			t.Errorf("%q, %q: %d %s", authorization, cookie, got.status, got.body)
		}
	})
}
