//go:build linux

package faults_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What the write side decides is linearizable: there is an order of all requests,
// each somewhere between its beginning and its answer, in which one decider would
// have given the same answers. Here is what that decider does, for each object
// that requests contend for. A request whose outcome is unknown takes effect at any
// time after its beginning; one that the log shows to have had none is left out.

// forever is when a request ends that was never answered.
const forever = math.MaxInt64

// said is what was answered.
type said struct {
	unknown bool
	status  int
	text    string // the status of a run, the id of an event, or the code of an error
}

// A cellCall reports a run of one product and environment: its start, or how it ended.
type cellCall struct{ run, end string }

// cellState knows which run is under way, and how those ended that have.
type cellState struct {
	open  string
	ended string // " run=status run=status", sorted
}

func (s cellState) endOf(run string) (status string) {
	_, rest, found := strings.Cut(s.ended+" ", " "+run+"=")
	if !found {
		return ""
	}
	status, _, _ = strings.Cut(rest, " ")
	return status
}

func (s cellState) end(run, status string) cellState {
	all := append(strings.Fields(s.ended), run+"="+status)
	slices.Sort(all)
	s.ended = " " + strings.Join(all, " ")
	if s.open == run {
		s.open = ""
	}
	return s
}

func (s cellState) step(in cellCall, out said) (bool, cellState) {
	accepted := func(status string) bool { return out.unknown || out.status == http.StatusOK && out.text == status }
	if end := s.endOf(in.run); end != "" { // it never runs again, and ends once
		return accepted(end), s
	}
	switch {
	case in.end != "":
		return accepted(in.end), s.end(in.run, in.end)
	case s.open == in.run:
		return accepted("started"), s
	case s.open != "":
		return out.unknown || out.status == http.StatusConflict, s
	}
	s.open = in.run
	return accepted("started"), s
}

// A commitCall reports a build of one version from a commit; the state is the
// longest form of the commit that the version is bound to.
type commitCall struct{ sha string }

func stepCommit(bound string, in commitCall, out said) (bool, string) {
	if bound != "" && !sameCommit(bound, in.sha) {
		return out.unknown || out.status == http.StatusConflict, bound
	}
	if len(in.sha) > len(bound) {
		bound = in.sha
	}
	return out.unknown || out.status == http.StatusOK, bound
}

// sameCommit is contract 10.
func sameCommit(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	return a == b || len(a) >= 7 && strings.HasPrefix(b, a)
}

// A keyedCall posts a body under an idempotency key.
type keyedCall struct{ body string }

// keyedState is what the key was used for. The event is not known while only
// requests used it whose answer is not.
type keyedState struct{ body, event string }

func (s keyedState) step(in keyedCall, out said) (bool, keyedState) {
	if s.body == "" {
		return out.unknown || out.status == http.StatusOK, keyedState{in.body, out.text}
	}
	if s.body != in.body {
		return out.unknown || out.status == http.StatusUnprocessableEntity, s
	}
	if s.event == "" {
		s.event = out.text
	}
	return out.unknown || out.status == http.StatusOK && out.text == s.event, s
}

// A credentialCall makes, uses or revokes one key. Every process has a view of its
// own, which follows the log: that a revocation has reached all of them is said by its answer.
type credentialCall struct{ what string }

const (
	create = "create"
	use    = "use"
	revoke = "revoke"
)

type credentialState int

const (
	unborn credentialState = iota
	active
	revoked
)

func (s credentialState) step(in credentialCall, out said) (bool, credentialState) {
	switch in.what {
	case create:
		return s == unborn, active
	case revoke:
		return s == active, revoked
	}
	want := map[credentialState]said{
		unborn: {status: http.StatusUnauthorized, text: "AUTH_INVALID_KEY"}, active: {status: http.StatusOK},
		revoked: {status: http.StatusUnauthorized, text: "AUTH_REVOKED_KEY"},
	}[s]
	if s == active {
		out.text = ""
	}
	return out.unknown || out == want, s
}

// modelOf makes what porcupine takes of a step.
func modelOf[S comparable, I any](initial S, step func(S, I, said) (bool, S)) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return initial },
		Step: func(state, input, output any) (bool, any) {
			ok, next := step(state.(S), input.(I), output.(said))
			return ok, next
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
	}
}

var models = map[string]porcupine.Model{
	"cell":       modelOf(cellState{}, cellState.step),
	"commit":     modelOf("", stepCommit),
	"keyed":      modelOf(keyedState{}, keyedState.step),
	"credential": modelOf(unborn, credentialState.step),
}

// linearizable tells whether there is such an order. A search that takes too
// long is a fault as well: nothing is then known.
func linearizable(model string, ops []porcupine.Operation) error {
	if r := porcupine.CheckOperationsTimeout(models[model], ops, patience); r != porcupine.Ok {
		slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		var lines []string
		for _, o := range ops {
			end := "never"
			if o.Return != forever {
				end = time.Duration(o.Return).String()
			}
			lines = append(lines, fmt.Sprintf("%12s – %12s  %+v -> %+v", time.Duration(o.Call), end, o.Input, o.Output))
		}
		return fmt.Errorf("%s: %s\n%s", model, r, strings.Join(lines, "\n"))
	}
	return nil
}

// A call is one request of a made-up history.
type call struct {
	in        any
	out       said
	call, ret int64
}

func operations(calls []call) (out []porcupine.Operation) {
	for i, c := range calls {
		out = append(out, porcupine.Operation{ClientId: i, Input: c.in, Output: c.out, Call: c.call, Return: c.ret})
	}
	return out
}

func TestTheCheckerOfLinearizabilityFindsEveryDefect(t *testing.T) {
	ok := func(text string) said { return said{status: http.StatusOK, text: text} }
	refused := said{status: http.StatusConflict}
	late := said{unknown: true}
	a40, b40 := strings.Repeat("a", 40), strings.Repeat("b", 40)
	for _, c := range []struct {
		name, model  string
		calls        []call
		linearizable bool
	}{
		{"one after another", "cell", []call{
			{cellCall{"a", ""}, ok("started"), 0, 10}, {cellCall{"b", ""}, refused, 20, 30}, {cellCall{"a", "completed"}, ok("completed"), 40, 50}, {cellCall{"b", ""}, ok("started"), 60, 70},
		}, true},
		{"two are started", "cell", []call{{cellCall{"a", ""}, ok("started"), 0, 10}, {cellCall{"b", ""}, ok("started"), 5, 30}}, false},
		{"refused though nothing is under way", "cell", []call{{cellCall{"a", ""}, refused, 0, 10}}, false},
		{"refused by one that had ended before", "cell", []call{
			{cellCall{"a", ""}, ok("started"), 0, 10}, {cellCall{"a", "failed"}, ok("failed"), 20, 30}, {cellCall{"b", ""}, refused, 40, 50},
		}, false},
		{"refused by one that was never answered", "cell", []call{{cellCall{"a", ""}, late, 0, forever}, {cellCall{"b", ""}, refused, 40, 50}}, true},
		{"refused by one that began later", "cell", []call{{cellCall{"b", ""}, refused, 0, 10}, {cellCall{"a", ""}, late, 20, forever}}, false},
		{"an end is forgotten", "cell", []call{{cellCall{"a", "failed"}, ok("failed"), 0, 10}, {cellCall{"a", ""}, ok("started"), 20, 30}}, false},

		{"the first commit wins", "commit", []call{{commitCall{a40}, ok("e"), 0, 10}, {commitCall{b40}, refused, 5, 20}, {commitCall{a40[:7]}, ok("f"), 30, 40}}, true},
		{"a version is two commits", "commit", []call{{commitCall{a40}, ok("e"), 0, 10}, {commitCall{b40}, ok("f"), 20, 30}}, false},
		{"its own commit is refused", "commit", []call{{commitCall{a40}, ok("e"), 0, 10}, {commitCall{a40}, refused, 20, 30}}, false},
		{"a short form is no prefix below seven", "commit", []call{{commitCall{a40}, ok("e"), 0, 10}, {commitCall{a40[:6]}, ok("f"), 20, 30}}, false},
		{"the longest form binds", "commit", []call{
			{commitCall{a40[:7]}, ok("e"), 0, 10}, {commitCall{a40}, ok("f"), 20, 30}, {commitCall{a40[:7] + b40[7:]}, ok("g"), 40, 50},
		}, false},
		{"the winner was never answered", "commit", []call{{commitCall{a40}, late, 0, forever}, {commitCall{b40}, refused, 20, 30}}, true},

		{"the same answer again", "keyed", []call{{keyedCall{"a"}, ok("e"), 0, 10}, {keyedCall{"a"}, ok("e"), 20, 30}, {keyedCall{"b"}, said{status: 422}, 20, 30}}, true},
		{"another event", "keyed", []call{{keyedCall{"a"}, ok("e"), 0, 10}, {keyedCall{"a"}, ok("f"), 20, 30}}, false},
		{"another event after one that was not answered", "keyed", []call{{keyedCall{"a"}, late, 0, forever}, {keyedCall{"a"}, ok("e"), 20, 30}, {keyedCall{"a"}, ok("f"), 40, 50}}, false},
		{"two bodies", "keyed", []call{{keyedCall{"a"}, ok("e"), 0, 10}, {keyedCall{"b"}, ok("f"), 20, 30}}, false},
		{"refused though new", "keyed", []call{{keyedCall{"a"}, said{status: 422}, 0, 10}}, false},

		{"revoked", "credential", []call{
			{credentialCall{create}, said{}, 0, forever},
			{credentialCall{use}, said{status: 401, text: "AUTH_INVALID_KEY"}, 1, 2},
			{credentialCall{use}, ok("e"), 3, 4},
			{credentialCall{revoke}, said{}, 5, 10},
			{credentialCall{use}, ok("f"), 6, 9},
			{credentialCall{use}, said{status: 401, text: "AUTH_REVOKED_KEY"}, 11, 12},
		}, true},
		{"let in after the answer", "credential", []call{{credentialCall{create}, said{}, 0, forever}, {credentialCall{revoke}, said{}, 5, 10}, {credentialCall{use}, ok("e"), 11, 12}}, false},
		{"alive again", "credential", []call{
			{credentialCall{create}, said{}, 0, forever},
			{credentialCall{revoke}, said{}, 5, forever},
			{credentialCall{use}, said{status: 401, text: "AUTH_REVOKED_KEY"}, 11, 12},
			{credentialCall{use}, ok("e"), 13, 14},
		}, false},
		{"refused though nobody revoked it", "credential", []call{{credentialCall{create}, said{}, 0, forever}, {credentialCall{use}, said{status: 401, text: "AUTH_REVOKED_KEY"}, 11, 12}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := linearizable(c.model, operations(c.calls)); (err == nil) != c.linearizable {
				t.Errorf("linearizable: %t, want %t: %v", err == nil, c.linearizable, err)
			}
		})
	}
}
