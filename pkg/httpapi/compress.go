package httpapi

import (
	"fmt"
	"net/http"

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
