package httpapi

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/fault"
)

// A row says how a kind of fault is answered.
type row struct {
	status    int
	detail    string // constant per status: clients and attackers learn nothing from it
	errorType string
	code      string // where the fault has none
}

// rows is the only place where kinds become statuses (contract 6). Conflict,
// Locked and Precondition have bodies of their own, without a type.
var rows = [...]row{
	fault.Internal:        {500, "Internal server error", "api_error", "INTERNAL_ERROR"},
	fault.Invalid:         {400, "Invalid JSON in request body", "invalid_request_error", "INVALID_JSON"},
	fault.Unprocessable:   {422, "", "invalid_request_error", "VALIDATION_ERROR"},
	fault.Unauthenticated: {401, "Invalid authentication credentials", "authentication_error", "AUTH_INVALID_KEY"},
	fault.Forbidden:       {403, "You do not have permission to perform this action", "permission_error", "INSUFFICIENT_SCOPE"},
	fault.NotFound:        {404, "Not found", "not_found", "NOT_FOUND"},
	fault.Conflict:        {409, "", "", "CONFLICT"},
	fault.Locked:          {423, "", "", "NO_DEPLOY_WINDOW"},
	fault.Precondition:    {428, "", "", "PRECONDITION_REQUIRED"},
	fault.TooLarge:        {413, "Request body too large", "invalid_request_error", "BODY_TOO_LARGE"},
	fault.RateLimited:     {429, "", "rate_limit_error", "RATE_LIMIT_EXCEEDED"},
	fault.Unavailable:     {503, "Service temporarily unavailable", "api_error", "SERVICE_UNAVAILABLE"},
	fault.Misdirected:     {421, "Misdirected request", "invalid_request_error", "MISDIRECTED"},
}

var methodRow = row{405, "Method not allowed", "invalid_request_error", "METHOD_NOT_ALLOWED"}

// errMethod stands outside the kinds: no domain knows of methods.
var errMethod = errors.New("method not allowed")

// FieldFault is one entry of a validation answer, as FastAPI forms it.
type FieldFault struct {
	Loc  []string `json:"loc"`
	Msg  string   `json:"msg"`
	Type string   `json:"type"`
}

// ValidationError says which values are not acceptable, all of them together.
type ValidationError struct {
	Faults  []FieldFault
	Code    string // empty: VALIDATION_ERROR
	Message string // empty: made of the first fault
}

// Error names the first fault.
func (e *ValidationError) Error() string {
	switch {
	case e.Message != "":
		return e.Message
	case len(e.Faults) == 0:
		return "The request is not valid."
	}
	f := e.Faults[0]
	return f.Loc[len(f.Loc)-1] + ": " + f.Msg
}

// Blocked is a start that a rule refuses (contract 6.2). Kind is Conflict for
// concurrency, Locked for a window, Precondition for the rest.
type Blocked struct {
	Kind       fault.Kind
	Code       string
	Message    string
	RetryAfter time.Time      // zero: not known
	Details    map[string]any // rule_name is added as "" where it is missing
}

// Error gives the sentence for the user.
func (b *Blocked) Error() string { return b.Message }

// RetryLater tells with an error when trying again makes sense.
type RetryLater struct {
	Err   error
	After time.Duration
}

// Error gives the error's text.
func (e RetryLater) Error() string { return e.Err.Error() }

// Unwrap gives the error.
func (e RetryLater) Unwrap() error { return e.Err }

// A Problem is an error as it is answered.
type Problem struct {
	Status     int
	Body       []byte // one JSON object
	RetryAfter int    // seconds; 0: not said
}

// Describe gives the answer to err. A batch puts the bodies of refused items
// beside each other; everything else is written by the API.
func Describe(err error, requestID string) Problem {
	if b, ok := errors.AsType[*Blocked](err); ok {
		return b.describe(requestID)
	}
	if v, ok := errors.AsType[*ValidationError](err); ok {
		list := v.Faults
		if len(list) == 0 {
			list = []FieldFault{{[]string{"body"}, v.Error(), "value_error"}}
		}
		return common(rows[fault.Unprocessable], list, &fault.Error{Code: v.Code, Message: v.Error()}, requestID)
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		f = &fault.Error{Message: "Something went wrong on our side. The request id helps to find out what."}
	}
	if errors.Is(err, errMethod) {
		return common(methodRow, methodRow.detail, &fault.Error{Message: "This path does not have that method."}, requestID)
	}
	switch f.Kind {
	case fault.Conflict:
		return conflict(f, requestID)
	case fault.Locked, fault.Precondition:
		b := Blocked{Kind: f.Kind, Code: f.Code, Message: f.Message}
		return b.describe(requestID)
	case fault.Unprocessable:
		list := []FieldFault{{[]string{"body"}, f.Message, "value_error"}}
		return common(rows[f.Kind], list, f, requestID)
	case fault.RateLimited, fault.Unavailable:
		after := 1
		if later, ok := errors.AsType[RetryLater](err); ok {
			after = seconds(later.After)
		}
		r := rows[f.Kind]
		if f.Kind == fault.RateLimited {
			r.detail = fmt.Sprintf("Rate limit exceeded. Try again in %d seconds.", after)
		}
		p := common(r, r.detail, f, requestID)
		p.RetryAfter = after
		return p
	case fault.Internal, fault.Invalid, fault.Unauthenticated, fault.Forbidden, fault.NotFound, fault.TooLarge, fault.Misdirected:
	}
	return common(rows[f.Kind], rows[f.Kind].detail, f, requestID)
}

// seconds rounds up, so that trying again after it succeeds.
func seconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }

type meta struct {
	RequestID string `json:"request_id"`
}

func common(r row, detail any, f *fault.Error, requestID string) Problem {
	type object struct {
		Type    string `json:"type"`
		Code    string `json:"code"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	}
	code := f.Code
	if code == "" {
		code = r.code
	}
	return Problem{Status: r.status, Body: marshal(struct {
		Detail  any    `json:"detail"`
		Success bool   `json:"success"`
		Error   object `json:"error"`
		Meta    meta   `json:"meta"`
	}{detail, false, object{r.errorType, code, f.Message, f.Hint}, meta{requestID}})}
}

// conflict writes the form of contract 6.3: the CLI needs a string under
// detail, the action reads message and then error.
func conflict(f *fault.Error, requestID string) Problem {
	code, word := f.Code, "conflict"
	switch code {
	case "":
		code = rows[fault.Conflict].code
	case "VERSION_SHA_MISMATCH":
		word = "version_conflict"
	}
	return Problem{Status: rows[fault.Conflict].status, Body: marshal(struct {
		Detail  string `json:"detail"`
		Message string `json:"message"`
		Error   string `json:"error"`
		Code    string `json:"code"`
		Success bool   `json:"success"`
		Meta    meta   `json:"meta"`
	}{f.Message, f.Message, word, code, false, meta{requestID}})}
}

// describe writes the same object at top level and under detail: documentation
// shows the one, both clients read the other.
func (b *Blocked) describe(requestID string) Problem {
	type refusal struct {
		Error      string         `json:"error"`
		Message    string         `json:"message"`
		Code       string         `json:"code"`
		RetryAfter string         `json:"retry_after,omitempty"`
		Details    map[string]any `json:"details"`
	}
	r := refusal{"deployment_blocked", b.Message, b.Code, "", map[string]any{"rule_name": ""}}
	if r.Code == "" {
		r.Code = rows[b.Kind].code
	}
	maps.Copy(r.Details, b.Details)
	p := Problem{Status: rows[b.Kind].status}
	if !b.RetryAfter.IsZero() {
		r.RetryAfter = b.RetryAfter.UTC().Format(time.RFC3339)
		p.RetryAfter = seconds(time.Until(b.RetryAfter))
	}
	p.Body = marshal(struct {
		Detail  refusal `json:"detail"`
		refusal `json:",inline"`
		Success bool `json:"success"`
		Meta    meta `json:"meta"`
	}{r, r, false, meta{requestID}})
	return p
}

func (p *Problem) write(w http.ResponseWriter) {
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	// A caller may have put a token where none belongs, and messages quote callers.
	writeJSON(w, p.Status, credential.RedactIn(p.Body))
}

// tooLarge says that a body is over its limit.
func tooLarge(code string, limit int64) error {
	return fault.New(fault.TooLarge, code, "A request body here may have at most %d bytes.", limit)
}

// marshal writes what this package and its callers declared as types, which
// cannot fail unless a programmer declared what JSON cannot hold.
func marshal(v any) []byte {
	b, err := json.Marshal(v, marshalOptions)
	if err != nil {
		panic(fmt.Sprintf("write JSON: %v", err))
	}
	return b
}

var marshalOptions = json.JoinOptions(json.Deterministic(true), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))

func stack() []byte { return debug.Stack() }
