package accounts

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// family is one of the two sorts of credentials that have routes. They differ
// in whose they are: a key is its account's, a token its user's.
type family struct {
	kind       credential.Kind
	operations string // what the ids of its operations end in
	word       string // for people
}

var (
	apiKeys = family{credential.APIKey, "APIKey", "API key"}
	tokens  = family{credential.PAT, "Token", "personal access token"}
)

// sees tells whether a caller may know of a record of the caller's account.
func (f family) sees(by *credential.Identity, r *credential.Record) bool {
	return f.kind == credential.APIKey || r.UserID == by.UserID
}

func (s *Service) list(f family) httpapi.Handler {
	return func(_ http.ResponseWriter, r *httpapi.Request) error {
		if err := s.fresh(r); err != nil {
			return err
		}
		held, asOf := s.ring.Records(r.Identity.Account, f.kind)
		now, status, name := s.now(), credential.Status(r.QueryString("status")), r.QueryString("name")
		var items []answer
		for i := range held {
			h := &held[i]
			if !f.sees(&r.Identity, &h.Record) || status != "" && h.StatusAt(now) != status || name != "" && h.Name != name {
				continue
			}
			if a := s.show(&h.Record, now); wantsUnused(r.QueryString("unused_30d"), &a) {
				items = append(items, a)
			}
		}
		sort, after := r.QueryString("sort"), ""
		if items = ordered(items, sort, r.After()); len(items) > r.Limit() {
			items = items[:r.Limit()]
			after = items[len(items)-1].key(sort)
		}
		at := httpapi.AsOf{Time: httpapi.Moment(asOf.Time)}
		if asOf.Seq > 0 {
			at.Position = position(asOf.Seq)
		}
		return r.JSON(http.StatusOK, httpapi.NewList(r, items, after, at))
	}
}

func (s *Service) get(f family) httpapi.Handler {
	return func(_ http.ResponseWriter, r *httpapi.Request) error {
		if err := s.fresh(r); err != nil {
			return err
		}
		held, err := s.find(f, r)
		if err != nil {
			return err
		}
		return r.JSON(http.StatusOK, s.show(&held.Record, s.now()))
	}
}

func (s *Service) create(f family) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		order, _, err := s.order(f.kind, r)
		if err != nil {
			return err
		}
		done, err := s.commit(r.Context(), r, func(now time.Time) (draft, error) {
			c, err := credential.Create(order, &r.Identity, now)
			if err != nil {
				return draft{}, err
			}
			return s.equip(c, now)
		})
		if err != nil {
			return err
		}
		return s.reveal(w, r, &done)
	}
}

// importing takes a credential in that another system made (contract 3.2). What
// is kept of it is its digest.
func (s *Service) importing(f family) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		order, value, err := s.order(f.kind, r)
		if err != nil {
			return err
		}
		done, err := s.inTurn(r.Context(), func(ctx context.Context, now time.Time, before uint64) (committed, error) {
			var holder *credential.Record
			if held, ok := s.ring.Holder(value); ok {
				holder = &held.Record
			}
			c, err := credential.Import(order, &r.Identity, holder, now)
			if err != nil {
				return committed{}, err
			}
			d, err := s.name(c, now)
			if err != nil {
				return committed{}, err
			}
			d.Record.Digest, d.Record.Pepper = s.peppers.Digest(value)
			d.Record.LastFour = credential.LastFour(value)
			what := d.fact()
			what.alone = true // else two imports of one value could both be the first
			seq, err := s.put(ctx, r, what, now, before)
			return committed{d, seq}, err
		})
		if err != nil {
			return err
		}
		return s.reveal(w, r, &done)
	}
}

// reveal answers with a new credential, once with its secret.
func (s *Service) reveal(w http.ResponseWriter, r *httpapi.Request, done *committed) error {
	s.everywhere(w, r, done.seq)
	a := s.show(&done.Record, s.now())
	a.Secret = done.secret
	return r.JSON(http.StatusCreated, a)
}

func (s *Service) rotation(f family) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		if _, err := s.find(f, r); err != nil {
			return err
		}
		var asked struct {
			Grace   string `json:"grace"`
			Expires string `json:"expires"`
		}
		if err := s.read(r, &asked); err != nil {
			return err
		}
		var invalid httpapi.ValidationError
		says := func(field string, err error) { invalid.Faults = appendFault(invalid.Faults, field, err) }
		grace, err := credential.ParseGrace(asked.Grace)
		says("grace", err)
		var expires time.Time
		if asked.Expires != "" {
			expires, err = credential.ParseExpiry(asked.Expires, s.now())
			says("expires", err)
		}
		if len(invalid.Faults) > 0 {
			return &invalid
		}
		done, err := s.rotate(r.Context(), r, func(now time.Time) (credential.Rotation, uint64, error) {
			held, err := s.find(f, r)
			if err != nil {
				return credential.Rotation{}, 0, err
			}
			rotation, err := held.Rotate(grace, expires, &r.Identity, now)
			return rotation, held.At.Seq(), err
		})
		if err != nil {
			return err
		}
		return s.reveal(w, r, &done)
	}
}

func (s *Service) update(f family) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		if _, err := s.find(f, r); err != nil {
			return err
		}
		var patch struct {
			Name        *string `json:"name"`
			Description *string `json:"description"`
			limitsWire
		}
		if err := s.read(r, &patch); err != nil {
			return err
		}
		given := func(text *string) *string {
			if text == nil || *text == "" { // counts as absent (contract 1.8)
				return nil
			}
			return new(said(*text))
		}
		to := credential.Patch{Name: given(patch.Name), Description: given(patch.Description)}
		var invalid httpapi.ValidationError
		var err error
		to.AllowFrom, err = patch.prefixes()
		invalid.Faults = appendFault(invalid.Faults, "ip_allow", err)
		to.Rate, err = patch.rate()
		invalid.Faults = appendFault(invalid.Faults, "rate_limit", err)
		if len(invalid.Faults) > 0 {
			return &invalid
		}
		return s.changed(f, w, r, http.StatusOK, func(c *credential.Record, now time.Time) (credential.Change, error) {
			return c.Update(to, now)
		})
	}
}

// appendFault adds what an error says about a field of the body.
func appendFault(faults []httpapi.FieldFault, field string, err error) []httpapi.FieldFault {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return append(faults, httpapi.FieldFault{Loc: []string{"body", field}, Msg: f.Message, Type: "value_error"})
	}
	return faults
}

type decision func(*credential.Record, time.Time) (credential.Change, error)

func (s *Service) change(f family, decide decision) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		return s.changed(f, w, r, http.StatusOK, decide)
	}
}

func (s *Service) revoke(f family) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		return s.changed(f, w, r, http.StatusNoContent, (*credential.Record).Revoke)
	}
}

// changed changes the credential that the path names, and answers.
func (s *Service) changed(f family, w http.ResponseWriter, r *httpapi.Request, status int, decide decision) error {
	done, err := s.commit(r.Context(), r, func(now time.Time) (draft, error) {
		held, err := s.find(f, r)
		if err != nil {
			return draft{}, err
		}
		c, err := decide(&held.Record, now)
		return draft{Change: c, after: held.At.Seq()}, err
	})
	if err != nil {
		return err
	}
	s.everywhere(w, r, done.seq)
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return nil
	}
	return r.JSON(status, s.show(&done.Record, s.now()))
}

// find gives the credential that the path names, if the caller may know of it.
func (s *Service) find(f family, r *httpapi.Request) (credential.Held, error) {
	held, ok := s.ring.Record(r.PathValue("id"))
	switch {
	case !ok || held.Kind != f.kind:
		return held, httpapi.NotFound(f.word)
	case held.Account != r.Identity.Account:
		return held, httpapi.NotOwner(f.word)
	case !f.sees(&r.Identity, &held.Record):
		return held, fault.New(fault.Forbidden, "NOT_OWNER", "access denied: this %s belongs to another user", f.word)
	}
	return held, nil
}

// fresh waits until this process knows what the caller wants to see.
func (s *Service) fresh(r *httpapi.Request) error {
	return r.AwaitStream(event.CredentialStream, s.ring.Await)
}

// order reads what somebody wants of a new credential, and the value of one that
// is to be imported. All faults are told together.
func (s *Service) order(kind credential.Kind, r *httpapi.Request) (credential.Order, string, error) {
	body, err := r.ReadJSON()
	if err != nil {
		return credential.Order{}, "", err
	}
	faults, err := s.spec.CheckBody(r.Operation.Body, body)
	if err != nil {
		return credential.Order{}, "", err
	}
	broken := map[string]bool{}
	for _, f := range faults {
		broken[f.Loc[min(1, len(f.Loc)-1)]] = true
	}
	var w orderWire
	if len(faults) == 0 {
		err = json.Unmarshal(body, &w, lenient)
	} else { // what can be read of it still may have faults of its own
		_ = json.Unmarshal(body, &w, lenient)
	}
	if err != nil {
		return credential.Order{}, "", httpapi.InvalidJSON()
	}
	o := credential.Order{Kind: kind, Name: said(w.Name), Description: said(w.Description), Mode: event.Live}
	if w.Mode == string(event.Test) {
		o.Mode = event.Test
	}
	says := func(field string, err error) {
		if !broken[field] {
			faults = appendFault(faults, field, err)
		}
	}
	if w.Value != "" {
		form, ok := credential.ParseForeign(w.Value)
		if !ok || form.Kind != kind {
			says("value", fault.New(fault.Unprocessable, "", "no credential of a form that can be imported here"))
		}
		o.Mode = form.Mode
	}
	allow, err := w.prefixes()
	if says("ip_allow", err); allow != nil {
		o.AllowFrom = *allow
	}
	rate, err := w.rate()
	if says("rate_limit", err); rate != nil {
		o.Rate = *rate
	}
	if !broken["scope"] && !broken["scopes"] {
		field, names := w.scopes()
		o.Scopes, err = credential.ParseScopes(kind, names)
		says(field, err)
	}
	never := w.Expires == "never" && kind == credential.APIKey && s.settings(r.Identity.Account).AllowNeverExpires
	if w.Expires != "" && !never { // contract 3.5
		o.ExpiresAt, err = credential.ParseExpiry(w.Expires, s.now())
		says("expires", err)
	}
	if len(faults) > 0 {
		return o, "", &httpapi.ValidationError{Faults: faults}
	}
	return o, w.Value, nil
}

// read reads a body that its schema says everything about.
func (s *Service) read(r *httpapi.Request, into any) error {
	body, err := r.ReadJSON()
	if err != nil {
		return err
	}
	faults, err := s.spec.CheckBody(r.Operation.Body, body)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		return &httpapi.ValidationError{Faults: faults}
	}
	if err := json.Unmarshal(body, into, lenient); err != nil {
		return httpapi.InvalidJSON()
	}
	return nil
}
