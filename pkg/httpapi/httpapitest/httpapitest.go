// Package httpapitest holds answers to the document: every test that has an
// answer in its hands can ask whether the document allows it, so that what is
// published and what is served cannot part.
package httpapitest

import (
	"bytes"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

// CheckResponse fails t unless the document allows this answer to a request of
// method and path: the status is listed, the required headers are there, the
// body is of the listed type and schema, and holds nothing that the schema does
// not name. Answers that belong to no operation, such as 404 for an unknown
// path, are held to the error body.
func CheckResponse(tb testing.TB, spec *httpapi.Spec, method, path string, status int, header http.Header, body []byte) {
	tb.Helper()
	d := load(tb, spec)
	pointer := "/components/responses/NotFound"
	switch op := spec.Find(method, path); {
	case op != nil:
		var ok bool
		if pointer, ok = spec.Response(op, strconv.Itoa(status)); !ok {
			tb.Errorf("%s %s: the document lists no answer %d; body %s", method, path, status, body)
			return
		}
	default:
		for _, name := range []string{"Unauthorized", "Forbidden", "NotFound", "MethodNotAllowed", "TooLarge", "RateLimited", "Internal", "Unavailable"} {
			if statusOf[name] == status {
				pointer = "/components/responses/" + name
			}
		}
	}
	response, _ := d.at(pointer).(map[string]any)
	d.checkHeaders(tb, response, header)
	content, _ := response["content"].(map[string]any)
	if method == http.MethodHead {
		return
	}
	if len(content) == 0 {
		if len(body) > 0 {
			tb.Errorf("%s %s: answer %d has a body where the document has none: %s", method, path, status, body)
		}
		return
	}
	media, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	if content[media] == nil {
		tb.Errorf("%s %s: answer %d is of type %q, which the document does not list", method, path, status, media)
		return
	}
	if media != "application/json" {
		return // text is only of its type
	}
	d.check(tb, pointer+"/content/"+escape(media)+"/schema", body)
	if status >= 400 && status != http.StatusServiceUnavailable || status == http.StatusServiceUnavailable && !strings.Contains(path, "health") {
		checkRequestID(tb, header, body)
	}
}

var statusOf = map[string]int{
	"Unauthorized": 401, "Forbidden": 403, "NotFound": 404, "MethodNotAllowed": 405,
	"TooLarge": 413, "RateLimited": 429, "Internal": 500, "Unavailable": 503,
}

func checkRequestID(tb testing.TB, header http.Header, body []byte) {
	tb.Helper()
	var e struct {
		Meta struct {
			RequestID string `json:"request_id"`
		} `json:"meta"`
	}
	if err := json.Unmarshal(body, &e); err != nil || e.Meta.RequestID != header.Get("X-Request-Id") {
		tb.Errorf("meta.request_id is not the X-Request-Id %q: %s", header.Get("X-Request-Id"), body)
	}
}

// document is the OpenAPI document with every schema closed: an answer may hold
// only what is named. The published schemas stay open, for clients that are
// older than the server.
type document struct {
	root     any
	compiler *jsonschema.Compiler
	mu       sync.Mutex
	compiled map[string]*jsonschema.Schema
}

var (
	mu        sync.Mutex
	documents = map[*httpapi.Spec]*document{}
)

func load(tb testing.TB, spec *httpapi.Spec) *document {
	tb.Helper()
	mu.Lock()
	defer mu.Unlock()
	if d := documents[spec]; d != nil {
		return d
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(spec.Document()))
	if err != nil {
		tb.Fatal(err)
	}
	closeObjects(root)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("openapi.json", root); err != nil {
		tb.Fatal(err)
	}
	d := &document{root: root, compiler: c, compiled: map[string]*jsonschema.Schema{}}
	documents[spec] = d
	return d
}

func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		_, described := v["properties"].(map[string]any)
		if _, said := v["additionalProperties"]; described && !said && v["type"] != nil {
			v["additionalProperties"] = false
		}
		for member := range maps.Values(v) {
			closeObjects(member)
		}
	case []any:
		for _, item := range v {
			closeObjects(item)
		}
	}
}

func (d *document) at(pointer string) any {
	v := d.root
	for _, part := range strings.Split(pointer, "/")[1:] {
		m, _ := v.(map[string]any)
		v = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
	}
	return v
}

func escape(s string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(s) }

func (d *document) schema(pointer string) (*jsonschema.Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.compiled[pointer]; s != nil {
		return s, nil
	}
	s, err := d.compiler.Compile("openapi.json#" + fragment(pointer))
	d.compiled[pointer] = s
	return s, err
}

// fragment writes a JSON pointer as the fragment of a URL.
func fragment(pointer string) string {
	return strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer)
}

func (d *document) check(tb testing.TB, pointer string, body []byte) {
	tb.Helper()
	s, err := d.schema(pointer)
	if err != nil {
		tb.Fatalf("the document at %s: %v", pointer, err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		tb.Errorf("the answer is not JSON (%v): %s", err, body)
		return
	}
	if err := s.Validate(v); err != nil {
		tb.Errorf("the answer is not what the document says: %v\n%s", err, body)
	}
}

func (d *document) checkHeaders(tb testing.TB, response map[string]any, header http.Header) {
	tb.Helper()
	listed, _ := response["headers"].(map[string]any)
	for name, v := range listed {
		h, _ := v.(map[string]any)
		ref, _ := h["$ref"].(string)
		pointer := strings.TrimPrefix(ref, "#")
		said, _ := d.at(pointer).(map[string]any)
		value := header.Get(name)
		if value == "" {
			if said["required"] == true {
				tb.Errorf("the answer has no header %s", name)
			}
			continue
		}
		s, err := d.schema(pointer + "/schema")
		if err != nil {
			tb.Fatalf("the document at %s: %v", pointer, err)
		}
		if err := s.Validate(value); err != nil {
			tb.Errorf("header %s: %q is not what the document says: %v", name, value, err)
		}
	}
}

// CheckExamples fails t for every example of the document that its own schema
// does not allow.
func CheckExamples(tb testing.TB, spec *httpapi.Spec) {
	tb.Helper()
	d := load(tb, spec)
	schemas, _ := d.at("/components/schemas").(map[string]any)
	for name, v := range schemas {
		s, _ := v.(map[string]any)
		examples, _ := s["examples"].([]any)
		d.allowed(tb, "/components/schemas/"+name, examples)
	}
	responses, _ := d.at("/components/responses").(map[string]any)
	for name := range responses {
		pointer := "/components/responses/" + name + "/content/application~1json"
		examples, _ := d.at(pointer + "/examples").(map[string]any)
		for _, v := range examples {
			e, _ := v.(map[string]any)
			d.allowed(tb, pointer+"/schema", []any{e["value"]})
		}
	}
}

func (d *document) allowed(tb testing.TB, pointer string, examples []any) {
	tb.Helper()
	if len(examples) == 0 {
		return
	}
	s, err := d.schema(pointer)
	if err != nil {
		tb.Fatalf("the document at %s: %v", pointer, err)
	}
	for _, e := range examples {
		if err := s.Validate(e); err != nil {
			tb.Errorf("an example at %s is not what its schema says: %v", pointer, err)
		}
	}
}
