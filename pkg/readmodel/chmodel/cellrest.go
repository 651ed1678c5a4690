package chmodel

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"strconv"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
)

// What a cell is beside its key, id and version stands in two columns. The column shown
// is what the matrix shows: the form that it is written in, a byte; what is so of it, a
// byte of bits; the texts of cellHead; of a success also those of cellShown, of which a
// commit that is a digest is its 20 bytes. The column rest is the others: those of
// cellShown for an attempt, those of cellHidden, and three moments. Numbers, texts and
// moments are written as in the rest of a run.

const shownColumn = "shown"

// cellForm is the form that this file writes, the only one there is.
const cellForm = 1

const (
	cellSucceeded = 1 << iota // the texts of cellShown are in shown, not in rest
	cellMismatch              // SHAMismatch
	cellDigest                // the commit is 20 bytes, and not among the texts
)

// cellHead are the texts that the matrix shows of attempts, too.
func cellHead(stream, status, version *string) [3]*string {
	return [...]*string{stream, status, version}
}

func cellShown(a *event.Attributes) [4]*string {
	return [...]*string{&a[event.SCMSHA], &a[event.BuildNumber], &a[event.URL], &a[event.By]}
}

func cellHidden(a *event.Attributes) [2]*string {
	return [...]*string{&a[event.ByEmail], &a[event.ByName]}
}

func cellBits(rec *event.Record, succeeded bool) (bits byte) {
	if succeeded {
		bits |= cellSucceeded
	}
	if digestOf(rec.Attributes[event.SCMSHA]) != noDigest {
		bits |= cellDigest
	}
	return bits
}

// appendCell writes the column shown. That of a period is the same, so that a mismatch
// is in rest.
func appendCell(dst []byte, rec *event.Record, stream string, succeeded bool) []byte {
	bits := byte(0)
	if succeeded {
		bits = cellBits(rec, succeeded)
	}
	dst = append(dst, cellForm, bits)
	status := rec.Status.String()
	for _, s := range cellHead(&stream, &status, &rec.Version) {
		dst = appendCellText(dst, *s)
	}
	if succeeded {
		dst = appendCellShown(dst, &rec.Attributes)
	}
	return dst
}

func appendCellRest(dst []byte, rec *event.Record, succeeded bool) []byte {
	bits := cellBits(rec, succeeded)
	if rec.SHAMismatch {
		bits |= cellMismatch
	}
	dst = append(dst, cellForm, bits)
	if !succeeded {
		dst = appendCellShown(dst, &rec.Attributes)
	}
	for _, s := range cellHidden(&rec.Attributes) {
		dst = appendCellText(dst, *s)
	}
	after := restBegin(rec)
	for _, t := range restMoments(rec) {
		dst = appendRestMoment(dst, *t, &after)
	}
	return dst
}

func appendCellShown(dst []byte, a *event.Attributes) []byte {
	shown := cellShown(a)
	if digest := digestOf(*shown[0]); digest != noDigest {
		dst = append(dst, digest[:]...)
	} else {
		dst = appendCellText(dst, *shown[0])
	}
	for _, s := range shown[1:] {
		dst = appendCellText(dst, *s)
	}
	return dst
}

func appendCellText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// cellRest reads what appendCell and appendCellRest wrote. Texts share the memory of what is read.
type cellRest struct {
	restReader

	bits byte
}

func openCell(text string) cellRest {
	if len(text) < 2 || text[0] != cellForm {
		return cellRest{restReader{bad: true}, 0}
	}
	return cellRest{restReader{left: text[2:]}, text[1]}
}

// head reads what the matrix shows of attempts, too.
func (r *cellRest) head() (stream, version string, status event.Status) {
	var word string
	for _, s := range cellHead(&stream, &word, &version) {
		*s = r.text()
	}
	status, _ = event.StatusOf(word)
	return stream, version, status
}

// shown reads what the matrix shows of a success beside the head.
func (r *cellRest) shown(a *event.Attributes) {
	shown := cellShown(a)
	switch {
	case r.bits&cellDigest == 0:
		*shown[0] = r.text()
	case len(r.left) < len(noDigest):
		r.left, r.bad = "", true
	default:
		var text [2 * len(noDigest)]byte
		hex.Encode(text[:], []byte(r.left[:len(noDigest)]))
		*shown[0], r.left = string(text[:]), r.left[len(noDigest):]
	}
	for _, s := range shown[1:] {
		*s = r.text()
	}
}

// hidden reads the others.
func (r *cellRest) hidden(rec *event.Record) {
	rec.SHAMismatch = r.bits&cellMismatch != 0
	for _, s := range cellHidden(&rec.Attributes) {
		*s = r.text()
	}
	after := restBegin(rec)
	for _, t := range restMoments(rec) {
		*t = r.moment(&after)
	}
}

// err tells whether all was read, and nothing more was there.
func (r *cellRest) err() error {
	if r.bad || r.left != "" {
		return errRest
	}
	return nil
}

// readCell fills in what shown and rest hold of a cell whose id is known.
func readCell(shown, rest string, rec *event.Record) (stream string, err error) {
	first, second := openCell(shown), openCell(rest)
	stream, rec.Version, rec.Status = first.head()
	of := &first
	if second.bits&cellSucceeded == 0 {
		of = &second
	}
	of.shown(&rec.Attributes)
	second.hidden(rec)
	return stream, cmp.Or(first.err(), second.err())
}

// cellRestColumns shows what no other column of a cell holds.
func cellRestColumns(id [16]byte, shown, rest string) (map[string]string, error) {
	rec := event.Record{ID: id}
	if _, err := readCell(shown, rest, &rec); err != nil {
		return nil, err
	}
	instant := func(t time.Time) string { return t.Format(time.RFC3339Nano) }
	out := cellNames(&rec)
	maps.Copy(out, map[string]string{
		"created_ms": instant(rec.CreatedAt), "started_ms": instant(rec.StartedAt), "completed_ms": instant(rec.CompletedAt),
		"done_by_email": rec.Attributes[event.ByEmail], "done_by_name": rec.Attributes[event.ByName], "sha_mismatch": strconv.FormatBool(rec.SHAMismatch),
	})
	return out, nil
}

// cellShownColumns does so for a row that has the column shown only.
func cellShownColumns(shown string) (map[string]string, error) {
	var rec event.Record
	r := openCell(shown)
	_, rec.Version, rec.Status = r.head()
	if r.bits&cellSucceeded != 0 {
		r.shown(&rec.Attributes)
	}
	return cellNames(&rec), r.err()
}

func cellNames(rec *event.Record) map[string]string {
	a := &rec.Attributes
	return map[string]string{"status": rec.Status.String(), "scm_sha": a[event.SCMSHA], "build_number": a[event.BuildNumber], "url": a[event.URL], "done_by": a[event.By]}
}
