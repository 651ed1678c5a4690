package event_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
)

func TestPlainKeepsTheLastOfARepeatedMember(t *testing.T) {
	for in, want := range map[string]string{
		"\t{ \"a\" : 1 }\n":                   `{"a":1}`,
		`{"a":1,"a":2}`:                       `{"a":2}`,
		`{"a":{"x":1,"\u0078":2},"b":[]}`:     `{"a":{"x":2},"b":[]}`,
		`[{"a":1,"b":2,"a":{"c":1,"c":[3]}}]`: `[{"b":2,"a":{"c":[3]}}]`,
		`{"n":9007199254740993,"n":1e400}`:    `{"n":1e400}`,
		`{"":0,"":1}`:                         `{"":1}`,
		`"a"`:                                 `"a"`,
		"{\"a\xff\":\"b\xff\"}":               "{\"a\ufffd\":\"b\ufffd\"}",
		`["\ud800","\ud83d\ude80"]`:           "[\"\ufffd\",\"🚀\"]",
		`["\u0000\u2028"]`:                    `["\u0000\u2028"]`,
	} {
		got, err := event.Plain(jsontext.Value(in))
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{``, `{`, `{"a":1,"a":}`, `{"a":1,"a":2} x`, `{"a":1,"a":2,}`, `nul`} {
		if got, err := event.Plain(jsontext.Value(in)); err == nil {
			t.Errorf("%s: %s, want an error", in, got)
		}
	}
}

// What is refused for its depth is refused, and nothing grows with its square.
func TestPlainEndsWithDeepValues(t *testing.T) {
	deep := strings.Repeat(`{"a":1,"a":`, 5000) + `1` + strings.Repeat(`}`, 5000)
	if _, err := event.Plain(jsontext.Value(deep)); err != nil {
		t.Error(err)
	}
	deeper := strings.Repeat(`[`, 100_000) + strings.Repeat(`]`, 100_000)
	if _, err := event.Plain(jsontext.Value(deeper)); err == nil {
		t.Error("a value of 100,000 arrays in each other was taken")
	}
}

// Whatever comes in, what comes out means the same to a reader that takes the
// last of a repeated member, and has none.
func FuzzPlain(f *testing.F) {
	f.Add([]byte(`{"a":{"x":1,"x":2},"a":[{"b":1,"b":"\ud800"}]}`))
	f.Add([]byte(`{"n":1e999,"n":-0}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var before any
		same := json.Unmarshal(in, &before) == nil
		out, err := event.Plain(append(jsontext.Value{}, in...))
		if err != nil {
			return
		}
		if !out.IsValid() {
			t.Fatalf("%q became %q, which not everybody can read", in, out)
		}
		var after any
		if err := json.Unmarshal(out, &after); same && (err != nil || !reflect.DeepEqual(before, after)) {
			t.Fatalf("%q became %q", in, out)
		}
	})
}
