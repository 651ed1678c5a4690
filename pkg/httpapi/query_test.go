package httpapi_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/httpapi/httpapitest"
)

func TestAQueryThatCannotBeMeantIsRefusedAndNamed(t *testing.T) {
	f := newFixture(t, nil)
	rows := []struct{ path, name, typ string }{
		{"/deployments/?limit=0", "limit", "value_error.number.not_ge"},
		{"/deployments/?limit=501", "limit", "value_error.number.not_le"},
		{"/deployments/?limit=many", "limit", "type_error.integer"},
		{"/deployments/?limit=5&limit=6", "limit", "value_error"},
		{"/deployments/?since=yesterday", "since", "value_error.datetime"},
		{"/deployments/?until=2026-05-24T14:06:05", "until", "value_error.datetime"},
		{"/deployments/?status=exploded", "status", "type_error.enum"},
		{"/deployments/?cursor=%21", "cursor", "value_error.cursor"},
		{"/deployments/?cursor=AAAA", "cursor", "value_error.cursor"},
		{"/deployments/?cursor=AAAAAAAAAAAAAAAA", "cursor", "value_error.cursor"},
		{"/deployments/?min_position=t0.1", "min_position", "value_error"},
		{"/deployments/x?min_position=t0.1.2,", "min_position", "value_error"},
		{"/deployments/?product=" + strings.Repeat("x", 256), "product", "value_error.any_str.max_length"},
		{"/environments/?type=prod", "type", "type_error.enum"},
		{"/matrix?drift=perhaps", "drift", "type_error.bool"},
		{"/matrix?at=2026-05-24", "at", "value_error.datetime"},
		{"/matrix?known_at=x", "known_at", "value_error.datetime"},
		{"/products/?at=2026-05-24T14:06:05Z", "at", "value_error.extra"},
		{"/products/?producd=x", "producd", "value_error.extra"},
	}
	for _, row := range rows {
		a := f.send("GET", row.path, "pat_read", "")
		var got struct {
			Detail []httpapi.FieldFault `json:"detail"`
		}
		if err := json.Unmarshal(a.body, &got); err != nil || a.status != 422 || len(got.Detail) != 1 {
			t.Errorf("%s: %d %s", row.path, a.status, a.body)
			continue
		}
		if d := got.Detail[0]; !cmp.Equal(d.Loc, []string{"query", row.name}) || d.Type != row.typ || d.Msg == "" {
			t.Errorf("%s: %+v", row.path, d)
		}
		path, _, _ := strings.Cut(row.path, "?")
		httpapitest.CheckResponse(t, f.spec, "GET", path, a.status, a.header, a.body)
	}
	a := f.send("GET", "/deployments/?limit=0&status=x&zeta=1&alpha=2&since=no", "pat_read", "", "X-Shipledger-Position", "here")
	var got struct {
		Detail []httpapi.FieldFault `json:"detail"`
	}
	_ = json.Unmarshal(a.body, &got)
	var places []string
	for _, d := range got.Detail {
		places = append(places, strings.Join(d.Loc, "."))
	}
	want := []string{"query.status", "query.since", "query.limit", "query.alpha", "query.zeta", "header.X-Shipledger-Position"}
	if diff := cmp.Diff(want, places); diff != "" {
		t.Errorf("all faults together: %s", diff)
	}
}

func TestAQueryReachesTheHandlerAsValues(t *testing.T) {
	type seen struct {
		Product      string
		Statuses     []event.Status
		Meta         string
		Since, Until time.Time
		Limit        int
		Min          map[string]event.Offset
	}
	var got seen
	f := newFixture(t, httpapi.Handlers{"listDeployments": func(_ http.ResponseWriter, r *httpapi.Request) error {
		meta := ""
		r.QueryMembers("meta.", func(name, text string) { meta += name + "=" + text + " " })
		got = seen{r.QueryString("product"), r.QueryStatuses("status"), meta, r.QueryTime("since"), r.QueryTime("until"), r.Limit(), r.MinPosition()}
		return r.JSON(200, nil)
	}})
	rows := []struct {
		query  string
		header []string
		want   seen
	}{
		{"", nil, seen{Limit: 50, Min: map[string]event.Offset{}}},
		{"?product=&limit=&status=", nil, seen{Limit: 50, Min: map[string]event.Offset{}}},
		{"?product=a%20b&status=Success&since=2026-05-24T16:06:05%2B02:00&limit=500", nil, seen{"a b", []event.Status{event.Completed}, "", time.Date(2026, 5, 24, 14, 6, 5, 0, time.UTC), time.Time{}, 500, map[string]event.Offset{}}},
		{"?status=preflight_failed&min_position=t0.3.0,c.1.0", []string{"X-Shipledger-Position", "t0.2.9,o.7.0"}, seen{Statuses: []event.Status{event.PreflightFailed}, Limit: 50, Min: map[string]event.Offset{"t0": event.At(3, 0), "c": event.At(1, 0), "o": event.At(7, 0)}}},
		{"?status=failed,success&status=aborted&meta.b=2&meta.a.x=%25&meta.c=", nil, seen{
			Statuses: []event.Status{event.Failed, event.Completed, event.Aborted}, Meta: "a.x=% b=2 c= ", Limit: 50, Min: map[string]event.Offset{},
		}},
	}
	for _, row := range rows {
		if a := f.send("GET", "/deployments/"+row.query, "pat_read", "", row.header...); a.status != 200 {
			t.Errorf("%s: %d %s", row.query, a.status, a.body)
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: %s", row.query, diff)
		}
	}
	a := newFixture(t, httpapi.Handlers{"getMatrix": func(_ http.ResponseWriter, r *httpapi.Request) error {
		return r.JSON(200, r.QueryBool("drift"))
	}}).send("GET", "/matrix?drift=true", "pat_read", "")
	if string(a.body) != "true" {
		t.Errorf("drift %s", a.body)
	}
}

func asOf() httpapi.AsOf {
	at := time.Unix(0, 0).UTC()
	return httpapi.AsOf{Position: "t0.1.0", Time: &at}
}

// page lists one item after whatever the caller has seen.
func page(_ http.ResponseWriter, r *httpapi.Request) error {
	return r.JSON(200, httpapi.NewList(r, []string{r.After()}, r.After()+"é/x", asOf()))
}

func TestACursorFitsOnlyTheListItCameFrom(t *testing.T) {
	f := newFixture(t, httpapi.Handlers{"listDeployments": page, "listBuilds": page})
	next := func(path, token string) (string, answer) {
		a := f.send("GET", path, token, "")
		var l struct {
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal(a.body, &l); err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
		return l.NextCursor, a
	}
	first, _ := next("/deployments/?product=svc&limit=2", "pat_read")
	second, a := next("/deployments/?limit=7&product=svc&min_position=t0.1.0&cursor="+url.QueryEscape(first), "pat_read")
	if !strings.Contains(string(a.body), `"items":["é/x"]`) || second == first {
		t.Errorf("%d %s", a.status, a.body)
	}
	for what, a := range map[string]answer{
		"the root and /api/v1": f.send("GET", "/api/v1/deployments?product=svc&cursor="+first, "pat_read", ""),
		"an empty filter":      f.send("GET", "/deployments/?product=svc&environment=&cursor="+first, "pat_read", ""),
		"another credential":   f.send("GET", "/deployments/?product=svc&cursor="+first, "pat_admin", ""),
	} {
		if a.status != 200 {
			t.Errorf("%s make no other list: %d %s", what, a.status, a.body)
		}
	}
	for what, path := range map[string]string{
		"another filter": "/deployments/?product=other&cursor=", "fewer filters": "/deployments/?cursor=",
		"more filters": "/deployments/?product=svc&status=failed&cursor=", "another list": "/builds/?product=svc&cursor=",
		"a value under another name": "/deployments/?environment=svc&cursor=",
	} {
		if a := f.send("GET", path+first, "pat_read", ""); a.status != 422 {
			t.Errorf("%s: %d", what, a.status)
		}
	}
	if a := f.send("GET", "/deployments/?product=svc&cursor="+first, "pat_other", ""); a.status != 422 {
		t.Errorf("another account: %d", a.status)
	}
}

func TestACursorGivesItsKeyBack(t *testing.T) {
	var key string
	var after string
	f := newFixture(t, httpapi.Handlers{"listDeployments": func(_ http.ResponseWriter, r *httpapi.Request) error {
		after = r.After()
		return r.JSON(200, r.Cursor(key))
	}})
	rapid.Check(t, func(t *rapid.T) {
		key = rapid.StringN(1, 300, -1).Draw(t, "key")
		filter := "product=" + url.QueryEscape(rapid.StringN(0, 20, -1).Draw(t, "product"))
		var cursor string
		a := f.send("GET", "/deployments/?"+filter, "pat_read", "")
		if err := json.Unmarshal(a.body, &cursor); err != nil {
			t.Fatalf("%s", a.body)
		}
		if a = f.send("GET", "/deployments/?"+filter+"&cursor="+cursor, "pat_read", ""); a.status != 200 || after != key {
			t.Fatalf("%d, %q for %q", a.status, after, key)
		}
	})
}

func TestAnEmptyListIsNotNull(t *testing.T) {
	f := newFixture(t, httpapi.Handlers{"listProducts": func(w http.ResponseWriter, r *httpapi.Request) error {
		w.Header().Set("ETag", `W/"0"`)
		return r.JSON(200, httpapi.NewList[string](r, nil, "", asOf()))
	}})
	a := f.send("GET", "/products/", "pat_read", "")
	if want := `{"items":[],"next_cursor":null,"as_of":{"position":"t0.1.0","time":"1970-01-01T00:00:00Z"}}`; string(a.body) != want {
		t.Errorf("%s", a.body)
	}
	httpapitest.CheckResponse(t, f.spec, "GET", "/products/", a.status, a.header, a.body)
}

func TestTheDocumentsExamplesAreWhatItSays(t *testing.T) { httpapitest.CheckExamples(t, spec(t)) }

func TestRequestExamplesAreAccepted(t *testing.T) {
	s := spec(t)
	var d struct {
		Components struct {
			Schemas map[string]struct {
				Examples []map[string]any `json:"examples"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(s.Document(), &d); err != nil {
		t.Fatal(err)
	}
	for _, as := range eventBodies {
		examples := d.Components.Schemas[string(as)].Examples
		if len(examples) == 0 {
			t.Errorf("%s has no example", as)
		}
		for _, e := range examples {
			body, _ := json.Marshal(e)
			if _, err := s.DecodeEvent(as, body); err != nil {
				t.Errorf("%s: %v", as, err)
			}
		}
	}
}

// recorder stands in for a test whose failure is expected.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestCheckResponseFindsWhatTheDocumentDoesNotAllow(t *testing.T) {
	s := spec(t)
	good := `{"id":"2f9cabf2-105e-5671-9b62-5f0a651b0848","name":"svc","description":null,"extra_metadata":null,"created_at":"2026-05-24T14:06:06.12Z","drift":false,"live":[],"deployments":{"total":0},"last_deployment":null}`
	header := func() http.Header {
		return http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"req_1"}, "Etag": {`W/"x"`}}
	}
	rows := []struct {
		what   string
		status int
		body   string
		change func(http.Header)
		bad    bool
	}{
		{"a good answer", 200, good, nil, false},
		{"a missing member", 200, strings.Replace(good, `"name":"svc",`, "", 1), nil, true},
		{"a member that is not documented", 200, strings.Replace(good, `"name"`, `"color":"red","name"`, 1), nil, true},
		{"a time without zone", 200, strings.Replace(good, "12Z", "12", 1), nil, true},
		{"a numeric id", 200, strings.Replace(good, `"2f9cabf2-105e-5671-9b62-5f0a651b0848"`, "7", 1), nil, true},
		{"no JSON", 200, "ok", nil, true},
		{"a status that is not documented", 201, good, nil, true},
		{"another media type", 200, good, func(h http.Header) { h.Set("Content-Type", "text/plain") }, true},
		{"no request id", 200, good, func(h http.Header) { h.Del("X-Request-Id") }, true},
		{"rate headers that are no numbers", 200, good, func(h http.Header) { h.Set("X-RateLimit-Limit", "many") }, true},
	}
	for _, row := range rows {
		h := header()
		if row.change != nil {
			row.change(h)
		}
		r := &recorder{TB: t}
		httpapitest.CheckResponse(r, s, "GET", "/api/v1/products/x", row.status, h, []byte(row.body))
		if r.failed != row.bad {
			t.Errorf("%s: failed %v", row.what, r.failed)
		}
	}
}

func BenchmarkIngestRequestUpToTheHandler(b *testing.B) {
	f := newFixture(b, httpapi.Handlers{"postDeploymentEvent": func(_ http.ResponseWriter, r *httpapi.Request) error {
		body, err := r.ReadJSON()
		if err != nil {
			return err
		}
		if _, err = r.DecodeEvent(httpapi.DeploymentEvent, body); err != nil {
			return err
		}
		return r.Bytes(200, []byte(`{}`))
	}})
	b.ReportAllocs()
	u := &url.URL{Path: "/deployment-events/"}
	w := nowhere{http.Header{}}
	for b.Loop() {
		body := strings.NewReader(fullDeployment)
		f.api.ServeHTTP(w, &http.Request{
			Method: http.MethodPost, URL: u, Header: http.Header{"Authorization": {"Bearer sk_events"}, "Content-Type": {"application/json"}},
			Body: closer{body}, ContentLength: int64(len(fullDeployment)),
		})
	}
}

type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

type closer struct{ *strings.Reader }

func (closer) Close() error { return nil }
