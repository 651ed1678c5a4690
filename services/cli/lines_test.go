package cli_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/services/cli"
)

// read gives the bodies of a history, or its faults, by line.
func read(t *testing.T, r io.Reader) map[int]string {
	t.Helper()
	l := cli.NewLines(r)
	got := map[int]string{}
	for i := range l.All() {
		got[i.Line] = string(i.Body)
		if i.Fault != "" {
			got[i.Line] = "fault: " + i.Fault
		}
	}
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

// The ids are promised for ever: a repeat at any later time, with any later
// version of this command, must find the runs of the first.
func TestALineWithoutRunIDKeepsItsIDForEver(t *testing.T) {
	line := `{"time":"2022-10-10T10:39:30Z","product_name":"asset-manager","environment_name":"integration","version":"v1"}`
	want := map[int]string{
		1: "import-sikbl2jsuhlehkldfwcf63qqkk",
		2: "import-ok47qnyuwwubvgt4ulexts36bq",
		3: "import-62coj7docnwxp7vntiilzedgar",
	}
	got := map[int]string{}
	for i := range 3 {
		got[i+1] = cli.InvokeID([]byte(line), i)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	other := strings.Replace(line, "v1", "v2", 1)
	bodies := read(t, strings.NewReader(line+"\n"+other+"\r\n\n  "+line+"\t\r\n"+other+"\n"+line))
	for n, id := range map[int]string{1: want[1], 4: want[2], 6: want[3], 2: cli.InvokeID([]byte(other), 0), 5: cli.InvokeID([]byte(other), 1)} {
		if !strings.Contains(bodies[n], `"invoke_id":"`+id+`"`) {
			t.Errorf("line %d: %s has not %s", n, bodies[n], id)
		}
	}
	if len(bodies) != 5 {
		t.Errorf("got %d items", len(bodies))
	}
}

func TestALineBecomesABackfillBody(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{
			"everything given", `{"version":"1","status":"failed","invoke_id":"a","completed_at":"2024-01-01T00:00:00Z","extra_metadata":{"b": [1.0]}}`,
			`{"completed_at":"2024-01-01T00:00:00Z","extra_metadata":{"b":[1.0]},"invoke_id":"a","status":"failed","version":"1"}`,
		},
		{
			"time and status", `{"time":"2024-01-01T00:00:00Z","invoke_id":"a"}`,
			`{"completed_at":"2024-01-01T00:00:00Z","invoke_id":"a","status":"success"}`,
		},
		{
			"null and empty are absent", `{"time":"2024-01-01T00:00:00Z","completed_at":null,"status":"","invoke_id":"a"}`,
			`{"completed_at":"2024-01-01T00:00:00Z","invoke_id":"a","status":"success"}`,
		},
		{
			"completed_at wins", `{"time":"2024-01-01T00:00:00Z","completed_at":"2024-01-02T00:00:00Z","invoke_id":"a"}`,
			`{"completed_at":"2024-01-02T00:00:00Z","invoke_id":"a","status":"success"}`,
		},
		{
			"time of a start", `{"time":"2024-01-01T00:00:00Z","status":" In_Progress","invoke_id":"a"}`,
			`{"completed_at":"2024-01-01T00:00:00Z","invoke_id":"a","started_at":"2024-01-01T00:00:00Z","status":" In_Progress"}`,
		},
		{
			"numbers and text stay as they are", `{"invoke_id":"a","n":12345678901234567890,"t":"<\u00e9>","time":""}`,
			`{"invoke_id":"a","n":12345678901234567890,"status":"success","t":"<é>"}`,
		},
		{
			"wrong types are the server's to refuse", `{"invoke_id":7,"status":{},"time":1}`,
			`{"completed_at":1,"invoke_id":7,"status":{}}`,
		},
		{"byte order mark", "\xef\xbb\xbf" + `{"invoke_id":"a"}`, `{"invoke_id":"a","status":"success"}`},
		{"last of repeated members", `{"invoke_id":"a","invoke_id":"b"}`, `{"invoke_id":"b","status":"success"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(map[int]string{1: tt.want}, read(t, strings.NewReader(tt.line))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestABrokenLineDoesNotEndTheHistory(t *testing.T) {
	long := `{"x":"` + strings.Repeat("y", 2<<20) + `"}`
	got := read(t, strings.NewReader(strings.Join([]string{`{"invoke_id":"a"}`, `{"invoke_id":`, `[]`, `null`, long, `{"invoke_id":"b"}`}, "\n")))
	for n, want := range map[int]string{
		1: `{"invoke_id":"a"`, 2: "fault: not a JSON object: ", 3: "fault: not a JSON object", 4: "fault: not a JSON object",
		5: "fault: longer than", 6: `{"invoke_id":"b"`,
	} {
		if !strings.HasPrefix(got[n], want) {
			t.Errorf("line %d: got %.80q, want %q", n, got[n], want)
		}
	}
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGzipIsTheSameHistory(t *testing.T) {
	text := strings.Repeat(`{"product_name":"svc"}`+"\n", 1000)
	want := read(t, strings.NewReader(text))
	if diff := cmp.Diff(want, read(t, bytes.NewReader(zipped(t, text)))); diff != "" {
		t.Error(diff)
	}
	half := len(text) / 2
	parts := append(zipped(t, text[:half]), zipped(t, text[half:])...)
	if diff := cmp.Diff(want, read(t, iotest.OneByteReader(bytes.NewReader(parts)))); diff != "" {
		t.Errorf("in two parts, byte by byte: %s", diff)
	}
}

func TestASourceThatBreaksOffIsAnError(t *testing.T) {
	text := `{"invoke_id":"a"}` + "\n" + `{"invoke_id":"b"}`
	tests := []struct {
		name string
		src  io.Reader
		want error
		n    int
	}{
		{"reader", io.MultiReader(strings.NewReader(text), iotest.ErrReader(io.ErrNoProgress)), io.ErrNoProgress, 1},
		{"gzip", bytes.NewReader(zipped(t, text)[:30]), io.ErrUnexpectedEOF, 0},
		{"gzip header", bytes.NewReader(zipped(t, text)[:5]), io.ErrUnexpectedEOF, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := cli.NewLines(tt.src)
			n := 0
			for i := range l.All() {
				if i.Fault != "" {
					t.Errorf("line %d: %s", i.Line, i.Fault)
				}
				n++
			}
			if !errors.Is(l.Err(), tt.want) || n < tt.n {
				t.Errorf("got %v after %d lines", l.Err(), n)
			}
		})
	}
}
