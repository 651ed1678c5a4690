package event_test

import (
	"bytes"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
)

const asClientsWrite = `{"product_name":"svc","version":"1.2.3","environment_name":"production","status":"success","source_system":"github","build_number":"7",` +
	`"scm_sha":"8d1c0a7","invoke_id":"4711","deployed_by_name":"Ada é","completed_at":"2026-05-24T14:06:05.123Z","skip_preflight_checks":false,"deploy_url":null,` +
	`"extra_metadata":{"vi_gh_job":"prod","n":12,"o":{"a":[1,true,null,{"b":"c"}],"e":[]},"z":0},"kind":"deployment","idempotency_key":"k","unknown":[{"x":{}}]}`

func TestABodyAsClientsWriteItIsReadInOnePass(t *testing.T) {
	s, ok := event.ScanRequest([]byte(asClientsWrite))
	if !ok || s.Kind != "deployment" || s.IdempotencyKey != "k" || len(s.Members) != 4 {
		t.Fatalf("%v %+v", ok, s)
	}
	scanned(t, []byte(asClientsWrite))
}

func TestWhatOnePassCannotJudgeIsLeftToTheOtherReader(t *testing.T) {
	for name, body := range map[string]string{
		"white space":          `{"version": "1"}`,
		"a member twice":       `{"version":"1","version":"2"}`,
		"a metadata key twice": `{"extra_metadata":{"a":1,"a":2}}`,
		"an escape":            `{"version":"\u0031"}`,
		"an escaped name":      `{"v\u0065rsion":"1"}`,
		"a control character":  "{\"version\":\"\x01\"}",
		"invalid UTF-8":        "{\"version\":\"\xff\"}",
		"invalid within":       "{\"x\":[\"\xff\"]}",
		"a number for a text":  `{"version":1}`,
		"a text for a flag":    `{"skip_preflight_checks":"true"}`,
		"metadata of a text":   `{"extra_metadata":""}`,
		"a fraction":           `{"x":1.5}`,
		"a leading zero":       `{"x":01}`,
		"a half word":          `{"x":tru}`,
		"a trailing comma":     `{"version":"1",}`,
		"more behind it":       `{"version":"1"}{}`,
		"an array":             `["version"]`,
		"too deep":             `{"x":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}`,
		"an end too soon":      `{"version":"1`,
		"nothing":              ``,
	} {
		if s, ok := event.ScanRequest([]byte(body)); ok {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

// FuzzScanRequest: what one pass reads, the other reader reads alike.
func FuzzScanRequest(f *testing.F) {
	f.Add([]byte(asClientsWrite))
	f.Add([]byte(`{"extra_metadata":{},"skip_preflight_checks":true,"x":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) { scanned(t, body) })
}

func scanned(t *testing.T, body []byte) {
	t.Helper()
	s, ok := event.ScanRequest(body)
	if !ok {
		return
	}
	want, err := event.DecodeRequest(body)
	if err != nil {
		t.Fatalf("read in one pass, but not otherwise: %v\n%q", err, body)
	}
	if diff := cmp.Diff(want, s.Request); diff != "" {
		t.Fatalf("%s\n%q", diff, body)
	}
	if diff := cmp.Diff(event.ReadObject(want.ExtraMetadata), s.Members); diff != "" {
		t.Fatalf("members: %s\n%q", diff, body)
	}
	compact := jsontext.Value(bytes.Clone(body))
	if err := compact.Compact(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil || !bytes.Equal(compact, body) {
		t.Fatalf("it has white space: %v\n%q", err, body)
	}
	var beside struct {
		Kind           string `json:"kind"`
		IdempotencyKey string `json:"idempotency_key"`
	}
	if err := json.Unmarshal(body, &beside, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil ||
		beside.Kind != s.Kind || beside.IdempotencyKey != s.IdempotencyKey {
		t.Fatalf("beside the event: %v %+v\n%q", err, beside, body)
	}
}

func BenchmarkScanRequest(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := event.ScanRequest([]byte(asClientsWrite)); !ok {
			b.Fatal("not read in one pass")
		}
	}
}
