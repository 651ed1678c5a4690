package projector

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/quarantine"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// asideAnswer is an event that was set aside, as answers show it. It is named by
// its place in the log: what cannot be read has no id.
type asideAnswer struct {
	ID          string       `json:"id"`
	EventID     httpapi.Text `json:"event_id"`
	Type        httpapi.Text `json:"type"`
	Subject     httpapi.Text `json:"subject"`
	ReceivedAt  *time.Time   `json:"received_at"`
	Frame       bool         `json:"frame"`
	Events      uint64       `json:"events"`
	State       string       `json:"state"`
	Reason      httpapi.Text `json:"reason"`
	WaitsBehind httpapi.Text `json:"waits_behind"`
	CodeVersion httpapi.Text `json:"code_version"`
	Attempts    uint32       `json:"attempts"`
	SetAsideAt  *time.Time   `json:"set_aside_at"`
}

func asideToAPI(r *readmodel.QuarantineRow) asideAnswer {
	a := asideAnswer{
		ID: r.Position.String(), EventID: httpapi.Text(r.ID), Type: httpapi.Text(r.Type), Subject: httpapi.Text(r.Subject),
		ReceivedAt: httpapi.Moment(r.ReceivedAt), Frame: r.Frame, Events: r.Events, State: string(r.State), Reason: httpapi.Text(r.Reason),
		CodeVersion: httpapi.Text(r.CodeVersion), Attempts: r.Attempts, SetAsideAt: httpapi.Moment(r.SetAsideAt),
	}
	if r.Behind.Offset > 0 {
		a.WaitsBehind = httpapi.Text(r.Behind.String())
	}
	return a
}

// seen gives the accounts whose events a caller sees: their own, and with the
// operator what belongs to nobody.
func (s *Service) seen(r *httpapi.Request) []string {
	accounts := []string{r.Identity.Account}
	if s.cfg.Operator != nil {
		if operator, ok := s.cfg.Operator(); ok && operator == r.Identity.Account {
			accounts = append(accounts, "")
		}
	}
	return accounts
}

// live gives the version that reads use.
func (s *Service) live() (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.versions[s.active]; v != nil {
		return v, nil
	}
	return nil, fault.New(fault.Unavailable, "READ_MODEL_UNAVAILABLE", "the read model does not answer right now").WithHint("Try again in a moment.")
}

func (s *Service) aside(ctx context.Context, f readmodel.QuarantineFilter, p readmodel.Page) ([]readmodel.QuarantineRow, error) {
	v, err := s.live()
	if err != nil {
		return nil, err
	}
	return v.lanes[0].sink.Quarantine(ctx, f, p) // its tables hold all streams
}

func (s *Service) listQuarantine(_ http.ResponseWriter, r *httpapi.Request) error {
	if err := s.fresh(r); err != nil {
		return err
	}
	seq := s.ops.decisions()
	ctx, cancel := context.WithTimeout(r.Context(), settling)
	defer cancel()
	_ = s.done(ctx, seq.Last()) // what was decided stands, whenever it is done
	v, err := s.live()
	if err != nil {
		return err
	}
	at := httpapi.AsOf{Position: v.positions(v.offsets()), Time: httpapi.Moment(v.state().Progress.Time)}
	rows, err := s.aside(r.Context(), readmodel.QuarantineFilter{
		Accounts: s.seen(r), State: readmodel.QuarantineState(r.QueryString("state")), Type: event.Type(r.QueryString("type")), Subject: r.QueryString("subject"),
	}, readmodel.Page{After: r.After(), Limit: r.Limit() + 1})
	if err != nil {
		return err
	}
	next := ""
	if len(rows) > r.Limit() {
		rows = rows[:r.Limit()]
		next = rows[len(rows)-1].Key()
	}
	items := make([]asideAnswer, len(rows))
	for i := range rows {
		items[i] = asideToAPI(&rows[i])
	}
	return r.JSON(http.StatusOK, httpapi.NewList(r, items, next, at))
}

// ownAside gives the event with an id, if the caller sees it.
func (s *Service) ownAside(r *httpapi.Request, id string) (row readmodel.QuarantineRow, err error) {
	at, err := event.ParsePosition(id)
	if err != nil {
		return row, httpapi.NotFound("event in quarantine")
	}
	rows, err := s.aside(r.Context(), readmodel.QuarantineFilter{Position: at}, readmodel.Page{Limit: 1})
	switch {
	case err != nil:
		return row, err
	case len(rows) == 0:
		return row, httpapi.NotFound("event in quarantine")
	case !slices.Contains(s.seen(r), rows[0].Account):
		return row, httpapi.NotOwner("event")
	}
	return rows[0], nil
}

func item(r *readmodel.QuarantineRow) quarantine.Item {
	return quarantine.Item{Position: r.Position, Account: r.Account, State: quarantine.State(r.State), Frame: r.Frame}
}

func (s *Service) redriveEvent(w http.ResponseWriter, r *httpapi.Request) error {
	row, err := s.ownAside(r, r.PathValue("id"))
	if err != nil {
		return err
	}
	err = s.decideAside(w, r, func(b *quarantine.Book) (quarantine.Decision, error) {
		return b.Redrive(r.Identity.Account, []quarantine.Item{item(&row)})
	})
	if err != nil {
		return err
	}
	return s.asItStands(r)
}

func (s *Service) discardEvent(w http.ResponseWriter, r *httpapi.Request) error {
	var asked struct {
		Reason string `json:"reason"`
	}
	if err := s.read(r, &asked); err != nil {
		return err
	}
	row, err := s.ownAside(r, r.PathValue("id"))
	if err != nil {
		return err
	}
	if row.Frame {
		if err := s.wholeFrame(r, &row); err != nil {
			return err
		}
	}
	err = s.decideAside(w, r, func(b *quarantine.Book) (quarantine.Decision, error) {
		return b.Discard(r.Identity.Account, item(&row), string(credential.RedactIn([]byte(asked.Reason))))
	})
	if err != nil {
		return err
	}
	return s.asItStands(r)
}

// wholeFrame refuses to discard a frame that also holds events of others.
func (s *Service) wholeFrame(r *httpapi.Request, row *readmodel.QuarantineRow) error {
	before := event.Position{Stream: row.Position.Stream, Offset: event.At(row.Position.Offset.Seq(), 0) - 1}
	rows, err := s.aside(r.Context(), readmodel.QuarantineFilter{Stream: row.Position.Stream}, readmodel.Page{After: before.String(), Limit: event.MaxFrameEvents})
	if err != nil {
		return err
	}
	for _, other := range rows {
		if other.Position.Offset.Seq() == row.Position.Offset.Seq() && !slices.Contains(s.seen(r), other.Account) {
			return fault.New(fault.Conflict, "QUARANTINE_SHARED", "The frame holds events of other accounts, too, and cannot be discarded for one of them.")
		}
	}
	return nil
}

func (s *Service) asItStands(r *httpapi.Request) error {
	row, err := s.ownAside(r, r.PathValue("id"))
	if err != nil {
		return err
	}
	return r.JSON(http.StatusOK, asideToAPI(&row))
}

// redriven says what came of trying many again.
type redriven struct {
	Redriven    uint64 `json:"redriven"`
	Quarantined uint64 `json:"quarantined"`
}

func (s *Service) redriveEvents(w http.ResponseWriter, r *httpapi.Request) error {
	var asked struct {
		IDs []string `json:"ids"`
		All bool     `json:"all"`
	}
	if err := s.read(r, &asked); err != nil {
		return err
	}
	if asked.All == (len(asked.IDs) > 0) {
		return &httpapi.ValidationError{Faults: []httpapi.FieldFault{{Loc: []string{"body"}, Msg: "name either ids or all", Type: "value_error"}}}
	}
	accounts := s.seen(r)
	held := readmodel.QuarantineFilter{Accounts: accounts, State: readmodel.Quarantined}
	before, err := s.asideCount(r.Context(), held)
	if err != nil {
		return err
	}
	var items []quarantine.Item
	for _, id := range asked.IDs {
		row, err := s.ownAside(r, id)
		if err != nil {
			return err
		}
		items = append(items, item(&row))
	}
	err = s.decideAside(w, r, func(b *quarantine.Book) (quarantine.Decision, error) {
		if asked.All {
			return b.RedriveAll(r.Identity.Account, accounts, before)
		}
		return b.Redrive(r.Identity.Account, items)
	})
	if err != nil {
		return err
	}
	after, err := s.asideCount(r.Context(), held)
	if err != nil {
		return err
	}
	return r.JSON(http.StatusOK, redriven{Redriven: before - min(before, after), Quarantined: after})
}

func (s *Service) asideCount(ctx context.Context, f readmodel.QuarantineFilter) (n uint64, err error) {
	for page := (readmodel.Page{Limit: countPage}); ; {
		rows, err := s.aside(ctx, f, page)
		if err != nil {
			return 0, err
		}
		for i := range rows {
			n += rows[i].Events
		}
		if len(rows) < page.Limit {
			return n, nil
		}
		page.After = rows[len(rows)-1].Key()
	}
}

// countPage is how many rows are read at a time to be counted.
const countPage = 1000

// decideAside records a decision and waits until the live version has done it.
// One that takes longer is done all the same.
func (s *Service) decideAside(w http.ResponseWriter, r *httpapi.Request, decide func(b *quarantine.Book) (quarantine.Decision, error)) error {
	var d quarantine.Decision
	seq, err := s.ops.record(r.Context(), r.Identity.Author(), r.Reverify, func(time.Time) (change, error) {
		var err error
		d, err = decide(&s.ops.aside)
		return &d, err
	})
	if err != nil {
		return err
	}
	w.Header()[httpapi.PositionHeader] = []string{position(seq)}
	ctx, cancel := context.WithTimeout(r.Context(), httpapi.WaitForPosition)
	defer cancel()
	_ = s.done(ctx, seq)
	return nil
}

// done returns when the live version has done what was decided.
func (s *Service) done(ctx context.Context, seq uint64) error {
	return s.when(ctx, func() bool {
		v, err := s.live()
		return err == nil && v.heeded() >= seq
	})
}
