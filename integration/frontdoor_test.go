package integration_test

import (
	"cmp"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/compose"
)

var updateFlag = flag.Bool("update", false, "write the files that are generated from the API document")

const proxyFile = "../deploy/nginx/shipledger.conf"

// The two lines between which the file is generated.
const routesBegin, routesEnd = "    # routes: begin\n", "    # routes: end\n"

// Whoever has a reverse proxy already needs no front door of ours: the file holds
// the same table. It is written by go test ./integration -run Proxy -update.
func TestTheReverseProxyForwardsAsTheFrontDoorDoes(t *testing.T) {
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(proxyFile)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(file), routesBegin)
	text, tail, ended := strings.Cut(rest, routesEnd)
	if !found || !ended {
		t.Fatal("the file has no place for routes")
	}
	want := proxyRoutes(spec)
	if *updateFlag {
		if err := os.WriteFile(proxyFile, []byte(head+routesBegin+want+routesEnd+tail), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text != want {
		t.Errorf("the routes are not those of the document: go test ./integration -run Proxy -update writes them")
	}
	for _, name := range compose.Services {
		if !strings.Contains(tail+head, "upstream "+name+" {") {
			t.Errorf("the file does not say where %s is", name)
		}
	}
	// Not only the text: the expressions are tried in their order, as nginx does.
	forward := proxyMap(t, text)
	routes := httpapi.NewRoutes(spec)
	for _, op := range spec.Operations() {
		for _, method := range []string{op.Method, http.MethodHead, http.MethodPut} {
			for _, prefix := range []string{"", "/api/v1"} {
				path := prefix + strings.NewReplacer("{", "", "}", "").Replace(op.Path)
				service := routes.Service(httptest.NewRequest(method, path, http.NoBody))
				if service == httpapi.Everywhere {
					service = compose.Query
				}
				if got := forward(method, path); got != service {
					t.Errorf("%s %s goes to %s, want %s", method, path, got, service)
				}
			}
		}
	}
}

// proxyRoutes writes the table as lines of a map of nginx, from "METHOD path" to a
// service. Of a path all lines stand together, words before parameters.
func proxyRoutes(spec *httpapi.Spec) string {
	byPath := map[string][]*httpapi.Operation{}
	var paths []string
	for _, op := range spec.Operations() {
		path := strings.Trim(op.Path, "/")
		if byPath[path] == nil {
			paths = append(paths, path)
		}
		byPath[path] = append(byPath[path], op)
	}
	parameter := regexp.MustCompile(`\{[^}]*\}`)
	last := func(path string) string { return parameter.ReplaceAllString(path, "~") } // behind every word
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(last(a), last(b)) })
	var out strings.Builder
	for _, path := range paths {
		expression := "(/api/v1)?/" + parameter.ReplaceAllString(strings.ReplaceAll(path, ".", `\.`), "[^/]+") + "/?$"
		service := func(op *httpapi.Operation) string {
			if op.Service == httpapi.Everywhere {
				return compose.Query
			}
			return op.Service
		}
		first := service(byPath[path][0])
		for _, op := range byPath[path] {
			method := op.Method
			if method == http.MethodGet {
				method = "(GET|HEAD)"
			}
			if service(op) != first {
				fmt.Fprintf(&out, "    \"~^%s %s\" %s;\n", method, expression, service(op))
			}
		}
		fmt.Fprintf(&out, "    \"~^[A-Z]+ %s\" %s;\n", expression, first)
	}
	return out.String()
}

// proxyMap reads the lines back.
func proxyMap(t *testing.T, text string) func(method, path string) string {
	t.Helper()
	type line struct {
		expression *regexp.Regexp
		service    string
	}
	var lines []line
	for text := range strings.Lines(text) {
		parts := regexp.MustCompile(`^    "~(.*)" (\w+);\n$`).FindStringSubmatch(text)
		if parts == nil {
			t.Fatalf("what is this? %q", text)
		}
		lines = append(lines, line{regexp.MustCompile(parts[1]), parts[2]})
	}
	return func(method, path string) string {
		for _, l := range lines {
			if l.expression.MatchString(method + " " + path) {
				return l.service
			}
		}
		return ""
	}
}

// What a program does not link cannot be reached through it: whoever takes over
// ingest or the front door finds no driver of the database.
func TestAProgramLinksOnlyTheBackendsItNeeds(t *testing.T) {
	t.Parallel()
	const drivers = "github.com/ClickHouse/"
	for program, absent := range map[string][]string{
		"ingest": {drivers, "pkg/embedded"}, "accounts": {drivers, "pkg/embedded"}, "mcp": {drivers, "pkg/embedded"}, "console": {drivers, "pkg/embedded"},
		"query": {"pkg/embedded"}, "projector": {"pkg/embedded"},
	} {
		out, err := exec.Command("go", "list", "-deps", ourPrefix+"services/"+program+"/cmd/"+program).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, name := range absent {
			if strings.Contains(string(out), name) {
				t.Errorf("%s links %s", program, name)
			}
		}
	}
}
