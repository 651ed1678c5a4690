//go:build linux

package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A target is where the server is now; nowhere while it is down.
type target struct {
	mu    sync.Mutex
	url   string
	moved chan struct{} // closed and replaced whenever url changes
}

func newTarget(url string) *target { return &target{url: url, moved: make(chan struct{})} }

func (t *target) move(url string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.url = url
	close(t.moved)
	t.moved = make(chan struct{})
}

// await gives the server's address, once there is one.
func (t *target) await(ctx context.Context) (string, error) {
	for {
		t.mu.Lock()
		url, moved := t.url, t.moved
		t.mu.Unlock()
		if url != "" {
			return url, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// A client posts as a careful pipeline does: whatever was not answered, or
// answered with 503, it sends again, byte for byte.
type client struct {
	target *target
	ledger *ledger
	key    string
	http   *http.Client
}

// answerWithin bounds one request. The server bounds its own patience; a
// request that reaches this was left hanging, which is a fault.
const answerWithin = 2 * time.Minute

func newClient(at *target, l *ledger, key string) *client {
	return &client{at, l, key, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: answerWithin}}
}

type response struct {
	status int
	header http.Header
	body   []byte
}

func (c *client) do(ctx context.Context, url, contentType string, body []byte) (response, error) {
	return send(ctx, c.http, http.MethodPost, url, body, http.Header{"Authorization": {"Bearer " + c.key}, "Content-Type": {contentType}})
}

// send sends one request and takes in its answer; one that was cut off is none.
func send(ctx context.Context, through *http.Client, method, url string, body []byte, header http.Header) (response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return response{}, err
	}
	req.Header = header
	res, err := through.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return response{}, err
	}
	return response{res.StatusCode, res.Header, text}, nil
}

// post sends body until it is answered with something else than 503, or ctx is
// done. accept takes an answer in and tells whether it leaves nothing to send.
func (c *client) post(ctx context.Context, path, contentType string, body []byte, accept func(response) bool) error {
	for {
		url, err := c.target.await(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		res, err := c.do(ctx, url+path, contentType, body)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if time.Since(began) >= answerWithin {
				c.ledger.fault("%s was left without an answer: %v", path, err)
			}
		case res.status == http.StatusServiceUnavailable:
			code, fault := unavailable(res)
			if fault != nil {
				c.ledger.fault("%s: %v", path, fault)
			}
			c.ledger.refused(code)
		default:
			if accept(res) {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// unavailable holds an answer 503 to the documented form, and gives its code.
func unavailable(res response) (code string, fault error) {
	var body struct {
		Detail  string `json:"detail"`
		Success *bool  `json:"success"`
		Error   struct {
			Type string `json:"type"`
			Code string `json:"code"`
		} `json:"error"`
		Meta struct {
			RequestID string `json:"request_id"`
		} `json:"meta"`
	}
	if err := json.Unmarshal(res.body, &body); err != nil {
		return "", fmt.Errorf("a 503 is no JSON: %w: %s", err, res.body)
	}
	switch {
	case res.status != http.StatusServiceUnavailable:
		fault = fmt.Errorf("answered %d, want 503: %s", res.status, res.body)
	case res.header.Get("Retry-After") == "":
		fault = fmt.Errorf("a 503 has no Retry-After: %s", res.body)
	case body.Detail != "Service temporarily unavailable" || body.Error.Type != "api_error" || body.Error.Code == "" ||
		body.Success == nil || *body.Success || !strings.HasPrefix(body.Meta.RequestID, "req_"):
		fault = fmt.Errorf("a 503 is not of the documented form: %s", res.body)
	}
	return body.Error.Code, fault
}

// An entry is one event to send.
type entry struct {
	report
	product, environment, version string
	extra                         string // a JSON object, or empty
}

func (e entry) body(inBatch bool) []byte {
	m := map[string]any{
		"product_name": e.product, "version": e.version, "status": e.status, "invoke_id": e.invoke,
		"source_system": "github", "build_number": "42", "scm_sha": "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
	}
	if e.kind == "deployment" {
		m["environment_name"] = e.environment
	}
	if inBatch {
		m["kind"] = e.kind
	}
	if e.extra != "" {
		m["extra_metadata"] = json.RawMessage(e.extra)
	}
	out, err := json.Marshal(m)
	if err != nil {
		panic(err) // texts always marshal
	}
	return out
}

func (e entry) path() string { return "/" + e.kind + "-events/" }

type runAnswer struct {
	ID      string `json:"id"`
	EventID string `json:"event_id"`
	Status  string `json:"status"`
}

// single posts one event until it is acknowledged.
func (c *client) single(ctx context.Context, e entry) error {
	c.ledger.sending(e.report)
	return c.post(ctx, e.path(), "application/json", e.body(false), func(res response) bool {
		c.took(e, res)
		return true
	})
}

// took notes the answer to one event.
func (c *client) took(e entry, res response) {
	var a runAnswer
	if err := json.Unmarshal(res.body, &a); err != nil || res.status != http.StatusOK || a.ID == "" || a.EventID == "" {
		c.ledger.fault("%v was answered %d: %s", e.report, res.status, res.body)
		return
	}
	if a.Status != e.status {
		c.ledger.fault("%v was answered with status %s", e.report, a.Status)
	}
	position := res.header.Get("X-Shipledger-Position")
	if position == "" {
		c.ledger.fault("%v was answered without a position", e.report)
	}
	c.ledger.acknowledged(e.report, ack{a.EventID, a.ID, position})
	c.ledger.reached(position)
}

// batch posts events together until every one of them is acknowledged.
func (c *client) batch(ctx context.Context, entries []entry) error {
	var body []byte
	for _, e := range entries {
		c.ledger.sending(e.report)
		body = append(append(body, e.body(true)...), '\n')
	}
	return c.post(ctx, "/events/batch", "application/x-ndjson", body, func(res response) bool {
		var a struct {
			Results []struct {
				runAnswer
				Status int `json:"status"`
			} `json:"results"`
		}
		if err := json.Unmarshal(res.body, &a); err != nil || res.status != http.StatusOK || len(a.Results) != len(entries) {
			c.ledger.fault("a batch was answered %d: %s", res.status, res.body)
			return true
		}
		done := true
		for i, r := range a.Results {
			switch r.Status {
			case http.StatusOK:
				c.ledger.acknowledged(entries[i].report, ack{event: r.EventID, run: r.ID})
			case http.StatusServiceUnavailable:
				done = false
			default:
				c.ledger.fault("%v was answered %d in a batch: %s", entries[i].report, r.Status, res.body)
			}
		}
		c.ledger.reached(res.header.Get("X-Shipledger-Position"))
		return done
	})
}
