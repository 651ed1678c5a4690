package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
)

// maxAnswer is how much of an answer is read: more than a full page of anything.
const maxAnswer = 16 << 20

// client asks the public API for whoever called a tool.
type client struct {
	base string
	http *http.Client
}

// get asks for path and reads the answer into out. What the API refuses is an
// error in the API's words, which the agent can act on.
func (c *client) get(ctx context.Context, path string, query url.Values, out any) error {
	for name, values := range query {
		if len(values) == 0 || values[0] == "" {
			query.Del(name)
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", path, err)
	}
	by, _ := ctx.Value(callerKey{}).(caller)
	r.Header.Set("Authorization", by.authorization)
	r.Header.Set("X-Forwarded-For", by.address)
	r.Header.Set("User-Agent", by.agent)
	if by.position != "" {
		r.Header.Set("X-Shipledger-Position", by.position)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", path, err)
	}
	defer resp.Body.Close()
	body := http.MaxBytesReader(nil, resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusOK {
		return refusal(resp.StatusCode, body)
	}
	if err := json.UnmarshalRead(body, out); err != nil {
		return fmt.Errorf("read what %s answered: %w", path, err)
	}
	return nil
}

// refusal puts the API's error body into one line.
func refusal(status int, body io.Reader) error {
	var said struct {
		Detail any `json:"detail"`
		Error  any `json:"error"`
	}
	_ = json.UnmarshalRead(body, &said) // what is no error body is told by its status
	if e, ok := said.Error.(map[string]any); ok {
		text := fmt.Sprintf("%v (%v, HTTP %d)", e["message"], e["code"], status)
		if hint, ok := e["hint"].(string); ok {
			text += ": " + hint
		}
		return errors.New(text)
	}
	if detail, ok := said.Detail.(string); ok {
		return fmt.Errorf("%s (HTTP %d)", detail, status)
	}
	return fmt.Errorf("the API answered HTTP %d", status)
}
