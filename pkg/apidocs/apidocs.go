// Package apidocs serves the pages that show the API document to people: /docs
// (Swagger UI) and /redoc (Redoc). Everything that they load comes from this
// binary, so that they work where nothing else can be reached and tell nobody
// who reads them.
//
// Swagger UI comes from a module that embeds it. No module embeds Redoc, so its
// published bundle stands in assets, with its licence. Both are kept compressed,
// to make the binary smaller.
package apidocs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"

	"github.com/swaggest/swgui/v5/static"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

//go:embed assets
var assets embed.FS

// policy lets a page load from this server alone and run nothing that stands in
// it. The two hashes are the style elements that Redoc makes: an empty one, which
// it fills by script, and one of its own.
const policy = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// The types of what is served.
const (
	html       = "text/html; charset=utf-8"
	javascript = "text/javascript; charset=utf-8"
	css        = "text/css; charset=utf-8"
)

// Handlers gives the handlers of the pages and of what they load.
func Handlers() httpapi.Handlers {
	files := map[string]httpapi.Handler{
		"docs.js":              serve(assets, "assets/docs.js", javascript),
		"redoc.js":             serve(assets, "assets/redoc.js", javascript),
		"redoc.standalone.js":  serve(assets, "assets/redoc.standalone.js.gz", javascript),
		"swagger-ui-bundle.js": serve(static.FS, "swagger-ui-bundle.js.gz", javascript),
		"swagger-ui.css":       serve(static.FS, "swagger-ui.css.gz", css),
	}
	return httpapi.Handlers{
		"getDocs":  serve(assets, "assets/docs.html", html),
		"getRedoc": serve(assets, "assets/redoc.html", html),
		"getDocsFile": func(w http.ResponseWriter, r *httpapi.Request) error {
			h := files[r.PathValue("file")]
			if h == nil {
				return httpapi.NotFound("file")
			}
			return h(w, r)
		},
	}
}

// serve answers with a file; one whose name ends in .gz is unpacked.
func serve(in fs.FS, path, contentType string) httpapi.Handler {
	load := sync.OnceValues(func() ([]byte, error) { return fs.ReadFile(in, path) })
	tag := sync.OnceValue(func() string {
		body, _ := load()
		sum := sha256.Sum256(body)
		return `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	})
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		kept, err := load()
		if err != nil {
			return fmt.Errorf("read a file of this binary: %w", err)
		}
		body := io.Reader(bytes.NewReader(kept))
		if strings.HasSuffix(path, ".gz") {
			if body, err = gzip.NewReader(body); err != nil {
				return fmt.Errorf("unpack %s of this binary: %w", path, err)
			}
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag())
		if httpapi.MatchesETag(r.Header.Get("If-None-Match"), tag()) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		h.Set("Content-Type", contentType)
		w.WriteHeader(http.StatusOK)
		_, _ = io.Copy(w, body) // the reader may be gone
		return nil
	}
}
