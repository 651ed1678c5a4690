package accounts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// pastWire is a credential as it was at a moment, and what a request got then.
type pastWire struct {
	At         *time.Time `json:"at"`
	Credential *answer    `json:"credential"` // null before it was made
	Event      *leftWire  `json:"event"`      // null before it was made
	Explain    explained  `json:"explain"`
}

// leftWire is the event that left it so.
type leftWire struct {
	ID             string       `json:"id"`
	Type           string       `json:"type"`
	Position       string       `json:"position"`
	ReceivedAt     *time.Time   `json:"received_at"`
	CredentialID   httpapi.Text `json:"credential_id"`
	CredentialName httpapi.Text `json:"credential_name"`
	Actor          httpapi.Text `json:"actor"`
}

type explained struct {
	Accepted bool         `json:"accepted"`
	Code     httpapi.Text `json:"code"`
	Message  httpapi.Text `json:"message"`
}

var scopeWords = map[string]credential.Scopes{
	"read": credential.Read, "events:write": credential.EventsWrite, "write": credential.Write, "admin": credential.Admin,
}

// stateAt answers from the log alone: what stood in it at a moment stands in it
// for ever.
func (s *Service) stateAt(f family) httpapi.Handler {
	return func(_ http.ResponseWriter, r *httpapi.Request) error {
		if err := s.fresh(r); err != nil {
			return err
		}
		held, err := s.find(f, r)
		if err != nil {
			return err
		}
		var from netip.Addr
		if text := r.QueryString("ip"); text != "" {
			if from, err = netip.ParseAddr(text); err != nil {
				return &httpapi.ValidationError{Faults: []httpapi.FieldFault{{Loc: []string{"query", "ip"}, Msg: "value is not a valid IP address", Type: "value_error"}}}
			}
		}
		at := r.QueryTime("at")
		if at.IsZero() {
			at = s.now()
		}
		out := pastWire{At: httpapi.Moment(at)}
		state, last, err := s.asOf(r.Context(), held.LogSubject(), at)
		if err != nil {
			return err
		}
		record, _ := state.(*credential.Record)
		if record != nil {
			shown := toAPI(record, at)
			out.Credential = &shown
			out.Event = &leftWire{
				ID: last.ID.String(), Type: string(last.Type), Position: last.Position.String(), ReceivedAt: httpapi.Moment(last.Time),
				CredentialID: httpapi.Text(last.CredentialID), CredentialName: httpapi.Text(last.CredentialName), Actor: httpapi.Text(last.Actor),
			}
		}
		var owner *credential.User
		if record != nil && record.Kind == credential.PAT {
			user := credential.User{ID: record.UserID, Account: record.Account}
			state, _, err := s.asOf(r.Context(), user.LogSubject(), at)
			if err != nil {
				return err
			}
			owner, _ = state.(*credential.User)
		}
		refusal := credential.Explain(record, owner, at, scopeWords[r.QueryString("scope")], from)
		out.Explain.Accepted = refusal == nil
		if f, ok := errors.AsType[*fault.Error](refusal); ok {
			out.Explain.Code, out.Explain.Message = httpapi.Text(f.Code), httpapi.Text(f.Message)
		}
		return r.JSON(http.StatusOK, out)
	}
}

// asOf gives what a subject of the log was at a moment, and the event that left
// it so; nil before its first event.
func (s *Service) asOf(ctx context.Context, subject string, at time.Time) (any, *event.Recorded, error) {
	ctx, cancel := context.WithTimeout(ctx, httpapi.WaitForPosition)
	defer cancel()
	var events []event.Recorded
	for f, err := range s.log.ReadSubject(ctx, subject) {
		if err != nil {
			return nil, nil, fault.New(fault.Unavailable, "", "The log does not answer right now.").WithHint("Try again in a moment.").Because(err)
		}
		e, err := event.DecodeEvent(event.Position{Stream: event.CredentialStream, Offset: event.At(f.Seq, 0)}, f.Body)
		if err != nil {
			return nil, nil, fmt.Errorf("read the past of %s: %w", subject, err)
		}
		events = append(events, e)
	}
	state, last, err := credential.AsOf(events, at)
	if err != nil {
		return nil, nil, fmt.Errorf("read the past of %s: %w", subject, err)
	}
	return state, last, nil
}
