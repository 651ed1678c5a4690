package cli_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/services/cli"
)

var demoEnd = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// firstOf gives the first n items of a history.
func firstOf(n int, items iter.Seq[cli.Item]) iter.Seq[cli.Item] {
	return func(yield func(cli.Item) bool) {
		left := n
		for i := range items {
			if left--; left < 0 || !yield(i) {
				return
			}
		}
	}
}

func text(items iter.Seq[cli.Item]) []byte {
	var b bytes.Buffer
	for i := range items {
		b.Write(i.Body)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// The digest changes when the generator does, and only then: it is the promise
// that two machines show the same demonstration.
func TestTheDemoIsTheSameForTheSameSeedAndEnd(t *testing.T) {
	one := text(cli.DemoHistory(1, demoEnd))
	if got, want := digest(one), "045728bf1378a49e"; got != want {
		t.Errorf("the demo of seed 1 has the digest %s, not %s", got, want)
	}
	const some = 1000
	head := text(firstOf(some, cli.DemoHistory(1, demoEnd.In(time.FixedZone("elsewhere", 3*3600)))))
	if !bytes.HasPrefix(one, head) {
		t.Error("a second run differs")
	}
	if bytes.Equal(head, text(firstOf(some, cli.DemoHistory(2, demoEnd)))) ||
		bytes.Equal(head, text(firstOf(some, cli.DemoHistory(1, demoEnd.AddDate(0, 0, 1))))) {
		t.Error("another seed or end gives the same history")
	}
}

// Each figure holds for any seed and end, not for one that was looked for.
func TestTheDemoIsARealisticHistory(t *testing.T) {
	for _, tt := range []struct {
		seed uint64
		end  time.Time
	}{
		{1, demoEnd},
		{99, time.Date(2028, 2, 29, 15, 30, 0, 0, time.UTC)},
	} {
		t.Run(fmt.Sprint(tt.seed), func(t *testing.T) {
			c := take(t, tt.seed, tt.end)
			t.Logf("events %d, deployments %d, builds %d, by status %v, by environment %v, redeployed %d, promoted %d, failed then %v, weekend %d, bytes %d",
				c.events, c.deployments, c.builds, c.byStatus, c.byEnvironment, c.redeployed, c.promoted, c.afterFailure, c.weekend, c.bytes)
			for _, f := range []struct {
				what              string
				got, least, below int
			}{
				{"products", len(c.products), 40, 41},
				{"environments", len(c.byEnvironment), 4, 5},
				{"deployments", c.deployments, 20_000, 40_000},
				{"failed deployments", c.byStatus["failed"], 500, 3000},
				{"aborted deployments", c.byStatus["aborted"], 100, 1000},
				{"failed builds", c.failedBuilds, 200, 1000},
				{"rollbacks in production", c.redeployed, 150, 1000},
				{"versions promoted to production", c.promoted, 4000, 10_000},
				{"retries that succeeded", c.afterFailure["retried"], 300, 2000},
				{"failures answered by an earlier version", c.afterFailure["rolled back"], 50, 500},
				{"weekend deployments", c.weekend, 1, c.deployments / 50},
				{"drifting products", c.drifting, 1, 40},
			} {
				if f.got < f.least || f.got >= f.below {
					t.Errorf("%d %s, not %d to %d", f.got, f.what, f.least, f.below)
				}
			}
		})
	}
}

type census struct {
	events, deployments, builds, failedBuilds int
	redeployed, promoted, weekend, drifting   int
	bytes                                     int
	products                                  map[string]bool
	byStatus, byEnvironment, afterFailure     map[string]int
}

// take reads a history as a strict server with strict rules would, and counts.
func take(t *testing.T, seed uint64, end time.Time) *census {
	t.Helper()
	c := &census{
		products: map[string]bool{}, byStatus: map[string]int{}, byEnvironment: map[string]int{}, afterFailure: map[string]int{},
	}
	var (
		start   = end.AddDate(-2, 0, 0).Format(time.RFC3339)
		finish  = end.Format("2006-01-02T15:04:05.000Z")
		last    string
		runs    = map[string]body{}   // started or done, by run
		open    = map[string]string{} // cell → invoke id
		closed  = map[string]string{} // cell → completed_at
		built   = map[string]string{} // version → completed_at of its build
		sha     = map[string]string{} // version → commit
		live    = map[string][]string{}
		failed  = map[string]string{} // cell → version that failed last
		reached = map[string]bool{}   // version and environment
	)
	for item := range cli.DemoHistory(seed, end) {
		c.events++
		c.bytes += len(item.Body)
		var e body
		if err := json.Unmarshal(item.Body, &e, json.RejectUnknownMembers(true)); err != nil || item.Fault != "" || item.Line != c.events {
			t.Fatalf("item %d: %v %s", item.Line, err, item.Fault)
		}
		checkLimits(t, &e)
		at := e.CompletedAt
		if e.Status == "started" {
			at = e.StartedAt
		}
		if at < last || at < start || at > finish || e.StartedAt > at {
			t.Fatalf("%s is out of order: %s after %s", item.Body, at, last)
		}
		last = at
		c.products[e.Product] = true
		version := e.Product + " " + e.Version
		if s, ok := sha[version]; ok && s != e.SHA || len(e.SHA) != 40 {
			t.Fatalf("%s is two commits", version)
		}
		sha[version] = e.SHA
		if commit, err := time.Parse(time.RFC3339, e.Extra["commit_time"]); err != nil || commit.After(mustTime(t, e.StartedAt)) {
			t.Fatalf("%s was committed after it began, or %v", item.Body, err)
		}
		cell := e.Product + " " + e.Environment
		run := strings.Join([]string{cell, e.Version, e.InvokeID}, "\x00")

		if e.Kind == "build" {
			if _, twice := runs[run]; twice || e.Environment != "" {
				t.Fatalf("%s: a second end, or an environment", item.Body)
			}
			runs[run] = e
			c.builds++
			if e.Status == "completed" {
				built[version] = e.CompletedAt
			} else {
				c.failedBuilds++
			}
			continue
		}

		if e.Status == "started" {
			if _, twice := runs[run]; twice || open[cell] != "" || e.StartedAt < closed[cell] {
				t.Fatalf("%s: overlaps %q", item.Body, open[cell])
			}
			if b, ok := built[version]; !ok || b > e.StartedAt {
				t.Fatalf("%s: not built yet", item.Body)
			}
			runs[run], open[cell] = e, e.InvokeID
			c.deployments++
			c.byEnvironment[e.Environment]++
			if d := mustTime(t, e.StartedAt).Weekday(); d == time.Saturday || d == time.Sunday {
				c.weekend++
			}
			continue
		}
		if s, ok := runs[run]; !ok || open[cell] != e.InvokeID || s.StartedAt != e.StartedAt {
			t.Fatalf("%s: an end without its start", item.Body)
		}
		delete(open, cell)
		closed[cell] = e.CompletedAt
		c.byStatus[e.Status]++
		if e.Status != "completed" {
			failed[cell] = e.Version
			continue
		}
		earlier := slices.Contains(live[cell], e.Version)
		if f := failed[cell]; f != "" {
			switch {
			case f == e.Version:
				c.afterFailure["retried"]++
			case earlier:
				c.afterFailure["rolled back"]++
			default:
				c.afterFailure["left to the next"]++
			}
			delete(failed, cell)
		}
		if earlier && strings.HasPrefix(e.Environment, "production") {
			c.redeployed++
			if e.Extra["rollback_reason"] == "" {
				t.Fatalf("%s goes back without a reason", item.Body)
			}
		}
		live[cell] = append(live[cell], e.Version)
		reached[version+" "+e.Environment] = true
		if before, ok := map[string]string{"staging": "development", "production": "staging", "production-eu": "production"}[e.Environment]; ok {
			if !reached[version+" "+before] {
				t.Fatalf("%s was never in %s", item.Body, before)
			}
			if e.Environment == "production" && !earlier {
				c.promoted++
			}
		}
	}
	if len(open) > 0 {
		t.Errorf("%d deployments have no end", len(open))
	}
	for p := range c.products {
		s, q := live[p+" staging"], live[p+" production"]
		if len(s) > 0 && len(q) > 0 && s[len(s)-1] != q[len(q)-1] {
			c.drifting++
		}
	}
	return c
}

// checkLimits holds a body to the fields of contract 4.1 and 4.2.
func checkLimits(t *testing.T, e *body) {
	t.Helper()
	type field struct {
		value string
		most  int
	}
	required := []field{
		{e.Product, 255},
		{e.Version, 100},
		{e.Status, 50},
		{e.Source, 50},
		{e.BuildNumber, 100},
		{e.SHA, 40},
		{e.Branch, 100},
		{e.Repository, 500},
		{e.InvokeID, 255},
		{e.StartedAt, 30},
	}
	if e.Kind == "deployment" {
		required = append(required, field{e.Environment, 100}, field{e.DeployURL, 500}, field{e.DeployedBy, 255}, field{e.DeployedByName, 255})
	} else {
		required = append(required, field{e.BuildURL, 500}, field{e.BuiltBy, 255}, field{e.BuiltByName, 255}, field{e.CompletedAt, 30})
	}
	for i, f := range required {
		if f.value == "" || len(f.value) > f.most {
			t.Fatalf("%+v: field %d is %q", e, i, f.value)
		}
	}
	if s, ok := event.ParseStatus(e.Status); !ok || s.String() != e.Status {
		t.Fatalf("%+v: status", e)
	}
}

func mustTime(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestTheDemoIsLoadedLikeAnyHistory(t *testing.T) {
	l := newLedger(t)
	sum, err := cli.Load(t.Context(), l.Client(), l.URL, adminToken, firstOf(5000, cli.DemoHistory(1, demoEnd)), cli.Options{})
	if err != nil || sum.Accepted != 5000 || sum.Events() != 5000 {
		t.Errorf("got %+v, %v", sum, err)
	}
}
