package query

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/usage"
)

const (
	usualDays = 30  // that are shown where nobody says from when
	mostDays  = 400 // that are remembered of requests, and counted of events
)

// credentials knows an account's credentials.
type credentials interface {
	Records(account string, kind credential.Kind) ([]credential.Held, keyring.AsOf)
}

// uses knows how many requests a credential made.
type uses interface {
	Of(recordID string) usage.Summary
}

// Counting names who knows the credentials of accounts and their requests, for
// /usage/. It must be called before the service is used; without it there are none.
func (s *Service) Counting(held credentials, of uses) *Service {
	s.held, s.uses = held, of
	return s
}

// usageAnswer is what a credential was used for on a day.
type usageAnswer struct {
	CredentialID string `json:"credential_id"`
	KeyID        string `json:"key_id,omitzero"`
	TokenID      string `json:"token_id,omitzero"`
	Name         string `json:"name"`
	Mode         string `json:"mode"`
	Day          string `json:"day"`
	Requests     uint64 `json:"requests"`
	Events       uint64 `json:"events"`
}

func (u *usageAnswer) key() string { return u.Day + "." + u.CredentialID }

// listUsage answers how many requests each credential had accepted on each day,
// and how many events, the latest day first. Traffic of test keys is shown only
// where it is asked for.
func (s *Service) listUsage(_ http.ResponseWriter, r *httpapi.Request) error {
	at, err := s.fresh(r)
	if err != nil {
		return err
	}
	from, to, err := usageDays(r, time.Now())
	if err != nil {
		return err
	}
	mode := cmp.Or(event.Mode(r.QueryString("mode")), event.Live)
	counts, err := s.model.EventsByDay(r.Context(), r.Identity.Account, mode, from, to.AddDate(0, 0, 1))
	if err != nil {
		return err
	}
	type of struct{ credential, day string }
	events := map[of]uint64{}
	for _, c := range counts {
		events[of{c.Credential, c.Day.Format(time.DateOnly)}] = c.Events
	}
	var items []usageAnswer
	for _, h := range s.visible(r, mode) {
		accepted := s.uses.Of(h.ID).Accepted
		for day := to; !day.Before(from); day = day.AddDate(0, 0, -1) {
			u := usageAnswer{CredentialID: h.ID, Name: h.Name, Mode: string(mode), Day: day.Format(time.DateOnly)}
			u.Requests, u.Events = accepted[u.Day], events[of{h.PublicID, u.Day}]
			if h.Kind == credential.APIKey {
				u.KeyID = h.PublicID
			} else {
				u.TokenID = h.PublicID
			}
			if u.Requests+u.Events > 0 && (r.After() == "" || u.key() < r.After()) {
				items = append(items, u)
			}
		}
	}
	slices.SortFunc(items, func(a, b usageAnswer) int { return cmp.Compare(b.key(), a.key()) })
	items, after := cut(items, r.Limit(), (*usageAnswer).key)
	return r.JSON(http.StatusOK, httpapi.NewList(r, items, after, at))
}

// visible gives the credentials of a mode that a caller may know of: the keys of
// the account and the caller's own tokens.
func (s *Service) visible(r *httpapi.Request, mode event.Mode) (out []credential.Held) {
	if s.held == nil {
		return nil
	}
	for _, kind := range []credential.Kind{credential.APIKey, credential.PAT} {
		held, _ := s.held.Records(r.Identity.Account, kind)
		for i := range held {
			if h := &held[i]; h.Mode == mode && (kind == credential.APIKey || h.UserID == r.Identity.UserID) {
				out = append(out, *h)
			}
		}
	}
	return out
}

// usageDays gives the first and the last day that are asked for, at their first
// moments: never more than are remembered, and none behind the page before.
func usageDays(r *httpapi.Request, now time.Time) (from, to time.Time, err error) {
	var invalid httpapi.ValidationError
	read := func(name string) (day time.Time) {
		if text := r.QueryString(name); text != "" {
			var err error
			if day, err = time.Parse(time.DateOnly, text); err != nil {
				invalid.Faults = append(invalid.Faults, httpapi.FieldFault{Loc: []string{"query", name}, Msg: "use a day such as 2030-01-31", Type: "value_error"})
			}
		}
		return day
	}
	from, to = read("from"), read("to")
	if len(invalid.Faults) > 0 {
		return from, to, &invalid
	}
	today := now.UTC().Truncate(24 * time.Hour)
	if to.IsZero() || to.After(today) {
		to = today
	}
	earliest := to.AddDate(0, 0, 1-mostDays)
	switch {
	case from.IsZero():
		from = to.AddDate(0, 0, 1-usualDays)
	case from.Before(earliest):
		from = earliest
	}
	if len(r.After()) >= len(time.DateOnly) {
		if day, err := time.Parse(time.DateOnly, r.After()[:len(time.DateOnly)]); err == nil && day.Before(to) {
			to = day
		}
	}
	return from, to, nil
}
