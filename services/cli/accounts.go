package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Accounts are the commands about accounts.
type Accounts struct {
	Create CreateAccount `cmd:"" help:"Make an account with its first admin, key and tokens."`
}

// CreateAccount is the command that makes an account on a running server. Its
// secrets go into a file that only its owner reads, and nowhere else.
type CreateAccount struct {
	Account    string `arg:"" help:"Slug of the account: a-z, 0-9 and -, up to 40. It stands in every API key and never changes."`
	AdminEmail string `required:"" help:"E-mail address of the first admin."`
	Name       string `help:"Name for people; default: the slug."`
	Out        string `type:"path" help:"File for the credentials, which must not exist; default: ACCOUNT-credentials.json."`

	Server `embed:""` // the token is that of an admin of the first account
}

// Run makes the account. The file is there before the server is asked, so that
// no account is made whose secrets cannot be kept.
func (c *CreateAccount) Run(ctx context.Context, app *kong.Context) (err error) {
	if c.Out == "" {
		c.Out = c.Account + "-credentials.json"
	}
	f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make the file for the credentials: %w", err)
	}
	written := false
	defer func() {
		err = errors.Join(err, f.Close())
		if !written {
			err = errors.Join(err, os.Remove(c.Out))
		}
	}()
	asked := map[string]string{"account": c.Account, "admin_email": c.AdminEmail, "name": c.Name}
	var credentials jsontext.Value
	if err := c.call(ctx, http.MethodPost, "accounts/", nil, asked, &credentials); err != nil {
		return err
	}
	written = true // from here on it may hold all there is of them
	if err := printValue(f, credentials); err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	if c.JSON {
		text, err := json.Marshal(struct {
			Account string `json:"account"`
			File    string `json:"file"`
		}{c.Account, c.Out})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(app.Stdout, "%s\n", text)
		return err
	}
	_, err = fmt.Fprintf(app.Stdout, "The account %s is made. Its credentials are in %s, which only you can read:\nhand it over and delete it. They are stored nowhere else.\n", c.Account, c.Out)
	return err
}
