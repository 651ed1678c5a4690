package tracking

import (
	"maps"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// setting is what an account decided last, and where.
type setting struct {
	event.Settings

	event  ulid.ULID
	offset event.Offset
}

// UpdateSettings changes some of an account's settings, by their names.
type UpdateSettings struct{ To map[string]bool }

func (a UpdateSettings) past(*State) []event.Offset { return nil }

func (a UpdateSettings) decide(d *changing) error {
	now := d.s.setting(d.c.Account)
	next := now.Settings
	for name, on := range a.To {
		if at := next.Named(name); at != nil {
			*at = on
		}
	}
	if next == now.Settings {
		d.out.EventID, d.out.Object, d.out.Offset = now.event, &next, now.offset
		return nil
	}
	d.emit(event.SettingChanged, d.c.Account, &next)
	return nil
}

// SetDefaults says what accounts have that never decided. It must be called
// before anything is decided. Nothing in the log depends on it.
func (s *State) SetDefaults(d event.Settings) { s.defaults = d }

// Settings gives what accounts decided, and where; the defaults hold for all others.
func (s *State) Settings() (decided map[string]DecidedSettings, defaults event.Settings) {
	decided = make(map[string]DecidedSettings, len(s.settings))
	for account, held := range maps.All(s.settings) {
		decided[account] = DecidedSettings{held.Settings, held.offset}
	}
	return decided, s.defaults
}

// DecidedSettings are an account's, as of the event at Offset.
type DecidedSettings struct {
	event.Settings

	Offset event.Offset
}

func (s *State) setting(account string) setting {
	if held, ok := s.settings[account]; ok {
		return held
	}
	return setting{Settings: s.defaults}
}

func (s *State) applySettings(r event.Recorded, p *event.Settings) {
	put(s, s.settings, r.Account, setting{*p, r.ID, r.Position.Offset})
}
