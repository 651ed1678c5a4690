//go:build linux

package faults_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

var faultRounds = flag.Int("fault-rounds", 0, "over how many rounds everything is broken; 0: a few of a fixed seed")

var faultFlag = flag.String("fault", "", "break only what has this in its name")

// Those that a short run breaks, in this order.
var shortPlan = []string{"server killed", "half-open between server and NATS", "ClickHouse stopped"}

// tallied is what came of the rounds of one breakage.
type tallied struct {
	name                      string
	rounds                    int
	acknowledged, unknown     int
	lost, doubled             int
	slowestWrite, slowestRead time.Duration
	impossible                error
}

// Issue 7: whatever breaks, in whichever order, nothing that was acknowledged is
// lost or doubled, in the log or in a read model; the balance is exact; and what
// the write side decides is linearizable.
func TestNothingIsLostWhateverBreaks(t *testing.T) {
	rounds, seed := *faultRounds, *seedFlag
	if rounds == 0 {
		rounds = len(shortPlan)
		seed = max(seed, 1)
	}
	for seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (repeat with -args -seed=%[1]d -fault-rounds=%d)", seed, *faultRounds)
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	all := breakages()
	table := make([]tallied, len(all))
	for i, b := range all {
		table[i].name = b.name
		if b.known != "" {
			table[i].impossible = errors.New(b.known)
		}
	}
	defer func() {
		t.Log(render(table))
		if t.Failed() {
			for i, s := range w.servers {
				t.Logf("the last words of server %d:\n%s", i, s.errors)
			}
		}
	}()
	for round, i := range plan(all, rounds, r) {
		if end, limited := t.Deadline(); limited && time.Until(end) < time.Minute {
			t.Logf("%d of %d rounds: the time of the test is over", round, rounds)
			break
		}
		t.Logf("round %3d: %s …", round, all[i].name)
		w.round(round, all[i], &table[i], rand.New(rand.NewPCG(seed, uint64(round)+1)))
		if t.Failed() {
			return
		}
	}
	w.checker.wholeLog(t, w)
}

// plan says what to break in which round: everything in turn, in a new order each time.
func plan(all []breakage, rounds int, r *rand.Rand) (out []int) {
	if *faultRounds == 0 {
		for _, name := range shortPlan {
			out = append(out, slices.IndexFunc(all, func(b breakage) bool { return b.name == name }))
		}
		return out
	}
	for len(out) < rounds {
		for _, i := range r.Perm(len(all)) {
			if strings.Contains(all[i].name, *faultFlag) && (all[i].known == "" || *faultFlag != "") {
				out = append(out, i)
			}
		}
		if len(out) == 0 {
			break // nothing has that name
		}
	}
	return out[:min(rounds, len(out))]
}

// Clients have acknowledged so many events before something breaks, and after.
const enough = 30

// round breaks the world once, under load, and holds it to its promises.
func (w *world) round(n int, b breakage, row *tallied, r *rand.Rand) {
	t := w.t
	t.Helper()
	accounts := map[string]keys{}
	for _, name := range []string{fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n)} {
		accounts[name] = w.account(name)
	}
	story := newChronicle()
	targets := w.targets()
	had := w.ledger.count()
	refusedBefore := w.ledger.refusals503()
	var clients []*client
	for i, name := range []string{fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n)} {
		clients = append(clients, newClient(newTarget(targets[i]), w.ledger, accounts[name].APIKey))
	}
	work := startLoad(t, fmt.Sprintf("round%d", n), gentle, clients...)
	for i, name := range []string{fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n)} {
		c := newContender(story, w.ledger, name, accounts[name].APIKey, r.Uint64(), targets...)
		c.start(work.ctx, work, &manager{t, targets[i], accounts[name].AdminPAT, &http.Client{Timeout: 2 * unansweredAfter}})
	}
	more := func() {
		t.Helper()
		from := w.ledger.count()
		eventually(t, "events are acknowledged", func() error {
			if w.ledger.count() < from+enough {
				return errors.New("few are")
			}
			return nil
		})
	}
	more()
	w.began, w.after = w.ledger.position(), nil

	mend, err := b.inject(w, r)
	if err != nil {
		if !errors.Is(err, errImpossible) {
			t.Fatalf("%s: %v", b.name, err)
		}
		t.Logf("%s: %v", b.name, err)
		row.impossible = err
		work.end()
		work.settle(t)
		return
	}
	// The one wait for a time to pass: as long as something is broken.
	pause(t.Context(), 300*time.Millisecond+time.Duration(r.Int64N(int64(2*time.Second))))
	mend()
	mended := time.Now()
	accepting, readable := w.recovered(n, accounts)
	more()
	work.end()
	work.settle(t)
	w.barrier(fmt.Sprintf("last%d", n), accounts)
	if w.after != nil {
		w.after()
	}

	v := w.checker.check(t, w, accounts)
	v.faults = append(v.faults, story.check(w.checker.history.logged())...)
	w.ledger.clean(t)
	for _, f := range v.faults[:min(len(v.faults), 10)] {
		t.Errorf("round %d, %s: %s", n, b.name, f)
	}
	row.rounds++
	row.acknowledged += w.ledger.count() - had
	row.unknown += int(story.unknown.Load()) + w.ledger.refusals503() - refusedBefore
	row.lost += v.lost
	row.doubled += v.doubled
	row.slowestWrite = max(row.slowestWrite, accepting.Sub(mended))
	row.slowestRead = max(row.slowestRead, readable.Sub(mended))
	t.Logf("round %3d: %-38s %5d acknowledged, %4d without an answer or 503; writes everywhere after %6s, read after %6s; %d events in the log",
		n, b.name, w.ledger.count()-had, int(story.unknown.Load())+w.ledger.refusals503()-refusedBefore,
		accepting.Sub(mended).Round(10*time.Millisecond), readable.Sub(mended).Round(10*time.Millisecond), len(w.checker.history.events))
}

// recovered gives when every process has acknowledged an event again, and when
// the read model answers for the last of them.
func (w *world) recovered(n int, accounts map[string]keys) (accepting, readable time.Time) {
	w.t.Helper()
	position := w.barrier(fmt.Sprintf("mended%d", n), accounts)
	accepting = time.Now()
	r := newReader(w.targets()[0], w.operator.AdminPAT)
	eventually(w.t, "what was acknowledged is read", func() error {
		res, err := r.get(w.t.Context(), "/products/", map[string][]string{"min_position": {position}})
		if err == nil && res.status != http.StatusOK {
			err = fmt.Errorf("answered %d: %s", res.status, res.body)
		}
		return err
	})
	return accepting, time.Now()
}

// barrier has every process acknowledge one event more: what it had in flight
// before is then in the log or never will be.
func (w *world) barrier(name string, accounts map[string]keys) (position string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for account, k := range accounts {
		for i, target := range w.targets() {
			rep := report{"deployment", fmt.Sprintf("%s-%s-%d", name, account, i), "completed"}
			e := entry{report: rep, product: "barrier", environment: "production", version: rep.invoke}
			if err := newClient(newTarget(target), w.ledger, k.APIKey).single(ctx, e); err != nil {
				w.t.Fatalf("process %d acknowledges nothing: %v", i, err)
			}
		}
	}
	return w.ledger.position()
}

// wholeLog reads the log once more from its first frame: no byte of it has changed.
func (c *checker) wholeLog(t *testing.T, w *world) {
	t.Helper()
	var again history
	eventually(t, "the log can be read", func() error {
		again = history{}
		return again.read(t.Context(), w.log)
	})
	again.sound(t)
	again.begins(t, c.history)
}

func render(rows []tallied) string {
	var b strings.Builder
	var total tallied
	total.name = "all"
	b.WriteString("\n| what breaks | rounds | acknowledged | unknown | lost | doubled | slowest write | slowest read |\n|---|---|---|---|---|---|---|---|\n")
	line := func(r tallied) {
		if r.impossible != nil {
			fmt.Fprintf(&b, "| %s | – | %v |\n", r.name, r.impossible)
			return
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %.1f s | %.1f s |\n",
			r.name, r.rounds, r.acknowledged, r.unknown, r.lost, r.doubled, r.slowestWrite.Seconds(), r.slowestRead.Seconds())
	}
	for _, r := range rows {
		if r.rounds == 0 {
			if r.impossible != nil {
				line(r)
			}
			continue
		}
		r.impossible = nil
		line(r)
		total.rounds += r.rounds
		total.acknowledged += r.acknowledged
		total.unknown += r.unknown
		total.lost += r.lost
		total.doubled += r.doubled
		total.slowestWrite = max(total.slowestWrite, r.slowestWrite)
		total.slowestRead = max(total.slowestRead, r.slowestRead)
	}
	line(total)
	return b.String()
}
