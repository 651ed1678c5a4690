package chmodel

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// The column rest of a run holds, in this order: the form that it is written in, a
// byte; what is so of it, a byte of bits; Seen, a byte; the incarnations, a number;
// three moments; the commit where it is a digest; the texts of restTexts; extra as an
// object, or nothing. A number is written as encoding/binary's
// uvarint, a text as its length and its bytes, a moment as restMoment says.
// Everything comes back as it was; moments are of milliseconds.

const restColumn = "rest"

// restForm is the form that this file writes, the only one there is.
const restForm = 2

const (
	restMismatch = 1 << iota // SHAMismatch
	restBackfilled
	restDigest // the commit is 20 bytes, and not among the texts
)

// restTexts are the texts of rest; the status is its word.
func restTexts(r *readmodel.RunRow, status *string) [19]*string {
	a := &r.Record.Attributes
	return [...]*string{
		&r.Position.Stream, (*string)(&r.Author.Mode), &r.Author.CredentialID, &r.Author.CredentialName, &r.Author.Actor,
		status, &r.Record.Version, &a[event.SourceSystem], &a[event.SCMRepository], &a[event.SCMBranch], &a[event.SCMSHA],
		&a[event.BuildNumber], &a[event.InvokeID], &a[event.URL], &a[event.By], &a[event.ByEmail], &a[event.ByName], &a[event.ErrorCode], &a[event.ErrorMessage],
	}
}

func appendRest(dst []byte, r *readmodel.RunRow) []byte {
	rec := &r.Record
	var bits byte
	if rec.SHAMismatch {
		bits |= restMismatch
	}
	if r.Backfilled {
		bits |= restBackfilled
	}
	digest := digestOf(rec.Attributes[event.SCMSHA])
	if digest != noDigest {
		bits |= restDigest
	}
	dst = append(dst, restForm, bits, byte(rec.Seen))
	dst = binary.AppendUvarint(dst, uint64(inc(rec)))
	after := restBegin(rec)
	for _, t := range restMoments(rec) {
		dst = appendRestMoment(dst, *t, &after)
	}
	if digest != noDigest {
		dst = append(dst, digest[:]...)
	}
	status := rec.Status.String()
	for _, text := range restTexts(r, &status) {
		if text == &rec.Attributes[event.SCMSHA] && digest != noDigest {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(*text)))
		dst = append(dst, *text...)
	}
	begin := len(dst)
	dst = appendExtra(dst, rec.Extra)
	var length [binary.MaxVarintLen64]byte
	return slices.Insert(dst, begin, binary.AppendUvarint(length[:0], uint64(len(dst)-begin))...) //nolint:gosec // a length
}

func restMoments(rec *event.Record) [3]*time.Time {
	return [...]*time.Time{&rec.CreatedAt, &rec.StartedAt, &rec.CompletedAt}
}

// restBegin is the moment of a run's id, from which the moments are counted.
func restBegin(rec *event.Record) int64 {
	return int64(rec.ID.Time()) //nolint:gosec // of 48 bits
}

// appendRestMoment writes 0 for none, else how many milliseconds a moment lies behind
// the one before it, doubled so that the last bit is the sign, and one more.
func appendRestMoment(dst []byte, t time.Time, after *int64) []byte {
	if t.IsZero() {
		return append(dst, 0)
	}
	ms := t.UnixMilli()
	d := ms - *after
	*after = ms
	return binary.AppendUvarint(dst, uint64(d<<1^d>>63)+1) //nolint:gosec // bits
}

var errRest = errors.New("the column rest of a run is not as it is written")

// readRest fills in what rest holds of a run whose id is known. The texts share the
// memory of text.
func readRest(text string, r *readmodel.RunRow) error {
	if len(text) < 3 || text[0] != restForm {
		return errRest
	}
	rec := &r.Record
	rec.SHAMismatch, r.Backfilled, rec.Seen = text[1]&restMismatch != 0, text[1]&restBackfilled != 0, event.StatusSet(text[2])
	in := restReader{left: text[3:]}
	incarnations := in.number()
	rec.ProductIncarnation, rec.EnvironmentIncarnation = uint16(incarnations>>16), uint16(incarnations) //nolint:gosec // two halves
	after := restBegin(rec)
	for _, t := range restMoments(rec) {
		*t = in.moment(&after)
	}
	digest := ""
	if text[1]&restDigest != 0 {
		digest = in.bytes(len(noDigest))
	}
	var status string
	for _, held := range restTexts(r, &status) {
		*held = in.text()
	}
	if digest != "" {
		rec.Attributes[event.SCMSHA] = hex.EncodeToString([]byte(digest))
	}
	rec.Status, _ = event.StatusOf(status)
	rec.Extra = event.DecodeExtra(jsontext.Value(in.text()), event.Stamp{})
	if in.bad || in.left != "" {
		return errRest
	}
	return nil
}

// restReader reads what appendRest wrote. Behind what it cannot read it gives nothing.
type restReader struct {
	left string
	bad  bool
}

func (r *restReader) number() (n uint64) {
	for i := range min(len(r.left), binary.MaxVarintLen64) {
		b := r.left[i]
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.left = r.left[i+1:]
			return n
		}
	}
	r.left, r.bad = "", true
	return 0
}

func (r *restReader) text() string {
	n := r.number()
	if n > uint64(len(r.left)) {
		r.left, r.bad = "", true
		return ""
	}
	return r.bytes(int(n)) //nolint:gosec // no longer than what is left
}

func (r *restReader) bytes(n int) string {
	if n > len(r.left) {
		r.left, r.bad = "", true
		return ""
	}
	text := r.left[:n]
	r.left = r.left[n:]
	return text
}

func (r *restReader) moment(after *int64) time.Time {
	n := r.number()
	if n == 0 {
		return time.Time{}
	}
	n--
	*after += int64(n>>1) ^ -int64(n&1) //nolint:gosec // bits
	return moment(*after)
}

// restColumns shows what a run holds in no other column, or in none of dep_by_env.
func restColumns(id [16]byte, text string) (map[string]string, error) {
	var r readmodel.RunRow
	r.Record.ID = id
	if err := readRest(text, &r); err != nil {
		return nil, err
	}
	rec, a := &r.Record, &r.Record.Attributes
	instant := func(t time.Time) string { return t.Format(time.RFC3339Nano) }
	return map[string]string{
		"seen": strconv.Itoa(int(rec.Seen)), "created_ms": instant(rec.CreatedAt), "started_ms": instant(rec.StartedAt), "completed_ms": instant(rec.CompletedAt),
		"scm_sha": a[event.SCMSHA], "invoke_id": a[event.InvokeID], "extra": string(appendExtra(nil, rec.Extra)),
		"done_by": a[event.By], "done_by_email": a[event.ByEmail], "done_by_name": a[event.ByName],
		"build_number": a[event.BuildNumber], "scm_branch": a[event.SCMBranch], "scm_repository": a[event.SCMRepository], "url": a[event.URL],
		"error_message": a[event.ErrorMessage], "error_code": a[event.ErrorCode], "sha_mismatch": strconv.FormatBool(rec.SHAMismatch),
		"credential_id": r.Author.CredentialID, "credential_name": r.Author.CredentialName, "actor": r.Author.Actor, "backfilled": strconv.FormatBool(r.Backfilled),
	}, nil
}
