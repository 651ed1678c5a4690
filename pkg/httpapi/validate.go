package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// formatStatus is the format of a status word of contract 9.
const formatStatus = "status-word"

// noControl is the pattern of names: control characters part them on screens
// and in derived ids.
const noControl = `^[^\x00-\x1f\x7f-\x9f]*$`

const (
	msgRequired  = "field required"
	typeRequired = "value_error.missing"
	msgDateTime  = "invalid datetime format"
	typeDateTime = "value_error.datetime"
	msgControl   = "control characters are not allowed"
	typeControl  = "value_error.str.regex"
)

// formats are the formats that the document uses, as the hand-written check of
// events applies them too.
var formats = map[string]func(any) error{
	"date-time": func(v any) error {
		if s, ok := v.(string); ok {
			_, err := parseTime(s)
			return err
		}
		return nil
	},
	formatStatus: func(v any) error {
		if s, ok := v.(string); ok {
			if _, known := event.ParseStatus(s); !known {
				return errStatus
			}
		}
		return nil
	},
}

var (
	errStatus   = errors.New("unknown status word")
	errDateTime = errors.New("not an RFC 3339 time with a zone, from 1970 on")
)

// parseTime reads RFC 3339 and nothing that time.Parse takes beside it. The
// ledger keeps no time before 1970.
func parseTime(s string) (time.Time, error) {
	t, err := event.ParseTime(s)
	if err != nil || s[13] != ':' || strings.IndexByte(s, ',') >= 0 || t.Unix() < 0 {
		return time.Time{}, errDateTime
	}
	return t, nil
}

// bodySchema is the compiled schema of a request body, and what of it the
// engine does not give back: the order of its members.
type bodySchema struct {
	schema     *jsonschema.Schema
	properties []bodyProperty
}

type bodyProperty struct {
	name     string
	format   string
	maxBytes int // of the value as received; 0: no limit
}

func (s *Spec) compileBody(c *jsonschema.Compiler, name string, d *document) error {
	if name == "" || s.bodies[name] != nil {
		return nil
	}
	compiled, err := c.Compile(resource + schemaPrefix + name)
	if err != nil {
		return fmt.Errorf("OpenAPI schema %s: %w", name, err)
	}
	b := &bodySchema{schema: compiled}
	var w struct {
		Properties jsontext.Value `json:"properties"`
	}
	if err := json.Unmarshal(d.Components.Schemas[name], &w); err != nil {
		return fmt.Errorf("OpenAPI schema %s: %w", name, err)
	}
	for member, raw := range members(w.Properties) {
		var p struct {
			Format   string `json:"format"`
			MaxBytes int    `json:"x-shipledger-max-bytes"`
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			return fmt.Errorf("OpenAPI schema %s, member %s: %w", name, member, err)
		}
		b.properties = append(b.properties, bodyProperty{member, p.Format, p.MaxBytes})
	}
	s.bodies[name] = b
	return nil
}

// members walks a JSON object in its own order; anything else has none.
func members(object jsontext.Value) func(yield func(string, jsontext.Value) bool) {
	return func(yield func(string, jsontext.Value) bool) {
		if object.Kind() != '{' {
			return
		}
		dec := jsontext.NewDecoder(bytes.NewReader(object), lenient)
		if _, err := dec.ReadToken(); err != nil {
			return
		}
		for dec.PeekKind() == '"' {
			name, err := dec.ReadToken()
			if err != nil {
				return
			}
			key := name.String()
			v, err := dec.ReadValue()
			if err != nil || !yield(key, slices.Clone(v)) {
				return
			}
		}
	}
}

// lenient reads bodies as package event does: a repeated member counts with its
// last value, and invalid UTF-8 is replaced.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// InvalidJSON says that a body is not JSON at all.
func InvalidJSON() error {
	return fault.New(fault.Invalid, "INVALID_JSON", "The request body is not valid JSON.")
}

// CheckBody holds body against the component schema name, which must be the
// body of an operation, and gives all its faults, in the order of the document.
// The error is for a body that is not JSON.
//
// Members that are null or "" count as absent (contract 1.8). A body that is
// JSON but no object is a fault at ["body"].
func (s *Spec) CheckBody(name string, body []byte) ([]FieldFault, error) {
	schema := s.bodies[name]
	if schema == nil {
		panic("the document has no request body " + name)
	}
	value := jsontext.Value(body)
	if !value.IsValid(lenient) {
		return nil, InvalidJSON()
	}
	if value.Kind() != '{' {
		return []FieldFault{{[]string{"body"}, "value is not a valid dict", "type_error.dict"}}, nil
	}
	object, raw := map[string]any{}, map[string]jsontext.Value{}
	maps.Insert(raw, members(value)) // a repeated member counts with its last value
	for member, v := range raw {
		if v.Kind() == 'n' || string(v) == `""` {
			delete(raw, member)
			continue
		}
		var err error
		if object[member], err = generic(v); err != nil {
			return nil, InvalidJSON()
		}
	}
	c := collector{schema: schema}
	if err := schema.schema.Validate(object); err != nil {
		v, ok := errors.AsType[*jsonschema.ValidationError](err)
		if !ok {
			return nil, fmt.Errorf("check a body against %s: %w", name, err)
		}
		c.collect(v)
	}
	for _, p := range schema.properties {
		if v := raw[p.name]; p.maxBytes > 0 && len(v) > p.maxBytes {
			c.add([]string{p.name}, fmt.Sprintf("ensure this value has at most %d bytes", p.maxBytes), "value_error.max_bytes")
		}
	}
	return c.sorted(), nil
}

// generic gives a value in the form that the schema engine knows.
func generic(v jsontext.Value) (any, error) {
	if v.Kind() == '"' { // read as package event does, for the length to be the same
		var text string
		err := json.Unmarshal(v, &text, lenient)
		return text, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(v))
}

// A collector turns what the schema engine found into FieldFaults, one per place.
type collector struct {
	schema *bodySchema
	faults []FieldFault
	places map[string]struct{}
}

// maxFaults is how many places an answer names: nobody corrects more by hand,
// and a body could be wrong in a hundred thousand.
const maxFaults = 1000

func (c *collector) add(path []string, msg, typ string) {
	place := strings.Join(path, "\x00")
	if _, known := c.places[place]; known || len(c.faults) == maxFaults {
		return
	}
	if c.places == nil {
		c.places = map[string]struct{}{}
	}
	c.places[place] = struct{}{}
	c.faults = append(c.faults, FieldFault{append([]string{"body"}, path...), msg, typ})
}

func (c *collector) collect(e *jsonschema.ValidationError) {
	if len(c.faults) == maxFaults {
		return
	}
	at := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			c.add(append(slices.Clone(at), name), msgRequired, typeRequired)
		}
	case *kind.AnyOf: // several ways to name one thing: the first is the proper one
		if len(e.Causes) > 0 {
			c.collect(e.Causes[0])
		}
	case *kind.Type:
		c.wrongType(at, k)
	case *kind.MaxLength:
		msg, typ := tooLong(k.Want)
		c.add(at, msg, typ)
	case *kind.MinLength:
		c.add(at, fmt.Sprintf("ensure this value has at least %d characters", k.Want), "value_error.any_str.min_length")
	case *kind.Pattern:
		if k.Want == noControl {
			c.add(at, msgControl, typeControl)
			return
		}
		c.add(at, fmt.Sprintf("string does not match regex %q", k.Want), typeControl)
	case *kind.Format:
		switch k.Want {
		case formatStatus:
			msg, typ := notPermitted(statusWords)
			c.add(at, msg, typ)
		case "date-time":
			c.add(at, msgDateTime, typeDateTime)
		default:
			c.add(at, "invalid "+k.Want, "value_error")
		}
	case *kind.Enum:
		words := make([]string, len(k.Want))
		for i, w := range k.Want {
			words[i] = fmt.Sprint(w)
		}
		msg, typ := notPermitted(words)
		c.add(at, msg, typ)
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			c.add(append(slices.Clone(at), name), "extra fields not permitted", "value_error.extra")
		}
	default:
		if len(e.Causes) == 0 {
			c.add(at, "value is not acceptable", "value_error")
		}
		for _, cause := range e.Causes {
			c.collect(cause)
		}
	}
}

func (c *collector) wrongType(at []string, k *kind.Type) {
	format := ""
	if len(at) == 1 {
		if i := c.schema.index(at[0]); i < len(c.schema.properties) {
			format = c.schema.properties[i].format
		}
	}
	want := slices.DeleteFunc(slices.Clone(k.Want), func(t string) bool { return t == "null" })
	switch {
	case k.Got == "null":
		c.add(at, "none is not an allowed value", "type_error.none.not_allowed")
	case format == "date-time":
		c.add(at, msgDateTime, typeDateTime)
	case len(want) == 0:
		c.add(at, "value is not acceptable", "type_error")
	default:
		msg, typ := wrongType(want[0])
		c.add(at, msg, typ)
	}
}

func wrongType(want string) (msg, typ string) {
	switch want {
	case "string":
		return "str type expected", "type_error.str"
	case "object":
		return "value is not a valid dict", "type_error.dict"
	case "array":
		return "value is not a valid list", "type_error.list"
	case "boolean":
		return "value could not be parsed to a boolean", "type_error.bool"
	case "integer":
		return "value is not a valid integer", "type_error.integer"
	case "number":
		return "value is not a valid float", "type_error.float"
	}
	return "value is not acceptable", "type_error"
}

func tooLong(limit int) (msg, typ string) {
	return "ensure this value has at most " + strconv.Itoa(limit) + " characters", "value_error.any_str.max_length"
}

func notPermitted(words []string) (msg, typ string) {
	return "value is not a valid enumeration member; permitted: '" + strings.Join(words, "', '") + "'", "type_error.enum"
}

var statusWords = []string{"pending", "started", "completed", "failed", "aborted"}

// index gives the place of a member in the document, the last for unknown ones.
func (b *bodySchema) index(name string) int {
	for i := range b.properties {
		if b.properties[i].name == name {
			return i
		}
	}
	return len(b.properties)
}

func (c *collector) sorted() []FieldFault {
	slices.SortStableFunc(c.faults, func(a, b FieldFault) int {
		if d := c.schema.index(a.Loc[min(1, len(a.Loc)-1)]) - c.schema.index(b.Loc[min(1, len(b.Loc)-1)]); d != 0 {
			return d
		}
		return slices.Compare(a.Loc, b.Loc)
	})
	return c.faults
}
