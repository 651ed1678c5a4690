package event

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
)

// envelope is a CloudEvent as it is read.
type envelope struct {
	ID             string         `json:"id"`
	Source         string         `json:"source"`
	Type           string         `json:"type"`
	Subject        string         `json:"subject"`
	Time           string         `json:"time"`
	DataSchema     string         `json:"dataschema"`
	CredentialID   string         `json:"credentialid"`
	CredentialName string         `json:"credentialname"`
	Mode           string         `json:"mode"`
	Actor          string         `json:"actor"`
	IdempotencyKey string         `json:"idempotencykey"`
	Backfilled     bool           `json:"backfilled"`
	Data           jsontext.Value `json:"data"`
}

// DecodeFrame reads the events of the frame at seq of a stream: a batch, or one
// event alone, as the stream of credentials holds them. One event that cannot be
// read fails the frame; the error names its place.
func DecodeFrame(stream string, seq uint64, body []byte) ([]Recorded, error) {
	return shipped.decodeFrame(nil, stream, seq, body, copied)
}

func (u Upcasters) decodeFrame(into []Recorded, stream string, seq uint64, body []byte, text func([]byte) string) ([]Recorded, error) {
	if len(body) > 0 && body[0] == '{' {
		r, err := DecodeEvent(Position{stream, At(seq, 0)}, body)
		return []Recorded{r}, err
	}
	if out, ok := u.scanFrame(into, stream, seq, body, text); ok {
		return out, nil
	}
	return u.readFrame(stream, seq, body)
}

// readFrame reads a batch with the library, however it is written.
func (u Upcasters) readFrame(stream string, seq uint64, body []byte) ([]Recorded, error) {
	var batch []envelope
	if err := json.Unmarshal(body, &batch, decodeOptions); err != nil {
		return nil, fmt.Errorf("decode frame %s.%d: %w", stream, seq, err)
	}
	out := make([]Recorded, len(batch))
	for i := range batch {
		out[i].Position = Position{stream, At(seq, i)}
		if err := batch[i].decode(&out[i], u); err != nil {
			return nil, fmt.Errorf("decode event %s (%s): %w", out[i].Position, batch[i].Type, err)
		}
	}
	return out, nil
}

// DecodeEvent reads a single CloudEvent, as the credential stream holds them.
func DecodeEvent(position Position, body []byte) (Recorded, error) {
	var e envelope
	r := Recorded{Position: position}
	if err := json.Unmarshal(body, &e, decodeOptions); err != nil {
		return r, fmt.Errorf("decode event %s: %w", position, err)
	}
	if err := e.decode(&r, shipped); err != nil {
		return r, fmt.Errorf("decode event %s (%s): %w", position, e.Type, err)
	}
	return r, nil
}

// head reads what events of every schema have.
func (e *envelope) head(r *Recorded) (err error) {
	account, ok := strings.CutPrefix(e.Source, "/accounts/")
	if ok {
		r.Account = account
	}
	r.Type, r.Subject = Type(e.Type), e.Subject // also of an event that cannot be read
	if r.ID, err = ulid.ParseStrict(e.ID); err != nil {
		return fmt.Errorf("id: %w", err)
	}
	if r.Time, err = time.Parse(time.RFC3339, e.Time); err != nil {
		return fmt.Errorf("time: %w", err)
	}
	if !ok {
		return fmt.Errorf("source %q is no account", e.Source)
	}
	r.Author = Author{e.CredentialID, e.CredentialName, Mode(e.Mode), e.Actor}
	r.IdempotencyKey, r.Backfilled = e.IdempotencyKey, e.Backfilled
	return nil
}

func (e *envelope) decode(r *Recorded, u Upcasters) (err error) {
	if err := e.head(r); err != nil {
		return err
	}
	if e.DataSchema, e.Data, err = u.upcast(e.DataSchema, e.Data); err != nil {
		return err
	}
	switch e.DataSchema {
	case "deployment/1":
		r.Payload, err = e.run(r, Deployment)
	case "build/1":
		r.Payload, err = e.run(r, Build)
	case "product/1":
		r.Payload, err = e.product(r)
	case "environment/1":
		r.Payload, err = e.environment(r)
	case "release/1":
		r.Payload, err = e.release(r)
	case "setting/1":
		r.Payload, err = e.settings(r)
	case "version/1":
		r.Payload, err = e.version(r)
	default: // from a newer or another producer: not ours to judge
		r.Payload = Opaque{Schema: e.DataSchema, Data: e.Data}
	}
	return err
}

type namedWire struct {
	ID               uuid.UUID      `json:"id"`
	Name             string         `json:"name"`
	Type             string         `json:"type"`
	Description      string         `json:"description"`
	Extra            jsontext.Value `json:"extra_metadata"`
	Metadata         jsontext.Value `json:"metadata"`
	ConcurrencyLimit uint16         `json:"concurrency_limit"`
	StaleAfter       int64          `json:"stale_after"` // minutes
	Incarnation      uint16         `json:"incarnation"`
	Deleted          bool           `json:"deleted"`
	CreatedAt        time.Time      `json:"created_at"`
}

func (e *envelope) product(r *Recorded) (*Product, error) {
	var d struct {
		Product  namedWire `json:"product"`
		BodyHash hash      `json:"body_hash"`
	}
	d.Product.CreatedAt = r.Time
	if err := json.Unmarshal(e.Data, &d, decodeOptions); err != nil {
		return nil, err
	}
	r.BodyHash = uint64(d.BodyHash)
	w := &d.Product
	p := &Product{
		ID: ProductID(w.ID), Name: w.Name, Description: w.Description, Extra: w.Extra,
		Incarnation: w.Incarnation, Deleted: w.Deleted, CreatedAt: w.CreatedAt,
	}
	if w.ID == uuid.Nil {
		p.ID = ProductIDOf(r.Account, p.Name)
	}
	return p, nil
}

func (e *envelope) environment(r *Recorded) (*Environment, error) {
	var d struct {
		Environment namedWire `json:"environment"`
		BodyHash    hash      `json:"body_hash"`
	}
	d.Environment.CreatedAt = r.Time
	if err := json.Unmarshal(e.Data, &d, decodeOptions); err != nil {
		return nil, err
	}
	r.BodyHash = uint64(d.BodyHash)
	w := &d.Environment
	class, ok := ParseClass(w.Type)
	if !ok {
		return nil, fmt.Errorf("environment type %q is unknown", w.Type)
	}
	v := &Environment{
		ID: EnvironmentID(w.ID), Name: w.Name, Class: class, Description: w.Description, Extra: w.Metadata,
		ConcurrencyLimit: w.ConcurrencyLimit, StaleAfter: time.Duration(w.StaleAfter) * time.Minute,
		Incarnation: w.Incarnation, Deleted: w.Deleted, CreatedAt: w.CreatedAt,
	}
	if w.ID == uuid.Nil {
		v.ID = EnvironmentIDOf(r.Account, v.Name)
	}
	return v, nil
}

func (e *envelope) version(r *Recorded) (*Version, error) {
	var d struct {
		Version struct {
			ProductID   uuid.UUID `json:"product_id"`
			ProductName string    `json:"product_name"`
			Version     string    `json:"version"`
			Incarnation uint16    `json:"incarnation"`
			SHA         string    `json:"scm_sha"`
			SHAFixed    bool      `json:"sha_fixed"`
			CreatedAt   time.Time `json:"created_at"`
		} `json:"version"`
	}
	d.Version.CreatedAt = r.Time
	if err := json.Unmarshal(e.Data, &d, decodeOptions); err != nil {
		return nil, err
	}
	w := d.Version
	v := &Version{
		ProductID: ProductID(w.ProductID), ProductName: w.ProductName, Version: w.Version,
		Incarnation: w.Incarnation, SHA: w.SHA, SHAFixed: w.SHAFixed, CreatedAt: w.CreatedAt,
	}
	if w.ProductID == uuid.Nil {
		v.ProductID = ProductIDOf(r.Account, w.ProductName)
	}
	v.ID = VersionIDOf(r.Account, v.ProductID, v.Version)
	return v, nil
}

// recordWire is the record's own part of a run event. The Request inside it is
// first filled from the request and then overlaid: a member that is absent
// keeps the request's value, null clears it.
type recordWire struct {
	Request                `json:",inline"`
	ProductID              uuid.UUID     `json:"product_id"`
	ProductIncarnation     uint16        `json:"product_incarnation"`
	EnvironmentID          uuid.UUID     `json:"environment_id"`
	EnvironmentIncarnation uint16        `json:"environment_incarnation"`
	CreatedAt              time.Time     `json:"created_at"`
	Seen                   StatusSet     `json:"seen"`
	SHAMismatch            bool          `json:"sha_mismatch"`
	Receipts               []receiptWire `json:"receipts"`
	Origins                []originWire  `json:"origins"`
}

type receiptWire struct {
	Hash   hash      `json:"hash"`
	Event  ulid.ULID `json:"event"`
	Offset Offset    `json:"offset"`
}

type originWire struct {
	Offset    Offset    `json:"offset"`
	Rank      int       `json:"rank"`
	Effective time.Time `json:"effective_at"`
	Fields    []string  `json:"fields"`
}

type hash uint64

// UnmarshalText reads eight bytes in URL-safe base64.
func (h *hash) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.DecodeString(string(text))
	if err != nil || len(b) != 8 {
		return fmt.Errorf("%q is no 64-bit hash", text)
	}
	*h = hash(binary.BigEndian.Uint64(b))
	return nil
}

func (e *envelope) run(r *Recorded, kind Kind) (*Run, error) {
	var d struct {
		Request     jsontext.Value `json:"request"`
		EffectiveAt time.Time      `json:"effective_at"`
		Hash        hash           `json:"hash"`
		BodyHash    hash           `json:"body_hash"`
		Flag        string         `json:"flag"`
		Refusal     *struct {
			Rule     string    `json:"rule"`
			Code     string    `json:"code"`
			Message  string    `json:"message"`
			Conflict ulid.ULID `json:"conflict"`
		} `json:"refusal"`
		Deployment jsontext.Value `json:"deployment"`
		Build      jsontext.Value `json:"build"`
	}
	d.EffectiveAt = r.Time
	if err := json.Unmarshal(e.Data, &d, decodeOptions); err != nil {
		return nil, err
	}
	var w recordWire
	w.CreatedAt = r.Time
	if len(d.Request) > 0 {
		var err error
		if w.Request, err = ReadRequest(d.Request); err != nil {
			return nil, fmt.Errorf("request: %w", err)
		}
	}
	overlay := d.Deployment
	if kind == Build {
		overlay = d.Build
	}
	if err := json.Unmarshal(overlay, &w, decodeOptions); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	p := &Run{Request: d.Request, EffectiveAt: d.EffectiveAt, Hash: uint64(d.Hash), Flag: d.Flag}
	r.BodyHash = uint64(d.BodyHash)
	if f := d.Refusal; f != nil {
		p.Refusal = &Refusal{f.Rule, f.Code, f.Message, f.Conflict}
	}
	var extra []member
	for name, value := range ReadObject(w.ExtraMetadata) {
		extra = append(extra, member{name, value})
	}
	return p, w.record(p, r, kind, extra)
}

// record makes the record; extra are the members of ExtraMetadata.
func (w *recordWire) record(p *Run, r *Recorded, kind Kind, extra []member) error {
	rec := &p.Record
	held := rec.Extra // empty, if there is one
	id, err := ulid.ParseStrict(r.Subject)
	if err != nil {
		return fmt.Errorf("subject: %w", err)
	}
	status, ok := StatusOf(w.Status)
	if !ok { // the request said the canonical word in another way and the record says the same word: not possible
		return fmt.Errorf("status %q is not canonical", w.Status)
	}
	own := Stamp{statusOf(r.Type).Rank(), p.EffectiveAt, r.Position.Offset}
	*rec = Record{
		Kind: kind, ID: id, Account: r.Account,
		ProductID: ProductID(w.ProductID), ProductName: w.ProductName, ProductIncarnation: w.ProductIncarnation,
		Version: w.Version, Status: status, Seen: w.Seen, CreatedAt: w.CreatedAt,
		StartedAt: parseInstant(w.StartedAt), CompletedAt: parseInstant(w.CompletedAt),
		Attributes: w.attributes(kind), SHAMismatch: w.SHAMismatch,
	}
	if w.ProductID == uuid.Nil {
		rec.ProductID = ProductIDOf(r.Account, rec.ProductName)
	}
	if kind == Deployment {
		rec.EnvironmentName, rec.EnvironmentIncarnation = w.EnvironmentName, w.EnvironmentIncarnation
		rec.EnvironmentID = EnvironmentID(w.EnvironmentID)
		if w.EnvironmentID == uuid.Nil {
			rec.EnvironmentID = EnvironmentIDOf(r.Account, rec.EnvironmentName)
		}
	}
	rec.VersionID = VersionIDOf(r.Account, rec.ProductID, rec.Version)
	if rec.Seen == 0 {
		rec.Seen = rec.Seen.With(statusOf(r.Type))
	}
	for a := range rec.Attributes {
		if rec.Attributes[a] != "" {
			rec.AttributeStamps[a] = own
		}
	}
	if len(extra) > 0 {
		if rec.Extra = held; held == nil {
			rec.Extra = make(map[string]Extra, len(extra))
		}
	}
	for _, m := range extra {
		rec.Extra[m.name] = Extra{m.value, own}
	}
	for _, x := range w.Receipts {
		rec.Receipts = append(rec.Receipts, Receipt{uint64(x.Hash), x.Event, x.Offset})
	}
	if p.Hash != 0 {
		rec.Receipts = append(rec.Receipts, Receipt{p.Hash, r.ID, r.Position.Offset})
	}
	w.restamp(rec)
	return nil
}

// restamp gives back to earlier events the values that they gave.
func (w *recordWire) restamp(rec *Record) {
	for _, o := range w.Origins {
		s := Stamp{o.Rank, o.Effective, o.Offset}
		for _, f := range o.Fields {
			if k, ok := strings.CutPrefix(f, extraPrefix); ok {
				if x, ok := rec.Extra[k]; ok {
					rec.Extra[k] = Extra{x.Value, s}
				}
				continue
			}
			for a := range rec.Attributes {
				if Attribute(a).Name(rec.Kind) == f {
					rec.AttributeStamps[a] = s
				}
			}
		}
	}
}

// statusOf gives the status that a run event reports.
func statusOf(t Type) Status {
	_, word, _ := strings.Cut(string(t), ".")
	s, _ := StatusOf(word)
	return s
}

// ReportedStatus gives the status that a run event reports, whatever its record
// then stands at; 0 for other events.
func (e *Event) ReportedStatus() Status {
	if _, ok := e.Payload.(*Run); !ok {
		return 0
	}
	return statusOf(e.Type)
}

// parseInstant reads a time that was checked at the border; the ledger keeps
// milliseconds. Anything else reads as absent.
func parseInstant(s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	t, err := ParseTime(s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// ParseTime reads an RFC 3339 time with a zone, to the millisecond, in UTC.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, err
	}
	return t.UTC().Truncate(time.Millisecond), nil
}

// An Object is the members of a JSON object, as they are written.
type Object map[string]jsontext.Value

// ReadObject reads the members of a JSON object; nil for anything else.
func ReadObject(v jsontext.Value) Object {
	if len(v) == 0 || v.Kind() != '{' {
		return nil
	}
	var m Object
	if err := json.Unmarshal(v, &m, decodeOptions); err != nil {
		return nil
	}
	return m
}

// DecodeExtra reads an extra_metadata object into values that carry stamp.
func DecodeExtra(v jsontext.Value, stamp Stamp) map[string]Extra {
	held := ReadObject(v)
	if len(held) == 0 {
		return nil
	}
	out := make(map[string]Extra, len(held))
	for k, x := range held {
		out[k] = Extra{x, stamp}
	}
	return out
}
