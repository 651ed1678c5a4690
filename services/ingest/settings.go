package ingest

import (
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// settings are those of all accounts at one place of the log. Never changed,
// only replaced.
type settings struct {
	decided  map[string]event.Settings
	defaults event.Settings
}

// SetDefaults says what accounts have that never decided (contract 22). It must
// be called before Run.
func (c *Committer) SetDefaults(d event.Settings) {
	c.state.SetDefaults(d)
	c.publishSettings()
}

// Settings gives the settings of an account as this process knows them: those
// of every event that was answered here, and of others when their frames are
// folded. It may be asked from any goroutine.
func (c *Committer) Settings(account string) event.Settings {
	s := c.settings.Load()
	if held, ok := s.decided[account]; ok {
		return held
	}
	return s.defaults
}

func (c *Committer) publishSettings() {
	var s settings
	s.decided, s.defaults = c.state.Settings()
	c.settings.Store(&s)
}

// getSettings answers from the write side: whoever changed a setting sees it,
// and it can be read while the read model is away.
func (s *Service) getSettings(_ http.ResponseWriter, r *httpapi.Request) error {
	return r.JSON(http.StatusOK, s.committer.Settings(r.Identity.Account))
}

func readSettings(_ *httpapi.Request, _ string, body []byte) (tracking.Action, error) {
	var wire map[string]any
	if json.Unmarshal(body, &wire, lenient) != nil {
		return nil, httpapi.InvalidJSON()
	}
	a := tracking.UpdateSettings{To: map[string]bool{}}
	for _, name := range (*event.Settings)(nil).Names() {
		if on, ok := wire[name].(bool); ok {
			a.To[name] = on
		}
	}
	return a, nil
}
