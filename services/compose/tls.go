package compose

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/tlsfiles"
)

// TLS says what encrypts the connections of a process. With a certificate it serves
// over TLS; with an authority it refuses to speak with anybody else, and without TLS.
type TLS struct {
	Cert string `env:"SHIPLEDGER_TLS_CERT" help:"File of this process's certificate, PEM: it serves with it, and shows it to services, NATS and ClickHouse. Files are read again when they change."`
	Key  string `env:"SHIPLEDGER_TLS_KEY" help:"File of its key, which others must not be able to read."`
	CA   string `name:"ca" env:"SHIPLEDGER_TLS_CA" help:"File of the authorities that services, NATS and ClickHouse must have certificates of; a service of its own process refuses clients without one, too."`

	ClientCA   string `name:"client-ca" env:"SHIPLEDGER_TLS_CLIENT_CA" help:"File of the authorities that clients of SHIPLEDGER_ADDR must have a certificate of; none: they need none."`
	PublicCert string `env:"SHIPLEDGER_TLS_PUBLIC_CERT" help:"File of the certificate that SHIPLEDGER_ADDR is served with; default: that of SHIPLEDGER_TLS_CERT."`
	PublicKey  string `env:"SHIPLEDGER_TLS_PUBLIC_KEY" help:"File of its key."`
}

// peers gives what encrypts connections between processes; nil: nothing does.
func (t TLS) peers(logger *slog.Logger) (*tlsfiles.Files, error) {
	if t.Cert == "" && t.Key == "" && t.CA == "" {
		return nil, nil //nolint:nilnil // without an error it says so
	}
	f, err := tlsfiles.Open(tlsfiles.Config{Cert: t.Cert, Key: t.Key, Roots: t.CA, Clients: t.CA}, logger)
	if err != nil {
		return nil, fmt.Errorf("read SHIPLEDGER_TLS_CERT, _KEY and _CA: %w", err)
	}
	return f, nil
}

// public gives what the public address is served with; nil: without TLS.
func (t TLS) public(logger *slog.Logger) (*tlsfiles.Files, error) {
	cfg := tlsfiles.Config{Cert: t.PublicCert, Key: t.PublicKey, Roots: t.CA, Clients: t.ClientCA}
	if cfg.Cert == "" && cfg.Key == "" {
		cfg.Cert, cfg.Key = t.Cert, t.Key
	}
	switch {
	case cfg.Cert == "" && t.ClientCA != "":
		return nil, errors.New("SHIPLEDGER_TLS_CLIENT_CA asks clients for certificates, which needs TLS: set SHIPLEDGER_TLS_CERT and SHIPLEDGER_TLS_KEY")
	case cfg.Cert == "" && cfg.Key == "":
		return nil, nil //nolint:nilnil // without an error it says so
	}
	f, err := tlsfiles.Open(cfg, logger)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of SHIPLEDGER_ADDR: %w", err)
	}
	return f, nil
}

// Secrecy is what the files of TLS hold, read once for a process.
type Secrecy struct {
	Peers  *tlsfiles.Files // between processes; nil: plain
	Public *tlsfiles.Files // of SHIPLEDGER_ADDR; nil: plain
}

// Secrecy reads the files of TLS.
func (c Config) Secrecy(logger *slog.Logger) (s Secrecy, err error) {
	peers, err := c.TLS.peers(logger)
	if err != nil {
		return s, err
	}
	public, err := c.TLS.public(logger)
	return Secrecy{Peers: peers, Public: public}, err
}

// Upstream gives what encrypts connections to services; nil: nothing does.
func (s Secrecy) Upstream() httpapi.Secure {
	if s.Peers == nil {
		return nil
	}
	return s.Peers.Handshake
}

// Inside is what a service of its own process is served with; nil: without TLS.
func (s Secrecy) Inside() *tls.Config { return serve(s.Peers) }

// Outside is what SHIPLEDGER_ADDR is served with; nil: without TLS.
func (s Secrecy) Outside() *tls.Config { return serve(s.Public) }

func serve(f *tlsfiles.Files) *tls.Config {
	if f == nil || !f.HasCertificate() {
		return nil
	}
	return f.Server()
}

// errNoCertificate refuses a service that would be served without TLS to others who
// call it with TLS.
var errNoCertificate = errors.New("SHIPLEDGER_TLS_CA is set, so that other processes call this one over TLS: set SHIPLEDGER_TLS_CERT and SHIPLEDGER_TLS_KEY")

// checkInside refuses what a service of its own process cannot be served with.
func (s Secrecy) checkInside() error {
	if s.Peers != nil && !s.Peers.HasCertificate() {
		return errNoCertificate
	}
	return nil
}

// NATS are the options that make connections to NATS as secret as they should be:
// with an authority all of them are over TLS, otherwise those of tls:// are.
func (s Secrecy) NATS(url string) []nats.Option {
	if s.Peers == nil || s.Peers.Roots() == nil && !strings.Contains(url, "tls://") {
		return nil
	}
	options := []nats.Option{nats.Secure(s.Peers.Client(""))}
	if s.Peers.Roots() != nil {
		options = append(options, func(o *nats.Options) error {
			o.RootCAsCB = func() (*x509.CertPool, error) { return s.Peers.Roots(), nil }
			return nil
		})
	}
	return options
}

// TableDial gives what connects to ClickHouse over TLS; nil: its address says how.
func (s Secrecy) TableDial() func(ctx context.Context, address string) (net.Conn, error) {
	if s.Peers == nil {
		return nil
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return s.Peers.DialContext(ctx, "tcp", address)
	}
}

// Demands tells whether nothing that this process calls may be without TLS.
func (s Secrecy) Demands() bool { return s.Peers != nil && s.Peers.Roots() != nil }

// transport carries what is asked of the operator's own NATS.
func (s Secrecy) transport() http.RoundTripper {
	if s.Peers == nil {
		return http.DefaultTransport
	}
	return s.Peers.Transport()
}
