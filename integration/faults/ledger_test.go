//go:build linux

package faults_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A ledger is what a client knows of its own events: which it sent, and what
// was acknowledged of them.
type ledger struct {
	mu       sync.Mutex
	sent     map[report]bool
	acks     map[report]ack
	refusals map[string]int  // answers 503, by code
	faults   []string        // answers that no outage explains
	last     string          // latest position that was acknowledged
	blocked  map[string]bool // deployments whose start a rule refused
}

// A report is what one event says: the status of a run. Every run has an
// invoke_id of its own, and reports each status once.
type report struct {
	kind   string // deployment or build
	invoke string
	status string
}

// An ack is what the server answered to a report.
type ack struct {
	event    string
	run      string // the id of the deployment or build
	position string // empty where the answer did not say
}

func newLedger() *ledger {
	return &ledger{sent: map[report]bool{}, acks: map[report]ack{}, refusals: map[string]int{}, blocked: map[string]bool{}}
}

// sending notes a report before it leaves: from now on it may be in the log.
func (l *ledger) sending(reports ...report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range reports {
		l.sent[r] = true
	}
}

// acknowledged notes an answer. Two answers to one report must be the same.
func (l *ledger) acknowledged(r report, a ack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before, twice := l.acks[r]; twice {
		if a.position == "" {
			a.position = before.position
		}
		if before.position != "" && before != a || before.event != a.event || before.run != a.run {
			l.faults = append(l.faults, fmt.Sprintf("%v was answered %v and later %v", r, before, a))
		}
	}
	l.acks[r] = a
}

func (l *ledger) reached(position string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position != "" && (l.last == "" || later(position, l.last)) {
		l.last = position
	}
}

func (l *ledger) refused(code string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusals[code]++
}

func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

// snapshot gives what is acknowledged by now.
func (l *ledger) snapshot() map[report]ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.acks)
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

func (l *ledger) wasSent(r report) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent[r]
}

func (l *ledger) position() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// refusedBy gives how often events were refused for a reason.
func (l *ledger) refusedBy(code string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusals[code]
}

// refusals503 gives how often events were refused, whatever the reason.
func (l *ledger) refusals503() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, times := range l.refusals {
		n += times
	}
	return n
}

// clean fails the test for every answer that no outage explains.
func (l *ledger) clean(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults[:min(len(l.faults), 10)] {
		t.Error(f)
	}
	if n := len(l.faults) - 10; n > 0 {
		t.Errorf("and %d more", n)
	}
	l.faults = nil
}

// runs gives the runs of a kind and how each stands by the answers. It holds
// once nothing is in flight.
func (l *ledger) runs(kind string) map[string]string {
	out := map[string]string{}
	acks := l.snapshot()
	// A run's first report is never its last one here, and ends are final.
	for _, r := range slices.SortedFunc(maps.Keys(acks), func(a, b report) int { return rank(a.status) - rank(b.status) }) {
		if r.kind == kind {
			out[acks[r].run] = r.status
		}
	}
	if kind == "deployment" {
		l.mu.Lock()
		defer l.mu.Unlock()
		for id := range l.blocked {
			out[id] = "preflight_failed"
		}
	}
	return out
}

func rank(status string) int {
	if status == "started" {
		return 0
	}
	return 1
}

// later tells whether position a is behind b in the log; either may name more
// streams than that.
func later(a, b string) bool {
	var aSeq, aIndex, bSeq, bIndex int
	_, _ = fmt.Sscanf(inTrack(a), "t0.%d.%d", &aSeq, &aIndex) // the server's form; another fails where it is used
	_, _ = fmt.Sscanf(inTrack(b), "t0.%d.%d", &bSeq, &bIndex)
	return aSeq > bSeq || aSeq == bSeq && aIndex > bIndex
}

func inTrack(position string) string { return position[max(strings.Index(position, "t0."), 0):] }

// refusedStart notes a deployment whose start a rule refused: it is recorded
// too, though its answer names no event.
func (l *ledger) refusedStart(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocked[id] = true
}
