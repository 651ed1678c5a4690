package projection_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// update records what is missing in the golden set: an event of every type that
// the valid examples hold, and the rows of each. It never changes an event that
// is there: that one may be in somebody's log.
var update = flag.Bool("update", false, "record missing golden events, and the rows of all")

const (
	eventSchemas = "../../schemas/events"
	goldenEvents = eventSchemas + "/testdata/golden"
	goldenRows   = "testdata/golden"
	howTo        = "; go test ./pkg/projection -run Golden -update records it from schemas/events/testdata/valid"
)

// golden gives the events of the set by schema and type, such as
// product-1/product.created.
func golden(t *testing.T) map[string][]byte {
	t.Helper()
	if *update {
		record(t)
	}
	names, err := filepath.Glob(filepath.Join(goldenEvents, "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string][]byte{}
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set[filepath.Base(filepath.Dir(name))+"/"+strings.TrimSuffix(filepath.Base(name), ".json")] = bytes.TrimSpace(body)
	}
	return set
}

// examples gives an event of every schema and type in the valid examples.
func examples(t *testing.T) map[string]json.RawMessage {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(eventSchemas, "testdata", "valid", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]json.RawMessage{}
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var frame []json.RawMessage
		if err := json.Unmarshal(body, &frame); err != nil {
			t.Fatal(name, err)
		}
		for _, e := range frame {
			var head struct{ DataSchema, Type string }
			if err := json.Unmarshal(e, &head); err != nil {
				t.Fatal(name, err)
			}
			schema := strings.Replace(head.DataSchema, "/", "-", 1)
			if _, err := os.Stat(filepath.Join(eventSchemas, schema+".schema.json")); errors.Is(err, fs.ErrNotExist) {
				continue // of another producer
			}
			out[schema+"/"+head.Type] = e
		}
	}
	return out
}

func record(t *testing.T) {
	t.Helper()
	for name, e := range examples(t) {
		path := filepath.Join(goldenEvents, name+".json")
		if _, err := os.Stat(path); err == nil {
			continue
		}
		var body bytes.Buffer
		if err := json.Compact(&body, []byte("["+string(e)+"]")); err != nil {
			t.Fatal(err)
		}
		write(t, path, append(body.Bytes(), '\n'))
	}
}

func write(t *testing.T, path string, body []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
}

// rowsOf writes the rows of a frame, one a line.
func rowsOf(t *testing.T, body []byte) string {
	t.Helper()
	events, err := event.DecodeFrame("t0", 2, body)
	if err != nil {
		t.Fatal(err)
	}
	var rows readmodel.Rows
	var b strings.Builder
	for _, e := range events {
		known := projection.Project(e, &rows)
		if known != projection.Knows(e.Type) {
			t.Errorf("Project knows %s: %v, Knows says otherwise", e.Type, known)
		}
		fmt.Fprintf(&b, "known %v\n", known)
	}
	tables := reflect.ValueOf(rows)
	for i := range tables.NumField() {
		for k := range tables.Field(i).Len() {
			fmt.Fprintf(&b, "%s %+v\n", tables.Type().Field(i).Name, tables.Field(i).Index(k).Interface())
		}
	}
	return strings.ReplaceAll(b.String(), "0001-01-01 00:00:00 +0000 UTC", "-") // no time
}

// Every event that was ever committed to the set is read, brought to its newest
// version and projected to the same rows as when it was.
func TestGoldenEventsAreProjectedToTheRecordedRows(t *testing.T) {
	for name, body := range golden(t) {
		t.Run(name, func(t *testing.T) {
			path, got := filepath.Join(goldenRows, name+".txt"), rowsOf(t, body)
			if *update {
				write(t, path, []byte(got))
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err, howTo)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("the projection of an event that was shipped has changed (-recorded +now):\n%s", diff)
			}
		})
	}
}

func TestTheGoldenSetHasEverySchemaAndEveryTypeOfTheExamples(t *testing.T) {
	set := golden(t)
	schemas, err := filepath.Glob(filepath.Join(eventSchemas, "*-*.schema.json"))
	if err != nil || len(schemas) == 0 {
		t.Fatal("no schemas", err)
	}
	has := map[string]bool{}
	types := map[event.Type]bool{}
	for name := range set {
		schema, is, _ := strings.Cut(name, "/")
		has[schema], types[event.Type(is)] = true, true
	}
	for _, path := range schemas {
		if schema := strings.TrimSuffix(filepath.Base(path), ".schema.json"); !has[schema] {
			t.Errorf("%s has no golden event%s", schema, howTo)
		}
	}
	for name := range examples(t) {
		if set[name] == nil {
			t.Errorf("%s is no golden event%s", name, howTo)
		}
	}
	for _, kind := range []event.Kind{event.Deployment, event.Build} {
		for _, s := range []event.Status{event.Pending, event.Started, event.Completed, event.Failed, event.Aborted} {
			if is := event.TypeOf(kind, s); !types[is] {
				t.Errorf("%s is no golden event", is)
			}
		}
	}
}
