package event_test

import (
	"bytes"
	"testing"

	"github.com/shipledger/shipledger/pkg/event"
)

// FuzzDecodeFrame: whatever stands in a frame is read or refused, by both readers
// alike, and what was read is written so that it reads the same.
func FuzzDecodeFrame(f *testing.F) {
	f.Add([]byte(`[{"specversion":"1.0","id":"01JW2C5R3V0E6H7Q8S9T0A1B2D","source":"/accounts/acme","type":"deployment.completed",` +
		`"subject":"01JW2C5R3V0E6H7Q8S9T0A1B2C","time":"2026-05-04T09:00:00Z","dataschema":"deployment/1","credentialid":"k1","mode":"live",` +
		`"data":{"request":{"product_name":"svc","version":"1","environment_name":"production","status":"success","extra_metadata":{"a":1}},` +
		`"hash":"AAAAAAAAAAE","deployment":{"status":"completed","completed_at":"2026-05-04T09:00:00Z"}}}]`))
	f.Add([]byte(`[{"specversion":"1.0","id":"01JW2C5R3V0E6H7Q8S9T0A1B2D","source":"/accounts/acme","type":"version.created",` +
		`"subject":"x","time":"2026-05-04T09:00:00Z","dataschema":"version/1","data":{"version":{"product_name":"svc","version":"1","scm_sha":"abc"}}}]`))
	f.Add([]byte(`[]`))
	f.Add(event.AppendFrame(nil, 7, oneRun()))
	f.Fuzz(func(t *testing.T, body []byte) {
		same(t, body)
		read, err := event.DecodeFrame("t0", 7, body)
		if err != nil {
			return
		}
		written := write(read)
		again, err := event.DecodeFrame("t0", 7, written)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, written)
		}
		if twice := write(again); !bytes.Equal(written, twice) {
			t.Fatalf("written once\n%s\nand twice\n%s", written, twice)
		}
	})
}

func write(recorded []event.Recorded) []byte {
	events := make([]event.Event, len(recorded))
	for i := range recorded {
		events[i] = recorded[i].Event
	}
	return event.AppendFrame(nil, 7, events)
}
