package ingest

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/tracking"
)

const (
	propagatedHeader = "X-Shipledger-Propagated"
	// propagationTimeout is how long an answer waits for the other processes.
	propagationTimeout = time.Second
)

// settings are those of all accounts at one place of the log. Never changed,
// only replaced.
type settings struct {
	decided  map[string]tracking.DecidedSettings
	defaults event.Settings
}

// A SharedBook tells other processes what accounts decided, and knows what they
// tell. Offer must not wait for anybody.
type SharedBook interface {
	Offer(decided map[string]tracking.DecidedSettings)
	Of(account string) event.Settings
}

// Share makes the committer tell book what its fold of the log knows of settings,
// and believe what others know. It must be called before Run.
func (c *Committer) Share(book SharedBook) {
	c.shared = book
	c.publishSettings()
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
	if c.shared != nil {
		return c.shared.Of(account)
	}
	s := c.settings.Load()
	if held, ok := s.decided[account]; ok {
		return held.Settings
	}
	return s.defaults
}

func (c *Committer) publishSettings() {
	var s settings
	s.decided, s.defaults = c.state.Settings()
	c.settings.Store(&s)
	if c.shared != nil {
		c.shared.Offer(s.decided)
	}
}

// updateSettings answers when every live process acts by what was decided, at the
// latest after a second; the answer says whether they do.
func (s *Service) updateSettings(w http.ResponseWriter, r *httpapi.Request) error {
	body, err := s.body(r)
	if err != nil {
		return err
	}
	action, err := readSettings(r, "", body)
	if err != nil {
		return err
	}
	d, err := s.change(w, r, action, body)
	if err != nil {
		return err
	}
	everywhere := true
	if s.everywhere != nil {
		ctx, cancel := context.WithTimeout(r.Context(), propagationTimeout)
		defer cancel()
		everywhere = s.everywhere(ctx, r.Identity.Account)
	}
	w.Header()[propagatedHeader] = []string{strconv.FormatBool(everywhere)}
	return r.JSON(http.StatusOK, shown(d.Object))
}

// getSettings answers from the write side: whoever changed a setting sees it,
// and it can be read while the read model is away.
func (s *Service) getSettings(_ http.ResponseWriter, r *httpapi.Request) error {
	return r.JSON(http.StatusOK, s.committer(r.Identity.Account).Settings(r.Identity.Account))
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
