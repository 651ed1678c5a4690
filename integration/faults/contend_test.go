//go:build linux

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/shipledger/shipledger/pkg/event"
)

// A deed is one request that contended for an object, and what came of it.
type deed struct {
	model, object string
	report        report // what it would leave in the log
	porcupine.Operation
}

// A chronicle is what contenders did in one round.
type chronicle struct {
	began   time.Time
	unknown atomic.Int64 // requests whose outcome nobody was told

	mu    sync.Mutex
	deeds []deed
}

func newChronicle() *chronicle { return &chronicle{began: time.Now()} }

func (c *chronicle) now() int64 { return int64(time.Since(c.began)) }

func (c *chronicle) add(d deed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.ClientId = len(c.deeds)
	c.deeds = append(c.deeds, d)
}

// check looks for an order of the deeds of each object. What was not answered and
// left nothing in the log was never done; what left something was done once,
// however often it was sent.
func (c *chronicle) check(logged map[report]bool) (faults []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	objects := map[string][]porcupine.Operation{}
	model := map[string]string{}
	late := map[string]int{} // the place of what is not answered, by object and report
	for _, d := range c.deeds {
		object := d.model + " " + d.object
		model[object] = d.model
		if d.Output.(said).unknown && d.report != (report{}) {
			if !logged[d.report] {
				continue
			}
			key := fmt.Sprint(object, d.report)
			if i, again := late[key]; again {
				objects[object][i].Call = min(objects[object][i].Call, d.Call)
				continue
			}
			late[key] = len(objects[object])
		}
		objects[object] = append(objects[object], d.Operation)
	}
	for object, ops := range objects {
		if err := linearizable(model[object], ops); err != nil {
			faults = append(faults, fmt.Sprintf("%s: no order of the requests explains the answers: %v", object, err))
		}
	}
	return faults
}

// A contender sends requests of which only some can win, each once, through any
// of several processes.
type contender struct {
	*chronicle
	ledger  *ledger
	targets []string // a process each
	key     string   // an API key
	name    string   // of the round and account
	seed    uint64
	http    *http.Client
}

// unansweredAfter is when a contender gives up on an answer.
const unansweredAfter = 2 * time.Second

func newContender(c *chronicle, l *ledger, name, key string, seed uint64, targets ...string) *contender {
	return &contender{c, l, targets, key, name, seed, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: unansweredAfter}}
}

// start sets workers on each kind of object.
func (c *contender) start(ctx context.Context, work *load, admin *manager) {
	for i, worker := range []func(context.Context, *load, *rand.Rand, int){c.cells, c.cells, c.commits, c.commits, c.keyed, c.keyed} {
		work.wg.Go(func() { worker(ctx, work, rand.New(rand.NewPCG(c.seed, uint64(i))), i) })
	}
	work.wg.Go(func() { c.credentials(ctx, work, rand.New(rand.NewPCG(c.seed, 100)), admin) })
}

// Rests of a contender, after an answer and after none.
const (
	shortRest = 75 * time.Millisecond
	longRest  = 250 * time.Millisecond
)

func rest(out said) time.Duration {
	if out.unknown {
		return longRest
	}
	return shortRest
}

// send posts a body once, and notes what came of it. through is the process it goes to.
func (c *contender) send(ctx context.Context, d deed, through int, path, token, idempotencyKey string, body []byte) said {
	c.ledger.sending(d.report)
	if d.model == "cell" {
		refused := d.report
		refused.status = "preflight_failed"
		c.ledger.sending(refused)
	}
	d.Call = c.now()
	header := http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
	if idempotencyKey != "" {
		header.Set("Idempotency-Key", idempotencyKey)
	}
	res, err := send(ctx, c.http, http.MethodPost, c.targets[through]+path, body, header)
	d.Return = c.now()
	out := said{status: res.status}
	var a struct {
		runAnswer
		Code  string          `json:"code"`
		Error json.RawMessage `json:"error"`
	}
	if err == nil {
		err = json.Unmarshal(res.body, &a)
	}
	switch {
	case err != nil || res.status == http.StatusServiceUnavailable:
		out = said{unknown: true}
		d.Return = forever
		c.unknown.Add(1)
	case res.status == http.StatusOK:
		out.text = a.EventID
		if d.model == "cell" {
			out.text = a.Status
		}
		c.ledger.acknowledged(d.report, ack{a.EventID, a.ID, res.header.Get("X-Shipledger-Position")})
		c.ledger.reached(res.header.Get("X-Shipledger-Position"))
	case res.status == http.StatusUnauthorized:
		var e struct {
			Code string `json:"code"`
		}
		_ = json.Unmarshal(a.Error, &e) // no code is none that is expected
		out.text = e.Code
	case res.status == http.StatusConflict, res.status == http.StatusUnprocessableEntity:
	default:
		c.ledger.fault("%s was answered %d: %s", path, res.status, res.body)
	}
	d.Output = out
	c.add(d)
	return out
}

// cells starts runs in a product and environment that has room for one, and ends
// those that were started, or may have been.
func (c *contender) cells(ctx context.Context, work *load, r *rand.Rand, worker int) {
	const cell = "contested production"
	for n := 0; work.goesOn(ctx, shortRest); n++ {
		e := entry{
			report:  report{"deployment", fmt.Sprintf("%s-cell-%d-%d", c.name, worker, n), "started"},
			product: "contested", environment: "production", version: fmt.Sprintf("1.%d.%d", worker, n),
		}
		out := c.send(ctx, deed{model: "cell", object: c.name + cell, report: e.report, Operation: porcupine.Operation{Input: cellCall{run: e.invoke}}},
			r.IntN(len(c.targets)), e.path(), c.key, "", e.body(false))
		if out.status == http.StatusConflict {
			continue
		}
		start := e
		e.status = ends[n%len(ends)]
		for ctx.Err() == nil { // whatever may be under way is brought to an end, also when the round ends
			pause(ctx, rest(out))
			if out.unknown && r.IntN(2) == 0 { // byte for byte
				c.send(ctx, deed{model: "cell", object: c.name + cell, report: start.report, Operation: porcupine.Operation{Input: cellCall{run: e.invoke}}},
					r.IntN(len(c.targets)), e.path(), c.key, "", start.body(false))
			}
			out = c.send(ctx, deed{model: "cell", object: c.name + cell, report: e.report, Operation: porcupine.Operation{Input: cellCall{e.invoke, e.status}}},
				r.IntN(len(c.targets)), e.path(), c.key, "", e.body(false))
			if !out.unknown {
				break
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// commits reports builds of versions from one of two commits, in any length.
func (c *contender) commits(ctx context.Context, work *load, r *rand.Rand, worker int) {
	var out said
	for n := 0; work.goesOn(ctx, rest(out)); n++ {
		version := fmt.Sprintf("2.%d", n/4)
		sha := strings.Repeat("ab"[r.IntN(2):][:1], 40)[:[]int{7, 12, 40, 40}[r.IntN(4)]]
		rep := report{"build", fmt.Sprintf("%s-commit-%d-%d", c.name, worker, n), "completed"}
		body, err := json.Marshal(map[string]any{"product_name": "contested", "version": version, "status": rep.status, "invoke_id": rep.invoke, "scm_sha": sha})
		if err != nil {
			panic(err) // texts always marshal
		}
		out = c.send(ctx, deed{model: "commit", object: c.name + version, report: rep, Operation: porcupine.Operation{Input: commitCall{sha}}},
			r.IntN(len(c.targets)), "/build-events/", c.key, "", body)
	}
}

// keyed posts under idempotency keys, one of two bodies each. A body without a run id is
// known by nothing but its key.
func (c *contender) keyed(ctx context.Context, work *load, r *rand.Rand, worker int) {
	var out said
	for n := 0; work.goesOn(ctx, rest(out)); n++ {
		key := fmt.Sprintf("%s-key-%d", c.name, n/3)
		body := key + "-" + "xxy"[r.IntN(3):][:1]
		text := fmt.Appendf(nil, `{"product_name":"keyed","version":%q,"status":"completed"}`, body)
		out = c.send(ctx, deed{model: "keyed", object: key, report: report{"build", body, "completed"}, Operation: porcupine.Operation{Input: keyedCall{body}}},
			r.IntN(len(c.targets)), "/build-events/", c.key, key, text)
	}
}

// credentials makes keys, uses them through every process, and revokes them.
func (c *contender) credentials(ctx context.Context, work *load, r *rand.Rand, admin *manager) {
	for n := 0; work.goesOn(ctx, shortRest); n++ {
		name := fmt.Sprintf("%s-credential-%d", c.name, n)
		began := c.now()
		res, err := admin.ask(http.MethodPost, "/api-keys/", admin.token, fmt.Sprintf(`{"name":%q,"scope":"events:write","expires":"30d"}`, name))
		var key keyAnswer
		if err != nil || res.status != http.StatusCreated || json.Unmarshal(res.body, &key) != nil {
			c.unknown.Add(1)
			pause(ctx, longRest)
			continue
		}
		// Every process has a view of its own, of which its deeds tell.
		everywhere := func(what string, began, ended int64) {
			for i := range c.targets {
				c.add(deed{model: "credential", object: fmt.Sprint(name, " in process ", i), Operation: porcupine.Operation{
					Input: credentialCall{what}, Output: said{}, Call: began, Return: ended,
				}})
			}
		}
		everywhere(create, began, forever)
		used := 0
		uses := func(times int) {
			var all sync.WaitGroup
			for range times {
				used++
				rep := report{"build", fmt.Sprintf("%s-%d", name, used), "completed"}
				through := r.IntN(len(c.targets))
				all.Go(func() {
					c.send(ctx, deed{model: "credential", object: fmt.Sprint(name, " in process ", through), report: rep, Operation: porcupine.Operation{Input: credentialCall{use}}},
						through, "/build-events/", key.Secret, "", entry{report: rep, product: "used", version: name}.body(false))
				})
			}
			all.Wait()
		}
		uses(3)
		during := make(chan struct{})
		go func() { defer close(during); uses(3) }() // ends with its requests, which have an end
		began = c.now()
		told := false
		for ctx.Err() == nil && !told {
			res, err := admin.ask(http.MethodDelete, "/api-keys/"+key.ID, admin.token, "")
			ended := int64(forever)
			if err == nil && res.status == http.StatusNoContent && res.header.Get("X-Shipledger-Propagated") == "true" {
				ended = c.now()
			}
			if told = err == nil && (res.status == http.StatusNoContent || res.status == http.StatusConflict); told {
				everywhere(revoke, began, ended)
				break
			}
			c.unknown.Add(1)
			pause(ctx, longRest)
		}
		<-during
		if !told { // the round is over: whether it is revoked is not known
			everywhere(revoke, began, forever)
			return
		}
		uses(3)
	}
}

// logged gives what the log holds, by what it was sent as.
func (h *history) logged() map[report]bool {
	out := map[report]bool{}
	for i := range h.events {
		if r, ok := reportOf(&h.events[i]); ok {
			out[r] = true
		}
	}
	return out
}

// keyedTwice gives the idempotency keys under which more than one run was recorded.
func (h *history) keyedTwice() (twice []string) {
	runs := map[string][]string{}
	for i := range h.events {
		e := &h.events[i]
		if _, ok := e.Payload.(*event.Run); ok && e.IdempotencyKey != "" && !slices.Contains(runs[e.Account+e.IdempotencyKey], e.Subject) {
			runs[e.Account+e.IdempotencyKey] = append(runs[e.Account+e.IdempotencyKey], e.Subject)
		}
	}
	for key, subjects := range runs {
		if len(subjects) > 1 {
			twice = append(twice, key)
		}
	}
	return twice
}
