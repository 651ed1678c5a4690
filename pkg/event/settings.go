package event

import (
	"github.com/go-json-experiment/json"
)

// SettingChanged is the type of events that change an account's settings.
const SettingChanged Type = "setting.changed"

// Settings are what an account's admins decide (contract 22), as they stand
// after an event.
type Settings struct {
	PATWrite            bool `json:"pat_write"`             // personal access tokens may write
	AllowNeverExpires   bool `json:"allow_never_expires"`   // API keys may be made that never expire
	MCPAllowAPIKeys     bool `json:"mcp_allow_api_keys"`    // API keys that may read may call /mcp
	PreflightStrict     bool `json:"preflight_strict"`      // an end that was never started is held to the rules, too
	DeploymentSHAStrict bool `json:"deployment_sha_strict"` // a deployment with another commit than its version's is refused
	HonourSkipPreflight bool `json:"honour_skip_preflight"` // skip_preflight_checks is heard
}

// DefaultSettings are those of contract 22.
func DefaultSettings() Settings { return Settings{PATWrite: true, HonourSkipPreflight: true} }

// Names gives the names of the settings, in order.
func (*Settings) Names() []string {
	return []string{"pat_write", "allow_never_expires", "mcp_allow_api_keys", "preflight_strict", "deployment_sha_strict", "honour_skip_preflight"}
}

// Named gives the setting with that name; nil if there is none.
func (s *Settings) Named(name string) *bool {
	switch name {
	case "pat_write":
		return &s.PATWrite
	case "allow_never_expires":
		return &s.AllowNeverExpires
	case "mcp_allow_api_keys":
		return &s.MCPAllowAPIKeys
	case "preflight_strict":
		return &s.PreflightStrict
	case "deployment_sha_strict":
		return &s.DeploymentSHAStrict
	case "honour_skip_preflight":
		return &s.HonourSkipPreflight
	}
	return nil
}

func (*Settings) schema() string { return "setting/1" }

func (w *writer) settings(s *Settings, e *Event) {
	w.raw(`{"settings":{`)
	for _, name := range s.Names() {
		w.key(name)
		if *s.Named(name) {
			w.raw("true")
		} else {
			w.raw("false")
		}
	}
	w.raw(`}`)
	w.bodyHash(e)
	w.raw(`}`)
}

// settings reads an event; one of an earlier release that does not say a
// setting leaves its default.
func (e *envelope) settings(r *Recorded) (*Settings, error) {
	d := struct {
		Settings Settings `json:"settings"`
		BodyHash hash     `json:"body_hash"`
	}{Settings: DefaultSettings()}
	if err := json.Unmarshal(e.Data, &d, decodeOptions); err != nil {
		return nil, err
	}
	r.BodyHash = uint64(d.BodyHash)
	return &d.Settings, nil
}
