package event

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Request is what the body of a build or deployment event holds, under the
// names it used. Aliases stay apart; unknown members are ignored; null and ""
// both read as absent (contract 1.8, 4.1, 4.2).
type Request struct {
	ProductName         string         `json:"product_name"`
	Version             string         `json:"version"`
	EnvironmentName     string         `json:"environment_name"`
	Environment         string         `json:"environment"` // alias of environment_name
	Status              string         `json:"status"`
	SourceSystem        string         `json:"source_system"`
	BuildNumber         string         `json:"build_number"`
	SCMSHA              string         `json:"scm_sha"`
	SCMBranch           string         `json:"scm_branch"`
	SCMRepository       string         `json:"scm_repository"`
	DeployURL           string         `json:"deploy_url"`
	BuildURL            string         `json:"build_url"` // of a build; for a deployment an alias of deploy_url
	InvokeID            string         `json:"invoke_id"`
	DeployedBy          string         `json:"deployed_by"`
	DeployedByEmail     string         `json:"deployed_by_email"`
	DeployedByName      string         `json:"deployed_by_name"`
	BuiltBy             string         `json:"built_by"`
	BuiltByEmail        string         `json:"built_by_email"`
	BuiltByName         string         `json:"built_by_name"`
	ErrorMessage        string         `json:"error_message"`
	ErrorCode           string         `json:"error_code"`
	StartedAt           string         `json:"started_at"`
	CompletedAt         string         `json:"completed_at"`
	BuiltAt             string         `json:"built_at"` // alias of completed_at, builds only
	SkipPreflightChecks bool           `json:"skip_preflight_checks"`
	ExtraMetadata       jsontext.Value `json:"extra_metadata"`
}

// decodeOptions: a repeated member counts with its last value, as most JSON
// libraries read it, and invalid UTF-8 is replaced.
var decodeOptions = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// DecodeRequest reads a body. It fails where a known member has the wrong type.
func DecodeRequest(body []byte) (Request, error) {
	var r Request
	err := json.Unmarshal(body, &r, decodeOptions)
	return r, err
}

// ReadRequest reads a body that was accepted. A member of the wrong type reads
// as absent: such a body was accepted because its kind does not know the member
// (contract 1.8: a deployment with a number as error_code), or because the
// member says "" where a flag would stand.
func ReadRequest(body []byte) (Request, error) {
	r, err := DecodeRequest(body)
	if err == nil {
		return r, nil
	}
	var held map[string]jsontext.Value
	if err := json.Unmarshal(body, &held, decodeOptions); err != nil {
		return Request{}, err
	}
	for name, v := range held {
		one, _ := json.Marshal(map[string]jsontext.Value{name: v}, decodeOptions)
		if _, err := DecodeRequest(one); err != nil {
			delete(held, name)
		}
	}
	readable, err := json.Marshal(held, decodeOptions)
	if err != nil {
		return Request{}, err
	}
	return DecodeRequest(readable)
}

// attributes gives what the request holds under the record's own names: aliases
// do not count, they are what the event has to spell out.
func (r *Request) attributes(kind Kind) Attributes {
	a := Attributes{
		SourceSystem: r.SourceSystem, BuildNumber: r.BuildNumber, SCMSHA: r.SCMSHA, SCMBranch: r.SCMBranch,
		SCMRepository: r.SCMRepository, InvokeID: r.InvokeID,
	}
	if kind == Build {
		a[URL], a[By], a[ByEmail], a[ByName] = r.BuildURL, r.BuiltBy, r.BuiltByEmail, r.BuiltByName
		a[ErrorMessage], a[ErrorCode] = r.ErrorMessage, r.ErrorCode
	} else {
		a[URL], a[By], a[ByEmail], a[ByName] = r.DeployURL, r.DeployedBy, r.DeployedByEmail, r.DeployedByName
	}
	return a
}

// Attributes gives what the request says of a run of this kind, aliases
// resolved (contract 4.1, 4.2).
func (r *Request) Attributes(kind Kind) Attributes {
	a := r.attributes(kind)
	if kind == Deployment && a[URL] == "" {
		a[URL] = r.BuildURL
	}
	return a
}
