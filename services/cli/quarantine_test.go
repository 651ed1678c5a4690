package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestQuarantineIsListedRedrivenAndDiscarded(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, fmt.Sprintf("%s %s %s", r.Method, r.URL, body))
		switch r.URL.Path {
		case "/quarantine/":
			_, _ = io.WriteString(w, `{"items":[{"id":"t0.1.0","type":"deployment.completed","subject":"D1","state":"quarantined","reason":"of a\u001b[31m bug","attempts":2},`+
				`{"id":"t0.4.0","type":null,"subject":null,"state":"quarantined","reason":null,"attempts":1}],"next_cursor":"x"}`)
		case "/quarantine/redrive":
			_, _ = io.WriteString(w, `{"redriven":1200,"quarantined":1}`)
		default:
			_, _ = io.WriteString(w, `{"id":"t0.1.0","state":"discarded"}`)
		}
	}))
	defer server.Close()
	run := func(args ...string) string {
		t.Helper()
		out, _, err := shipledger(t, append(append([]string{"quarantine"}, args...), "--url", server.URL, "--token", "pat_x")...)
		if err != nil {
			return err.Error()
		}
		return out
	}
	list := run("list", "--subject", "D1")
	for _, want := range []string{"ID      STATE", "t0.1.0  quarantined  deployment.completed  D1       2      of a [31m bug", "t0.4.0  quarantined  -", "There are more"} {
		if !strings.Contains(list, want) {
			t.Errorf("want %q in\n%s", want, list)
		}
	}
	if got := run("list", "--json"); !strings.HasPrefix(got, "{\n") {
		t.Error(got)
	}
	if got := run("redrive", "t0.1.0", "t0.2.0"); got != "1,200 applied, 1 still in quarantine.\n" {
		t.Error(got)
	}
	run("redrive", "--all")
	if got := run("redrive"); got != "name the events to try again, or --all" {
		t.Error(got)
	}
	if got := run("discard", "t0.1.0", "--reason", "a test"); !strings.Contains(got, "is discarded") {
		t.Error(got)
	}
	want := []string{
		"GET /quarantine/?limit=100&state=quarantined&subject=D1 ", "GET /quarantine/?limit=100&state=quarantined ",
		`POST /quarantine/redrive {"ids":["t0.1.0","t0.2.0"]}`, `POST /quarantine/redrive {"all":true}`, `POST /quarantine/t0.1.0/discard {"reason":"a test"}`,
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked\n%s", strings.Join(asked, "\n"))
	}
}
