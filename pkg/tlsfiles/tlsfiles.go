// Package tlsfiles gives TLS whose certificates are files. It exists because files
// change: certificates last days or months, processes longer, and nobody should have
// to restart a ledger because an authority has signed anew. What is in the files counts
// from the next handshake on; connections that are there go on.
//
// A change that cannot be read is logged and changes nothing: a certificate is
// replaced file by file, and for a moment it does not fit its key.
package tlsfiles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// handshakeTimeout is for the other side to answer, on a busy machine too.
	handshakeTimeout = 10 * time.Second
	// soon is how long before its end a certificate is warned about.
	soon = 7 * 24 * time.Hour
	// minVersion is what both sides must speak; they agree on 1.3 where both can.
	minVersion = tls.VersionTLS12
)

// Config names files in PEM.
type Config struct {
	// Cert and Key are the own certificate, with what leads to its authority, and its
	// key. It is shown by servers, and by clients where a server asks for one.
	Cert, Key string
	// Roots are the authorities that certificates of servers must be of; empty: those
	// of the machine.
	Roots string
	// Clients are the authorities that certificates of clients must be of, who are
	// refused without one; empty: none is asked for.
	Clients string
}

// Files are what was read. They are safe for concurrent use.
type Files struct {
	own     *watched[*tls.Certificate] // nil: none
	roots   *watched[*x509.CertPool]   // nil: those of the machine
	clients *watched[*x509.CertPool]   // nil: none is asked for
}

// Open reads all files, and fails where one is missing, is not what it should be, or
// is a key that others may read.
func Open(cfg Config, logger *slog.Logger) (*Files, error) {
	f := &Files{}
	var errs []error
	if (cfg.Cert == "") != (cfg.Key == "") {
		errs = append(errs, errors.New("a certificate and its key go together: there is only one of them"))
	} else if cfg.Cert != "" {
		f.own = &watched[*tls.Certificate]{
			paths: []string{cfg.Cert, cfg.Key}, logger: logger,
			read: func() (*tls.Certificate, error) { return readPair(cfg.Cert, cfg.Key, logger) },
		}
		errs = append(errs, f.own.open())
	}
	for _, pool := range []struct {
		file string
		into **watched[*x509.CertPool]
	}{{cfg.Roots, &f.roots}, {cfg.Clients, &f.clients}} {
		if pool.file == "" {
			continue
		}
		*pool.into = &watched[*x509.CertPool]{
			paths: []string{pool.file}, logger: logger,
			read: func() (*x509.CertPool, error) { return readPool(pool.file) },
		}
		errs = append(errs, (*pool.into).open())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return f, nil
}

// HasCertificate tells whether there is a certificate to serve with.
func (f *Files) HasCertificate() bool { return f.own != nil }

// Server is for listeners. It must have a certificate.
func (f *Files) Server() *tls.Config {
	cfg := &tls.Config{
		MinVersion: minVersion,
		// A connection is one client's place, and its time for a request is that of the
		// connection: both would have to be counted anew for HTTP/2.
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.own.get(), nil },
	}
	if f.clients != nil {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.SessionTicketsDisabled = true // who comes back shows a certificate again
		cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := cfg.Clone()
			now.ClientCAs = f.clients.get()
			return now, nil
		}
	}
	return cfg
}

// Client is for one connection to a host, or for the next few: its authorities are
// those of this moment. Where the host is empty, whoever uses it must say it.
func (f *Files) Client(host string) *tls.Config {
	return &tls.Config{MinVersion: minVersion, ServerName: host, RootCAs: f.Roots(), GetClientCertificate: f.shown}
}

// Roots are the authorities of servers; nil: those of the machine.
func (f *Files) Roots() *x509.CertPool {
	if f.roots == nil {
		return nil
	}
	return f.roots.get()
}

// shown gives the certificate that a server asks for. One that it will not take is
// shown all the same: what the server then says tells more.
func (f *Files) shown(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if f.own == nil {
		return &tls.Certificate{}, nil
	}
	return f.own.get(), nil
}

// Handshake encrypts a connection to an address, host:port, whose certificate must be
// for that host. It closes a connection that it cannot encrypt.
func (f *Files) Handshake(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secure := tls.Client(conn, f.Client(host))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("encrypt the connection to %s: %w", address, err)
	}
	return secure, nil
}

// DialContext connects to an address and encrypts the connection.
func (f *Files) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return f.Handshake(ctx, conn, address)
}

// Transport carries requests, those of https:// by these files.
func (f *Files) Transport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialTLSContext: f.DialContext, TLSClientConfig: f.Client(""), // the latter behind a proxy
		TLSHandshakeTimeout: handshakeTimeout, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: idlePerHost,
	}
}

const idlePerHost = 16

// Myself is for a process that calls its own address, by whatever name: it takes the
// own certificate and no other.
func (f *Files) Myself() *tls.Config {
	return &tls.Config{
		MinVersion: minVersion, GetClientCertificate: f.shown,
		InsecureSkipVerify: true, // neither name nor authority says more than the certificate itself
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !s.PeerCertificates[0].Equal(f.own.get().Leaf) {
				return errors.New("another server answers at the own address")
			}
			return nil
		},
	}
}

// watched is what was last read of some files.
type watched[T any] struct {
	paths  []string
	read   func() (T, error)
	logger *slog.Logger

	mu    sync.Mutex
	value T
	seen  string // what the files looked like when they were last read
	sick  bool   // and could not be
}

func (w *watched[T]) open() (err error) {
	w.seen = w.look()
	w.value, err = w.read()
	return err
}

// get reads the files again if they look different, and gives what was last read well.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	looks := w.look()
	if looks == w.seen && !w.sick {
		return w.value
	}
	value, err := w.read()
	switch {
	case err == nil:
		w.value = value
		w.logger.Info("certificates have changed", "files", w.paths)
	case looks != w.seen: // once for each change
		w.logger.Warn("changed certificates cannot be used, those of before go on", "err", err)
	}
	w.seen, w.sick = looks, err != nil
	return w.value
}

// look gives a text that changes with the files.
func (w *watched[T]) look() string {
	var b strings.Builder
	for _, path := range w.paths {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%d %d %s;", info.ModTime().UnixNano(), info.Size(), info.Mode())
		} else {
			b.WriteString("none;")
		}
	}
	return b.String()
}

func readPair(cert, key string, logger *slog.Logger) (*tls.Certificate, error) {
	info, err := os.Stat(key)
	if err != nil {
		return nil, fmt.Errorf("read the key of a certificate: %w", err)
	}
	if open := info.Mode().Perm() & 0o007; open != 0 {
		return nil, fmt.Errorf("the key %s is not secret: its mode %s lets everybody use it; chmod 600 it, or 640 for a group", key, info.Mode().Perm())
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if _, unread := errors.AsType[*fs.PathError](err); unread {
		return nil, fmt.Errorf("read a certificate: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the certificate %s and the key %s are no pair: %w", cert, key, err)
	}
	if left := time.Until(pair.Leaf.NotAfter); left < soon {
		logger.Warn("a certificate ends soon, or has ended", "file", cert, "not_after", pair.Leaf.NotAfter)
	}
	return &pair, nil
}

func readPool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates of authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate of an authority in PEM", file)
	}
	return pool, nil
}
