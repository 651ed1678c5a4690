package event

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
)

// Frames are read in one pass as well, where they are as AppendFrame writes them:
// reading the log back is most of what a projection costs beside the store. What
// is written otherwise, and every error, is left to the library; tests hold both to
// the same answer.
//
// A reference event takes 4.0 µs so, and 9.1 µs with the library (BenchmarkDecodeFrame
// shows both). A binary form of the same fields, lengths before texts, ids and times as
// numbers, took 2.9 µs, and 0.25 µs instead of 1.0 µs to write; compressed as the log
// does it, 53 bytes instead of 73. That is 2 % of what an event posted alone costs, so
// frames stay what every NATS tool shows and every JSON library reads.

// eventBegin is how every event of a frame begins. In a JSON text it cannot stand
// within a string; where it stands within data, the pieces are no events.
const eventBegin = `{"specversion":"1.0","id":`

// scanFrame reads a batch. It is false where one of the events cannot be read, or
// is not written as AppendEvent writes it.
func (u Upcasters) scanFrame(into []Recorded, stream string, seq uint64, body []byte, text func([]byte) string) ([]Recorded, bool) {
	rest, ok := bytes.CutPrefix(body, []byte(`[`+eventBegin))
	if !ok {
		return nil, false
	}
	// What is looked for begins with a brace, of which an event has few: with the comma
	// before it a twentieth of a rebuild's processor time was spent on finding events.
	begin := []byte(eventBegin)
	n := 1 + bytes.Count(rest, begin)
	if n > MaxFrameEvents {
		return nil, false
	}
	out, room := slices.Grow(into[:0], n)[:n], make([]member, 0, 8)
	for i := range out {
		var piece []byte
		piece, rest, ok = bytes.Cut(rest, begin)
		end := byte(']')
		if ok {
			end = ','
		}
		last := len(piece) - 1
		if last < 0 || piece[last] != end {
			return nil, false
		}
		run, _ := out[i].Payload.(*Run) // of a frame before
		out[i] = Recorded{Position: Position{stream, At(seq, i)}}
		if !u.scanEvent(&out[i], run, piece[:last], text, room) {
			return nil, false
		}
	}
	return out, true
}

// Strings of an event are cut out of one text: a copy of the event, as the frame would
// be held for the sake of the shortest of them, or the frame where all are soon gone.
func copied(b []byte) string { return string(b) }
func shared(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// scanEvent reads an event behind eventBegin. The members of extra_metadata are put
// where room is, and a run where p is; nil: nowhere yet.
func (u Upcasters) scanEvent(r *Recorded, p *Run, piece []byte, text func([]byte) string, room []member) bool {
	s := scanner{body: piece, text: text(piece), extras: room}
	var e envelope
	read := *r
	if !s.envelope(&e) || runKind(e.DataSchema) == 0 || u[e.DataSchema] != nil || e.head(&read) != nil {
		return u.readPiece(r, piece)
	}
	if p == nil {
		p = new(Run)
	}
	extra := p.Record.Extra
	clear(extra)
	*p = Run{Record: Record{Extra: extra}}
	w, kind := recordWire{}, runKind(e.DataSchema)
	p.EffectiveAt, w.CreatedAt = read.Time, read.Time
	var asked Scanned
	if !s.run(p, &w, &asked, &read, kind) || !s.take('}') || s.at != len(s.text) || w.record(p, &read, kind, s.extras) != nil {
		return u.readPiece(r, piece)
	}
	read.Payload = p
	*r = read
	return true
}

// readPiece reads an event with the library.
func (u Upcasters) readPiece(r *Recorded, piece []byte) bool {
	var e envelope
	whole := append([]byte(eventBegin), piece...)
	return json.Unmarshal(whole, &e, decodeOptions) == nil && e.decode(r, u) == nil
}

// runKind gives the kind of run that data of a schema is of; 0 for none.
func runKind(schema string) Kind {
	switch schema {
	case "deployment/1":
		return Deployment
	case "build/1":
		return Build
	}
	return 0
}

// textBehind reads a string behind prefix.
func (s *scanner) textBehind(prefix string, to *string) (ok bool) {
	if !s.word(prefix) {
		return false
	}
	*to, ok = s.str()
	return ok
}

// mayBe reads a string behind prefix, where prefix comes next.
func (s *scanner) mayBe(prefix string, to *string) bool {
	if !strings.HasPrefix(s.text[s.at:], prefix) {
		return true
	}
	return s.textBehind(prefix, to)
}

// envelope reads up to the data, in the order of AppendEvent.
func (s *scanner) envelope(e *envelope) bool {
	ok := s.textBehind("", &e.ID) && s.textBehind(`,"source":`, &e.Source) && s.textBehind(`,"type":`, &e.Type) &&
		s.textBehind(`,"subject":`, &e.Subject) && s.textBehind(`,"time":`, &e.Time) && s.textBehind(`,"dataschema":`, &e.DataSchema) &&
		s.word(`,"datacontenttype":"application/json"`) &&
		s.mayBe(`,"credentialid":`, &e.CredentialID) && s.mayBe(`,"credentialname":`, &e.CredentialName) && s.mayBe(`,"mode":`, &e.Mode) &&
		s.mayBe(`,"actor":`, &e.Actor) && s.mayBe(`,"idempotencykey":`, &e.IdempotencyKey)
	if !ok {
		return false
	}
	e.Backfilled = s.word(`,"backfilled":true`)
	return s.word(`,"data":`)
}

// run reads the data of a run, in the order of writer.run. asked is the request
// with the record's members of extra_metadata in place of its own, where it has some.
func (s *scanner) run(p *Run, w *recordWire, asked *Scanned, r *Recorded, kind Kind) bool {
	if !s.word(`{"request":`) {
		return false
	}
	from := s.at
	if !s.object(func(name string) bool { return s.member(name, asked) }) {
		return false
	}
	p.Request, w.Request = s.body[from:s.at:s.at], asked.Request
	var body hash
	ok := s.mayBeTime(`,"effective_at":`, &p.EffectiveAt) && s.mayBeHash(`,"hash":`, (*hash)(&p.Hash)) &&
		s.mayBeHash(`,"body_hash":`, &body) && s.mayBe(`,"flag":`, &p.Flag)
	if !ok {
		return false
	}
	r.BodyHash = uint64(body)
	prefix := `,"deployment":`
	if kind == Build {
		prefix = `,"build":`
	}
	if !s.word(prefix) {
		return false
	}
	s.seen = 0
	over := Scanned{Request: w.Request}
	var own uint32
	ok = s.object(func(name string) bool { return s.recorded(name, &over, w, &own) })
	w.Request = over.Request
	return ok && s.take('}')
}

func (s *scanner) mayBeTime(prefix string, to *time.Time) bool {
	if !strings.HasPrefix(s.text[s.at:], prefix) {
		return true
	}
	return s.word(prefix) && s.time(to)
}

func (s *scanner) time(to *time.Time) bool {
	text, ok := s.str()
	if !ok {
		return false
	}
	// The form of AppendEvent and no other: time.Parse reads more than the library does.
	const seconds = "2006-01-02T15:04:05"
	if n := len(text); n <= len(seconds) || text[n-1] != 'Z' || text[len("2006-01-02T15")] != ':' || strings.IndexByte(text, ',') >= 0 {
		return false
	}
	t, err := time.Parse(time.RFC3339, text)
	*to = t
	return err == nil
}

func (s *scanner) mayBeHash(prefix string, to *hash) bool {
	if !strings.HasPrefix(s.text[s.at:], prefix) {
		return true
	}
	return s.word(prefix) && s.hash(to)
}

func (s *scanner) hash(to *hash) bool {
	from := s.at + 1
	text, ok := s.str()
	var sum [9]byte
	if !ok || len(text) != base64.RawURLEncoding.EncodedLen(8) {
		return false
	}
	n, err := base64.RawURLEncoding.Decode(sum[:], s.body[from:from+len(text)])
	*to = hash(binary.BigEndian.Uint64(sum[:]))
	return n == 8 && err == nil
}

// number reads a whole number of at most bits bits that is not negative.
func (s *scanner) number(bits int) (uint64, bool) {
	from := s.at
	if c := s.at; c == len(s.text) || s.text[c] < '0' || s.text[c] > '9' || !s.value() {
		return 0, false
	}
	n, err := strconv.ParseUint(s.text[from:s.at], 10, bits)
	return n, err == nil
}

// recordMembers are those that a request does not have.
var recordMembers = [...]string{
	"created_at", "seen", "receipts", "origins", "sha_mismatch",
	"product_id", "product_incarnation", "environment_id", "environment_incarnation",
}

// recorded reads a member of the record, which lies over the request. seen are the
// numbers of those that were there.
func (s *scanner) recorded(name string, over *Scanned, w *recordWire, seen *uint32) bool {
	number := slices.Index(recordMembers[:], name)
	if number < 0 {
		return s.overlaid(name, over)
	}
	if *seen&(1<<number) != 0 {
		return false
	}
	*seen |= 1 << number
	switch name {
	case "created_at":
		return s.time(&w.CreatedAt)
	case "seen":
		n, ok := s.number(8)
		w.Seen = StatusSet(n)
		return ok
	case "receipts":
		return s.receipts(w)
	case "origins":
		return s.origins(w)
	case "sha_mismatch":
		w.SHAMismatch = true
		return s.word("true")
	case "product_id":
		return s.uuid(&w.ProductID)
	case "product_incarnation":
		return s.incarnation(&w.ProductIncarnation)
	case "environment_id":
		return s.uuid(&w.EnvironmentID)
	default:
		return s.incarnation(&w.EnvironmentIncarnation)
	}
}

// overlaid reads a member that the request may have, too; null clears it.
func (s *scanner) overlaid(name string, over *Scanned) bool {
	if name == "extra_metadata" {
		if s.seen&(1<<extraField) != 0 {
			return false
		}
		s.seen |= 1 << extraField
		return s.extra(over)
	}
	to, number := over.field(name)
	if to == nil || to == &over.Kind || to == &over.IdempotencyKey || s.seen&(1<<number) != 0 {
		return false
	}
	s.seen |= 1 << number
	*to = ""
	if s.word("null") {
		return true
	}
	var ok bool
	*to, ok = s.str()
	return ok
}

func (s *scanner) uuid(to *uuid.UUID) bool {
	text, ok := s.str()
	if !ok || len(text) != len("00000000-0000-0000-0000-000000000000") {
		return false
	}
	id, err := uuid.Parse(text)
	*to = id
	return err == nil
}

func (s *scanner) incarnation(to *uint16) bool {
	n, ok := s.number(16)
	*to = uint16(n) //nolint:gosec // it has no more bits
	return ok
}

func (s *scanner) id(to *ulid.ULID) bool {
	text, ok := s.str()
	if !ok {
		return false
	}
	id, err := ulid.ParseStrict(text)
	*to = id
	return err == nil
}

// list reads [item,…] that holds at least one.
func (s *scanner) list(item func() bool) bool {
	if !s.take('[') {
		return false
	}
	for item() {
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
	return false
}

func (s *scanner) receipts(w *recordWire) bool {
	return s.list(func() bool {
		var r receiptWire
		ok := s.word(`{"hash":`) && s.hash(&r.Hash) && s.word(`,"event":`) && s.id(&r.Event) && s.word(`,"offset":`)
		if !ok {
			return false
		}
		n, ok := s.number(64)
		r.Offset = Offset(n)
		w.Receipts = append(w.Receipts, r)
		return ok && s.take('}')
	})
}

func (s *scanner) origins(w *recordWire) bool {
	return s.list(func() bool {
		var o originWire
		if !s.word(`{"offset":`) {
			return false
		}
		n, ok := s.number(64)
		if !ok || !s.word(`,"rank":`) {
			return false
		}
		rank, ok := s.number(8)
		if !ok || !s.word(`,"effective_at":`) || !s.time(&o.Effective) || !s.word(`,"fields":`) {
			return false
		}
		o.Offset, o.Rank = Offset(n), int(rank) //nolint:gosec // eight bits
		ok = s.list(func() bool {
			f, ok := s.str()
			o.Fields = append(o.Fields, f)
			return ok
		})
		w.Origins = append(w.Origins, o)
		return ok && s.take('}')
	})
}
