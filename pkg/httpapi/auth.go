package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// An Authenticator verifies a token by what is known of credentials at this
// moment.
//
// Implementations must never answer from a cache of earlier decisions, and
// must return a fault of kind Unauthenticated with a code of contract 6.1 for a
// token that speaks for nobody.
type Authenticator interface {
	Verify(token string) (credential.Identity, error)
}

// A Rechecker is an Authenticator that can be asked again about a credential that
// it let in, by its record, without the token. Like Verify it must answer by what
// is known at this moment, and let nothing pass that Verify would refuse.
type Rechecker interface {
	Again(recordID string) (credential.Identity, error)
}

// A Limiter counts requests against the budget of a credential.
type Limiter interface {
	// Take takes up to n tokens and tells how many were granted. With n = 0 it
	// tells the state of the budget.
	Take(id *credential.Identity, ingestion bool, n int) Budget
}

// A Budget is the state of the tighter of the limits that apply to a request.
type Budget = ratelimit.Budget

// maxToken is far above what any token needs.
const maxToken = 8 << 10

// Faults of authentication that are known before anybody is asked.
var (
	errNoCredential  = fault.New(fault.Unauthenticated, "AUTH_MISSING", "Missing or malformed Authorization header.").WithHint("Send the header Authorization: Bearer <token>.")
	errBadCredential = fault.New(fault.Unauthenticated, "AUTH_INVALID_FORMAT", "Missing or malformed Authorization header.").WithHint("Send the header Authorization: Bearer <token>.")
)

// errForeignPage refuses a write that a browser may have been talked into.
var errForeignPage = fault.New(fault.Forbidden, "CROSS_ORIGIN", "A write with the cookie must come from a page of this server.").
	WithHint("Send the header Origin as a browser does, or the token as Authorization: Bearer <token>.")

// SessionCookie is the name of the cookie that holds a web session. It counts
// only where there is no Authorization header.
const SessionCookie = "__session"

// presented takes the token out of a request. The Authorization header is the
// only place where one counts, save for web sessions: the browser sends those
// by itself (contract 3.1).
func presented(r *http.Request) (token string, cookie bool, err error) {
	if len(r.Header["Authorization"]) > 0 {
		token, err = bearer(r.Header)
		return token, false, err
	}
	switch cookies := r.CookiesNamed(SessionCookie); {
	case len(cookies) == 0:
		return "", false, errNoCredential
	case len(cookies) > 1 || len(cookies[0].Value) > maxToken || !credential.LooksLikeSession(cookies[0].Value):
		return "", false, errBadCredential
	default:
		return cookies[0].Value, true, nil
	}
}

func bearer(h http.Header) (string, error) {
	values := h["Authorization"]
	if len(values) > 1 {
		return "", errBadCredential
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxToken {
		return "", errBadCredential
	}
	for i := range len(token) {
		if !tokenByte(token[i]) {
			return "", errBadCredential
		}
	}
	return token, nil
}

// tokenByte knows the characters of a bearer token (RFC 6750).
func tokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("-._~+/=", c) >= 0
}

// admit does the checks between the path and the method: who asks, within
// which budget, and whether that credential may. They hold for methods that do
// not exist too, so that an answer tells nobody what there would be.
func (a *API) admit(r *Request, route *route, e *entry) error {
	token, cookie, err := presented(r.Request)
	if err != nil {
		return err
	}
	if r.Identity, err = a.cfg.Authenticator.Verify(token); err != nil {
		return err
	}
	r.token, r.ingestion = token, route.ingestion
	r.warn()
	n := 1
	if e != nil && e.op.PerItem {
		n = 0
	}
	if r.Take(n) < n {
		return RetryLater{fault.New(fault.RateLimited, "", "Too many requests."), r.budget.RetryAfter}
	}
	if r.Identity.Limits != nil && !r.Identity.Limits.Admits(r.ClientAddr()) {
		return errForeignAddress
	}
	if cookie && writes(r.Method) && !r.SameOrigin() {
		return errForeignPage
	}
	if err := a.tokensWrite(r, e); err != nil {
		return err
	}
	if e == nil {
		return permitMethod(&r.Identity, r.Method, route.ingestion)
	}
	return a.permit(&r.Identity, e.op)
}

// tokensWrite refuses writes with personal access tokens where the account's
// setting pat_write is off (contract 3.4). What read is enough for is no write,
// whatever its method. The token of the first start may always: it is the way back.
func (a *API) tokensWrite(r *Request, e *entry) error {
	id := &r.Identity
	if id.Kind != credential.PAT || id.FirstStart || a.cfg.Settings == nil || !writes(r.Method) ||
		e != nil && slices.Contains(e.op.Scopes, credential.Read) || a.cfg.Settings(id.Account).PATWrite {
		return nil
	}
	return fault.New(fault.Forbidden, "WRONG_CREDENTIAL_KIND", "The settings of this account do not let personal access tokens write.")
}

// Take takes up to n tokens of the caller's budget and tells how many it got.
// The headers of the answer show what is left, so it must be called before the
// answer begins. Only operations that are charged per item need it.
func (r *Request) Take(n int) int {
	if r.api.cfg.Limiter == nil {
		return n
	}
	b := r.api.cfg.Limiter.Take(&r.Identity, r.ingestion, n)
	r.budget = b
	h := r.response.Header()
	h["X-Ratelimit-Limit"] = []string{strconv.Itoa(b.Limit)}
	h["X-Ratelimit-Remaining"] = []string{strconv.Itoa(b.Remaining)}
	full := b.Full.Add(time.Second - 1) // rounded up: at that second it is full
	h["X-Ratelimit-Reset"] = []string{strconv.FormatInt(full.Unix(), 10)}
	return b.Granted
}

// RetryAfter tells when the caller's budget has a token again, as of the last Take.
func (r *Request) RetryAfter() time.Duration { return r.budget.RetryAfter }

// let tells whether the account's settings let a kind of credential call an
// operation that is not for it otherwise.
func (a *API) let(id *credential.Identity, op *Operation) bool {
	setting := op.BySetting[id.Kind]
	if setting == "" || a.cfg.Settings == nil {
		return false
	}
	decided := a.cfg.Settings(id.Account)
	on := decided.Named(setting)
	return on != nil && *on
}

func (a *API) permit(id *credential.Identity, op *Operation) error {
	if !slices.Contains(op.Kinds, id.Kind) && !a.let(id, op) {
		return wrongKind(id.Kind)
	}
	if id.Kind == credential.Session && len(op.SessionRoles) > 0 {
		if !slices.Contains(op.SessionRoles, id.Role) {
			return wrongRole(id.Role)
		}
		return nil
	}
	if !slices.ContainsFunc(op.Scopes, id.Scopes.Has) {
		return insufficient(op.Scopes[0])
	}
	if id.Kind == credential.PAT && len(op.SessionRoles) > 0 && !slices.Contains(op.SessionRoles, id.Role) {
		return wrongRole(id.Role) // its scopes may name more than its owner may (contract 3.4)
	}
	return nil
}

// Secure tells whether the client's connection is encrypted, as far as this
// process can know: who stands in front knows better than the connection to it.
func (r *Request) Secure() bool {
	if said := r.Header.Get("X-Forwarded-Proto"); r.api.cfg.ForwardedProto && said != "" {
		return strings.EqualFold(said, "https")
	}
	return r.TLS != nil
}

// SameOrigin tells whether the request comes from a page of this server. Only
// browsers say so, and they always do when they write. An unencrypted page
// counts unless the request is known to be encrypted: behind a proxy that
// nobody has told us of it looks as if it were not.
func (r *Request) SameOrigin() bool {
	origin := r.Header["Origin"]
	if len(origin) != 1 {
		return false
	}
	if host, ok := strings.CutPrefix(origin[0], "https://"); ok {
		return strings.EqualFold(host, r.Host)
	}
	host, ok := strings.CutPrefix(origin[0], "http://")
	return ok && !r.Secure() && strings.EqualFold(host, r.Host)
}

// permitMethod decides for a method that the path does not have: what may not
// be done anywhere is refused before it is said that it cannot be done here.
func permitMethod(id *credential.Identity, method string, ingestion bool) error {
	switch {
	case ingestion && id.Kind == credential.Session:
		return wrongKind(id.Kind)
	case !ingestion && id.Kind == credential.APIKey && !id.Scopes.Has(credential.Read):
		return insufficient(credential.Read)
	case writes(method) && id.Scopes&(credential.EventsWrite|credential.Write|credential.Admin) == 0:
		return insufficient(credential.Write)
	}
	return nil
}

// writes tells whether a method is meant to change something.
func writes(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return true
	}
	return false
}

// Require refuses a caller who does not hold scope, for what an operation
// allows only some of its callers.
func (r *Request) Require(scope credential.Scopes) error {
	if r.Identity.Scopes.Has(scope) {
		return nil
	}
	return insufficient(scope)
}

// Reverify asks again whether the credential is alive. It is asked right
// before a write is committed and before the first byte of a read, so that a
// request in flight does not outlive its key (contract 3.3).
func (r *Request) Reverify() error {
	if r.token == "" {
		return nil
	}
	var id credential.Identity
	var err error
	if again, ok := r.api.cfg.Authenticator.(Rechecker); ok && r.Identity.Kind != credential.Session {
		id, err = again.Again(r.Identity.RecordID)
	} else {
		id, err = r.api.cfg.Authenticator.Verify(r.token)
	}
	if err == nil && id.Limits != nil && !id.Limits.Admits(r.ClientAddr()) {
		return errForeignAddress
	}
	return err
}

func wrongKind(kind credential.Kind) error {
	names := map[credential.Kind]string{credential.APIKey: "An API key", credential.PAT: "A personal access token", credential.Session: "A web session"}
	return fault.New(fault.Forbidden, "WRONG_CREDENTIAL_KIND", "%s cannot be used here.", names[kind])
}

func wrongRole(role string) error {
	return fault.New(fault.Forbidden, "INSUFFICIENT_ROLE", "The role %s may not do this.", role)
}

func insufficient(scope credential.Scopes) error {
	for word, s := range scopeWords {
		if s == scope {
			return fault.New(fault.Forbidden, "INSUFFICIENT_SCOPE", "The credential does not have the scope %s.", word)
		}
	}
	return fault.New(fault.Forbidden, "INSUFFICIENT_SCOPE", "The credential does not have the scope for this.")
}

// NotOwner refuses an object of another account (contract 6).
func NotOwner(kind string) error {
	return fault.New(fault.Forbidden, "NOT_OWNER", "access denied: this %s does not belong to your account", kind)
}

// NotFound says that an object exists nowhere.
func NotFound(kind string) error {
	return fault.New(fault.NotFound, "NOT_FOUND", "This %s does not exist.", kind)
}
