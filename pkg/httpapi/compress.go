package httpapi

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzhttp"
)

// minCompressed is from which size on an answer is compressed: below it one
// packet holds either form.
const minCompressed = 1400

// compressed compresses what h answers with gzip where the client takes it
// (contract 1.9). Event streams are left alone, since each event has to leave
// at once, and so is what is compressed already.
func compressed(h http.Handler) (http.Handler, error) {
	wrap, err := gzhttp.NewWrapper(
		gzhttp.MinSize(minCompressed), gzhttp.EnableZstd(false),
		gzhttp.ContentTypes([]string{
			"application/json", "application/x-ndjson", "text/csv", "text/html", "text/css", "text/javascript",
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	return wrap(h), nil
}

// TakesGzip tells whether a client asks for gzip in so many words. An answer that
// is compressed already is passed on as it is; whoever words it otherwise is
// left to those that compress all answers.
func TakesGzip(h http.Header) bool {
	for _, line := range h["Accept-Encoding"] {
		for word := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(word) == "gzip" {
				return true
			}
		}
	}
	return false
}
