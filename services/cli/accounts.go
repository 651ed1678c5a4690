package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

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
	URL        string `env:"SHIPLEDGER_URL" default:"http://127.0.0.1:8080" help:"Address of the server."`
	Token      string `env:"SHIPLEDGER_TOKEN" help:"Token with the scope admin of the first account. Prefer the variable: flags can be seen by others on the machine."`
	JSON       bool   `name:"json" help:"Print the result as JSON."`

	TLS TLS `embed:""`
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

// Run makes the account. The file is there before the server is asked, so that
// no account is made whose secrets cannot be kept.
func (c *CreateAccount) Run(ctx context.Context, app *kong.Context) (err error) {
	if c.Token == "" {
		return errors.New("no token: set SHIPLEDGER_TOKEN to one with the scope admin, " + whereToken)
	}
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
	credentials, err := c.create(ctx)
	if err != nil {
		return err
	}
	written = true // from here on it may hold all there is of them
	if _, err := f.Write(append(credentials, '\n')); err != nil {
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

// create asks the server, and gives the credentials as they are to be kept.
func (c *CreateAccount) create(ctx context.Context) ([]byte, error) {
	body, err := json.Marshal(map[string]string{"account": c.Account, "admin_email": c.AdminEmail, "name": c.Name})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(c.URL, "/")+"/accounts/", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the address of the server: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("Content-Type", "application/json")
	client, err := c.TLS.client()
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode != http.StatusCreated {
		return nil, fmt.Errorf("the server answers %d: %s", res.StatusCode, reason(text))
	}
	credentials := jsontext.Value(text)
	if err := credentials.Indent(); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return credentials, nil
}

// reason gives what an error body says to people: the message, or the faults of
// fields.
func reason(text []byte) string {
	var told struct {
		Message string `json:"message"`
		Error   jsontext.Value
		Detail  jsontext.Value
	}
	_ = json.Unmarshal(text, &told, json.MatchCaseInsensitiveNames(true))
	var inner struct {
		Message string `json:"message"`
	}
	if told.Error.Kind() == '{' {
		_ = json.Unmarshal(told.Error, &inner)
	}
	var detail string
	if told.Detail.Kind() == '"' {
		_ = json.Unmarshal(told.Detail, &detail)
	}
	for _, s := range []string{inner.Message, told.Message, detail} {
		if s != "" {
			return s
		}
	}
	return "no reason is told"
}
