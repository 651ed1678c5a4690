package readmodel

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// Audit answers what happened: every event of an account, whatever became of
// what it was about.
type Audit interface {
	// Events gives up to limit events that f lets through, drawn from a span of
	// each stream. They come in the order of EventsInOrder.
	Events(ctx context.Context, account string, f EventFilter, spans Spans, newest bool, limit int) ([]EventRow, error)
	// Writes sums up the events that f lets through, up to limit groups: the
	// largest first, then by Type, Product and Environment.
	Writes(ctx context.Context, account string, f EventFilter, limit int) ([]WriteGroup, error)
	// Event gives the event with an id.
	Event(ctx context.Context, account string, id ulid.ULID) (EventRow, error)
}

// A Span is a part of a stream: what stands after After, up to UpTo.
type Span struct{ After, UpTo event.Offset }

// Spans gives the part of each stream that an answer is drawn from; a stream
// that is not named gives nothing.
type Spans map[string]Span

// EventFilter narrows lists of events. Zero members do not narrow. Since
// (inclusive) and Until (exclusive) compare ReceivedAt, in milliseconds.
type EventFilter struct {
	Family     string // what the type begins with, before its dot
	Type       event.Type
	Credential string // the public id of the credential that wrote it
	Subject    string
	Actor      string // a user id
	Mode       event.Mode
	Since      time.Time
	Until      time.Time
}

// Matches tells whether f lets an event through.
func (f *EventFilter) Matches(r *EventRow) bool {
	received := r.ReceivedAt.UnixMilli()
	return (f.Family == "" || r.Type.Family() == f.Family) &&
		(f.Type == "" || r.Type == f.Type) &&
		(f.Credential == "" || r.Author.CredentialID == f.Credential) &&
		(f.Subject == "" || r.Subject == f.Subject) &&
		(f.Actor == "" || r.Author.Actor == f.Actor) &&
		(f.Mode == "" || r.Author.Mode == f.Mode) &&
		(f.Since.IsZero() || received >= f.Since.UnixMilli()) &&
		(f.Until.IsZero() || received < f.Until.UnixMilli())
}

// EventsInOrder merges the events of several streams, each in the order of its
// offsets or against it, into one list of up to limit: of the streams' next
// events the one received first (newest: last) comes first. Within a stream the
// offset alone decides, so that a list may end anywhere and go on from there,
// whatever is stored meanwhile. The rows of a stream may hold copies.
func EventsInOrder(streams [][]EventRow, newest bool, limit int) []EventRow {
	before := func(a, b *EventRow) int {
		order := cmp.Or(cmp.Compare(a.ReceivedAt.UnixMilli(), b.ReceivedAt.UnixMilli()), cmp.Compare(a.Position.Stream, b.Position.Stream))
		if newest {
			return -order
		}
		return order
	}
	streams = slices.Clone(streams)
	var out []EventRow
	for len(out) < limit {
		next := -1
		for i := range streams {
			if len(streams[i]) > 0 && (next < 0 || before(&streams[i][0], &streams[next][0]) < 0) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		row := streams[next][0]
		for len(streams[next]) > 0 && streams[next][0].Position == row.Position {
			streams[next] = streams[next][1:]
		}
		out = append(out, row)
	}
	return out
}

// Rest gives what is left of the spans behind a page that ended with rows.
func (s Spans) Rest(rows []EventRow, newest bool) Spans {
	rest := maps.Clone(s)
	for i := range rows {
		p := rows[i].Position
		span := rest[p.Stream]
		if newest {
			span.UpTo = min(span.UpTo, p.Offset-1)
		} else {
			span.After = max(span.After, p.Offset)
		}
		rest[p.Stream] = span
	}
	return rest
}

// A WriteGroup is what events of a type said of a product and an environment, by
// the names that the requests gave; those are empty for what is no request.
type WriteGroup struct {
	Type        event.Type
	Product     string
	Environment string
	Events      int
	First, Last time.Time // receipt
}
