package httpapi_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// The fixture shapes of contract 8.1, in full.
const (
	fullDeployment = `{"product_name":"svc","version":"1.2.3","environment_name":"production","status":"success","source_system":"github","build_number":"7","scm_sha":"8d1c0a7","scm_repository":"acme/svc","deploy_url":"https://ci.example.org/7","invoke_id":"4711","deployed_by":"ada","deployed_by_email":"ada@example.org","deployed_by_name":"Ada","completed_at":"2026-05-24T14:06:05.123456Z","skip_preflight_checks":false,"extra_metadata":{"vi_gh_workflow":"deploy","vi_gh_job":"prod","vi_gh_run_attempt":"1","vi_gh_event_name":"push","vi_gh_ref":"refs/heads/main"}}`
	fullBuild      = `{"product_name":"svc","version":"1.2.3","status":"completed","source_system":"github","build_number":"7","scm_sha":"8d1c0a7","scm_branch":"main","scm_repository":"acme/svc","build_url":"https://ci.example.org/7","invoke_id":"4710","built_by":"ada","built_by_email":"ada@example.org","built_by_name":"Ada","started_at":"2026-05-24T14:00:00+02:00","completed_at":"2026-05-24T14:06:05Z","extra_metadata":{}}`
	bareDeployment = `{"product_name":"svc","version":"1.2.3","environment_name":"production","status":"success","source_system":"unknown"}`
	bareBuild      = `{"product_name":"svc","version":"1.2.3","status":"completed","source_system":"unknown"}`
)

func TestBodiesOfKnownClientsAreAccepted(t *testing.T) {
	s := spec(t)
	for body, as := range map[string]httpapi.EventBody{
		fullDeployment: httpapi.DeploymentEvent, bareDeployment: httpapi.DeploymentEvent,
		fullBuild: httpapi.BuildEvent, bareBuild: httpapi.BuildEvent,
		`{"product_name":"svc","version":"1","environment":"prod","status":"In_Progress ","build_url":"u","skip_preflight_checks":true}`:      httpapi.DeploymentEvent,
		`{"product_name":"svc","version":"1","built_at":"2026-05-24T14:06:05Z"}`:                                                              httpapi.VersionEvent,
		`{"product_name":"svc","version":"1","status":"","scm_sha":null,"extra_metadata":"","unknown":{"a":[1]}}`:                             httpapi.VersionEvent,
		`{"product_name":"svc","version":"1","environment_name":"","environment":"p","status":"ok","status":"success","extra_metadata":null}`: httpapi.DeploymentEvent,
		"\n\t{\"product_name\":\"svc\",\"version\":\"1\",\"status\":\"built\"}\n":                                                             httpapi.BuildEvent,
	} {
		if r, err := event.DecodeRequest([]byte(body)); err != nil || !httpapi.Acceptable(as, &r) {
			t.Errorf("the fast check refuses %s", body)
		}
		if r, err := s.DecodeEvent(as, []byte(body)); err != nil || r.ProductName != "svc" {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestAMemberThatTheKindDoesNotKnowIsIgnoredWhateverItsType(t *testing.T) {
	s := spec(t)
	for _, body := range []string{
		`{"product_name":"svc","version":"1","environment_name":"p","status":"success","error_code":137,"built_at":[]}`,
		`{"product_name":"svc","version":"1","environment_name":"p","status":"success","skip_preflight_checks":""}`,
		`{"product_name":5,"product_name":"svc","version":"1","environment_name":"p","status":"success"}`,
	} {
		r, err := s.DecodeEvent(httpapi.DeploymentEvent, []byte(body))
		if err != nil || r.ProductName != "svc" || r.EnvironmentName != "p" || r.ErrorCode != "" {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestEveryFaultOfABodyIsReportedAtItsPlace(t *testing.T) {
	s := spec(t)
	long := func(n int) string { return `"` + strings.Repeat("é", n) + `"` }
	with := func(member, value string) string {
		return `{"product_name":"svc","version":"1","environment_name":"p","status":"success","` + member + `":` + value + `}`
	}
	rows := []struct {
		as   httpapi.EventBody
		body string
		want []string // place: message (type)
	}{
		{httpapi.DeploymentEvent, `{}`, []string{
			"product_name: field required (value_error.missing)", "version: field required (value_error.missing)",
			"environment_name: field required (value_error.missing)", "status: field required (value_error.missing)",
		}},
		{httpapi.BuildEvent, `{"product_name":null,"version":"","status":"  "}`, []string{
			"product_name: field required (value_error.missing)", "version: field required (value_error.missing)", "status: " + badStatus,
		}},
		{httpapi.VersionEvent, `{"product_name":"svc"}`, []string{"version: field required (value_error.missing)"}},
		{httpapi.DeploymentEvent, with("environment_name", `""`), []string{"environment_name: field required (value_error.missing)"}},
		{httpapi.DeploymentEvent, with("status", `"exploded"`), []string{"status: " + badStatus}},
		{httpapi.DeploymentEvent, with("status", `"preflight_failed"`), []string{"status: " + badStatus}},
		{httpapi.DeploymentEvent, with("status", `"`+strings.Repeat(" ", 44)+`success"`), []string{"status: ensure this value has at most 50 characters (value_error.any_str.max_length)"}},
		{httpapi.DeploymentEvent, with("version", `1.2`), []string{"version: str type expected (type_error.str)"}},
		{httpapi.DeploymentEvent, with("product_name", `{}`), []string{"product_name: str type expected (type_error.str)"}},
		{httpapi.DeploymentEvent, with("product_name", long(256)), []string{"product_name: ensure this value has at most 255 characters (value_error.any_str.max_length)"}},
		{httpapi.DeploymentEvent, with("environment", long(101)), []string{"environment: ensure this value has at most 100 characters (value_error.any_str.max_length)"}},
		{httpapi.DeploymentEvent, with("scm_sha", long(41)), []string{"scm_sha: ensure this value has at most 40 characters (value_error.any_str.max_length)"}},
		{httpapi.DeploymentEvent, with("scm_sha", `5`), []string{"scm_sha: str type expected (type_error.str)"}},
		{httpapi.DeploymentEvent, with("product_name", `"a\u0000b"`), []string{"product_name: control characters are not allowed (value_error.str.regex)"}},
		{httpapi.DeploymentEvent, with("version", `"1\u0085"`), []string{"version: control characters are not allowed (value_error.str.regex)"}},
		{httpapi.DeploymentEvent, with("environment_name", `"a\nb"`), []string{"environment_name: control characters are not allowed (value_error.str.regex)"}},
		{httpapi.DeploymentEvent, with("completed_at", `"2026-05-24T14:06:05"`), []string{"completed_at: invalid datetime format (value_error.datetime)"}},
		{httpapi.DeploymentEvent, with("completed_at", `"yesterday"`), []string{"completed_at: invalid datetime format (value_error.datetime)"}},
		{httpapi.DeploymentEvent, with("started_at", `1700000000`), []string{"started_at: invalid datetime format (value_error.datetime)"}},
		{httpapi.BuildEvent, with("built_at", `"1969-12-31T23:59:59Z"`), []string{"built_at: invalid datetime format (value_error.datetime)"}},
		{httpapi.DeploymentEvent, with("skip_preflight_checks", `"yes"`), []string{"skip_preflight_checks: value could not be parsed to a boolean (type_error.bool)"}},
		{httpapi.DeploymentEvent, with("extra_metadata", `[]`), []string{"extra_metadata: value is not a valid dict (type_error.dict)"}},
		{httpapi.DeploymentEvent, with("extra_metadata", `{"a":`+long(65533)+`}`), []string{"extra_metadata: ensure this value has at most 131072 bytes (value_error.max_bytes)"}},
		{httpapi.BuildEvent, `{"version":7,"status":"x","scm_sha":false,"extra_metadata":1}`, []string{
			"product_name: field required (value_error.missing)", "version: str type expected (type_error.str)", "status: " + badStatus,
			"scm_sha: str type expected (type_error.str)", "extra_metadata: value is not a valid dict (type_error.dict)",
		}},
		{httpapi.BuildEvent, `[]`, []string{"body: value is not a valid dict (type_error.dict)"}},
		{httpapi.BuildEvent, `null`, []string{"body: value is not a valid dict (type_error.dict)"}},
		{httpapi.BuildEvent, ` "x"`, []string{"body: value is not a valid dict (type_error.dict)"}},
	}
	for _, row := range rows {
		_, err := s.DecodeEvent(row.as, []byte(row.body))
		v, ok := errors.AsType[*httpapi.ValidationError](err)
		if !ok {
			t.Errorf("%.120s: %v", row.body, err)
			continue
		}
		var got []string
		for _, f := range v.Faults {
			place := strings.TrimPrefix(strings.Join(f.Loc, "/"), "body/")
			got = append(got, fmt.Sprintf("%s: %s (%s)", place, f.Msg, f.Type))
			if f.Loc[0] != "body" {
				t.Errorf("loc %v", f.Loc)
			}
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%.120s: %s", row.body, diff)
		}
	}
}

const badStatus = "value is not a valid enumeration member; permitted: 'pending', 'started', 'completed', 'failed', 'aborted' (type_error.enum)"

func TestLimitsThemselvesAreAccepted(t *testing.T) {
	s := spec(t)
	for member, n := range map[string]int{
		"product_name": 255, "version": 100, "environment_name": 100, "source_system": 50, "build_number": 100, "scm_sha": 40, "scm_branch": 100,
		"scm_repository": 500, "deploy_url": 500, "invoke_id": 255, "deployed_by": 255, "deployed_by_email": 255, "deployed_by_name": 255,
	} {
		body := map[string]any{"product_name": "p", "version": "v", "environment_name": "e", "status": "success"}
		for extra, want := range []bool{true, false} {
			body[member] = strings.Repeat("é", n+extra)
			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.DecodeEvent(httpapi.DeploymentEvent, raw); (err == nil) != want {
				t.Errorf("%s of %d characters: %v", member, n+extra, err)
			}
		}
	}
	exact := `{"a":"` + strings.Repeat("x", 128<<10-8) + `"}`
	if _, err := s.DecodeEvent(httpapi.BuildEvent, []byte(`{"product_name":"p","version":"v","status":"success","extra_metadata":`+exact+`}`)); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotJSONIsInvalidAndNotUnprocessable(t *testing.T) {
	s := spec(t)
	for _, body := range []string{"", " ", "{", "{}{}", "{'a':1}", "product_name=svc", `{"product_name":"svc",}`, "\xff"} {
		_, err := s.DecodeEvent(httpapi.BuildEvent, []byte(body))
		if fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", body, err)
		}
	}
}

var eventBodies = []httpapi.EventBody{httpapi.DeploymentEvent, httpapi.BuildEvent, httpapi.VersionEvent}

// agree fails t unless the hand-written check and the document judge alike.
func agree(t interface {
	Helper()
	Fatalf(format string, args ...any)
}, s *httpapi.Spec, body []byte,
) {
	t.Helper()
	for _, as := range eventBodies {
		read, unread := event.DecodeRequest(body)
		ok := unread == nil && httpapi.Acceptable(as, &read)
		faults, err := s.CheckBody(string(as), body)
		if scanned, once := event.ScanRequest(body); once && httpapi.Acceptable(as, &scanned.Request) && (err != nil || len(faults) > 0) {
			t.Fatalf("%s: the one pass accepts what the document does not: %v %v\n%q", as, faults, err, body)
		}
		if good := err == nil && len(faults) == 0; unread == nil && ok != good {
			t.Fatalf("%s: by hand %v, by the document %v %v\n%q", as, ok, faults, err, body)
		}
		r, err := s.DecodeEvent(as, body)
		switch {
		case err == nil:
			if _, again := event.ReadRequest(body); again != nil {
				t.Fatalf("%s: accepted, but it cannot be read from the log: %v\n%q", as, again, body)
			}
			if r.ProductName == "" || r.Version == "" {
				t.Fatalf("%s: accepted without its names: %q", as, body)
			}
		case fault.KindOf(err) != fault.Invalid:
			if v, ok := errors.AsType[*httpapi.ValidationError](err); !ok || len(v.Faults) == 0 {
				t.Fatalf("%s: %v for %q", as, err, body)
			}
		}
	}
}

func TestTheFastCheckJudgesAsTheDocumentDoes(t *testing.T) {
	s := spec(t)
	names := []string{
		"product_name", "version", "environment_name", "environment", "status", "source_system", "build_number", "scm_sha", "scm_branch", "scm_repository",
		"deploy_url", "build_url", "invoke_id", "deployed_by", "deployed_by_email", "deployed_by_name", "built_by", "built_by_email", "built_by_name",
		"error_message", "error_code", "started_at", "completed_at", "built_at", "skip_preflight_checks", "extra_metadata", "unknown",
	}
	words := make([]string, 0, 40)
	for w := range event.StatusWords() {
		words = append(words, w, strings.ToUpper(w), " "+w+"\t")
	}
	slices.Sort(words)
	lengths := rapid.Custom(func(t *rapid.T) string {
		n := rapid.SampledFrom([]int{39, 40, 41, 49, 50, 51, 99, 100, 101, 254, 255, 256, 499, 500, 501}).Draw(t, "n")
		return strings.Repeat(rapid.SampledFrom([]string{"a", "é", "\U0001f600"}).Draw(t, "rune"), n)
	})
	special := rapid.SampledFrom([]string{"", "x", "1.2.3", "a\x00b", "tab\t", "\u007f", "\u0080", "\u009f", "\u00a0", "é\u0301", "\ufffd", "\U0001f600"})
	moments := rapid.SampledFrom([]string{
		"2026-05-24T14:06:05Z", "2026-05-24T14:06:05.123456789+02:00", "2026-05-24t14:06:05z", "2026-05-24 14:06:05Z", "2026-05-24T14:06:05", "1969-12-31T23:59:59Z",
		"1970-01-01T00:00:00Z", "1970-01-01T00:30:00+01:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-05-24T14:06:05,5Z", "2026-05-24T4:06:05Z", "2026-02-30T00:00:00Z", "2026-05-24T23:59:60Z", "2026-05-24T14:06:05+99:99",
	})
	value := rapid.Custom(func(t *rapid.T) string {
		switch rapid.IntRange(0, 9).Draw(t, "sort") {
		case 0:
			return rapid.SampledFrom([]string{"null", `""`, "true", "false", "0", "1e999", "-1.5", "[]", "{}", `{"a":{"b":null}}`, `["x"]`, `"\ud800"`, "\"\xff\"", ` { "a" : 1 } `}).Draw(t, "raw")
		case 1:
			return `{"a":"` + strings.Repeat("x", rapid.SampledFrom([]int{128<<10 - 9, 128<<10 - 8, 128<<10 - 7}).Draw(t, "size")) + `"}`
		case 2, 3:
			return quote(moments.Draw(t, "time"))
		case 4, 5:
			return quote(rapid.SampledFrom(words).Draw(t, "word"))
		case 6:
			return quote(lengths.Draw(t, "long"))
		case 7:
			return quote(rapid.String().Draw(t, "text"))
		default:
			return quote(special.Draw(t, "special"))
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		// A good body with some members replaced: a random one would nearly always
		// have several faults, which hide each other.
		var b strings.Builder
		b.WriteString(`{"product_name":"svc","version":"1","environment_name":"prod","status":"success"`)
		for range rapid.IntRange(0, 4).Draw(t, "changes") {
			fmt.Fprintf(&b, ",%q:%s", rapid.SampledFrom(names).Draw(t, "name"), value.Draw(t, "value"))
		}
		b.WriteString("}")
		agree(t, s, []byte(b.String()))
	})
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func FuzzTheFastCheckJudgesAsTheDocumentDoes(f *testing.F) {
	s := spec(f)
	for _, body := range []string{fullDeployment, bareDeployment, fullBuild, bareBuild, "{}", "[]", "", `{"status":"SUCCESS","status":null}`, `{"product_name":"a\ud800"}`, "{\"version\":\"\xff\xfe\"}"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) { agree(t, s, body) })
}

func BenchmarkDecodeEvent(b *testing.B) {
	s := spec(b)
	for name, body := range map[string]string{"bare": bareDeployment, "full": fullDeployment} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			raw := []byte(body)
			for b.Loop() {
				if _, err := s.DecodeEvent(httpapi.DeploymentEvent, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("decode only", func(b *testing.B) {
		b.ReportAllocs()
		raw := []byte(fullDeployment)
		for b.Loop() {
			if _, err := event.DecodeRequest(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}
