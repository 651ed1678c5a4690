package query

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// auditStreams are all that the audit log of an account is drawn from.
func (s *Service) auditStreams(account string) []string {
	return slices.Concat(s.streamsOf(account), s.audited)
}

func (s *Service) listEvents(_ http.ResponseWriter, r *httpapi.Request) error {
	progress, err := s.freshOf(r, s.auditStreams(r.Identity.Account))
	if err != nil {
		return err
	}
	newest := r.QueryString("order") != "oldest"
	rows, err := s.model.Events(r.Context(), r.Identity.Account, eventFilter(r), eventSpans(progress, r.After(), newest), newest, r.Limit()+1)
	if err != nil {
		return err
	}
	after := ""
	if len(rows) > r.Limit() {
		rows = rows[:r.Limit()]
		after = eventKey(eventSpans(progress, r.After(), newest).Rest(rows, newest), newest)
	}
	return r.JSON(http.StatusOK, httpapi.NewList(r, show(rows, eventItem), after, asOf(progress)))
}

func eventFilter(r *httpapi.Request) readmodel.EventFilter {
	return readmodel.EventFilter{
		Family: r.QueryString("family"), Type: event.Type(r.QueryString("type")),
		Credential: r.QueryString("credential"), Subject: r.QueryString("subject"), Actor: r.QueryString("actor"),
		Mode: event.Mode(r.QueryString("mode")), Since: r.QueryTime("since"), Until: r.QueryTime("until"),
	}
}

// eventSpans gives the part of each stream that a page is drawn from: of what is
// projected, what the pages before it have left. From the newest on, a walk ends
// where it began, whatever is written meanwhile: each page says how far down it
// came in every stream.
func eventSpans(progress []readmodel.Progress, key string, newest bool) readmodel.Spans {
	at, _ := event.ParsePositions(key) // what eventKey gave, or nothing
	spans := readmodel.Spans{}
	for _, p := range progress {
		switch reached, walked := at[p.Stream]; {
		case key == "":
			spans[p.Stream] = readmodel.Span{UpTo: p.Offset}
		case newest && walked:
			spans[p.Stream] = readmodel.Span{UpTo: reached}
		case !newest:
			spans[p.Stream] = readmodel.Span{After: reached, UpTo: p.Offset}
		}
	}
	return spans
}

// eventKey writes down where a page ended.
func eventKey(rest readmodel.Spans, newest bool) string {
	var at []string
	for _, stream := range slices.Sorted(maps.Keys(rest)) {
		offset := rest[stream].After
		if newest {
			offset = rest[stream].UpTo
		}
		at = append(at, event.Position{Stream: stream, Offset: offset}.String())
	}
	return strings.Join(at, ",")
}

func (s *Service) getEvent(_ http.ResponseWriter, r *httpapi.Request) error {
	if _, err := s.freshOf(r, s.auditStreams(r.Identity.Account)); err != nil {
		return err
	}
	id, err := runID(r, readmodel.EventObject)
	if err != nil {
		return err
	}
	row, err := s.model.Event(r.Context(), r.Identity.Account, id)
	if err != nil {
		return s.missing(r, readmodel.EventObject, id.String(), err)
	}
	return r.JSON(http.StatusOK, eventItem(&row))
}
