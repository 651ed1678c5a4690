package compose_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/tlsfiles/tlsfilestest"
	"github.com/shipledger/shipledger/services/compose"
)

// What a process serves with and what it demands of others follows from which files
// there are.
func TestTheFilesOfTLSSayWhatIsEncrypted(t *testing.T) {
	authority, err := tlsfilestest.New(t.TempDir(), "authority")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := authority.Issue("process", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	public, publicKey, err := authority.Issue("public", "ledger.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name                     string
		tls                      compose.TLS
		inside, outside, demands bool
	}{
		{"none", compose.TLS{}, false, false, false},
		{"a certificate", compose.TLS{Cert: cert, Key: key}, true, true, false},
		{"an authority", compose.TLS{CA: authority.File}, false, false, true},
		{"both", compose.TLS{Cert: cert, Key: key, CA: authority.File}, true, true, true},
		{"a public one", compose.TLS{PublicCert: public, PublicKey: publicKey}, false, true, false},
		{"clients must have one", compose.TLS{Cert: cert, Key: key, ClientCA: authority.File}, true, true, false},
	} {
		s, err := compose.Config{TLS: c.tls}.Secrecy(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := s.Inside() != nil; got != c.inside {
			t.Errorf("%s: services are served over TLS: %t", c.name, got)
		}
		if got := s.Outside() != nil; got != c.outside {
			t.Errorf("%s: the public address is served over TLS: %t", c.name, got)
		}
		if s.Demands() != c.demands {
			t.Errorf("%s: it demands TLS of others: %t", c.name, s.Demands())
		}
		if got := len(s.NATS("nats://127.0.0.1:4222")) > 0; got != c.demands {
			t.Errorf("%s: nats:// is over TLS: %t", c.name, got)
		}
		if got := len(s.NATS("tls://127.0.0.1:4222")) > 0; got != (s.Peers != nil) {
			t.Errorf("%s: tls:// is by these files: %t", c.name, got)
		}
	}
	for _, c := range []struct {
		name, says string
		tls        compose.TLS
	}{
		{"a key alone", "SHIPLEDGER_TLS_CERT", compose.TLS{Key: key}},
		{"a public key alone", "SHIPLEDGER_ADDR", compose.TLS{PublicKey: key}},
		{"certificates of clients without TLS", "SHIPLEDGER_TLS_CLIENT_CA", compose.TLS{ClientCA: authority.File}},
	} {
		if _, err := (compose.Config{TLS: c.tls}).Secrecy(slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
