// Package outbound makes the HTTP clients with which the system asks others for
// something: an issuer for its keys, a reporter for its own.
//
// It exists because an address that somebody wrote down, or that another server
// named, may lead into the operator's own network: to the metadata of the
// machine, to a database, to this very server. A client of this package looks at
// the address that it is about to connect to, after the name was resolved, so
// that a name which changes its mind between two look-ups gains nothing. It
// follows no redirect, knows no proxy, waits and reads only so much.
//
// Connections to the system's own backends do not go through it: who configures
// those names them on purpose. No domain package may import it.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// The limits of one call.
const (
	Timeout      = 10 * time.Second // from the first look-up to the last byte
	MaxBody      = 1 << 20          // bytes, decompressed
	maxHeader    = 64 << 10
	dialTimeout  = 5 * time.Second
	idleTimeout  = 30 * time.Second
	maxIdle      = 4
	maxPerServer = 8
)

// The faults of a call that is not made, or not finished.
var (
	// ErrAddress: the name leads to an address that outsiders have no business with.
	ErrAddress = errors.New("this address is not one of the public internet; SHIPLEDGER_OUTBOUND_ALLOW names those that may be called all the same")
	// ErrUnencrypted: only what was allowed by its address may be called without TLS.
	ErrUnencrypted = errors.New("only https addresses are called, save those that SHIPLEDGER_OUTBOUND_ALLOW names")
	// ErrTooLong: the answer is longer than MaxBody.
	ErrTooLong = fmt.Errorf("the answer is longer than %d bytes", MaxBody)
)

// Config says what a client may do beyond the public internet.
type Config struct {
	// Allow are the addresses and networks that may be called though they are
	// private, and without TLS.
	Allow []netip.Prefix
	// Resolver finds addresses; nil: the machine's.
	Resolver *net.Resolver
}

// New makes a client. A redirect is its answer, as it came.
func New(cfg Config) *http.Client {
	return &http.Client{
		Timeout:       Timeout,
		Transport:     &transport{secure: cfg.transport(cfg.public), plain: cfg.transport(cfg.allowed)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// transport makes connections to addresses that pass a check.
func (cfg Config) transport(check func(netip.Addr) error) *http.Transport {
	d := &net.Dialer{
		Timeout: dialTimeout, Resolver: cfg.Resolver,
		// Called for every address that is tried, with that address.
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return ErrAddress
			}
			return check(to.Addr())
		},
	}
	return &http.Transport{
		DialContext: d.DialContext, TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: Timeout, MaxResponseHeaderBytes: maxHeader,
		IdleConnTimeout: idleTimeout, MaxIdleConns: maxIdle, MaxConnsPerHost: maxPerServer, ForceAttemptHTTP2: true,
	}
}

func (cfg Config) public(addr netip.Addr) error {
	if Public(addr) {
		return nil
	}
	if cfg.allowed(addr) == nil {
		return nil
	}
	return ErrAddress
}

func (cfg Config) allowed(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if slices.ContainsFunc(cfg.Allow, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return nil
	}
	return ErrUnencrypted
}

// reserved are the networks of IANA's registries of special purposes that the
// methods of netip.Addr do not tell, and those that carry an IPv4 address inside.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),       // this network
	netip.MustParsePrefix("100.64.0.0/10"),   // shared by a provider's customers; metadata of some clouds
	netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments; metadata of some clouds
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation
	netip.MustParsePrefix("192.88.99.0/24"),  // 6to4 relays
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
	netip.MustParsePrefix("198.51.100.0/24"), // documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved, and broadcast
	netip.MustParsePrefix("::/96"),           // IPv4 inside, deprecated
	netip.MustParsePrefix("64:ff9b::/96"),    // IPv4 inside, translated
	netip.MustParsePrefix("64:ff9b:1::/48"),  // the same in a local network
	netip.MustParsePrefix("100::/64"),        // discarded
	netip.MustParsePrefix("2001::/23"),       // protocol assignments, with tunnels of IPv4
	netip.MustParsePrefix("2001:db8::/32"),   // documentation
	netip.MustParsePrefix("2002::/16"),       // 6to4: IPv4 inside
	netip.MustParsePrefix("3fff::/20"),       // documentation
	netip.MustParsePrefix("fec0::/10"),       // site-local, deprecated
}

// Public tells whether an address belongs to somebody on the public internet.
func Public(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return addr.IsGlobalUnicast() && !addr.IsPrivate() &&
		!slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// transport sends what is encrypted anywhere, and the rest where it is allowed.
type transport struct{ secure, plain *http.Transport }

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	by := t.plain
	if r.URL.Scheme == "https" {
		by = t.secure
	}
	res, err := by.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = &limited{res.Body, MaxBody}
	return res, nil
}

// CloseIdleConnections is for http.Client.
func (t *transport) CloseIdleConnections() {
	t.secure.CloseIdleConnections()
	t.plain.CloseIdleConnections()
}

// limited fails where a body goes on too long. A shortened one might still be
// read as something.
type limited struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (l *limited) Read(b []byte) (int, error) {
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1]
	}
	n, err := l.ReadCloser.Read(b)
	if l.left -= int64(n); l.left < 0 {
		return 0, ErrTooLong
	}
	return n, err
}
