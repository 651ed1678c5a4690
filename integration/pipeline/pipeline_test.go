// Package pipeline_test holds the law of the read model: for any list of
// commands, decided in any portions, arriving in any order within a run, and
// projected in any portions, in any order and any number of times, the answers
// equal those of a plain model that knows only the commands.
package pipeline_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
	"github.com/shipledger/shipledger/pkg/tracking"
	"github.com/shipledger/shipledger/services/ingest"
)

func TestMain(m *testing.M) { chservertest.Main(m) }

// store is an adapter of the read model.
type store interface {
	readmodel.Sink
	readmodel.Reader
}

func TestTheReadModelInMemoryEqualsThePlainModel(t *testing.T) {
	cases(t, 2000)
	rapid.Check(t, func(t *rapid.T) {
		check(t, memmodel.New(), "acme")
	})
}

func TestTheReadModelInClickHouseEqualsThePlainModel(t *testing.T) {
	srv := chservertest.Start(t)
	auth, reads := srv.Auth(), srv.ReadAuth()
	model, err := chmodel.Open(t.Context(), chmodel.Config{
		DialContext: srv.DialContext, User: auth.User, Password: auth.Password, Database: auth.Database,
		Reader:      &chmodel.Login{User: reads.User, Password: reads.Password},
		DialTimeout: time.Minute, QueryTimeout: time.Minute, StoreTimeout: 5 * time.Minute, // a busy machine is no finding
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := model.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	writer := model.Writer(1)
	t.Cleanup(func() { _ = writer.Close(); _ = model.Close() })
	both := struct {
		readmodel.Sink
		readmodel.Reader
	}{writer, model}
	cases(t, 15) // each costs a dozen inserts
	n := 0
	rapid.Check(t, func(t *rapid.T) { // an account each: what others do must not show
		n++
		check(t, both, fmt.Sprintf("a%d", n))
	})
}

// cases says how many cases rapid draws.
func cases(t *testing.T, n int) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	old := f.Value.String()
	if err := flag.Set(f.Name, strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set(f.Name, old) })
}

// check draws commands, lets a committer decide them, projects what follows and
// compares the answers with the model's.
func check(t *rapid.T, s store, account string) {
	w := newWorld(t, account)
	for range rapid.IntRange(1, 12).Draw(t, "groups") {
		w.now.Add(int64(rapid.IntRange(0, 40*60).Draw(t, "seconds pass")) * int64(time.Second))
		w.submit(rapid.SliceOfN(anyCommand(account), 1, 6).Draw(t, "group"))
	}
	w.project(s)
	w.compare(s)
	w.compareStates(s)
}

type world struct {
	t         *rapid.T
	account   string
	log       *memlog.Log
	committer *ingest.Committer
	now       atomic.Int64 // Unix nanoseconds
	runs      []*modelRun
	n         int
}

var epoch = time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)

func newWorld(t *rapid.T, account string) *world {
	w := &world{t: t, account: account, log: memlog.New()}
	w.now.Store(epoch.UnixNano())
	ids := ulid.Monotonic(rand.Reader, 0)
	w.committer = ingest.NewCommitter(w.log, "t0", w.clock, func(ms uint64) ulid.ULID { return ulid.MustNew(ms, ids) }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done, up := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = w.committer.Run(ctx, func() { close(up) })
	}()
	<-up
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *world) clock() time.Time { return time.Unix(0, w.now.Load()).UTC() }

func (w *world) submit(commands []*tracking.Command) {
	inputs := make([]tracking.Input, len(commands))
	for i, c := range commands {
		inputs[i] = c
	}
	results, err := w.committer.Submit(context.Background(), inputs, func() error { return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	for i, r := range results {
		w.n++
		if r.Err == nil && !r.Decision.Duplicate {
			w.learn(commands[i], r.Decision)
		}
	}
}

// learn puts an accepted report into the run that the contract says it belongs
// to, and holds the decider to that.
func (w *world) learn(c *tracking.Command, d tracking.Decision) {
	x := report{c, w.clock(), w.n}
	r := w.find(c)
	if r == nil {
		r = &modelRun{id: d.Record.ID.String()}
		w.runs = append(w.runs, r)
	}
	if r.id != d.Record.ID.String() {
		w.t.Fatalf("%s was given to run %s, want %s", c.Body, d.Record.ID, r.id)
	}
	r.reports = append(r.reports, x)
	r.refused = d.Refusal != nil
}

func (w *world) find(c *tracking.Command) *modelRun {
	for _, r := range slices.Backward(w.runs) {
		first := r.reports[0].cmd
		if r.refused || first.Kind != c.Kind || first.ProductName != c.ProductName || first.Version != c.Version || first.EnvironmentName != c.EnvironmentName {
			continue
		}
		if invoke := c.Attributes[event.InvokeID]; invoke != "" {
			if first.Attributes[event.InvokeID] == invoke && attempt(first) == attempt(c) {
				return r
			}
			continue
		}
		if !r.status().Terminal() {
			return r
		}
	}
	return nil
}

func attempt(c *tracking.Command) string { return metadata("vi_gh_run_attempt")(c) }

// project stores what the events contribute: in portions, some of them twice,
// in any order.
func (w *world) project(s store) {
	var portions []*readmodel.Rows
	var end readmodel.Progress
	for f, err := range w.log.Read(context.Background(), 0) {
		if err != nil {
			w.t.Fatal(err)
		}
		events, err := event.DecodeFrame("t0", f.Seq, f.Body)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range events {
			if len(portions) == 0 || rapid.IntRange(0, 2).Draw(w.t, "cut") == 0 {
				portions = append(portions, &readmodel.Rows{})
			}
			projection.Project(e, portions[len(portions)-1])
			end = readmodel.Progress{Stream: "t0", Offset: e.Position.Offset, Time: e.Time}
		}
	}
	order := rapid.Permutation(portions).Draw(w.t, "order")
	order = append(order, portions[:rapid.IntRange(0, len(portions)).Draw(w.t, "repeated")]...)
	for _, rows := range order {
		if err := s.Store(context.Background(), rows, end); err != nil {
			w.t.Fatal(err)
		}
	}
}

// line is a run as both sides show it.
type line struct {
	ID, Product, Environment, Version, Status     string
	Created, Started, Completed, SHA, By, K, L, A string
}

func (w *world) compare(s store) {
	for _, kind := range []event.Kind{event.Deployment, event.Build} {
		list := s.Deployments
		if kind == event.Build {
			list = s.Builds
		}
		rows, err := list(context.Background(), w.account, readmodel.RunFilter{}, readmodel.Page{Limit: 1000})
		if err != nil {
			w.t.Fatal(err)
		}
		got := []line{}
		for i := range rows {
			got = append(got, lineOf(&rows[i].Record))
		}
		if diff := gocmp.Diff(w.lines(kind), got); diff != "" {
			w.t.Fatalf("%ss (-model +read): %s", kind, diff)
		}
	}
	w.compareMatrix(s, readmodel.MatrixFilter{})
	late := w.clock().Add(time.Hour) // than everything
	w.compareMatrix(s, readmodel.MatrixFilter{At: late, KnownAt: late})
	for range 2 {
		at, known := w.anyMoment("at"), w.anyMoment("known at")
		w.compareMatrix(s, readmodel.MatrixFilter{At: at})
		w.compareMatrix(s, readmodel.MatrixFilter{KnownAt: known})
		w.compareMatrix(s, readmodel.MatrixFilter{At: at, KnownAt: known})
	}
}

// anyMoment draws a moment of the time in which things happened; often one at
// which something did.
func (w *world) anyMoment(label string) time.Time {
	var moments []time.Time
	for _, r := range w.runs {
		for i := range r.reports {
			moments = append(moments, r.reports[i].at, r.effective(i))
		}
	}
	if len(moments) > 0 && rapid.Bool().Draw(w.t, "exactly "+label) {
		return rapid.SampledFrom(moments).Draw(w.t, label)
	}
	return epoch.Add(time.Duration(rapid.IntRange(-3600, 4*3600).Draw(w.t, label)) * time.Second)
}

func (w *world) compareMatrix(s store, f readmodel.MatrixFilter) {
	m, err := s.Matrix(context.Background(), w.account, f, readmodel.Page{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	got := []string{}
	for _, item := range m.Items {
		for _, c := range item.Cells {
			text := item.Product.Name + " " + c.Environment.String() + " "
			if c.Live != nil {
				text += c.Live.Version + " " + c.Live.ID.String()
			}
			if c.LastAttempt != nil {
				text += " but " + c.LastAttempt.Status.String() + " " + c.LastAttempt.ID.String()
			}
			got = append(got, text)
		}
	}
	slices.Sort(got)
	want := w.cells()
	if f.Past() {
		want = w.pastCells(f.At, f.KnownAt)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		w.t.Fatalf("matrix at %s, known at %s (-model +read): %s", when(f.At), when(f.KnownAt), diff)
	}
}

func (w *world) lines(kind event.Kind) []line {
	out := []line{}
	for _, r := range w.runs {
		c := r.reports[0].cmd
		if c.Kind != kind {
			continue
		}
		l := line{
			ID: r.id, Product: c.ProductName, Environment: c.EnvironmentName, Version: c.Version, Status: r.status().String(),
			Created: when(r.reports[0].at), Started: when(r.start(len(r.reports))), Completed: when(r.end()),
			SHA: r.best(attribute(event.SCMSHA)), By: r.best(attribute(event.By)),
			K: r.best(metadata("k")), L: r.best(metadata("l")), A: r.attempt(),
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b line) int { return cmp.Compare(b.ID, a.ID) })
	return out
}

// end is when the run ended; a refused start ends with its refusal.
func (r *modelRun) end() time.Time {
	if r.refused {
		return r.reports[len(r.reports)-1].at
	}
	t, _ := r.completed(len(r.reports))
	return t
}

// attempt is part of the identity of a run that has a run id: reports without
// one cannot change it.
func (r *modelRun) attempt() string {
	if r.reports[0].cmd.Attributes[event.InvokeID] != "" {
		return attempt(r.reports[0].cmd)
	}
	return r.best(attempt)
}

func lineOf(r *event.Record) line {
	value := func(k string) string { return string(r.Extra[k].Value) }
	return line{
		ID: r.ID.String(), Product: r.ProductName, Environment: r.EnvironmentName, Version: r.Version, Status: r.Status.String(),
		Created: when(r.CreatedAt), Started: when(r.StartedAt), Completed: when(r.CompletedAt),
		SHA: r.Attributes[event.SCMSHA], By: r.Attributes[event.By], K: value("k"), L: value("l"), A: value("vi_gh_run_attempt"),
	}
}

// cells is what contract 15 says of each product and environment.
func (w *world) cells() []string {
	b := newBoard(w.account)
	for _, r := range w.runs {
		b.put(r, func(time.Time) bool { return true })
	}
	return b.lines()
}

// pastCells is the same for past moments, zero ones meaning now: a run is what
// the reports made of it that were received until known, and was each of the
// states that those reports brought it to from when that state began.
func (w *world) pastCells(at, known time.Time) []string {
	b := newBoard(w.account)
	for _, r := range w.runs {
		for n := 1; n <= len(r.reports); n++ {
			if !known.IsZero() && r.reports[n-1].at.After(known) {
				break
			}
			// A start that was refused is no state of a cell, and neither is what came before it.
			b.put(&modelRun{id: r.id, reports: r.reports[:n], refused: r.refused}, func(t time.Time) bool { return at.IsZero() || !t.After(at) })
		}
	}
	return b.lines()
}

// A board has what is live and what was tried last, by product and environment.
type board struct {
	account        string
	live, attempts map[string]state
}

type state struct {
	run *modelRun
	at  time.Time
	n   int
}

func newBoard(account string) *board { return &board{account, map[string]state{}, map[string]state{}} }

func (s state) newer(than state) bool {
	return cmp.Or(s.at.Compare(than.at), cmp.Compare(s.n, than.n)) > 0
}

// put pins a run to where it is a deployment that began its state in time.
func (b *board) put(r *modelRun, inTime func(time.Time) bool) {
	c := r.reports[0].cmd
	if c.Kind != event.Deployment {
		return
	}
	on, at := b.attempts, r.end()
	switch r.status() {
	case event.Completed:
		on = b.live
	case event.Failed, event.Aborted:
	case event.Started:
		at = r.start(len(r.reports))
	case event.Pending, event.PreflightFailed: // in no cell
		return
	}
	key := c.ProductName + " " + event.EnvironmentIDOf(b.account, c.EnvironmentName).String() + " "
	s := state{r, at, r.reports[len(r.reports)-1].n}
	if old, ok := on[key]; inTime(at) && (!ok || s.newer(old)) {
		on[key] = s
	}
}

func (b *board) lines() []string {
	out := []string{}
	for key, s := range b.live {
		text := key + s.run.reports[0].cmd.Version + " " + s.run.id
		if a, ok := b.attempts[key]; ok && a.run.id != s.run.id && a.newer(s) {
			text += " but " + a.run.status().String() + " " + a.run.id
		}
		out = append(out, text)
	}
	for key, a := range b.attempts {
		if _, ok := b.live[key]; !ok {
			out = append(out, key+" but "+a.run.status().String()+" "+a.run.id)
		}
	}
	slices.Sort(out)
	return out
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func attribute(a event.Attribute) func(*tracking.Command) string {
	return func(c *tracking.Command) string { return c.Attributes[a] }
}

func metadata(key string) func(*tracking.Command) string {
	return func(c *tracking.Command) string {
		var m map[string]json.RawMessage
		_ = json.Unmarshal(c.Extra, &m)
		return string(m[key])
	}
}

// anyCommand draws commands that meet each other often: few names, few runs.
func anyCommand(account string) *rapid.Generator[*tracking.Command] {
	return rapid.Custom(func(t *rapid.T) *tracking.Command {
		c := &tracking.Command{
			Account: account, Author: event.Author{CredentialID: "k1", CredentialName: "ci", Mode: event.Live}, Kind: event.Build,
			ProductName: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "product"), Version: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version"),
			Status: rapid.SampledFrom([]event.Status{event.Pending, event.Started, event.Started, event.Completed, event.Completed, event.Failed, event.Aborted}).Draw(t, "status"),
		}
		body := map[string]any{"product_name": c.ProductName, "version": c.Version, "status": c.Status.String()}
		set := func(a event.Attribute, values ...string) {
			if rapid.Bool().Draw(t, "given") {
				c.Attributes[a] = rapid.SampledFrom(values).Draw(t, "value")
				body[a.Name(c.Kind)] = c.Attributes[a]
			}
		}
		if rapid.IntRange(0, 3).Draw(t, "kind") > 0 {
			c.Kind, c.EnvironmentName = event.Deployment, rapid.SampledFrom([]string{"staging", "production"}).Draw(t, "environment")
			body["environment_name"] = c.EnvironmentName
		}
		set(event.InvokeID, "r1", "r2", "r3")
		set(event.SCMSHA, "1111111", "11111112", "2222222")
		set(event.By, "ada", "eve")
		moment := func(name string, to *time.Time) {
			if rapid.Bool().Draw(t, "timed") {
				*to = epoch.Add(time.Duration(rapid.IntRange(-3600, 7200).Draw(t, name)) * time.Second)
				body[name] = to.Format(time.RFC3339)
			}
		}
		moment("started_at", &c.StartedAt)
		moment("completed_at", &c.CompletedAt)
		if rapid.Bool().Draw(t, "metadata") {
			c.Extra = fmt.Appendf(nil, `{%q:%d}`, rapid.SampledFrom([]string{"k", "l", "vi_gh_run_attempt"}).Draw(t, "key"), rapid.IntRange(1, 2).Draw(t, "n"))
			body["extra_metadata"] = json.RawMessage(c.Extra)
		}
		c.Body, _ = json.Marshal(body)
		h := fnv.New64a()
		_, _ = h.Write(c.Body)
		c.Hash, c.BodyHash = max(1, h.Sum64()), max(1, h.Sum64())
		return c
	})
}
