package tlsfiles_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/tlsfiles"
	"github.com/shipledger/shipledger/pkg/tlsfiles/tlsfilestest"
)

const host = "ledger.example"

// world is an authority with a server and a client of it.
type world struct {
	t                 *testing.T
	dir               string
	authority, others *tlsfilestest.Authority
	log               bytes.Buffer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.authority = w.make("ours")
	w.others = w.make("others")
	return w
}

func (w *world) make(name string) *tlsfilestest.Authority {
	w.t.Helper()
	a, err := tlsfilestest.New(filepath.Join(w.dir, name), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) issue(a *tlsfilestest.Authority, name string) (cert, key string) {
	w.t.Helper()
	cert, key, err := a.Issue(name, host)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert, key
}

func (w *world) open(cfg tlsfiles.Config) *tlsfiles.Files {
	w.t.Helper()
	f, err := tlsfiles.Open(cfg, slog.New(slog.NewTextHandler(&w.log, nil)))
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// member gives the files of one who has a certificate of an authority, and believes ours.
func (w *world) member(a *tlsfilestest.Authority, name string) *tlsfiles.Files {
	w.t.Helper()
	cert, key := w.issue(a, name)
	return w.open(tlsfiles.Config{Cert: cert, Key: key, Roots: w.authority.File, Clients: w.authority.File})
}

// talk lets a server say a byte to a client, and gives what kept each from it.
func talk(server, client *tls.Config) (with tls.ConnectionState, serverErr, clientErr error) {
	here, there := net.Pipe()
	said := make(chan error, 1)
	go func() {
		s := tls.Server(here, server)
		_, err := s.Write([]byte("x"))
		said <- errors.Join(err, here.Close())
	}()
	c := tls.Client(there, client)
	_, clientErr = io.ReadFull(c, make([]byte, 1))
	_ = there.Close()
	return c.ConnectionState(), <-said, clientErr
}

func TestBothSidesShowACertificateOfTheAuthority(t *testing.T) {
	w := newWorld(t)
	server := w.member(w.authority, "server").Server()
	fellow := w.member(w.authority, "fellow")
	stranger := w.member(w.others, "stranger")
	nobody := w.open(tlsfiles.Config{Roots: w.authority.File})
	for _, c := range []struct {
		name   string
		server *tls.Config
		client *tls.Config
		want   bool
	}{
		{"one of the same authority", server, fellow.Client(host), true},
		{"one without a certificate", server, nobody.Client(host), false},
		{"one of another authority", server, stranger.Client(host), false},
		{"a server of another authority", stranger.Server(), fellow.Client(host), false},
		{"a server of another name", server, fellow.Client("elsewhere.example"), false},
		{"nobody asked for a certificate", w.serving("open"), nobody.Client(host), true},
		{"TLS 1.2", server, atMost(fellow.Client(host), tls.VersionTLS12), true},
		{"TLS 1.1", server, atMost(fellow.Client(host), tls.VersionTLS11), false},
	} {
		_, serverErr, clientErr := talk(c.server, c.client)
		if (clientErr == nil) != c.want || c.want && serverErr != nil {
			t.Errorf("%s: client %v, server %v", c.name, clientErr, serverErr)
		}
	}
}

// serving gives a server of ours that asks nobody for a certificate.
func (w *world) serving(name string) *tls.Config {
	cert, key := w.issue(w.authority, name)
	return w.open(tlsfiles.Config{Cert: cert, Key: key}).Server()
}

func atMost(cfg *tls.Config, version uint16) *tls.Config {
	cfg.MinVersion, cfg.MaxVersion = min(cfg.MinVersion, version), version
	return cfg
}

func TestConnectionsAgreeOnTheNewestVersion(t *testing.T) {
	w := newWorld(t)
	state, _, err := talk(w.serving("server"), w.member(w.authority, "fellow").Client(host))
	if err != nil || state.Version != tls.VersionTLS13 {
		t.Errorf("%s: %v", tls.VersionName(state.Version), err)
	}
}

func TestWhatIsInTheFilesCountsFromTheNextHandshakeOn(t *testing.T) {
	w := newWorld(t)
	files := w.member(w.authority, "server")
	server, client := files.Server(), w.member(w.authority, "fellow")
	serial := func() string {
		t.Helper()
		state, _, err := talk(server, client.Client(host))
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	_, key := w.issue(w.authority, "server")
	second := serial()
	if second == first {
		t.Error("the server shows the certificate of before")
	}

	// A pair is replaced file by file: in between, the last whole one is shown.
	old, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	w.issue(w.authority, "server")
	fresh, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, key, old)
	if got := serial(); got != second {
		t.Error("a certificate without its key was shown")
	}
	replace(t, key, fresh)
	if got := serial(); got == second {
		t.Error("the pair is whole and was not taken")
	}
	if text := w.log.String(); !strings.Contains(text, "cannot be used") || strings.Contains(text, "PRIVATE") {
		t.Errorf("logged: %s", text)
	}

	// An authority that is no longer believed: who has a certificate of it is refused.
	if _, _, err := talk(server, w.member(w.others, "stranger").Client(host)); err == nil {
		t.Error("a stranger was let in")
	}
	others, err := os.ReadFile(w.others.File)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, w.authority.File, others)
	if _, _, err := talk(server, trusting(client)); err == nil {
		t.Error("one of the authority of before was let in")
	}
}

// trusting lets a client believe the server whatever signed it, so that only the
// server decides.
func trusting(f *tlsfiles.Files) *tls.Config {
	cfg := f.Client(host)
	cfg.InsecureSkipVerify = true
	return cfg
}

func replace(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func TestAStartSaysWhatIsWrongWithTheFiles(t *testing.T) {
	w := newWorld(t)
	cert, key := w.issue(w.authority, "server")
	_, otherKey := w.issue(w.authority, "other")
	loose := filepath.Join(w.dir, "loose.key")
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, loose, text)
	if err := os.Chmod(loose, 0o644); err != nil { //nolint:gosec // which is what is refused
		t.Fatal(err)
	}
	missing := filepath.Join(w.dir, "missing.pem")
	for _, c := range []struct {
		name string
		cfg  tlsfiles.Config
		says []string
	}{
		{"a key alone", tlsfiles.Config{Key: key}, []string{"go together"}},
		{"a certificate alone", tlsfiles.Config{Cert: cert}, []string{"go together"}},
		{"no such certificate", tlsfiles.Config{Cert: missing, Key: key}, []string{missing, "no such file"}},
		{"no such key", tlsfiles.Config{Cert: cert, Key: missing}, []string{missing, "no such file"}},
		{"another one's key", tlsfiles.Config{Cert: cert, Key: otherKey}, []string{cert, otherKey, "no pair"}},
		{"a key that others may read", tlsfiles.Config{Cert: cert, Key: loose}, []string{loose, "not secret", "chmod"}},
		{"no certificate in it", tlsfiles.Config{Roots: key}, []string{key, "no certificate of an authority"}},
		{"no such authority", tlsfiles.Config{Clients: missing}, []string{missing, "no such file"}},
		{"all of them at once", tlsfiles.Config{Cert: cert, Key: missing, Roots: key}, []string{missing, key}},
	} {
		_, err := tlsfiles.Open(c.cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		for _, says := range c.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v does not say %s", c.name, err, says)
			}
		}
		if strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: the error shows a key", c.name)
		}
	}
}

func TestAProcessThatCallsItselfTakesItsOwnCertificateAlone(t *testing.T) {
	w := newWorld(t)
	files := w.member(w.authority, "server")
	if _, _, err := talk(files.Server(), files.Myself()); err != nil {
		t.Error(err)
	}
	if _, _, err := talk(w.member(w.authority, "fellow").Server(), files.Myself()); err == nil {
		t.Error("another one was taken")
	}
}

func TestADialledHostMustBeTheOneOfTheCertificate(t *testing.T) {
	w := newWorld(t)
	cert, key, err := w.authority.Issue("local", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", w.open(tlsfiles.Config{Cert: cert, Key: key}).Server())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("x")) // some do not take it
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-served })
	client := w.open(tlsfiles.Config{Roots: w.authority.File})
	for _, address := range []string{"127.0.0.1", "127.0.0.2", "localhost"} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		secure, err := client.Handshake(context.Background(), conn, net.JoinHostPort(address, "1"))
		if (err == nil) != (address == "127.0.0.1") {
			t.Errorf("%s: %v", address, err)
		}
		if err == nil {
			_ = secure.Close()
		}
	}
}
