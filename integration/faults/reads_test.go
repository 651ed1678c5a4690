//go:build linux

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A reader asks the public API.
type reader struct {
	url, token string
	http       *http.Client
}

func newReader(base, token string) *reader {
	return &reader{base, token, &http.Client{Transport: &http.Transport{}, Timeout: answerWithin}}
}

func (r *reader) get(ctx context.Context, path string, query url.Values) (response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	res, err := r.http.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	out := response{status: res.StatusCode, header: res.Header}
	var body json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		return out, err
	}
	out.body = body
	return out, nil
}

// everything walks a list by its cursor. It waits for the position before each page.
func everything[T any](ctx context.Context, r *reader, path, position string) (items []T, err error) {
	for query := (url.Values{"limit": {"500"}, "min_position": {position}}); ; {
		res, err := r.get(ctx, path, query)
		if err != nil {
			return nil, err
		}
		if res.status != http.StatusOK {
			return nil, fmt.Errorf("GET %s: %d: %s", path, res.status, res.body)
		}
		var page struct {
			Items      []T    `json:"items"`
			NextCursor string `json:"next_cursor"`
			AsOf       struct {
				Position string `json:"position"`
			} `json:"as_of"`
		}
		if err := json.Unmarshal(res.body, &page); err != nil {
			return nil, fmt.Errorf("GET %s: %w", path, err)
		}
		if later(position, page.AsOf.Position) {
			return nil, fmt.Errorf("GET %s: asked for %s, answered as of %s", path, position, page.AsOf.Position)
		}
		items = append(items, page.Items...)
		if page.NextCursor == "" {
			return items, nil
		}
		query.Set("cursor", page.NextCursor)
	}
}

// list gives the status of each item of a list.
func (r *reader) list(ctx context.Context, path, position string) (map[string]string, error) {
	items, err := everything[runAnswer](ctx, r, path, position)
	out := map[string]string{}
	for _, item := range items {
		if _, twice := out[item.ID]; twice {
			return nil, fmt.Errorf("GET %s: %s is listed twice", path, item.ID)
		}
		out[item.ID] = item.Status
	}
	return out, err
}

// sees holds the read model to the ledger: each run once, as it was last
// acknowledged, and no other. Nothing may be in flight. It gives the number of
// deployments.
func (r *reader) sees(t *testing.T, l *ledger) int {
	t.Helper()
	position := l.position()
	var deployments int
	for _, kind := range []string{"deployment", "build"} {
		var got map[string]string
		// The projector may have been away for a while: a 503 says so, and is asked again.
		eventually(t, "the read model catches up", func() (err error) {
			got, err = r.list(t.Context(), "/"+kind+"s/", position)
			return err
		})
		if diff := cmp.Diff(l.runs(kind), got); diff != "" {
			t.Errorf("acknowledged %ss (-) and those listed (+) differ:\n%.4000s", kind, diff)
		}
		if kind == "deployment" {
			deployments = len(got)
		}
	}
	checked := 0
	for a, status := range l.runs("deployment") {
		if checked++; checked > 5 { // the list has told of all; this is the other way to them
			break
		}
		var res response
		eventually(t, "a deployment is read", func() (err error) {
			res, err = r.get(t.Context(), "/deployments/"+a, url.Values{"min_position": {position}})
			if err == nil && res.status == http.StatusServiceUnavailable {
				err = fmt.Errorf("answered 503: %s", res.body)
			}
			return err
		})
		var item struct {
			runAnswer
			Events []struct {
				ID string `json:"id"`
			} `json:"events"`
		}
		if err := json.Unmarshal(res.body, &item); err != nil || item.ID != a || item.Status != status {
			t.Errorf("deployment %s is %s and is answered with %d: %s", a, status, res.status, res.body)
		}
	}
	return deployments
}

type healthAnswer struct {
	Status     string            `json:"status"`
	Durability string            `json:"durability"`
	Parts      map[string]string `json:"parts"`
}

func (r *reader) health(ctx context.Context) (healthAnswer, error) {
	res, err := r.get(ctx, "/health", nil)
	var h healthAnswer
	if err == nil {
		err = json.Unmarshal(res.body, &h)
	}
	return h, err
}
