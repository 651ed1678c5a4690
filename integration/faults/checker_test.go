//go:build linux

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/query"
)

// A checker holds the ledger of the clients, the log and the read model against
// each other. It keeps a read model of its own in memory, made of the same log,
// behind the same service.
type checker struct {
	history   history
	projected int // how many events of history are in model
	model     *memmodel.Model
	reference *httptest.Server
}

// anyone lets in whoever names an account.
type anyone struct{}

func (anyone) Verify(account string) (credential.Identity, error) {
	return credential.Identity{
		Kind: credential.PAT, Account: account, RecordID: "r1", PublicID: "p1", Name: "checker", UserID: "checker", Role: "admin", Mode: event.Live,
		Scopes: credential.Admin | credential.Read,
	}, nil
}

func newChecker(t *testing.T) *checker {
	t.Helper()
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{model: memmodel.New()}
	api, err := httpapi.New(httpapi.Config{Spec: spec, Services: []string{"query"}, Authenticator: anyone{}, Logger: slog.New(slog.DiscardHandler)},
		query.New(c.model, event.TrackStream(0)).Handlers(), httpapi.Handlers{"getHealth": func(http.ResponseWriter, *httpapi.Request) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	c.reference = httptest.NewServer(api)
	t.Cleanup(c.reference.Close)
	return c
}

// read follows the log to its end.
func (c *checker) read(ctx context.Context, w *world) error {
	if err := c.history.read(ctx, w.log); err != nil {
		return err
	}
	for ; c.projected < len(c.history.events); c.projected++ {
		e := c.history.events[c.projected]
		var rows readmodel.Rows
		projection.Project(e, &rows)
		if err := c.model.Store(ctx, &rows, readmodel.Progress{Stream: e.Position.Stream, Offset: e.Position.Offset, Time: e.Time}); err != nil {
			return err
		}
	}
	return nil
}

// check compares everything, once nothing is in flight. accounts are those of the round.
func (c *checker) check(t *testing.T, w *world, accounts map[string]keys) (v verdict) {
	t.Helper()
	ctx := t.Context()
	eventually(t, "the log can be read", func() error { return c.read(ctx, w) })
	c.history.sound(t)
	v = c.history.judge(w.ledger, w.ledger.snapshot())
	for _, key := range c.history.keyedTwice() {
		v.doubled++
		v.fault("under the idempotency key %s more than one run is recorded", key)
	}
	if len(c.history.events) == 0 {
		return v
	}
	end := c.history.events[len(c.history.events)-1].Position.String()
	for account, k := range accounts {
		c.events(t, &v, w, account, k, end)
		for _, path := range []string{"/deployments/", "/builds/", "/versions/", "/products/", "/environments/", "/matrix"} {
			want, err := everything[any](ctx, newReader(c.reference.URL, account), path, end)
			if err != nil {
				t.Fatal(err)
			}
			var got []any
			eventually(t, "GET "+path, func() (err error) {
				got, err = everything[any](ctx, newReader(w.targets()[0], k.AdminPAT), path, end)
				return err
			})
			if diff := cmp.Diff(want, got); diff != "" {
				v.fault("%s of %s: folded from the log (-) and read (+) differ:\n%.3000s", path, account, diff)
			}
		}
		c.balance(t, &v, w, account, k, end)
	}
	return v
}

// events holds the events table to have each event of the log, once.
func (c *checker) events(t *testing.T, v *verdict, w *world, account string, k keys, end string) {
	t.Helper()
	var items []map[string]any
	eventually(t, "GET /events/", func() (err error) {
		items, err = everything[map[string]any](t.Context(), newReader(w.targets()[0], k.AdminPAT), "/events/", end)
		return err
	})
	seen := map[string]string{}
	for _, e := range items {
		id, _ := e["id"].(string)
		position, _ := e["position"].(string)
		if !strings.HasPrefix(position, event.TrackStream(0)+".") {
			continue
		}
		if before, twice := seen[id]; twice {
			v.doubled++
			v.fault("event %s is read twice, at %s and %s", id, before, position)
		}
		seen[id] = position
	}
	n := 0
	for i := range c.history.events {
		e := &c.history.events[i]
		if e.Account != account {
			continue
		}
		n++
		if at, ok := seen[e.ID.String()]; !ok {
			v.lost++
			v.fault("%s %s at %s is in the log and is not read", e.Type, e.ID, e.Position)
		} else if at != e.Position.String() {
			v.fault("%s %s stands at %s and is read at %s", e.Type, e.ID, e.Position, at)
		}
	}
	if len(seen) > n {
		v.fault("%d events of %s are read, and %d are in the log", len(seen), account, n)
	}
}

// balance holds every number of the balance to what the log has.
func (c *checker) balance(t *testing.T, v *verdict, w *world, account string, k keys, end string) {
	t.Helper()
	n := 0
	for i := range c.history.events {
		if c.history.events[i].Account == account {
			n++
		}
	}
	var b struct {
		Balanced                                             bool
		Accepted, Projected, Quarantined, Discarded, Skipped int
	}
	eventually(t, "GET /ledger/balance", func() error {
		res, err := newReader(w.targets()[0], k.AdminPAT).get(t.Context(), "/ledger/balance", url.Values{"min_position": {end}})
		if err != nil {
			return err
		}
		if res.status != http.StatusOK {
			return fmt.Errorf("answered %d: %s", res.status, res.body)
		}
		return json.Unmarshal(res.body, &b)
	})
	if !b.Balanced || b.Accepted != n || b.Projected != n || b.Quarantined+b.Discarded+b.Skipped != 0 {
		v.fault("the balance of %s, of which the log has %d events: %+v", account, n, b)
	}
}
