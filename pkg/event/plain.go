package event

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// wellFormed lets pass what every reader understands in the same way (RFC 7493).
var wellFormed = []jsontext.Options{jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false)}

// Plain gives JSON without white space, with each member of an object once, at
// whatever depth, and in valid UTF-8: the last value counts, and what is no text
// is replaced, as when it is read. Whoever writes it into an answer or an archive
// need not look at it again. It may change v. It fails for what is no JSON.
func Plain(v jsontext.Value) (jsontext.Value, error) {
	if v.Compact(wellFormed...) == nil {
		return v, nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(v), decodeOptions)
	out, err := appendOnce(make(jsontext.Value, 0, len(v)), dec)
	if err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	return out, out.Compact(wellFormed...)
}

var errTrailing = errors.New("something stands behind the JSON value")

// appendOnce writes the next value of dec.
func appendOnce(dst jsontext.Value, dec *jsontext.Decoder) (jsontext.Value, error) {
	switch dec.PeekKind() {
	case '{':
		return appendMembersOnce(dst, dec)
	case '[':
		if _, err := dec.ReadToken(); err != nil {
			return nil, err
		}
		dst = append(dst, '[')
		for i := 0; dec.PeekKind() != ']'; i++ {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendOnce(dst, dec); err != nil {
				return nil, err
			}
		}
		_, err := dec.ReadToken()
		return append(dst, ']'), err
	}
	if dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		return jsontext.AppendQuote(dst, token.String())
	}
	v, err := dec.ReadValue()
	return append(dst, v...), err
}

func appendMembersOnce(dst jsontext.Value, dec *jsontext.Decoder) (jsontext.Value, error) {
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	type span struct {
		name     string
		from, to int
	}
	var members []span
	last := map[string]int{} // where the last member of a name stands
	begin := len(dst)
	for dec.PeekKind() != '}' {
		token, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		m := span{name: token.String(), from: len(dst)}
		if dst, err = jsontext.AppendQuote(dst, m.name); err != nil {
			return nil, err
		}
		if dst, err = appendOnce(append(dst, ':'), dec); err != nil {
			return nil, err
		}
		m.to = len(dst)
		last[m.name] = len(members)
		members = append(members, m)
	}
	_, err := dec.ReadToken()
	written := slices.Clone(dst[begin:])
	dst = append(dst[:begin], '{')
	for i, m := range members {
		if last[m.name] != i {
			continue
		}
		if len(dst) > begin+1 {
			dst = append(dst, ',')
		}
		dst = append(dst, written[m.from-begin:m.to-begin]...)
	}
	return append(dst, '}'), err
}
