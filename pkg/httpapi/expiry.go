package httpapi

import (
	"net/http"
	"strconv"
	"time"
)

// warn tells in the headers when the caller's credential ends, and of one that
// was rotated that it makes way for another (RFC 9745, RFC 8594).
func (r *Request) warn() {
	id := &r.Identity
	if id.ExpiresAt.IsZero() {
		return
	}
	h := r.response.Header()
	var text [len(time.RFC3339)]byte
	h["X-Token-Expires-At"] = []string{string(id.ExpiresAt.UTC().AppendFormat(text[:0], time.RFC3339))}
	if !id.RotatedAt.IsZero() {
		h["Deprecation"] = []string{"@" + strconv.FormatInt(id.RotatedAt.Unix(), 10)}
		h["Sunset"] = []string{id.ExpiresAt.UTC().Format(http.TimeFormat)}
	}
}
