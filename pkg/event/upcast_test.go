package event_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
)

// older is an event as two versions before the first would have written it, which
// never shipped: they exist in this test only.
const older = `[{"specversion":"1.0","id":"01JW2C5R3V0E6H7Q8S9T0A1B2D","source":"/accounts/acme","type":"product.created",` +
	`"subject":"x","time":"2026-05-04T09:00:00Z","dataschema":"ware/1","data":{"ware":"checkout"}}]`

func replacing(old, to string) event.Upcaster {
	return func(data jsontext.Value) (jsontext.Value, error) {
		return bytes.Replace(data, []byte(old), []byte(to), 1), nil
	}
}

func TestAnOldEventIsTakenToItsNewestVersionStepByStep(t *testing.T) {
	var passed []string
	step := func(from string, next event.Upcaster) event.Upcaster {
		return func(data jsontext.Value) (jsontext.Value, error) {
			passed = append(passed, from+" "+string(data))
			return next(data)
		}
	}
	u := event.Upcasters{
		"ware/1": step("1", replacing(`"ware":"checkout"`, `"ware":{"called":"checkout"}`)),
		"ware/2": step("2", replacing(`"called"`, `"name"`)),
	}
	got, err := event.DecodeFrameWith(u, "t0", 7, []byte(older))
	if err != nil {
		t.Fatal(err)
	}
	want := event.Opaque{Schema: "ware/3", Data: []byte(`{"ware":{"name":"checkout"}}`)}
	if diff := cmp.Diff(event.Payload(want), got[0].Payload); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{`1 {"ware":"checkout"}`, `2 {"ware":{"called":"checkout"}}`}, passed); diff != "" {
		t.Error(diff)
	}
}

// An older version of a type that is known today reads as the known one does.
func TestAnUpcastEventIsTheSameAsOneWrittenToday(t *testing.T) {
	today := strings.Replace(older, `"ware/1","data":{"ware":"checkout"}`, `"product/1","data":{"product":{"name":"checkout"}}`, 1)
	want, err := event.DecodeFrame("t0", 7, []byte(today))
	if err != nil {
		t.Fatal(err)
	}
	before := strings.Replace(older, "ware/1", "product/0", 1)
	got, err := event.DecodeFrameWith(event.Upcasters{"product/0": replacing(`"ware":"checkout"`, `"product":{"name":"checkout"}`)}, "t0", 7, []byte(before))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestAnUpcasterThatFailsFailsItsEventByName(t *testing.T) {
	broken := func(jsontext.Value) (jsontext.Value, error) { return nil, errors.New("no ware") }
	_, err := event.DecodeFrameWith(event.Upcasters{"ware/1": broken}, "t0", 7, []byte(older))
	if err == nil || !strings.Contains(err.Error(), "t0.7.0") || !strings.Contains(err.Error(), "ware/1") {
		t.Errorf("got %v", err)
	}
}

// What is in the golden set was valid when it shipped, and stays so.
func TestTheGoldenSetIsValid(t *testing.T) {
	s := frameSchema(t)
	names, err := filepath.Glob(filepath.Join(examples, "golden", "*", "*.json"))
	if err != nil || len(names) == 0 {
		t.Fatal("no golden set", err)
	}
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
