package all

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/shipledger/shipledger/services/accounts"
)

// OIDC is the issuer that people may sign in through, beside passwords.
type OIDC struct {
	Issuer           string   `env:"SHIPLEDGER_OIDC_ISSUER" help:"OpenID Connect issuer that people may sign in through; empty: none."`
	ClientID         string   `env:"SHIPLEDGER_OIDC_CLIENT_ID" help:"Id of this server there."`
	ClientSecret     string   `env:"SHIPLEDGER_OIDC_CLIENT_SECRET" help:"Secret of this server there."`
	ClientSecretFile string   `env:"SHIPLEDGER_OIDC_CLIENT_SECRET_FILE" type:"path" help:"File that holds the secret."`
	Scopes           []string `default:"email,profile" env:"SHIPLEDGER_OIDC_SCOPES" help:"What is asked for beside openid."`
	Domains          []string `env:"SHIPLEDGER_OIDC_DOMAINS" help:"E-mail domains that are let in; none: all."`
	RedirectURL      string   `env:"SHIPLEDGER_OIDC_REDIRECT_URL" help:"Where the issuer sends people back to; default: /auth/oidc/callback of the address that they came to."`
}

// config reads the secret; nil without an issuer.
func (o OIDC) config() (*accounts.OIDCConfig, error) {
	if o.Issuer == "" {
		return nil, nil
	}
	if o.ClientID == "" {
		return nil, errors.New("an OpenID Connect issuer needs a client id: set SHIPLEDGER_OIDC_CLIENT_ID")
	}
	if o.ClientSecretFile != "" {
		text, err := os.ReadFile(o.ClientSecretFile)
		if err != nil {
			return nil, fmt.Errorf("read the OpenID Connect secret: %w", err)
		}
		o.ClientSecret = strings.TrimSpace(string(text))
	}
	return &accounts.OIDCConfig{
		Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: o.ClientSecret, Scopes: o.Scopes, Domains: o.Domains, RedirectURL: o.RedirectURL,
	}, nil
}

// Leaks says whose reports of found secrets are believed.
type Leaks struct {
	GitHub string `name:"github-keys" env:"SHIPLEDGER_LEAKS_GITHUB_KEYS" help:"File or https address of the public keys that GitHub's secret scanning signs with; empty: its reports are not taken."`
	Revoke bool   `default:"true" negatable:"" env:"SHIPLEDGER_LEAKS_REVOKE" help:"Revoke what is reported, at once; otherwise it is only marked."`
}
