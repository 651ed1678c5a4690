package httpapi

import (
	"unicode/utf8"

	"github.com/shipledger/shipledger/pkg/event"
)

// EventBody names a kind of event body by its component schema.
type EventBody string

// The bodies of contract 4.1 and 4.2.
const (
	DeploymentEvent EventBody = "DeploymentEvent"
	BuildEvent      EventBody = "BuildEvent"
	VersionEvent    EventBody = "VersionEvent" // a build whose status may be absent
)

// maxExtra is the most bytes of extra_metadata: more than clients allow
// themselves, because one checks before it adds members of its own.
const maxExtra = 128 << 10

// DecodeEvent reads and checks the body of one event. Pipelines wait for the
// answer, so a good body is decoded once and checked by hand; only where that
// finds something is the document's schema run, which then makes the list of
// faults. A test holds the two to the same judgement.
//
// The error is a fault of kind Invalid for a body that is not JSON, and a
// *ValidationError for one with faults.
func (s *Spec) DecodeEvent(as EventBody, body []byte) (event.Request, error) {
	r, err := event.DecodeRequest(body)
	if err == nil && Acceptable(as, &r) {
		return r, nil
	}
	faults, invalid := s.CheckBody(string(as), body)
	if invalid != nil {
		return r, invalid
	}
	if len(faults) > 0 {
		return r, &ValidationError{Faults: faults}
	}
	// The document is what was promised: it lets pass a member that only the
	// other kind of event knows, whatever its type.
	return event.ReadRequest(body)
}

// DecodeEvent reads and checks the body of one event; see Spec.DecodeEvent.
func (r *Request) DecodeEvent(as EventBody, body []byte) (event.Request, error) {
	return r.api.cfg.Spec.DecodeEvent(as, body)
}

// Acceptable is the document's schema of an event body, by hand, for one that was
// read. False is no judgement: DecodeEvent gives it then, by the schema.
func Acceptable(as EventBody, r *event.Request) bool {
	ok := name(r.ProductName, 255) && name(r.Version, 100) &&
		within(r.SourceSystem, 50) && within(r.BuildNumber, 100) && within(r.SCMSHA, 40) &&
		within(r.SCMBranch, 100) && within(r.SCMRepository, 500) && within(r.BuildURL, 500) && within(r.InvokeID, 255) &&
		moment(r.StartedAt) && moment(r.CompletedAt) && object(r.ExtraMetadata) &&
		(r.Status == "" && as == VersionEvent || status(r.Status))
	if !ok {
		return false
	}
	if as == DeploymentEvent {
		return (r.EnvironmentName != "" || r.Environment != "") &&
			(r.EnvironmentName == "" || name(r.EnvironmentName, 100)) &&
			(r.Environment == "" || name(r.Environment, 100)) &&
			within(r.DeployURL, 500) &&
			within(r.DeployedBy, 255) && within(r.DeployedByEmail, 255) && within(r.DeployedByName, 255)
	}
	return within(r.BuiltBy, 255) && within(r.BuiltByEmail, 255) && within(r.BuiltByName, 255) && moment(r.BuiltAt)
}

// within counts characters only where the bytes do not settle it.
func within(s string, limit int) bool {
	return len(s) <= limit || utf8.RuneCountInString(s) <= limit
}

func name(s string, limit int) bool {
	if s == "" || !within(s, limit) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c == 0x7f || c == 0xc2 && i+1 < len(s) && s[i+1] < 0xa0 {
			return false
		}
	}
	return true
}

func moment(s string) bool {
	if s == "" {
		return true
	}
	_, err := parseTime(s)
	return err == nil
}

func status(s string) bool {
	_, ok := event.ParseStatus(s)
	return ok && within(s, 50)
}

func object(v []byte) bool {
	return len(v) == 0 || len(v) <= maxExtra && v[0] == '{' || v[0] == 'n' || string(v) == `""`
}
