package event

import (
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Scanned is a body that one pass was enough for.
type Scanned struct {
	Request Request
	// Members are those of extra_metadata; nil where it is absent or no object.
	Members Object
	// Kind, IdempotencyKey are what an item of a batch says beside the event.
	Kind, IdempotencyKey string
}

// ScanRequest reads a body in one pass, if it is as clients write them: one
// object without white space between its parts, no member twice, strings that
// need no decoding. It is false for everything else, right or wrong, which
// DecodeRequest then reads; a fuzz test holds it to the same answer. What it
// gives may be a part of body, which must not be changed afterwards.
func ScanRequest(body []byte) (Scanned, bool) {
	var out Scanned
	// Strings are cut out of one copy of the body: one allocation, not fifteen.
	s := scanner{body: body, text: string(body)}
	if !s.object(func(name string) bool { return s.member(name, &out) }) || s.at != len(s.text) {
		return Scanned{}, false
	}
	return out, true
}

// How deep a body may be, and how many members its extra_metadata may have, for
// one pass: the rest is rare, and is read otherwise.
const (
	maxScannedDepth   = 16
	maxScannedMembers = 64
)

type scanner struct {
	body  []byte
	text  string // the same
	at    int
	depth int
	seen  uint64 // members that were there, by their number
	// extras, where there is room for them, are the members of the extra_metadata that
	// was read last, instead of a Scanned's: a record makes a map of its own of them.
	extras []member
}

// member is one of an object, as it is written.
type member struct {
	name  string
	value jsontext.Value
}

// take goes on behind c if it comes next.
func (s *scanner) take(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// object reads {"name":…,…}; each reads the value of a name.
func (s *scanner) object(each func(name string) bool) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		name, ok := s.str()
		if !ok || !s.take(':') || !each(name) {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// str reads a string that stands for itself: no escape, no control character,
// and valid UTF-8.
func (s *scanner) str() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	from, ascii := s.at, true
	for i := from; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			s.at = i + 1
			v := s.text[from:i]
			return v, ascii || utf8.ValidString(v)
		case c == '\\' || c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

// field gives where a member of a request goes, and its number.
func (out *Scanned) field(name string) (to *string, number int) {
	r := &out.Request
	switch name {
	case "product_name":
		return &r.ProductName, 0
	case "version":
		return &r.Version, 1
	case "environment_name":
		return &r.EnvironmentName, 2
	case "environment":
		return &r.Environment, 3
	case "status":
		return &r.Status, 4
	case "source_system":
		return &r.SourceSystem, 5
	case "build_number":
		return &r.BuildNumber, 6
	case "scm_sha":
		return &r.SCMSHA, 7
	case "scm_branch":
		return &r.SCMBranch, 8
	case "scm_repository":
		return &r.SCMRepository, 9
	case "deploy_url":
		return &r.DeployURL, 10
	case "build_url":
		return &r.BuildURL, 11
	case "invoke_id":
		return &r.InvokeID, 12
	case "deployed_by":
		return &r.DeployedBy, 13
	case "deployed_by_email":
		return &r.DeployedByEmail, 14
	case "deployed_by_name":
		return &r.DeployedByName, 15
	case "built_by":
		return &r.BuiltBy, 16
	case "built_by_email":
		return &r.BuiltByEmail, 17
	case "built_by_name":
		return &r.BuiltByName, 18
	case "error_message":
		return &r.ErrorMessage, 19
	case "error_code":
		return &r.ErrorCode, 20
	case "started_at":
		return &r.StartedAt, 21
	case "completed_at":
		return &r.CompletedAt, 22
	case "built_at":
		return &r.BuiltAt, 23
	case "kind":
		return &out.Kind, 24
	case "idempotency_key":
		return &out.IdempotencyKey, 25
	}
	return nil, -1
}

const (
	skipField  = 26
	extraField = 27
)

func (s *scanner) member(name string, out *Scanned) bool {
	to, number := out.field(name)
	switch name {
	case "skip_preflight_checks":
		number = skipField
	case "extra_metadata":
		number = extraField
	}
	if number < 0 {
		return s.value() // unknown members are ignored, as often as they come
	}
	if s.seen&(1<<number) != 0 {
		return false // the last one counts: not in one pass
	}
	s.seen |= 1 << number
	switch {
	case s.word("null"):
		return number != extraField
	case number == skipField:
		out.Request.SkipPreflightChecks = s.word("true")
		return out.Request.SkipPreflightChecks || s.word("false")
	case number == extraField:
		return s.extra(out)
	}
	var ok bool
	*to, ok = s.str()
	return ok
}

func (s *scanner) word(w string) bool {
	if len(s.text)-s.at < len(w) || s.text[s.at:s.at+len(w)] != w {
		return false
	}
	s.at += len(w)
	return true
}

// extra reads extra_metadata, whose members are kept as they are written.
func (s *scanner) extra(out *Scanned) bool {
	began := s.at
	each := s.listed
	if s.extras == nil {
		out.Members = Object{}
		each = func(name string) bool {
			from := s.at
			if _, twice := out.Members[name]; twice || len(out.Members) == maxScannedMembers || !s.value() {
				return false
			}
			out.Members[name] = s.body[from:s.at:s.at]
			return true
		}
	}
	s.extras = s.extras[:0]
	ok := s.object(each)
	out.Request.ExtraMetadata = s.body[began:s.at:s.at]
	return ok
}

// listed reads a member of extra_metadata into extras.
func (s *scanner) listed(name string) bool {
	from := s.at
	twice := slices.ContainsFunc(s.extras, func(m member) bool { return m.name == name })
	if twice || len(s.extras) == maxScannedMembers || !s.value() {
		return false
	}
	s.extras = append(s.extras, member{name, s.body[from:s.at:s.at]})
	return true
}

// value goes behind any value that is written without white space.
func (s *scanner) value() bool {
	if s.at == len(s.text) || s.depth == maxScannedDepth {
		return false
	}
	s.depth++
	defer func() { s.depth-- }()
	switch c := s.text[s.at]; {
	case c == '"':
		_, ok := s.str()
		return ok
	case c == '{':
		return s.object(func(string) bool { return s.value() })
	case c == '[':
		s.at++
		if s.take(']') {
			return true
		}
		for s.value() {
			if s.take(']') {
				return true
			}
			if !s.take(',') {
				return false
			}
		}
		return false
	case c >= '1' && c <= '9':
		for s.at < len(s.text) && s.text[s.at] >= '0' && s.text[s.at] <= '9' {
			s.at++
		}
		// What is no plain whole number is written in ways that Compact may change.
		return s.at == len(s.text) || s.text[s.at] == ',' || s.text[s.at] == '}' || s.text[s.at] == ']'
	}
	return s.word("true") || s.word("false") || s.word("null") || s.word("0")
}
