package event

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/oklog/ulid/v2"
)

// ContentType is the media type of a frame.
const ContentType = "application/cloudevents-batch+json"

// AppendFrame appends the CloudEvents batch of events, which stand at seq, to
// dst. The same events at the same place give the same bytes.
func AppendFrame(dst []byte, seq uint64, events []Event) []byte {
	dst = append(dst, '[')
	for i := range events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendEvent(dst, &events[i], At(seq, i))
	}
	return append(dst, ']')
}

// AppendEvent appends one CloudEvent. The offset is the event's own: what a
// record owes to this very event is left out and restored from it.
func AppendEvent(dst []byte, e *Event, at Offset) []byte {
	w := writer{dst}
	w.raw(`{"specversion":"1.0","id":"`)
	w.id(e.ID)
	w.raw(`","source":`)
	w.text("/accounts/" + e.Account)
	w.member("type", string(e.Type))
	w.member("subject", e.Subject)
	w.instant("time", e.Time)
	w.member("dataschema", e.Payload.schema())
	w.raw(`,"datacontenttype":"application/json"`)
	w.memberIf("credentialid", e.CredentialID)
	w.memberIf("credentialname", e.CredentialName)
	w.memberIf("mode", string(e.Mode))
	w.memberIf("actor", e.Actor)
	w.memberIf("idempotencykey", e.IdempotencyKey)
	if e.Backfilled {
		w.raw(`,"backfilled":true`)
	}
	w.raw(`,"data":`)
	w.data(e, at)
	w.raw(`}`)
	return w.dst
}

// AppendData appends the data of an event that is about no run, as AppendEvent
// writes it.
func AppendData(dst []byte, e *Event) []byte {
	w := writer{dst}
	w.data(e, 0)
	return w.dst
}

type writer struct{ dst []byte }

// data writes what happened; at is the event's own place, see AppendEvent.
func (w *writer) data(e *Event, at Offset) {
	switch p := e.Payload.(type) {
	case *Run:
		w.run(p, e, at)
	case *Product:
		w.raw(`{"product":{"name":`)
		w.text(p.Name)
		if p.ID != ProductIDOf(e.Account, p.Name) {
			w.member("id", p.ID.String())
		}
		w.memberIf("description", p.Description)
		w.object("extra_metadata", p.Extra)
		w.living(p.Incarnation, p.Deleted, p.CreatedAt, e)
	case *Environment:
		w.raw(`{"environment":{"name":`)
		w.text(p.Name)
		if p.ID != EnvironmentIDOf(e.Account, p.Name) {
			w.member("id", p.ID.String())
		}
		w.memberIf("type", p.Class.String())
		w.memberIf("description", p.Description)
		w.object("metadata", p.Extra)
		w.number("concurrency_limit", uint64(p.ConcurrencyLimit))
		w.number("stale_after", uint64(p.StaleAfter/time.Minute))
		w.living(p.Incarnation, p.Deleted, p.CreatedAt, e)
	case *Release:
		w.release(p, e)
	case *Settings:
		w.settings(p, e)
	case *Version:
		w.raw(`{"version":{"product_name":`)
		w.text(p.ProductName)
		if p.ProductID != ProductIDOf(e.Account, p.ProductName) {
			w.member("product_id", p.ProductID.String())
		}
		w.member("version", p.Version)
		w.incarnation("incarnation", p.Incarnation)
		w.memberIf("scm_sha", p.SHA)
		if p.SHAFixed {
			w.raw(`,"sha_fixed":true`)
		}
		w.instantUnless("created_at", p.CreatedAt, e.Time)
		w.raw(`}}`)
	case Opaque:
		if len(p.Data) == 0 {
			w.raw("null")
		}
		w.dst = append(w.dst, p.Data...)
	}
}

func (w *writer) id(id ulid.ULID) {
	n := len(w.dst)
	w.dst = slices.Grow(w.dst, ulid.EncodedSize)[:n+ulid.EncodedSize]
	_ = id.MarshalTextTo(w.dst[n:]) // fails where there is no room
}

func (w *writer) raw(s string) { w.dst = append(w.dst, s...) }

// text writes a JSON string. AppendQuote replaces invalid UTF-8.
func (w *writer) text(s string) { w.dst, _ = jsontext.AppendQuote(w.dst, s) }

func (w *writer) key(name string) {
	if c := w.dst[len(w.dst)-1]; c != '{' {
		w.raw(",")
	}
	w.raw(`"`)
	w.raw(name)
	w.raw(`":`)
}

func (w *writer) member(name, value string) { w.key(name); w.text(value) }

func (w *writer) memberIf(name, value string) {
	if value != "" {
		w.member(name, value)
	}
}

func (w *writer) null(name string) { w.key(name); w.raw("null") }

func (w *writer) instant(name string, t time.Time) {
	w.key(name)
	w.raw(`"`)
	w.dst = t.UTC().AppendFormat(w.dst, time.RFC3339Nano)
	w.raw(`"`)
}

func (w *writer) instantUnless(name string, t, known time.Time) {
	if !t.Equal(known) {
		w.instant(name, t)
	}
}

func (w *writer) incarnation(name string, n uint16) { w.number(name, uint64(n)) }

// number writes what is not zero.
func (w *writer) number(name string, n uint64) {
	if n != 0 {
		w.key(name)
		w.dst = strconv.AppendUint(w.dst, n, 10)
	}
}

// object writes a JSON object as it is, if there is one.
func (w *writer) object(name string, o []byte) {
	if o != nil {
		w.key(name)
		w.dst = append(w.dst, o...)
	}
}

// living ends what can be deleted and come again.
func (w *writer) living(incarnation uint16, deleted bool, created time.Time, e *Event) {
	w.incarnation("incarnation", incarnation)
	if deleted {
		w.key("deleted")
		w.raw("true")
	}
	w.instantUnless("created_at", created, e.Time)
	w.raw(`}`)
	w.bodyHash(e)
	w.raw(`}`)
}

func (w *writer) bodyHash(e *Event) {
	if e.BodyHash != 0 {
		w.hash("body_hash", e.BodyHash)
	}
}

// differs writes a member of the record, unless the request already holds it
// with the same value; null where the request holds one that does not count.
func (w *writer) differs(name, value, requested string) {
	switch value {
	case requested:
	case "":
		w.null(name)
	default:
		w.member(name, value)
	}
}

func (w *writer) differsInTime(name string, value time.Time, requested string) {
	var asked time.Time
	if requested != "" {
		asked = parseInstant(requested)
	}
	switch {
	case value.Equal(asked) && value.IsZero() == (requested == ""):
	case value.IsZero():
		w.null(name)
	default:
		w.instant(name, value)
	}
}

func (w *writer) hash(name string, h uint64) {
	w.key(name)
	w.raw(`"`)
	var bytes [8]byte
	binary.BigEndian.PutUint64(bytes[:], h)
	w.dst = base64.RawURLEncoding.AppendEncode(w.dst, bytes[:])
	w.raw(`"`)
}

func (w *writer) run(p *Run, e *Event, at Offset) {
	r := &p.Record
	held := p.Asked
	if held == nil {
		read, _ := ReadRequest(p.Request) // it was read at the border, so it can be read
		held = &read
	}
	w.raw(`{`)
	if p.Request != nil {
		w.key("request")
		w.dst = append(w.dst, p.Request...)
	}
	w.instantUnless("effective_at", p.EffectiveAt, e.Time)
	if p.Hash != 0 {
		w.hash("hash", p.Hash)
	}
	w.bodyHash(e)
	w.memberIf("flag", p.Flag)
	if f := p.Refusal; f != nil {
		w.key("refusal")
		w.raw(`{`)
		w.member("rule", f.Rule)
		w.member("code", f.Code)
		w.member("message", f.Message)
		if !f.Conflict.IsZero() {
			w.member("conflict", f.Conflict.String())
		}
		w.raw(`}`)
	}
	w.key(r.Kind.String())
	w.raw(`{`)
	w.record(r, held, p.AskedExtra, e, at)
	w.raw(`}}`)
}

func (w *writer) record(r *Record, held *Request, askedExtra Object, e *Event, at Offset) {
	w.differs("product_name", r.ProductName, held.ProductName)
	w.differs("version", r.Version, held.Version)
	if r.Kind == Deployment {
		w.differs("environment_name", r.EnvironmentName, held.EnvironmentName)
	}
	w.differs("status", r.Status.String(), held.Status)
	requested := held.attributes(r.Kind)
	for a := range r.Attributes {
		if name := Attribute(a).Name(r.Kind); name != "" {
			w.differs(name, r.Attributes[a], requested[a])
		}
	}
	w.differsInTime("started_at", r.StartedAt, held.StartedAt)
	w.differsInTime("completed_at", r.CompletedAt, held.CompletedAt)
	w.instantUnless("created_at", r.CreatedAt, e.Time)
	w.derived(r, e.Account)
	if held.ExtraMetadata != nil || len(r.Extra) > 0 {
		if askedExtra == nil {
			askedExtra = ReadObject(held.ExtraMetadata)
		}
		w.extra(r.Extra, askedExtra)
	}
	if r.Seen != StatusSet(0).With(statusOf(e.Type)) {
		w.key("seen")
		w.dst = strconv.AppendUint(w.dst, uint64(r.Seen), 10)
	}
	if r.SHAMismatch {
		w.key("sha_mismatch")
		w.raw("true")
	}
	w.receipts(r.Receipts, at)
	w.origins(r, at)
}

// derived writes ids only where a rename has parted them from the names.
func (w *writer) derived(r *Record, account string) {
	if r.ProductID != ProductIDOf(account, r.ProductName) {
		w.member("product_id", r.ProductID.String())
	}
	w.incarnation("product_incarnation", r.ProductIncarnation)
	if r.Kind == Deployment {
		if r.EnvironmentID != EnvironmentIDOf(account, r.EnvironmentName) {
			w.member("environment_id", r.EnvironmentID.String())
		}
		w.incarnation("environment_incarnation", r.EnvironmentIncarnation)
	}
}

func (w *writer) extra(extra map[string]Extra, held Object) {
	same := len(held) == len(extra)
	for k, v := range extra {
		same = same && bytes.Equal(held[k], v.Value)
	}
	if same {
		return
	}
	w.key("extra_metadata")
	w.raw(`{`)
	for _, k := range slices.Sorted(maps.Keys(extra)) {
		if w.dst[len(w.dst)-1] != '{' {
			w.raw(",")
		}
		w.text(k)
		w.raw(":")
		w.dst = append(w.dst, extra[k].Value...)
	}
	w.raw(`}`)
}

func (w *writer) receipts(receipts []Receipt, at Offset) {
	open := false
	for _, r := range receipts {
		if r.Offset == at {
			continue // this very event: its hash and id stand beside
		}
		if !open {
			w.key("receipts")
			w.raw("[")
			open = true
		} else {
			w.raw(",")
		}
		w.raw(`{`)
		w.hash("hash", r.Hash)
		w.member("event", r.Event.String())
		w.key("offset")
		w.dst = strconv.AppendUint(w.dst, uint64(r.Offset), 10)
		w.raw(`}`)
	}
	if open {
		w.raw("]")
	}
}

const extraPrefix = "extra_metadata."

// origins writes who gave the values that this event did not give, so that a
// later, lower event can be merged field by field (contract 11.8).
func (w *writer) origins(r *Record, at Offset) {
	var by map[Stamp][]string
	owed := func(s Stamp, name string) {
		if by == nil { // not for most events: a run's first report gives all its values
			by = map[Stamp][]string{}
		}
		by[s] = append(by[s], name)
	}
	for a, s := range r.AttributeStamps {
		if r.Attributes[a] != "" && s.Offset != at {
			owed(s, Attribute(a).Name(r.Kind))
		}
	}
	for k, x := range r.Extra {
		if x.Stamp.Offset != at {
			owed(x.Stamp, extraPrefix+k)
		}
	}
	if len(by) == 0 {
		return
	}
	stamps := slices.SortedFunc(maps.Keys(by), func(a, b Stamp) int { return int(a.Offset) - int(b.Offset) })
	w.key("origins")
	for i, s := range stamps {
		w.raw("[,"[min(i, 1) : min(i, 1)+1])
		w.raw(`{"offset":`)
		w.dst = strconv.AppendUint(w.dst, uint64(s.Offset), 10)
		w.raw(`,"rank":`)
		w.dst = strconv.AppendInt(w.dst, int64(s.Rank), 10)
		w.instant("effective_at", s.Effective)
		w.raw(`,"fields":[`)
		fields := by[s]
		slices.Sort(fields)
		for j, f := range fields {
			if j > 0 {
				w.raw(",")
			}
			w.text(f)
		}
		w.raw(`]}`)
	}
	w.raw("]")
}
