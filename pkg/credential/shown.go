package credential

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
)

// shown is what people may read of this package's events, by schema: the object
// inside the data, and its members. What is not named is not shown, so that a
// member that somebody adds stays hidden until it is named here.
var shown = map[string]struct {
	object  string
	members map[string]bool
}{
	recordSchema: {"credential", set(
		"kind", "key_id", "token_id", "name", "description", "scopes", "mode", "status", "pepper", "last4", "user_id",
		"created_at", "created_by", "expires_at", "legacy", "first_start", "rotated_from", "rotated_to", "grace_until",
		"ip_allow", "rate_limit", "days_left",
	)},
	userSchema:    {"user", set("email", "name", "role", "removed", "created_at", "invited")},
	sessionSchema: {"session", set("user_id", "started_at", "expires_at", "ended")},
	accountSchema: {"account", set("name", "created_at")},
}

func set(names ...string) map[string]bool {
	out := make(map[string]bool, len(names))
	for _, n := range names {
		out[n] = true
	}
	return out
}

// Known tells whether events with this schema are among those of this package.
func Known(schema string) bool {
	_, ok := shown[schema]
	return ok
}

// Shown gives what people may read of the data of an event of this package:
// neither the digest of a secret nor the hash of a password, nor a member that
// nobody has said may be read. It is nil for events of others.
func Shown(o event.Opaque) []byte {
	what, ok := shown[o.Schema]
	if !ok {
		return nil
	}
	var data, members map[string]jsontext.Value
	if err := json.Unmarshal(o.Data, &data); err != nil {
		return nil
	}
	if err := json.Unmarshal(data[what.object], &members); err != nil {
		return nil
	}
	visible := map[string]jsontext.Value{}
	for name, value := range members {
		if what.members[name] {
			visible[name] = value
		}
	}
	all := map[string]any{what.object: visible}
	var note Note
	if json.Unmarshal(data["change"], &note) == nil && note != (Note{}) {
		all["change"] = note
	}
	out, err := json.Marshal(all, json.Deterministic(true))
	if err != nil {
		return nil
	}
	return RedactIn(out)
}
