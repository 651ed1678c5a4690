package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// Server is how commands reach a server: flags of every command that asks one.
type Server struct {
	URL   string `env:"SHIPLEDGER_URL" default:"http://127.0.0.1:8080" help:"Address of the server."`
	Token string `env:"SHIPLEDGER_TOKEN" help:"Token with the scope admin. Prefer the variable: flags can be seen by others on the machine."`
	JSON  bool   `name:"json" help:"Print the result as JSON, without progress."`

	TLS    TLS          `embed:""`
	client *http.Client // made by the first call
}

// refusedError is an answer that is no success.
type refusedError struct {
	Refusal
	next  string        // what to do
	after time.Duration // when to ask again, where that helps
}

func (e *refusedError) Error() string {
	text := e.Message
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	if e.next != "" {
		text += ": " + e.next
	}
	return text
}

// patience is how often call asks again for want of budget: with the waits that
// the server names, more than the minute in which a budget is whole again.
const patience = 12

// maxPatience is the longest wait, in seconds, that a server may ask for.
const maxPatience = 60

// call asks the server and reads its answer into into. The token appears in no
// error. Where the token's budget is used up it waits as long as the server says.
func (s *Server) call(ctx context.Context, method, path string, query url.Values, body, into any) error {
	for asked := 0; ; asked++ {
		err := s.callOnce(ctx, method, path, query, body, into)
		e, refused := errors.AsType[*refusedError](err)
		if !refused || e.Status != http.StatusTooManyRequests || asked == patience {
			return err
		}
		if err := sleep(ctx, e.after); err != nil {
			return err
		}
	}
}

func (s *Server) callOnce(ctx context.Context, method, path string, query url.Values, body, into any) error {
	if s.Token == "" {
		return errors.New("no token: set SHIPLEDGER_TOKEN to one with the scope admin, " + whereToken)
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is no address of a server: set SHIPLEDGER_URL to one like http://127.0.0.1:8080", s.URL)
	}
	u = u.JoinPath(path)
	u.RawQuery = query.Encode()
	var sent io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("write the request: %w", err)
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), sent)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", u, err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	req.Header.Set("User-Agent", "shipledger")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.client == nil {
		if s.client, err = s.TLS.client(); err != nil {
			return err
		}
	}
	res, err := s.client.Do(req)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return fmt.Errorf("no server at %s: %w: start one with `shipledger up`, or set SHIPLEDGER_URL", s.URL, op)
		}
		return fmt.Errorf("ask %s: %w", s.URL, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", s.URL, err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return refusal(res.StatusCode, res.Header, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s did not answer as a Shipledger server does: check SHIPLEDGER_URL: %w", s.URL, err)
	}
	return nil
}

// nextSteps say what to do about a code; statuses are for those without one.
var nextSteps = map[string]string{
	"INSUFFICIENT_SCOPE":    "use a token with the scope admin, " + whereToken,
	"REPLAY_IN_PROGRESS":    "see it with `shipledger replay status`, end it with `shipledger replay cancel`",
	"REPLAY_NOT_VERIFIED":   "wait for it with `shipledger replay watch`",
	"REPLAY_DIFFERS":        "see what would change with `shipledger replay diff`, then `shipledger replay switch --consent` or `shipledger replay cancel`",
	"REPLAY_IS_CHECK":       "start one of everything with `shipledger replay start`",
	"REPLAY_NOT_UNDOABLE":   "rebuild with `shipledger replay start`",
	"REPLAY_NOT_LIVE":       "see which is with `shipledger replay status`",
	"REPLAY_STATE":          "see how it stands with `shipledger replay status`",
	"READ_MODEL_BEHIND":     "run the same command again",
	"RATE_LIMIT_EXCEEDED":   "run the same command again in a minute",
	"AUTH_INVALID_KEY":      "set SHIPLEDGER_TOKEN to an active token, " + whereToken,
	"AUTH_INVALID_FORMAT":   "set SHIPLEDGER_TOKEN to an active token, " + whereToken,
	"AUTH_REVOKED_KEY":      "set SHIPLEDGER_TOKEN to an active token, " + whereToken,
	"AUTH_SUSPENDED_KEY":    "set SHIPLEDGER_TOKEN to an active token, " + whereToken,
	"AUTH_EXPIRED_KEY":      "set SHIPLEDGER_TOKEN to an active token, " + whereToken,
	"WRONG_CREDENTIAL_KIND": "use a personal access token with the scope admin, " + whereToken,
}

func refusal(status int, h http.Header, text []byte) error {
	e := &refusedError{Refusal: readRefusal(status, text), after: time.Second}
	if seconds, err := strconv.Atoi(h.Get("Retry-After")); err == nil && seconds >= 0 {
		e.after = min(time.Duration(seconds), maxPatience) * time.Second
	}
	e.next = nextSteps[e.Code]
	if e.next == "" && status == http.StatusServiceUnavailable {
		e.next = "run the same command again in a moment"
	}
	return e
}
