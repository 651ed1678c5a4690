package readmodeltest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// auditQuestions walks the events of an account to their end, by pages.
func (h *history) auditQuestions(ctx context.Context, a *account, limit int) []question {
	filters := []readmodel.EventFilter{
		{},
		{Family: "deployment"},
		{Family: "deploy"}, // only whole words count
		{Type: event.ProductCreated},
		{Credential: "k1"},
		{Actor: "u1", Mode: event.Test},
		{Subject: a.products[0].String()},
		{Since: epoch.Add(500 * time.Millisecond), Until: epoch.Add(1500*time.Millisecond + 500*time.Microsecond)},
	}
	middle := event.At(uint64(len(h.events)/6+1), 1)
	var out []question
	for _, f := range filters {
		out = append(out, question{fmt.Sprintf("writes of %s %+v by %d", a.name, f, limit), func(r readmodel.Reader) (any, error) {
			return r.Writes(ctx, a.name, f, limit)
		}})
		for _, span := range []readmodel.Span{{UpTo: math.MaxInt64}, {After: middle, UpTo: math.MaxInt64}, {UpTo: middle}} {
			for _, newest := range []bool{true, false} {
				text := fmt.Sprintf("events of %s %+v in %+v, newest first %t, by %d", a.name, f, span, newest, limit)
				out = append(out, question{text, func(r readmodel.Reader) (any, error) {
					return allEvents(ctx, r, a.name, f, readmodel.Spans{h.stream: span}, newest, limit)
				}})
			}
		}
	}
	return out
}

func allEvents(ctx context.Context, r readmodel.Reader, account string, f readmodel.EventFilter, spans readmodel.Spans, newest bool, limit int) ([]readmodel.EventRow, error) {
	var out []readmodel.EventRow
	for {
		rows, err := r.Events(ctx, account, f, spans, newest, limit)
		if err != nil {
			return nil, err
		}
		if len(rows) > limit {
			return nil, fmt.Errorf("%d rows in a page of %d", len(rows), limit)
		}
		out = append(out, rows...)
		if len(rows) < limit {
			return out, nil
		}
		spans = spans.Rest(rows, newest)
	}
}

// auditAcrossStreams shows the order of a list, and that a walk from the newest
// on yields what there was once while others arrive.
func auditAcrossStreams(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	n := serial.Add(1)
	account, track := fmt.Sprintf("acc%d", n), event.TrackStream(int(n%10000))
	add := func(stream string, seq uint64, index, ms int) {
		t.Helper()
		r := readmodel.EventRow{
			Account: account, Position: event.Position{Stream: stream, Offset: event.At(seq, index)}, Type: "deployment.completed",
			ID:         ulid.MustNew(uint64(ms), nil),
			ReceivedAt: epoch.Add(time.Duration(ms) * time.Millisecond).UTC(), EffectiveAt: epoch.UTC(),
		}
		for range 2 { // a copy more, in a part of its own
			if err := sink.Store(t.Context(), &readmodel.Rows{Events: []readmodel.EventRow{r}}, readmodel.Progress{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(track, 1, 0, 10)
	add(track, 1, 1, 10)
	add(event.CredentialStream, uint64(n), 0, 5)
	add(event.CredentialStream, uint64(n)+1, 0, 15)
	add(track, 2, 0, 20)
	add(event.CredentialStream, uint64(n)+2, 0, 20)
	spans := readmodel.Spans{
		track:                  {UpTo: event.At(2, 0)},
		event.CredentialStream: {After: event.At(uint64(n), 0) - 1, UpTo: event.At(uint64(n)+2, 0)},
	}
	at := func(stream string, seq uint64, index int) string {
		return event.Position{Stream: stream, Offset: event.At(seq, index)}.String()
	}
	want := []string{
		at(track, 2, 0), at("c", uint64(n)+2, 0), at("c", uint64(n)+1, 0), at(track, 1, 1), at(track, 1, 0), at("c", uint64(n), 0),
	}
	for _, limit := range []int{1, 2, 4, 10} {
		var got []string
		for left := spans; ; {
			rows, err := reader.Events(t.Context(), account, readmodel.EventFilter{}, left, true, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				got = append(got, r.Position.String())
			}
			if len(rows) < limit {
				break
			}
			left = left.Rest(rows, true)
			add(track, uint64(2+limit), len(got), 30) // after the walk began
			add(event.CredentialStream, uint64(n)+3, 0, 1)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("by %d (-want +got):\n%s", limit, diff)
		}
	}
}

// auditOfOperations shows that the decisions of the stream of operations, in which
// those of all accounts stand side by side, are each account's own.
func auditOfOperations(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	n := uint64(serial.Add(1))
	accounts := []string{fmt.Sprintf("one%d", n), fmt.Sprintf("two%d", n)}
	const operations = "o" // the stream's short name
	types := []event.Type{"replay.started", "quarantine.discarded", "replay.verified", "quarantine.redriven", "replay.switched", "replay.undone"}
	first := n * 100
	want, ids := map[string][]string{}, map[string]ulid.ULID{}
	var rows readmodel.Rows
	for i, kind := range types {
		account := accounts[i%len(accounts)]
		r := readmodel.EventRow{
			Account: account, Position: event.Position{Stream: operations, Offset: event.At(first+uint64(i), 0)}, Type: kind, Subject: "about " + account,
			ID: ulid.MustNew(first+uint64(i), nil), ReceivedAt: epoch.UTC(), EffectiveAt: epoch.UTC(), Request: `{"of":"` + account + `"}`,
		}
		rows.Events = append(rows.Events, r)
		want[account] = append(want[account], string(kind)+" "+r.Request)
		ids[account] = r.ID
	}
	if err := sink.Store(t.Context(), &rows, readmodel.Progress{}); err != nil {
		t.Fatal(err)
	}
	spans := readmodel.Spans{operations: {After: event.At(first, 0) - 1, UpTo: event.At(first+uint64(len(types)), 0)}}
	for i, account := range accounts {
		other := accounts[1-i]
		got := func(f readmodel.EventFilter) (out []string) {
			t.Helper()
			found, err := reader.Events(t.Context(), account, f, spans, false, 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range found {
				out = append(out, string(r.Type)+" "+r.Request)
			}
			return out
		}
		if diff := cmp.Diff(want[account], got(readmodel.EventFilter{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", account, diff)
		}
		var replays []string
		for _, line := range want[account] {
			if strings.HasPrefix(line, "replay.") {
				replays = append(replays, line)
			}
		}
		if diff := cmp.Diff(replays, got(readmodel.EventFilter{Family: "replay"})); diff != "" {
			t.Errorf("the replays of %s (-want +got):\n%s", account, diff)
		}
		if found := got(readmodel.EventFilter{Subject: "about " + other}); len(found) > 0 {
			t.Errorf("%s reads what is about %s: %v", account, other, found)
		}
		if _, err := reader.Event(t.Context(), account, ids[account]); err != nil {
			t.Error(err)
		}
		if _, err := reader.Event(t.Context(), account, ids[other]); !errors.Is(err, readmodel.ErrNotFound) {
			t.Errorf("%s reads an event of %s: %v", account, other, err)
		}
	}
}
