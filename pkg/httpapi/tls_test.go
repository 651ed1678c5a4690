//nolint:bodyclose // bodies end with their connections, which are closed
package httpapi_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/tlsfiles"
	"github.com/shipledger/shipledger/pkg/tlsfiles/tlsfilestest"
)

// member gives files of one who has a certificate for 127.0.0.1 and asks others for one.
func member(t *testing.T) *tlsfiles.Files {
	t.Helper()
	authority, err := tlsfilestest.New(t.TempDir(), "authority")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := authority.Issue("member", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	files, err := tlsfiles.Open(tlsfiles.Config{Cert: cert, Key: key, Roots: authority.File, Clients: authority.File}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// What bounds connections, and what a stop waits for, is the same over TLS.
func TestConnectionsAreBoundedAndEndedOverTLSToo(t *testing.T) {
	files := member(t)
	const most = 3
	address, stop := serve(t, &httpapi.Server{MaxConnections: most, Grace: hang, TLS: files.Server()})
	var silent []net.Conn
	for range 3 * most {
		silent = append(silent, dial(t, address)) // some never begin to agree on TLS
	}
	secure := func() net.Conn { return tls.Client(dial(t, address), files.Client("127.0.0.1")) }
	if res := ask(t, secure()); res.StatusCode != http.StatusNoContent {
		t.Errorf("beside silent connections an answer is %d", res.StatusCode)
	}
	for _, c := range silent[:2*most] {
		closed(t, c)
	}
	kept := secure()
	for range 2 {
		if res := ask(t, kept); res.StatusCode != http.StatusNoContent {
			t.Errorf("a connection that is used again is answered %d", res.StatusCode)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A process that has no certificate for its address is as one that is not there: what
// was to be sent goes to another one.
func TestAProcessThatIsNotItselfIsNotSpokenWith(t *testing.T) {
	files := member(t)
	honest, _ := serve(t, &httpapi.Server{TLS: files.Server()})
	false1, _ := serve(t, &httpapi.Server{TLS: member(t).Server()})
	false2, _ := serve(t, &httpapi.Server{})
	upstream := httpapi.NewUpstream([]string{false1, honest, false2}, files.Handshake)
	for range 6 {
		conn, err := upstream.DialContext(t.Context(), "tcp", "ingest:80")
		if err != nil {
			t.Fatal(err)
		}
		if at := conn.RemoteAddr().String(); at != honest {
			t.Errorf("connected with %s, not %s", at, honest)
		}
		if err := conn.Close(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := httpapi.NewUpstream([]string{false1, false2}, files.Handshake).DialContext(ctx, "tcp", ""); !errors.Is(err, httpapi.ErrUnreached) {
		t.Errorf("strangers alone: %v", err)
	}
}
