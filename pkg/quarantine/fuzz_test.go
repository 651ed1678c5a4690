package quarantine_test

import (
	"testing"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/quarantine"
)

// FuzzDecode feeds data of any shape to what reads decisions about quarantined events.
func FuzzDecode(f *testing.F) {
	for _, data := range []string{`{}`, `null`, `{"replay":{"state":"running","version":2}}`, `{"replay":[]}`, `{"quarantine":{"state":"open"}}`, `{"decision":{"stream":"t0","seq":1}}`} {
		f.Add("replay/1", []byte(data))
		f.Add("quarantine/1", []byte(data))
	}
	f.Fuzz(func(_ *testing.T, schema string, data []byte) {
		e := event.Event{Account: "acme", Subject: "01HZX3V5K6QJ8W9Y0A1B2C3D4E", Payload: event.Opaque{Schema: schema, Data: data}}
		_, _ = quarantine.Decode(&e)
	})
}
