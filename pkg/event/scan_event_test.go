package event_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
)

// same holds both readers to the same answer, where the one pass gives one.
func same(t interface {
	Helper()
	Fatalf(format string, args ...any)
}, body []byte,
) (scanned bool) {
	t.Helper()
	before := bytes.Clone(body)
	got, ok := event.ScanFrame("t0", 7, body)
	if !bytes.Equal(before, body) {
		t.Fatalf("reading changed the frame\n%q", before)
	}
	if !ok {
		return false
	}
	want, err := event.ReadFrame("t0", 7, body)
	if err != nil {
		t.Fatalf("read in one pass, but not otherwise: %v\n%q", err, body)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s\n%q", diff, body)
	}
	return true
}

func TestAFrameReadInOnePassIsReadAsTheLibraryReadsIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "now")).UTC()
		events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event.Event { return drawEvent(t, now) }), 1, 4).Draw(t, "events")
		if body := event.AppendFrame(nil, 7, events); !same(t, body) {
			t.Fatalf("what the ledger writes is not read in one pass\n%s", body)
		}
	})
}

func TestExamplesAreReadAlikeByBothReaders(t *testing.T) {
	for _, dir := range []string{"valid", "invalid"} {
		for _, body := range files(t, dir) {
			same(t, body)
		}
	}
}

// oneRun is what a pipeline reports of a deployment: its start, and its end, which
// owes some of the record to the start.
func oneRun() []event.Event {
	at := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	id := ulid.MustParse("01JW2C5R3V0E6H7Q8S9T0A1B2C")
	report := func(seq uint64, status event.Status, word string, after time.Duration) event.Event {
		request := fmt.Appendf(nil, `{"product_name":"checkout-service","version":"v2.14.7","environment_name":"production","status":"%s",`+
			`"scm_repository":"acme/checkout-service","scm_sha":"8d1c0a7b2e4f5061728394a5b6c7d8e9f0a1b2c3","source_system":"github","build_number":"7",`+
			`"invoke_id":"17457","deploy_url":"https://github.com/acme/checkout-service/actions/runs/9876543210","deployed_by":"ada",`+
			`"deployed_by_email":"ada@users.noreply.example.com","deployed_by_name":"Ada","extra_metadata":{"vi_gh_workflow":"Deploy","vi_gh_job":"deploy",`+
			`"vi_gh_run_attempt":"1","vi_gh_event_name":"push","vi_gh_ref":"refs/heads/main"}}`, word)
		asked, err := event.DecodeRequest(request)
		if err != nil {
			panic(err)
		}
		e := event.Event{
			ID: ulid.MustParse("01JW2C5R3V0E6H7Q8S9T0A1B2D"), Account: "acme", Type: event.TypeOf(event.Deployment, status), Subject: id.String(), Time: at.Add(after),
			Author: event.Author{CredentialID: "k1", CredentialName: "ci", Mode: event.Live},
		}
		stamp := event.Stamp{Rank: status.Rank(), Effective: e.Time, Offset: event.At(seq, 0)}
		p := &event.Run{Request: request, EffectiveAt: e.Time, Hash: seq + 1<<60}
		p.Record = event.Record{
			Kind: event.Deployment, ID: id, Account: "acme", ProductID: event.ProductIDOf("acme", asked.ProductName), ProductName: asked.ProductName,
			EnvironmentID: event.EnvironmentIDOf("acme", asked.EnvironmentName), EnvironmentName: asked.EnvironmentName, Version: asked.Version,
			Status: status, Seen: event.StatusSet(0).With(event.Started).With(status), CreatedAt: at, StartedAt: at,
			Attributes: asked.Attributes(event.Deployment), Extra: event.DecodeExtra(asked.ExtraMetadata, stamp),
		}
		r := &p.Record
		for a := range r.Attributes {
			r.AttributeStamps[a] = stamp
		}
		if status == event.Completed {
			r.CompletedAt = e.Time
			r.AttributeStamps[event.ByName].Offset = event.At(2, 0)
			r.Receipts = []event.Receipt{{Hash: 2 + 1<<60, Event: e.ID, Offset: event.At(2, 0)}}
		}
		r.Receipts = append(r.Receipts, event.Receipt{Hash: p.Hash, Event: e.ID, Offset: event.At(seq, 0)})
		e.Payload = p
		return e
	}
	return []event.Event{report(2, event.Started, "started", 0), report(7, event.Completed, "success", time.Minute)}
}

func TestEventsOfRunsAreReadWithoutTheLibrary(t *testing.T) {
	for _, e := range oneRun() {
		if body := event.AppendEvent(nil, &e, event.At(7, 0)); !event.ScanRun(body) {
			t.Errorf("%s", body)
		}
	}
}

func TestAFrameWrittenOtherwiseIsLeftToTheLibrary(t *testing.T) {
	written := string(write(recordedOf(oneRun())))
	for name, body := range map[string]string{
		"members in another order":    strings.Replace(written, `"specversion":"1.0","id"`, `"id"`, 1),
		"a frame in an event":         strings.Replace(written, `"vi_gh_job":"deploy"`, `"vi_gh_job":[0,{"specversion":"1.0","id":"01JW2C5R3V0E6H7Q8S9T0A1B2D"}]`, 1),
		"nothing":                     "",
		"an end too soon":             written[:len(written)-1],
		"half an event":               written[:len(written)-40] + "]",
		"something behind the events": written + "x",
	} {
		if _, ok := event.ScanFrame("t0", 7, []byte(body)); ok {
			t.Errorf("%s: read", name)
		}
		same(t, []byte(body))
	}
	for name, change := range map[string][2]string{ // read, though not in one pass to the end
		"white space":          {`,"type"`, `, "type"`},
		"an escape":            {`"Ada"`, `"Ad\u0061"`},
		"a member twice":       {`"version":"v2.14.7"`, `"version":"v2.14.7","version":"v3"`},
		"an hour of one digit": {`"completed_at":"2026-05-04T09:01:00Z"`, `"completed_at":"2026-05-04T9:01:00.5Z"`},
	} {
		body := []byte(strings.ReplaceAll(written, change[0], change[1]))
		if string(body) == written {
			t.Fatalf("%s: nothing was changed in %s", name, written)
		}
		same(t, body)
	}
}

func recordedOf(events []event.Event) []event.Recorded {
	out := make([]event.Recorded, len(events))
	for i := range events {
		out[i] = event.Recorded{Event: events[i], Position: event.Position{Stream: "t0", Offset: event.At(7, i)}}
	}
	return out
}

// BenchmarkDecodeFrame reads 500 runs of two events each; figures are per event.
func BenchmarkDecodeFrame(b *testing.B) {
	var events []event.Event
	for range 500 {
		events = append(events, oneRun()...)
	}
	body := event.AppendFrame(nil, 7, events)
	for name, read := range map[string]func(string, uint64, []byte) ([]event.Recorded, error){"one pass": event.DecodeFrame, "library": event.ReadFrame} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body) / len(events)))
			n := 0
			for b.Loop() {
				if n++; n%len(events) != 1 {
					continue
				}
				if _, err := read("t0", 7, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
