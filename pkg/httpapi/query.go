package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// The formats that only query parameters have.
const (
	formatCursor   = "cursor"
	formatPosition = "position"
)

// PositionHeader says where what was written stands, and what a read must show.
const PositionHeader = "X-Shipledger-Position"

type paramWire struct {
	Ref    string `json:"$ref"`
	Name   string `json:"name"`
	In     string `json:"in"`
	Schema struct {
		schemaWire
		MaxItems int        `json:"maxItems"`
		Items    schemaWire `json:"items"`
		// AdditionalProperties is what each member of an object holds; an object
		// is given as one parameter per member, whose names begin with Name.
		AdditionalProperties schemaWire `json:"additionalProperties"`
		MaxProperties        int        `json:"maxProperties"`
	} `json:"schema"`
}

type schemaWire struct {
	Type      string   `json:"type"`
	Format    string   `json:"format"`
	Enum      []string `json:"enum"`
	MaxLength int      `json:"maxLength"`
	Minimum   int      `json:"minimum"`
	Maximum   int      `json:"maximum"`
	Default   any      `json:"default"`
}

// A parameter is a documented query parameter. What its schema can say is
// known beforehand, so it is checked here and not by the schema engine.
type parameter struct {
	name         string
	kind         string // string, integer or boolean
	format       string
	enum         []string
	maxLength    int
	minimum, max int
	preset       int64
	several      int  // how often it may be given
	words        bool // several may stand in one, joined by commas
	prefix       bool // name is how the names of its members begin
}

type queryValue struct {
	text  string
	given bool
	n     int64
	time  time.Time
	list  []string
	names []string // of members, where the parameter is an object
}

func (p *paramWire) parse() (parameter, error) {
	s, several, prefix := p.Schema.schemaWire, 1, false
	switch s.Type {
	case "array":
		s, several = p.Schema.Items, p.Schema.MaxItems
	case "object":
		s, several, prefix = p.Schema.AdditionalProperties, p.Schema.MaxProperties, true
	}
	if several < 1 {
		return parameter{}, errors.New("maxItems or maxProperties is missing")
	}
	out := parameter{
		name: p.Name, kind: s.Type, format: s.Format, enum: s.Enum, maxLength: s.MaxLength, minimum: s.Minimum, max: s.Maximum,
		several: several, prefix: prefix, words: several > 1 && !prefix && (s.Format != "" || len(s.Enum) > 0),
	}
	switch s.Type {
	case "string", "integer", "boolean":
	default:
		return out, fmt.Errorf("type %q cannot be executed", s.Type)
	}
	switch s.Format {
	case "", "date-time", formatStatus, formatCursor, formatPosition:
	default:
		return out, fmt.Errorf("format %q cannot be executed", s.Format)
	}
	if n, ok := s.Default.(float64); ok {
		out.preset = int64(n)
	}
	return out, nil
}

// parseQuery checks every parameter of the request, and refuses those that the
// document does not name: a filter that is ignored gives a wrong answer.
func (r *Request) parseQuery() error {
	op := r.Operation
	r.query = make([]queryValue, len(op.parameters))
	for i := range op.parameters {
		r.query[i].n = op.parameters[i].preset
	}
	var faults []FieldFault
	if raw := r.URL.RawQuery; raw != "" && (len(op.parameters) > 0 || !op.Public) { // probes and browsers add what they like to a public page
		values, err := url.ParseQuery(raw)
		if err != nil {
			faults = append(faults, FieldFault{[]string{"query"}, "the query string cannot be read", "value_error"})
		}
		repair(values)
		faults = append(faults, r.queryFaults(values)...)
	}
	if text := r.Header.Get(PositionHeader); text != "" && op.waits {
		if _, err := event.ParsePositions(text); err != nil {
			faults = append(faults, FieldFault{[]string{"header", PositionHeader}, err.Error(), "value_error"})
		}
	}
	if len(faults) > 0 {
		return &ValidationError{Faults: faults}
	}
	return nil
}

// repair replaces what is no UTF-8, as is done in bodies: events and answers
// can hold nothing else.
func repair(values url.Values) {
	for _, given := range values {
		for i, text := range given {
			given[i] = strings.ToValidUTF8(text, string(utf8.RuneError))
		}
	}
}

func (r *Request) queryFaults(values url.Values) (faults []FieldFault) {
	for i := range r.Operation.parameters {
		p := &r.Operation.parameters[i]
		if p.prefix {
			faults = append(faults, p.checkMembers(&r.query[i], values)...)
			continue
		}
		given := values[p.name]
		delete(values, p.name)
		if len(given) == 0 || len(given) == 1 && given[0] == "" {
			continue
		}
		msg, kind := "give this parameter only once", "value_error"
		switch {
		case p.several > 1:
			msg, kind = p.checkSeveral(&r.query[i], given)
		case len(given) == 1:
			msg, kind = p.check(&r.query[i], given[0])
			if msg == "" && p.format == formatCursor {
				msg, kind = r.openCursor(given[0])
			}
		}
		if msg != "" {
			faults = append(faults, FieldFault{[]string{"query", p.name}, msg, kind})
		}
	}
	unknown := make([]string, 0, len(values))
	for name := range values {
		unknown = append(unknown, name)
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		faults = append(faults, FieldFault{[]string{"query", name}, "unknown query parameter", "value_error.extra"})
	}
	return faults
}

// checkSeveral reads a parameter that may be given more than once.
func (p *parameter) checkSeveral(v *queryValue, given []string) (msg, kind string) {
	for _, text := range given {
		parts := []string{text}
		if p.words {
			parts = strings.Split(text, ",")
		}
		for _, part := range parts {
			if part == "" {
				continue
			}
			if msg, kind = p.check(v, part); msg != "" {
				return msg, kind
			}
			v.list = append(v.list, part)
		}
	}
	if len(v.list) > p.several {
		return fmt.Sprintf("ensure this value has at most %d items", p.several), "value_error.list.max_items"
	}
	return "", ""
}

// checkMembers reads the parameters whose names begin with p's, and takes them
// out of values.
func (p *parameter) checkMembers(v *queryValue, values url.Values) (faults []FieldFault) {
	for name, given := range values {
		if strings.HasPrefix(name, p.name) {
			v.names = append(v.names, name)
			if len(given) > 1 {
				faults = append(faults, FieldFault{[]string{"query", name}, "give this parameter only once", "value_error"})
			}
		}
	}
	slices.Sort(v.names)
	slices.SortFunc(faults, func(a, b FieldFault) int { return strings.Compare(a.Loc[1], b.Loc[1]) })
	if len(v.names) > p.several {
		return append(faults, FieldFault{[]string{"query", v.names[p.several]}, fmt.Sprintf("give at most %d of these parameters", p.several), "value_error"})
	}
	for _, name := range v.names {
		text := values.Get(name)
		delete(values, name)
		if msg, kind := p.check(v, text); msg != "" {
			faults = append(faults, FieldFault{[]string{"query", name}, msg, kind})
		}
		v.list = append(v.list, text)
	}
	return faults
}

// check reads a value; msg is empty if it is acceptable.
func (p *parameter) check(v *queryValue, text string) (msg, kind string) {
	v.text, v.given = text, true
	switch p.kind {
	case "integer":
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil:
			return "value is not a valid integer", "type_error.integer"
		case n < int64(p.minimum):
			return fmt.Sprintf("ensure this value is greater than or equal to %d", p.minimum), "value_error.number.not_ge"
		case n > int64(p.max):
			return fmt.Sprintf("ensure this value is less than or equal to %d", p.max), "value_error.number.not_le"
		}
		v.n = n
		return "", ""
	case "boolean":
		switch strings.ToLower(text) {
		case "true", "1":
			v.n = 1
		case "false", "0":
			v.n = 0
		default:
			return "value could not be parsed to a boolean", "type_error.bool"
		}
		return "", ""
	}
	if p.maxLength > 0 && utf8.RuneCountInString(text) > p.maxLength {
		return tooLong(p.maxLength)
	}
	if len(p.enum) > 0 && !slices.Contains(p.enum, text) {
		return notPermitted(p.enum)
	}
	switch p.format {
	case "date-time":
		t, err := parseTime(text)
		if err != nil {
			return msgDateTime, typeDateTime
		}
		v.time = t
	case formatStatus:
		if !filterStatus(text) {
			return notPermitted(statusFilterWords)
		}
	case formatPosition:
		if _, err := event.ParsePositions(text); err != nil {
			return err.Error(), "value_error"
		}
	}
	return "", ""
}

// statusFilterWords are the canonical statuses, as records show them: beside
// what clients may report, also what a refused start became.
var statusFilterWords = []string{"pending", "started", "completed", "failed", "aborted", "preflight_failed"}

func filterStatus(text string) bool {
	_, canonical := event.StatusOf(text)
	_, word := event.ParseStatus(text)
	return canonical || word
}

func (r *Request) value(name string) *queryValue {
	for i := range r.Operation.parameters {
		if r.Operation.parameters[i].name == name {
			return &r.query[i]
		}
	}
	panic(fmt.Sprintf("operation %s documents no query parameter %s", r.Operation.ID, name))
}

// The accessors of query parameters panic for a name that the document does not
// have: asking for it is a fault of the program.

// Takes tells whether the request's operation has a query parameter of that name.
func (r *Request) Takes(name string) bool {
	return slices.ContainsFunc(r.Operation.parameters, func(p parameter) bool { return p.name == name })
}

// QueryString gives a text, "" where it is absent.
func (r *Request) QueryString(name string) string { return r.value(name).text }

// QueryList gives the texts of a parameter that may be given more than once.
func (r *Request) QueryList(name string) []string { return r.value(name).list }

// QueryMembers gives the parameters whose names begin with prefix, which the
// document has as an object: what follows the prefix, and the text.
func (r *Request) QueryMembers(prefix string, each func(name, text string)) {
	v := r.value(prefix)
	for i, name := range v.names {
		each(strings.TrimPrefix(name, prefix), v.list[i])
	}
}

// QueryInt gives a number, or its documented default.
func (r *Request) QueryInt(name string) int { return int(r.value(name).n) }

// QueryBool gives a flag, false where it is absent.
func (r *Request) QueryBool(name string) bool { return r.value(name).n == 1 }

// QueryTime gives a moment, zero where it is absent.
func (r *Request) QueryTime(name string) time.Time { return r.value(name).time }

// QueryStatuses gives the statuses of a parameter that may be given more than
// once. Every word of contract 9 counts, and preflight_failed.
func (r *Request) QueryStatuses(name string) []event.Status {
	var out []event.Status
	for _, text := range r.value(name).list {
		out = append(out, filteredStatus(text))
	}
	return out
}

func filteredStatus(text string) event.Status {
	if s, ok := event.ParseStatus(text); ok {
		return s
	}
	s, _ := event.StatusOf(text)
	return s
}

// MinPosition gives what the caller wants to see at least, from the header
// X-Shipledger-Position and the parameter min_position together; empty if it
// does not say.
func (r *Request) MinPosition() map[string]event.Offset {
	out := map[string]event.Offset{}
	for _, text := range []string{r.Header.Get(PositionHeader), r.value("min_position").text} {
		if text == "" {
			continue
		}
		positions, _ := event.ParsePositions(text) // checked before the handler
		for stream, offset := range positions {
			out[stream] = max(out[stream], offset)
		}
	}
	return out
}

// WaitForPosition is how long an answer waits for what the caller wants to see
// (contract 5.2).
const WaitForPosition = 5 * time.Second

// AwaitStream waits until a process that draws its answers from one stream alone
// has heard what the caller wants to see: await returns once it knows a sequence.
func (r *Request) AwaitStream(stream string, await func(ctx context.Context, seq uint64) error) error {
	want := r.MinPosition()
	for other := range want {
		if other != stream {
			return &ValidationError{Faults: []FieldFault{{
				Loc: []string{"query", "min_position"}, Msg: "these answers are not drawn from the stream " + other, Type: "value_error",
			}}}
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), WaitForPosition)
	defer cancel()
	if err := await(ctx, want[stream].Seq()); err != nil {
		return fault.New(fault.Unavailable, "READ_MODEL_BEHIND", "this process has not heard of the position that was asked for").
			WithHint("Ask again after the time in Retry-After, or leave the position out to read what is there.")
	}
	return nil
}

// Limit and After give the page that the caller asks for.

// Limit gives how many items the answer may have.
func (r *Request) Limit() int { return r.QueryInt("limit") }

// After gives the key after which the page begins, "" for the first page.
func (r *Request) After() string { return r.after }

// Cursor gives what a client sends back to go on after key. It fits only the
// same list, filters and account.
func (r *Request) Cursor(key string) string {
	h := r.filterHash()
	return base64.RawURLEncoding.EncodeToString(append(h[:], key...))
}

func (r *Request) openCursor(text string) (msg, kind string) {
	h := r.filterHash()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) <= len(h) {
		return "this is not a cursor; pass back next_cursor as it was received", "value_error.cursor"
	}
	if [8]byte(b) != h {
		return "this cursor belongs to another list or to other filters", "value_error.cursor"
	}
	r.after = string(b[len(h):])
	return "", ""
}

// filterHash stands for what a list shows: neither its page size nor the
// position a reader waits for belong to it.
func (r *Request) filterHash() [8]byte {
	values, _ := url.ParseQuery(r.URL.RawQuery)
	h := sha256.New()
	field := func(s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }
	field(r.Operation.ID)
	field(r.Identity.Account)
	for i, name := range r.Operation.pathNames {
		field(name)
		field(r.params[i])
	}
	names := make([]string, 0, len(values))
	for name := range values {
		switch name {
		case "cursor", "limit", "min_position":
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, text := range values[name] {
			if text != "" {
				field(name)
				field(text)
			}
		}
	}
	return [8]byte(h.Sum(nil))
}
