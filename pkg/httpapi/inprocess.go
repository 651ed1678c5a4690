package httpapi

import (
	"bytes"
	"io"
	"net"
	"net/http"
)

// Held is an answer that is held back until it is whole: a http.ResponseWriter
// for whoever must look at an answer before it goes on. The zero value is ready.
type Held struct {
	Status int // 0 until the answer begins
	Body   bytes.Buffer
	header http.Header
}

// Header implements http.ResponseWriter.
func (h *Held) Header() http.Header {
	if h.header == nil {
		h.header = http.Header{}
	}
	return h.header
}

// WriteHeader implements http.ResponseWriter.
func (h *Held) WriteHeader(status int) {
	if h.Status == 0 {
		h.Status = status
	}
}

// Write implements http.ResponseWriter.
func (h *Held) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.Body.Write(b)
}

// InProcess carries requests to a handler of the same process: same
// authentication, same errors, no socket. A service that asks another one uses
// it where both are in one process, and http.DefaultTransport where they are not.
// Answers are held in memory.
//
// The client's address is what X-Forwarded-For says, since who asks here is
// never the client.
func InProcess(h http.Handler) http.RoundTripper { return inProcess{h} }

type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if client := in.Header.Get("X-Forwarded-For"); client != "" {
		in.RemoteAddr = net.JoinHostPort(client, "0")
		in.Header.Del("X-Forwarded-For")
	}
	var out Held
	t.handler.ServeHTTP(&out, in)
	return &http.Response{
		Status: http.StatusText(out.Status), StatusCode: out.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: out.Header(), Body: io.NopCloser(&out.Body), ContentLength: int64(out.Body.Len()), Request: r,
	}, nil
}
