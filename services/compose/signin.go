package compose

import (
	"errors"
	"fmt"
	"os"
	"strings"
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

// Secret gives the secret of this server at the issuer. Without an issuer it is
// empty, and nothing is read.
func (o OIDC) Secret() (string, error) {
	if o.Issuer == "" {
		return "", nil
	}
	if o.ClientID == "" {
		return "", errors.New("an OpenID Connect issuer needs a client id: set SHIPLEDGER_OIDC_CLIENT_ID")
	}
	if o.ClientSecretFile == "" {
		return o.ClientSecret, nil
	}
	text, err := os.ReadFile(o.ClientSecretFile)
	if err != nil {
		return "", fmt.Errorf("read the OpenID Connect secret: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Leaks says whose reports of found secrets are believed.
type Leaks struct {
	GitHub string `name:"github-keys" env:"SHIPLEDGER_LEAKS_GITHUB_KEYS" help:"File or https address of the public keys that GitHub's secret scanning signs with; empty: its reports are not taken."`
	Revoke bool   `default:"true" negatable:"" env:"SHIPLEDGER_LEAKS_REVOKE" help:"Revoke what is reported, at once; otherwise it is only marked."`
}
