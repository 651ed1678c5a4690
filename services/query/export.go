package query

import (
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

const (
	// exportPage is how many rows an export holds at a time.
	exportPage = 1000
	// exportProducts is of how many products it holds the cells at a time.
	exportProducts = 20
	// exportTimeout is how long a client may take for a page.
	exportTimeout = time.Minute
)

// An extent is what an export covers: what stands behind from, and all of it up
// to upTo, which is what the read model then held.
type extent struct {
	from map[string]event.Offset
	upTo []readmodel.Progress
}

// extent reads from where a client wants to go on, and settles how far the
// answer goes before any of it is written.
func (s *Service) extent(r *httpapi.Request, streams []string) (extent, error) {
	x := extent{from: map[string]event.Offset{}}
	want := r.MinPosition()
	if text := r.QueryString("from_position"); text != "" {
		x.from, _ = event.ParsePositions(text) // checked before the handler
		for _, stream := range s.streamsOf(r.Identity.Account) {
			if _, ok := x.from[stream]; !ok {
				return x, &httpapi.ValidationError{Faults: []httpapi.FieldFault{{
					Loc: []string{"query", "from_position"}, Msg: "it names no place in the stream " + stream, Type: "value_error",
				}}}
			}
		}
		for _, stream := range streams { // what the client has seen, the answer must not be older than
			if at, ok := x.from[stream]; ok {
				want[stream] = max(want[stream], at)
			}
		}
	}
	var err error
	x.upTo, err = s.await(r, want, streams)
	return x, err
}

// changed gives the place behind which runs and cells have to have changed.
func (x *extent) changed(streams []string) event.Offset {
	var least event.Offset
	for i, stream := range streams {
		if at := x.from[stream]; i == 0 || at < least {
			least = at
		}
	}
	return least
}

// place gives the position up to which the export is complete.
func (x *extent) place(streams []string) string {
	at := map[string]event.Offset{}
	for _, stream := range streams {
		at[stream] = 0
	}
	for _, p := range x.upTo {
		at[p.Stream] = p.Offset
	}
	return placeOf(at)
}

func (s *Service) exportDeployments(w http.ResponseWriter, r *httpapi.Request) error {
	f, err := deploymentFilter(r)
	if err != nil {
		return err
	}
	streams := s.streamsOf(r.Identity.Account)
	x, err := s.extent(r, streams)
	if err != nil {
		return err
	}
	if err := s.nameDeployments(r, &f); err != nil {
		return err
	}
	f.Changed = x.changed(streams)
	return export(w, r, "deployments", x.place(streams), pages(exportPage, (*readmodel.RunRow).Key, func(p readmodel.Page) ([]readmodel.RunRow, error) {
		return s.model.Deployments(r.Context(), r.Identity.Account, f, p)
	}), exportedDeploymentOf)
}

func (s *Service) exportBuilds(w http.ResponseWriter, r *httpapi.Request) error {
	f, err := filter(r, "built_by")
	if err != nil {
		return err
	}
	streams := s.streamsOf(r.Identity.Account)
	x, err := s.extent(r, streams)
	if err != nil {
		return err
	}
	if f.Product, err = s.product(r); err != nil {
		return err
	}
	f.Changed = x.changed(streams)
	return export(w, r, "builds", x.place(streams), pages(exportPage, (*readmodel.RunRow).Key, func(p readmodel.Page) ([]readmodel.RunRow, error) {
		return s.model.Builds(r.Context(), r.Identity.Account, f, p)
	}), exportedBuildOf)
}

func (s *Service) exportEvents(w http.ResponseWriter, r *httpapi.Request) error {
	streams := s.auditStreams(r.Identity.Account)
	x, err := s.extent(r, streams)
	if err != nil {
		return err
	}
	spans := readmodel.Spans{}
	for _, p := range x.upTo {
		spans[p.Stream] = readmodel.Span{After: x.from[p.Stream], UpTo: p.Offset}
	}
	f := eventFilter(r)
	return export(w, r, "events", x.place(streams), func(yield func([]readmodel.EventRow, error) bool) {
		for {
			rows, err := s.model.Events(r.Context(), r.Identity.Account, f, spans, false, exportPage)
			if !yield(rows, err) || err != nil || len(rows) < exportPage {
				return
			}
			spans = spans.Rest(rows, false)
		}
	}, exportedEventOf)
}

func (s *Service) exportCells(w http.ResponseWriter, r *httpapi.Request) error {
	streams := s.streamsOf(r.Identity.Account)
	x, err := s.extent(r, streams)
	if err != nil {
		return err
	}
	f, err := s.matrixFilter(r)
	if err != nil {
		return err
	}
	changed := x.changed(streams)
	return export(w, r, "cells", x.place(streams), func(yield func([]exportedCell, error) bool) {
		p := readmodel.Page{Limit: exportProducts}
		for {
			m, err := s.model.Matrix(r.Context(), r.Identity.Account, f, p)
			if !yield(exportedCellsOf(&m, changed), err) || err != nil || !m.More {
				return
			}
			p.After = m.Items[len(m.Items)-1].Key()
		}
	}, func(c *exportedCell) exportedCell { return *c })
}

// pages walks a list to its end.
func pages[R any](limit int, key func(*R) string, list func(readmodel.Page) ([]R, error)) iter.Seq2[[]R, error] {
	return func(yield func([]R, error) bool) {
		p := readmodel.Page{Limit: limit}
		for {
			rows, err := list(p)
			if !yield(rows, err) || err != nil || len(rows) < limit {
				return
			}
			p.After = key(&rows[len(rows)-1])
		}
	}
}

// export writes what pages give, a page at a time. An error in the middle cuts
// the connection, so that nobody takes a part for the whole: what has no proper
// end is not complete.
func export[R, T any](w http.ResponseWriter, r *httpapi.Request, what, place string, pages iter.Seq2[[]R, error], as func(*R) T) error {
	f := formatOf(r)
	next, stop := iter.Pull2(pages)
	defer stop()
	rows, err, more := next() // before the answer begins, so that what fails at once is answered as an error
	if err != nil {
		return err
	}
	if err := r.Reverify(); err != nil { // contract 3.3
		return err
	}
	h := w.Header()
	h.Set("Content-Type", f.mediaType)
	h.Set("Content-Disposition", `attachment; filename="`+what+"_"+strings.ReplaceAll(place, ",", "_")+"."+f.name+`"`)
	h.Set("Cache-Control", "no-store")
	h.Set(httpapi.PositionHeader, place)
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	control := http.NewResponseController(w)
	out := newTable[T](f.name, w)
	var shown []T
	for more {
		_ = control.SetWriteDeadline(time.Now().Add(exportTimeout)) // not every connection has one
		shown = shown[:0]
		for i := range rows {
			shown = append(shown, as(&rows[i]))
		}
		if err := out.write(shown); err != nil {
			return err
		}
		if rows, err, more = next(); err != nil {
			return err
		}
		if err := r.Reverify(); err != nil { // an export of a revoked credential does not go on
			return err
		}
	}
	return out.close()
}

// A format is how rows are written.
type format struct{ name, mediaType string }

var formats = []format{
	{"ndjson", "application/x-ndjson"},
	{"csv", "text/csv"},
	{"parquet", "application/vnd.apache.parquet"},
}

// formatOf gives what the caller asks for: by name, else by media type, else
// NDJSON.
func formatOf(r *httpapi.Request) format {
	name := r.QueryString("format")
	for _, f := range formats {
		if name == f.name {
			return f
		}
	}
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		media, _, _ := strings.Cut(part, ";")
		if i := slices.IndexFunc(formats, func(f format) bool { return strings.EqualFold(strings.TrimSpace(media), f.mediaType) }); i >= 0 {
			return formats[i]
		}
	}
	return formats[0]
}

// Columns gives the columns of each export, in their order.
func Columns() map[string][]string {
	return map[string][]string{
		"deployments": columnsOf[exportedDeployment](), "builds": columnsOf[exportedBuild](),
		"events": columnsOf[exportedEvent](), "cells": columnsOf[exportedCell](),
	}
}
