package query

import (
	"net/http"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// mostGroups is how many groups of writes are shown, the largest.
const mostGroups = 500

// writesWire is what a credential wrote: the events, page by page, and all of
// them in groups.
type writesWire struct {
	Groups                 []writeGroup `json:"groups"`
	httpapi.List[eventRow] `json:",inline"`
}

type writeGroup struct {
	Type            string       `json:"type"`
	ProductName     httpapi.Text `json:"product_name"`
	EnvironmentName httpapi.Text `json:"environment_name"`
	Events          int          `json:"events"`
	FirstAt         *time.Time   `json:"first_at"`
	LastAt          *time.Time   `json:"last_at"`
}

// writes answers what a credential did, from a moment on or until one: what is
// to be looked at once it has leaked.
func (s *Service) writes(kind credential.Kind, word string) httpapi.Handler {
	return func(_ http.ResponseWriter, r *httpapi.Request) error {
		progress, err := s.freshOf(r, s.auditStreams(r.Identity.Account))
		if err != nil {
			return err
		}
		held, err := s.credential(kind, word, r)
		if err != nil {
			return err
		}
		f := readmodel.EventFilter{Credential: held.PublicID, Since: r.QueryTime("after"), Until: r.QueryTime("before")}
		groups, err := s.model.Writes(r.Context(), r.Identity.Account, f, mostGroups)
		if err != nil {
			return err
		}
		spans := eventSpans(progress, r.After(), true)
		rows, err := s.model.Events(r.Context(), r.Identity.Account, f, spans, true, r.Limit()+1)
		if err != nil {
			return err
		}
		after := ""
		if len(rows) > r.Limit() {
			rows = rows[:r.Limit()]
			after = eventKey(spans.Rest(rows, true), true)
		}
		return r.JSON(http.StatusOK, writesWire{show(groups, writeGroupOf), httpapi.NewList(r, show(rows, eventItem), after, asOf(progress))})
	}
}

func writeGroupOf(g *readmodel.WriteGroup) writeGroup {
	return writeGroup{string(g.Type), httpapi.Text(g.Product), httpapi.Text(g.Environment), g.Events, httpapi.Moment(g.First), httpapi.Moment(g.Last)}
}

// credential gives the credential that the path names, if the caller may know of it.
func (s *Service) credential(kind credential.Kind, word string, r *httpapi.Request) (held credential.Held, err error) {
	ok := false
	if s.keys != nil {
		held, ok = s.keys(r.PathValue("id"))
	}
	switch {
	case !ok || held.Kind != kind:
		return held, httpapi.NotFound(word)
	case held.Account != r.Identity.Account:
		return held, httpapi.NotOwner(word)
	case kind == credential.PAT && held.UserID != r.Identity.UserID:
		return held, fault.New(fault.Forbidden, "NOT_OWNER", "access denied: this %s belongs to another user", word)
	}
	return held, nil
}
