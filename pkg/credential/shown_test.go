package credential_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

// Rows: VR-19
func TestWhatIsShownOfAnEventTellsNoSecret(t *testing.T) {
	at := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	id := ulid.MustParse("01JW2C5R3V0E6H7Q8S9T0A1B2C")
	record := credential.Record{
		ID: id.String(), Kind: credential.APIKey, Account: "acme", PublicID: "k1", Name: "ci", Mode: event.Live, Status: credential.Active,
		Scopes: credential.EventsWrite, LastFour: "KkfI", CreatedAt: at,
	}
	for i := range record.Digest {
		record.Digest[i] = 0xab
	}
	user := credential.User{ID: id.String(), Account: "acme", Email: "ada@acme.example", Role: credential.RoleAdmin, PasswordHash: "$argon2id$v=19$hash", CreatedAt: at}
	for _, c := range []struct {
		of     func() (event.Event, error)
		object string
		shows  []string
		hidden []string
	}{
		{func() (event.Event, error) { return record.Event(id, credential.Created, at, event.Author{}) }, "credential", []string{"name", "key_id", "scopes", "last4", "status"}, []string{"digest"}},
		{func() (event.Event, error) { return user.Event(id, credential.UserJoined, at, event.Author{}) }, "user", []string{"email", "role"}, []string{"password_hash"}},
	} {
		e, err := c.of()
		if err != nil {
			t.Fatal(err)
		}
		payload := e.Payload.(event.Opaque)
		if !credential.Known(payload.Schema) {
			t.Errorf("%s is unknown", payload.Schema)
		}
		var data map[string]map[string]any
		text := credential.Shown(payload)
		if err := json.Unmarshal(text, &data); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, name := range c.shows {
			if _, ok := data[c.object][name]; !ok {
				t.Errorf("%s is not shown in %s", name, text)
			}
		}
		for _, name := range c.hidden {
			if !strings.Contains(string(payload.Data), `"`+name+`"`) {
				t.Errorf("the event has no %s: this test shows nothing", name)
			}
			if strings.Contains(string(text), name) {
				t.Errorf("%s is shown in %s", name, text)
			}
		}
	}
}

func TestWhatNobodyNamedIsNotShown(t *testing.T) {
	if got := credential.Shown(event.Opaque{Schema: "credential/1", Data: []byte(`{"credential":{"name":"ci","seed":"s3cr3t"},"more":{"x":1}}`)}); string(got) != `{"credential":{"name":"ci"}}` {
		t.Errorf("shown: %s", got)
	}
	if got := credential.Shown(event.Opaque{Schema: "invention/1", Data: []byte(`{"a":1}`)}); got != nil {
		t.Errorf("of an unknown schema: %s", got)
	}
}
