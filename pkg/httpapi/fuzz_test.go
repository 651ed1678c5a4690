package httpapi_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

// FuzzWhatSurroundsARequest feeds everything that a client writes around a body:
// the query with its cursor, cookies, addresses of proxies, media types, tags.
// Nothing of it is a fault of ours.
func FuzzWhatSurroundsARequest(f *testing.F) {
	f.Add("limit=1&cursor=AAAA", "__session=x; a=b", "192.0.2.1, 10.0.0.1", "application/json; charset=\"", `W/"x", *`)
	f.Add("meta.team=x&meta.=&meta.a.b=&status=failed,x&limit=501", "__session=\"", "[::1]:8080,,x", "a/b; c=", `"`)
	f.Add("product=%ff&since=2026-01-01T00:00:00Z&;=&%", "=;;", "unknown", "", ",,")
	fx := newFixture(f, httpapi.Handlers{"listDeployments": func(_ http.ResponseWriter, r *httpapi.Request) error {
		_ = httpapi.MatchesETag(r.Header.Get("If-None-Match"), `W/"x"`)
		return r.JSON(http.StatusOK, []any{r.ClientAddr().String(), r.After(), r.Limit(), r.MediaType(), len(r.CookiesNamed("a")), r.QueryStatuses("status")})
	}}, func(cfg *httpapi.Config) { cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	f.Fuzz(func(t *testing.T, query, cookie, forwarded, media, tag string) {
		r := httptest.NewRequest(http.MethodGet, "http://api.test/deployments/", http.NoBody)
		r.URL.RawQuery = query
		r.Header = http.Header{"Cookie": {cookie}, "X-Forwarded-For": {forwarded}, "Content-Type": {media}, "If-None-Match": {tag}, "Authorization": {"Bearer pat_read"}}
		if a := fx.do(r); a.status != http.StatusOK && a.status != http.StatusUnprocessableEntity {
			t.Errorf("%q: %d %s", query, a.status, a.body)
		}
	})
}

// FuzzBodies holds a body to the schema of every operation: it is good, wrong in
// places, or no JSON, and never more than that.
func FuzzBodies(f *testing.F) {
	s := spec(f)
	for _, seed := range []string{`{}`, `{"name":"n","expires":"30d","scopes":[1,2]}`, `[]`, `{"a":1,"a":{}}`, "{\"name\":\"\xff\"}", `{"name":"\ud800"}`, `{"n":1e999}`, `null`, `{"ip_allow":[[[[]]]]}`} {
		f.Add([]byte(seed))
	}
	var bodies []string
	for _, op := range s.Operations() {
		if op.Body != "" {
			bodies = append(bodies, op.Body)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, name := range bodies {
			faults, err := s.CheckBody(name, body)
			if err != nil && httpapi.Describe(err, "req_x").Status != http.StatusBadRequest {
				t.Errorf("%s: %v", name, err)
			}
			for _, fault := range faults {
				if len(fault.Loc) == 0 || fault.Msg == "" || fault.Type == "" {
					t.Errorf("%s: %+v", name, fault)
				}
			}
		}
	})
}

// Whatever a message quotes, a record of the log is one line.
func TestAForgedLineIsPartOfItsRecord(t *testing.T) {
	f := newFixture(t, httpapi.Handlers{"listDeployments": func(http.ResponseWriter, *httpapi.Request) error {
		return errForged
	}})
	f.send(http.MethodGet, "/deployments/", "pat_read", "")
	if lines := countLines(f.log.String()); lines != 1 {
		t.Errorf("the log has %d lines:\n%s", lines, f.log.String())
	}
}

var errForged = errors.New("read \"a\nlevel=ERROR msg=forged\r\n\x1b[2J\x00\u2028\"")

func countLines(text string) (n int) {
	for line := range strings.Lines(text) {
		if strings.ContainsAny(line, "\r\x1b\x00") {
			n++ // a control character may end a line on a screen
		}
		n++
	}
	return n
}
