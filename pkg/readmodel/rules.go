package readmodel

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// At is the moment that RunFilter.Since and Until compare: the completion of a
// finished run, else when it was deployed (contract 5).
func (r *RunRow) At() time.Time {
	if !r.Record.Open() && !r.Record.CompletedAt.IsZero() {
		return r.Record.CompletedAt
	}
	return r.Record.DeployedAt()
}

// Kept gives the part of a record that rows of runs keep: stamps and receipts
// serve the write side only, and tables hold UTC milliseconds.
func Kept(rec event.Record) event.Record {
	kept := rec
	kept.AttributeStamps, kept.Receipts, kept.Extra = event.Record{}.AttributeStamps, nil, nil
	for k, x := range rec.Extra {
		if kept.Extra == nil {
			kept.Extra = make(map[string]event.Extra, len(rec.Extra))
		}
		kept.Extra[k] = event.Extra{Value: x.Value}
	}
	kept.CreatedAt, kept.StartedAt, kept.CompletedAt = Moment(rec.CreatedAt), Moment(rec.StartedAt), Moment(rec.CompletedAt)
	return kept
}

// Brief gives the part of a record that cells and attempts keep: what the
// matrix shows (contract 15). Those tables are read whole, so they are narrow.
func Brief(rec event.Record) event.Record {
	b := Kept(rec)
	b.Extra, b.Seen = nil, 0
	b.Attributes = event.Attributes{}
	for _, a := range []event.Attribute{event.SCMSHA, event.BuildNumber, event.URL, event.By, event.ByEmail, event.ByName} {
		b.Attributes[a] = rec.Attributes[a]
	}
	return b
}

// Moment gives t as the tables hold it: milliseconds, UTC.
func Moment(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }

func badCursor(after string, cause error) error {
	return fault.New(fault.Unprocessable, "INVALID_CURSOR", "the cursor was not given by this list").
		Because(fmt.Errorf("key %q: %w", after, cause))
}

// ParseRunKey reads what RunRow.Key gave.
func ParseRunKey(after string) (ulid.ULID, error) {
	id, err := ulid.ParseStrict(after)
	if err != nil {
		return id, badCursor(after, err)
	}
	return id, nil
}

const versionKeyTime = "20060102T150405.000"

// ParseVersionKey reads what VersionRow.Key gave.
func ParseVersionKey(after string) (time.Time, event.VersionID, error) {
	stamp, text, ok := strings.Cut(after, "/")
	if !ok {
		return time.Time{}, event.VersionID{}, badCursor(after, errors.New("no slash"))
	}
	at, err := time.Parse(versionKeyTime, stamp)
	if err != nil {
		return time.Time{}, event.VersionID{}, badCursor(after, err)
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return time.Time{}, event.VersionID{}, badCursor(after, err)
	}
	return at, event.VersionID(id), nil
}
