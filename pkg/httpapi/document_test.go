package httpapi_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// object is a part of the document.
type object = map[string]any

// shown tells whether a media type of the document has an example, in it or in
// its schema.
func shown(root, media object) bool {
	if media["example"] != nil || media["examples"] != nil {
		return true
	}
	schema, _ := media["schema"].(object)
	for schema != nil {
		if schema["examples"] != nil {
			return true
		}
		ref, _ := schema["$ref"].(string)
		schema, _ = part(root, ref).(object)
	}
	return false
}

func part(v any, ref string) any {
	path, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return nil
	}
	for name := range strings.SplitSeq(path, "/") {
		m, _ := v.(object)
		v = m[name]
	}
	return v
}

func TestEveryOperationShowsWhatIsSentAndAnswered(t *testing.T) {
	var root object
	if err := json.Unmarshal(spec(t).Document(), &root); err != nil {
		t.Fatal(err)
	}
	binary := []string{"application/vnd.apache.parquet", "text/html", "text/css", "text/javascript"}
	checked := 0
	look := func(where string, v any) {
		content, _ := v.(object)
		for _, media := range slices.Sorted(maps.Keys(content)) {
			if slices.Contains(binary, media) {
				continue
			}
			checked++
			if m, _ := content[media].(object); !shown(root, m) {
				t.Errorf("%s %s has no example", where, media)
			}
		}
	}
	paths, _ := root["paths"].(object)
	for path, v := range paths {
		methods, _ := v.(object)
		for method, v := range methods {
			op, _ := v.(object)
			where := strings.ToUpper(method) + " " + path
			body, _ := op["requestBody"].(object)
			look(where, body["content"])
			responses, _ := op["responses"].(object)
			for status, v := range responses {
				r, _ := v.(object)
				if ref, ok := r["$ref"].(string); ok {
					r, _ = part(root, ref).(object)
				}
				if strings.HasPrefix(status, "2") {
					look(where+" "+status, r["content"])
				}
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d bodies were looked at", checked)
	}
}
