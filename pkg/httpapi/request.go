package httpapi

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/fault"
)

// Request is an admitted request: who asks stands in it and nowhere else, so
// that no handler can take an identity from somewhere it was not checked.
type Request struct {
	*http.Request
	Operation *Operation
	Identity  credential.Identity // zero on public operations
	ID        string              // req_…, also in the answer

	api       *API
	response  response
	params    [maxParams]string
	query     []queryValue
	token     string // never leaves this package
	ingestion bool
	budget    Budget
	after     string
	// SourceSystem is the system that an event came from; ingestion says it.
	SourceSystem string
}

// PathValue gives the value of a path parameter.
func (r *Request) PathValue(name string) string {
	for i, n := range r.Operation.pathNames {
		if n == name {
			return r.params[i]
		}
	}
	return ""
}

// read tells whether the request only reads.
func (r *Request) read() bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// MediaType gives the declared media type of the body in lower case and without
// parameters: "" where none is declared, "?" for what cannot be read.
func (r *Request) MediaType() string {
	values := r.Header["Content-Type"]
	if len(values) == 0 || values[0] == "" {
		return ""
	}
	if values[0] == "application/json" { // the usual spelling, without an allocation
		return values[0]
	}
	t, _, err := mime.ParseMediaType(values[0])
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return "?"
	}
	return t
}

// CheckJSON refuses a body that is declared to be something else than JSON
// (contract 1.9).
func (r *Request) CheckJSON() error {
	if t := r.MediaType(); t != "" && t != "application/json" {
		return UnsupportedMediaType("application/json")
	}
	return nil
}

// UnsupportedMediaType says what a body may be.
func UnsupportedMediaType(accepted ...string) error {
	return fault.New(fault.Invalid, "UNSUPPORTED_MEDIA_TYPE", "The request body must be %s.", strings.Join(accepted, " or "))
}

// ReadJSON reads a body of up to the operation's MaxBody bytes, whether or not
// its length was declared. It does not look into it. The caller owns the bytes.
func (r *Request) ReadJSON() ([]byte, error) {
	if err := r.CheckJSON(); err != nil {
		return nil, err
	}
	return r.ReadBody(r.Body)
}

// ReadBody reads from body, which may be the request's own or one decoded from
// it, up to the operation's MaxBody bytes.
func (r *Request) ReadBody(body io.Reader) ([]byte, error) {
	limit := r.Operation.MaxBody
	if n := r.ContentLength; n >= 0 && body == io.Reader(r.Body) {
		if n > limit {
			return nil, tooLarge(r.Operation.TooLarge, limit)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(body, b); err != nil {
			return nil, r.cannotRead(err)
		}
		return b, nil
	}
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, r.cannotRead(err)
	}
	if n > limit {
		r.response.Header().Set("Connection", "close") // the rest is not read
		return nil, tooLarge(r.Operation.TooLarge, limit)
	}
	return b.Bytes(), nil
}

func (r *Request) cannotRead(err error) error {
	return fault.New(fault.Invalid, "INVALID_JSON", "The request body could not be read to its end.").Because(err)
}

// JSON answers with v. Before a read begins to answer, the credential is
// checked once more: the error must be returned by the handler.
func (r *Request) JSON(status int, v any) error { return r.Bytes(status, marshal(v)) }

// Bytes answers with a JSON value that is already written, in one piece or in
// several; see JSON.
func (r *Request) Bytes(status int, pieces ...[]byte) error {
	if r.read() {
		if err := r.Reverify(); err != nil {
			return err
		}
	}
	writeJSON(&r.response, status, pieces...)
	return nil
}

func writeJSON(w http.ResponseWriter, status int, pieces ...[]byte) {
	length := 0
	for _, b := range pieces {
		length += len(b)
	}
	h := w.Header()
	h["Content-Type"] = contentJSON
	h["Content-Length"] = []string{strconv.Itoa(length)}
	w.WriteHeader(status)
	if len(pieces) > 1 && length <= joinedAnswer {
		b := joinedAnswers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
		*b = (*b)[:0]
		for _, piece := range pieces {
			*b = append(*b, piece...)
		}
		_, _ = w.Write(*b)
		joinedAnswers.Put(b)
		return
	}
	for _, b := range pieces {
		_, _ = w.Write(b) // the client may be gone; nothing is left to say to it
	}
}

// Pieces of so many bytes are put together: each write behind a large one is a
// system call of its own, and a packet that wakes the client. Of an answer of 39 KB
// and its tail that took 5 to 8 of the 60 µs of both sides' processor time.
const joinedAnswer = 64 << 10

var joinedAnswers = sync.Pool{New: func() any { b := make([]byte, 0, joinedAnswer); return &b }}

var contentJSON = []string{"application/json"}

// response knows whether an answer has begun.
type response struct {
	http.ResponseWriter
	wrote  bool
	status int
}

// WriteHeader begins the answer.
func (w *response) WriteHeader(status int) {
	if status >= http.StatusOK && !w.wrote {
		w.wrote, w.status = true, status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write begins the answer if it has not begun.
func (w *response) Write(b []byte) (int, error) {
	if !w.wrote {
		w.wrote, w.status = true, http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// List is the answer of every list (contract 5.1). No items are [], never null.
type List[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor"`
	AsOf       AsOf    `json:"as_of"`
}

// AsOf says how new a read is.
type AsOf struct {
	Position string     `json:"position"` // one per stream that the answer is drawn from, joined by commas; empty while there is nothing
	Time     *time.Time `json:"time"`     // receipt of the newest event in it; nil while there is none
}

// NewList makes the answer to r of items; after is the key of the last item, or
// "" if the list ends with it.
func NewList[T any](r *Request, items []T, after string, asOf AsOf) List[T] {
	l := List[T]{Items: items, AsOf: asOf}
	if l.Items == nil {
		l.Items = []T{}
	}
	if after != "" {
		c := r.Cursor(after)
		l.NextCursor = &c
	}
	return l
}

// Health is how this process feels.
type Health struct {
	Status  string            `json:"status"` // ok, degraded or unavailable
	Version string            `json:"version"`
	Parts   map[string]string `json:"parts"`
	// Durability is "unverified" where nobody could tell that the log's server
	// writes through to the disk before it answers.
	Durability string `json:"durability,omitzero"`
}

// The words of Health.Status. Unavailable is for a process that can serve nothing.
const (
	HealthOK          = "ok"
	HealthDegraded    = "degraded"
	HealthUnavailable = "unavailable"
)

// ServeHealth makes the handler of getHealth.
func ServeHealth(check func(*Request) Health) Handler {
	return func(_ http.ResponseWriter, r *Request) error {
		h := check(r)
		if h.Status == HealthUnavailable {
			r.response.Header().Set("Retry-After", "1")
			return r.JSON(http.StatusServiceUnavailable, h)
		}
		return r.JSON(http.StatusOK, h)
	}
}

func serveLiveness(_ http.ResponseWriter, r *Request) error {
	return r.Bytes(http.StatusOK, []byte(`{"status":"ok"}`))
}

// serveDocument answers with the very bytes that are executed.
func (s *Spec) serveDocument(w http.ResponseWriter, r *Request) error {
	w.Header().Set("ETag", s.etag)
	w.Header().Set("Cache-Control", "no-cache")
	if MatchesETag(r.Header.Get("If-None-Match"), s.etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return r.Bytes(http.StatusOK, s.document)
}

// MatchesETag tells whether an If-None-Match header names tag.
func MatchesETag(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == "*" || part == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}
