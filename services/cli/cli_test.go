package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/services/cli"
)

// run gives what `shipledger import` prints for these arguments.
func run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return shipledger(t, append([]string{"import"}, args...)...)
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "history.jsonl.gz")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func history(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, `{"time":"2024-05-01T10:00:00Z","product_name":"svc","environment_name":"production","version":"v%d"}`+"\n", i)
	}
	return b.String()
}

func TestAFileIsImportedAndItsRepeatAddsNothing(t *testing.T) {
	l := newLedger(t)
	t.Setenv("SHIPLEDGER_URL", l.URL)
	t.Setenv("SHIPLEDGER_TOKEN", adminToken)
	path := file(t, zipped(t, history(1500)))
	for _, want := range []string{
		"lines             1,500\naccepted          1,500\nduplicate             0\nrefused               0\nseconds ",
		"lines             1,500\naccepted              0\nduplicate         1,500\nrefused               0\nseconds ",
	} {
		stdout, stderr, err := run(t, path)
		if err != nil || stderr != "" {
			t.Fatalf("got %v, %q", err, stderr)
		}
		if !strings.HasPrefix(stdout, want) {
			t.Errorf("got %s", stdout)
		}
	}
	if diff := cmp.Diff(versionsTo(1500), versions(l.kept)); diff != "" {
		t.Error(diff)
	}
	if got := l.kept[0].CompletedAt; got != "2024-05-01T10:00:00Z" {
		t.Errorf("completed_at is %q", got)
	}
}

func TestARefusedLineFailsTheImportAndNotTheOthers(t *testing.T) {
	l := newLedger(t)
	text := strings.Replace(history(5), `"product_name":"svc",`, "", 1) + "\nnonsense\n" + history(1)
	path := file(t, []byte(text))

	_, stderr, err := run(t, path, "--url", l.URL, "--token", adminToken)
	if err == nil || !strings.Contains(err.Error(), "2 of 7 lines were refused") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(stderr, "line 1: product_name: field required (422)") || !strings.Contains(stderr, "line 7: not a JSON object") {
		t.Errorf("got %s", stderr)
	}
	if len(l.kept) != 5 {
		t.Errorf("%d lines are stored", len(l.kept))
	}

	stdout, stderr, err := run(t, path, "--url", l.URL, "--token", adminToken, "--json", "--batch-size", "2")
	if err == nil || stderr != "" {
		t.Errorf("got %v, %s", err, stderr)
	}
	var result struct {
		Lines, Accepted, Duplicate, Refused int
		Refusals                            []cli.Refusal
		Error                               string
	}
	if err := json.Unmarshal([]byte(stdout), &result); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if result.Lines != 7 || result.Duplicate != 5 || result.Refused != 2 || len(result.Refusals) != 2 || result.Error == "" {
		t.Errorf("got %+v", result)
	}
}

func TestAFloodOfRefusalsIsCutShort(t *testing.T) {
	l := newLedger(t)
	_, stderr, err := run(t, file(t, []byte(strings.Repeat("nonsense\n", 500))), "--url", l.URL, "--token", adminToken)
	if err == nil || strings.Count(stderr, "\n") != 21 {
		t.Errorf("got %v and %s", err, stderr)
	}
}

func TestAnImportThatCannotBeginSaysWhy(t *testing.T) {
	l := newLedger(t)
	path := file(t, []byte(history(1)))
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no token", []string{path, "--url", l.URL}, "set SHIPLEDGER_TOKEN"},
		{"no file", []string{path + ".no", "--url", l.URL, "--token", "x"}, "no such file"},
		{"directory", []string{filepath.Dir(path), "--url", l.URL, "--token", "x"}, "is a directory"},
		{"batch size", []string{path, "--batch-size", "1001"}, "1 to 1000"},
		{"wrong token", []string{path, "--url", l.URL, "--token", "x"}, "AUTH_INVALID_KEY"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := run(t, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestACutOffFileIsLoadedAsFarAsItGoesAndFails(t *testing.T) {
	l := newLedger(t)
	whole := zipped(t, history(5000))
	_, _, err := run(t, file(t, whole[:len(whole)-20]), "--url", l.URL, "--token", adminToken)
	if err == nil || !strings.Contains(err.Error(), "of the history: unexpected EOF") {
		t.Errorf("got %v", err)
	}
	if len(l.kept) < 1000 {
		t.Errorf("%d lines are stored", len(l.kept))
	}
}
