// Package projection turns events into rows of the read model.
//
// Project is a pure function and Pump is the only loop: live projection,
// rebuilds and tests differ in the source and the sink that they hand to it.
package projection

import (
	"slices"
	"unsafe"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/quarantine"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/replay"
)

// Project appends to rows what one event contributes. It reads no clock, does
// no I/O and keeps no state: the same event always gives the same rows, so
// projecting it twice is harmless. It reports false for an event of a type that
// it does not know, which is not ours to judge: it contributes its own row only.
func Project(r event.Recorded, rows *readmodel.Rows) (known bool) {
	known = true
	switch p := r.Payload.(type) {
	case *event.Run:
		projectRun(r, p, rows)
	case *event.Product:
		projectName(r, readmodel.ProductObject, p.Name, [16]byte(p.ID), [16]byte(event.ProductIDOf(r.Account, p.Name)), rows)
		rows.Products = append(rows.Products, readmodel.ProductRow{Product: *p, Account: r.Account, Position: r.Position})
	case *event.Environment:
		projectName(r, readmodel.EnvironmentObject, p.Name, [16]byte(p.ID), [16]byte(event.EnvironmentIDOf(r.Account, p.Name)), rows)
		rows.Environments = append(rows.Environments, readmodel.EnvironmentRow{Environment: *p, Account: r.Account, Position: r.Position})
	case *event.Release:
		rows.Releases = append(rows.Releases, readmodel.ReleaseRow{Release: *p, Account: r.Account, Position: r.Position})
	case *event.Settings: // in the audit log only: the write side answers what they are
	case *event.Version:
		rows.Versions = append(rows.Versions, readmodel.VersionRow{Version: *p, Account: r.Account, Position: r.Position})
	case event.Opaque:
		known = credential.Known(p.Schema) || replay.Known(p.Schema) || quarantine.Known(p.Schema) // in the audit log only
	default:
		known = false
	}
	rows.Events = append(rows.Events, Row(&r))
	return known
}

// Row gives an event's own row.
func Row(r *event.Recorded) readmodel.EventRow {
	row := readmodel.EventRow{
		Account: r.Account, Position: r.Position, ID: r.ID, Type: r.Type, Subject: r.Subject,
		ReceivedAt: r.Time, EffectiveAt: r.Time, Author: r.Author, Backfilled: r.Backfilled, Request: text(data(&r.Event)),
	}
	if p, ok := r.Payload.(*event.Run); ok {
		row.EffectiveAt, row.Flag = p.EffectiveAt, p.Flag
		row.Status = r.ReportedStatus().String()
	}
	return row
}

// text gives bytes that nobody changes as they are. A copy of each request was a tenth of
// the garbage of a rebuild.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// data gives what people may read of an event's data: of a run the body as it
// was received, of anything else what the event says, without what tells a
// secret. It is nil where there is nothing, or nobody has said what may be read.
func data(e *event.Event) []byte {
	switch p := e.Payload.(type) {
	case *event.Run:
		return p.Request
	case event.Opaque:
		if credential.Known(p.Schema) {
			return credential.Shown(p)
		}
		return credential.RedactIn(slices.Concat(replay.Shown(e), quarantine.Shown(e))) // it is one of them at most
	default:
		return credential.RedactIn(event.AppendData(nil, e))
	}
}

// projectName keeps what a name means where its id does not say it. A rename
// back to a name takes it from whatever it meant meanwhile.
func projectName(r event.Recorded, object readmodel.Object, name string, id, derived [16]byte, rows *readmodel.Rows) {
	if id == derived && r.Type != event.ProductRenamed && r.Type != event.EnvironmentRenamed {
		return
	}
	rows.Names = append(rows.Names, readmodel.NameRow{Account: r.Account, Object: object, Name: name, ID: id, Position: r.Position})
}

func projectRun(r event.Recorded, p *event.Run, rows *readmodel.Rows) {
	runs := &rows.Deployments
	if p.Record.Kind == event.Build {
		runs = &rows.Builds
	}
	*runs = append(*runs, readmodel.RunRow{Record: p.Record, Author: r.Author, Backfilled: r.Backfilled, Position: r.Position})
	rec := &(*runs)[len(*runs)-1].Record
	rec.Receipts = nil // they serve the write side only, as do the stamps
	clear(rec.AttributeStamps[:])
	if rec.Kind == event.Build {
		return
	}
	switch rec.Status {
	case event.Completed:
		rows.Cells = append(rows.Cells, readmodel.Cell{Record: *rec, EffectiveAt: rec.CompletedAt, ReceivedAt: r.Time, Position: r.Position})
	case event.Failed, event.Aborted:
		rows.Attempts = append(rows.Attempts, readmodel.Attempt{Record: *rec, At: rec.CompletedAt, ReceivedAt: r.Time, Position: r.Position})
	case event.Started:
		rows.Attempts = append(rows.Attempts, readmodel.Attempt{Record: *rec, At: rec.StartedAt, ReceivedAt: r.Time, Position: r.Position})
	case event.Pending, event.PreflightFailed: // neither runs nor ran
	}
}
