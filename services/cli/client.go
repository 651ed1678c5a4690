package cli

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/shipledger/shipledger/pkg/tlsfiles"
)

// TLS says what a server of https:// must show, and what it is shown: flags of every
// command that asks one.
type TLS struct {
	CA   string `name:"tls-ca" env:"SHIPLEDGER_TLS_CA" help:"File of the authorities that the server must have a certificate of, PEM; default: those of this machine."`
	Cert string `name:"tls-cert" env:"SHIPLEDGER_TLS_CERT" help:"File of the certificate to show to a server that asks for one."`
	Key  string `name:"tls-key" env:"SHIPLEDGER_TLS_KEY" help:"File of its key."`
}

// client gives what asks a server, by these files if there are any.
func (t TLS) client() (*http.Client, error) {
	if t == (TLS{}) {
		return newClient(nil), nil
	}
	files, err := tlsfiles.Open(tlsfiles.Config{Cert: t.Cert, Key: t.Key, Roots: t.CA}, slog.Default())
	if err != nil {
		return nil, fmt.Errorf("read what --tls-ca, --tls-cert and --tls-key name: %w", err)
	}
	return newClient(files.Transport()), nil
}

// newClient never follows a redirect: a followed POST arrives without its body
// and is answered with success, and the token would go wherever it points.
// Without a transport it is the usual one.
func newClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Timeout: callTimeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
