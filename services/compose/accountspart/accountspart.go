// Package accountspart puts accounts into a process. It makes the first
// credentials, whichever of several processes is first.
package accountspart

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/outbound"
	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/services/accounts"
	"github.com/shipledger/shipledger/services/compose"
)

// New makes the first credentials where there are none, and gives the part.
func New(ctx context.Context, p *compose.Process) (compose.Part, accounts.Bootstrapped, error) {
	cfg := p.Config
	none := func(err error) (compose.Part, accounts.Bootstrapped, error) {
		return compose.Part{}, accounts.Bootstrapped{}, err
	}
	credentials, err := p.Credentials(ctx)
	if err != nil {
		return none(err)
	}
	made, err := accounts.Bootstrap(ctx, accounts.BootstrapConfig{
		DataDir: cfg.Data, Account: cfg.Account, URL: "http://" + cfg.Addr,
	}, credentials, p.Peppers, time.Now, rand.Reader)
	if err != nil {
		return none(err)
	}
	people := accounts.Config{
		SessionLife: cfg.SessionLife, Settings: p.Book.Of, Flight: &keyring.Flight{}, Nodes: p.Nodes, Usage: p.Usage,
	}
	allow, err := credential.ParsePrefixes(cfg.OutboundAllow)
	if err != nil {
		return none(fmt.Errorf("read the addresses that may be called: %w", err))
	}
	outside := outbound.New(outbound.Config{Allow: allow})
	if cfg.Leaks.GitHub != "" {
		people.Leaks = &accounts.LeaksConfig{GitHubKeys: cfg.Leaks.GitHub, MarkOnly: !cfg.Leaks.Revoke, Client: outside}
	}
	secret, err := cfg.OIDC.Secret()
	if err != nil {
		return none(err)
	}
	if o := cfg.OIDC; o.Issuer != "" {
		people.OIDC = &accounts.OIDCConfig{
			Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: secret, Scopes: o.Scopes, Domains: o.Domains, RedirectURL: o.RedirectURL, Client: outside,
		}
	}
	if cfg.RateLimit != "off" {
		people.Attempts = ratelimit.NewMemory()
	}
	service := accounts.New(people, p.Spec, credentials, p.Ring, p.Peppers, p.Sessions, time.Now, rand.Reader)
	return compose.Part{
		Service: compose.Accounts, Handlers: service.Handlers(), Flights: []*keyring.Flight{people.Flight},
		Core: []lifecycle.Service{service.Warnings(p.Logger), keyring.NewRehasher(p.Ring, credentials, p.Logger)},
	}, made, nil
}
