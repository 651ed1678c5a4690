package tracking_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
)

// anyBody draws bodies that meet each other often: few names, few runs.
var anyBody = rapid.Custom(func(t *rapid.T) fields {
	f := fields{
		"product_name": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "product"),
		"version":      rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version"),
		"status":       rapid.SampledFrom([]string{"pending", "started", "success", "failed", "aborted"}).Draw(t, "status"),
	}
	if rapid.Bool().Draw(t, "deployment") {
		f["environment_name"] = rapid.SampledFrom([]string{"staging", "production"}).Draw(t, "environment")
	}
	if rapid.Bool().Draw(t, "has run id") {
		f["invoke_id"] = rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "run")
	}
	if rapid.Bool().Draw(t, "has commit") {
		f["scm_sha"] = rapid.SampledFrom([]string{"1111111", "11111112", "2222222"}).Draw(t, "sha")
	}
	if rapid.Bool().Draw(t, "has metadata") {
		f["extra_metadata"] = fields{rapid.SampledFrom([]string{"k", "l", "vi_gh_run_attempt"}).Draw(t, "key"): rapid.IntRange(1, 2).Draw(t, "value")}
	}
	if rapid.Bool().Draw(t, "has completion") {
		f["completed_at"] = epoch.Add(time.Duration(rapid.IntRange(-600, 600).Draw(t, "completion")) * time.Second).Format(time.RFC3339)
	}
	return f
})

func TestRollingBackLeavesTheStateAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kept, tried := rapid.SliceOfN(anyBody, 0, 20).Draw(t, "kept"), rapid.SliceOfN(anyBody, 1, 20).Draw(t, "tried")
		after := rapid.SliceOfN(anyBody, 1, 20).Draw(t, "after")
		plain, rolled := newLedger(t), newLedger(t)
		for _, f := range kept {
			plain.try(f)
			rolled.try(f)
		}
		rolled.state.Begin()
		mark, seq, ids := rolled.state.Mark(), rolled.seq, rolled.ids
		for _, f := range tried {
			rolled.try(f)
		}
		rolled.state.RollbackTo(mark)
		rolled.state.Commit()
		rolled.seq, rolled.ids, rolled.now = seq, ids, plain.now
		rolled.events = rolled.events[:len(plain.events)]
		if diff := cmp.Diff(plain.state.Sizes(), rolled.state.Sizes()); diff != "" {
			t.Fatal(diff)
		}
		for _, f := range after { // what cannot be seen by its size shows in what is decided next
			if want, got := plain.try(f), rolled.try(f); want != got {
				t.Fatalf("%v after a roll-back: %s, without one: %s", f, got, want)
			}
		}
	})
}

func TestAStateFoldedFromTheLogDecidesLikeTheOneThatWroteIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger(t)
		for _, f := range rapid.SliceOfN(anyBody, 0, 30).Draw(t, "commands") {
			l.try(f)
		}
		folded := newLedger(t)
		for _, r := range l.events {
			folded.state.Apply(r)
		}
		folded.seq, folded.ids, folded.now, folded.events = l.seq, l.ids, l.now, l.events
		maps.Copy(folded.frames, l.frames)
		if diff := cmp.Diff(l.state.Sizes(), folded.state.Sizes()); diff != "" {
			t.Fatal(diff)
		}
		for _, f := range rapid.SliceOfN(anyBody, 1, 20).Draw(t, "next") {
			if want, got := l.try(f), folded.try(f); want != got {
				t.Fatalf("%v: the fold decides %s, the writer %s", f, got, want)
			}
		}
	})
}

func TestTheOrderInWhichReportsArriveDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		reports := []fields{
			deployment("pending", fields{"invoke_id": "1", "deployed_by": "p", "scm_branch": "p", "build_number": "p", "extra_metadata": fields{"x": "p", "p": 1}}),
			deployment("started", fields{"invoke_id": "1", "deployed_by": "s", "scm_branch": "s", "extra_metadata": fields{"x": "s", "s": 1}}),
			deployment("success", fields{"invoke_id": "1", "deployed_by": "c", "completed_at": "2026-05-04T08:00:00Z", "extra_metadata": fields{"x": "c"}}),
		}
		l := newLedger(t)
		var last event.Record
		for _, f := range rapid.Permutation(reports).Draw(t, "order") {
			last = *l.post(f).Record
		}
		got := []any{last.Status, last.Attributes[event.By], last.Attributes[event.SCMBranch], last.Attributes[event.BuildNumber]}
		for _, k := range []string{"x", "p", "s"} {
			got = append(got, string(last.Extra[k].Value))
		}
		if want := `[completed c s p "c" 1 1]`; fmt.Sprint(got) != want {
			t.Fatalf("the record ends as %v, want %s", got, want)
		}
	})
}

// try decides a body and says what came of it.
func (l *ledger) try(f fields) string {
	l.t.Helper()
	l.now = l.now.Add(time.Second)
	d, err := l.decide(command(f))
	if err != nil {
		return err.Error()
	}
	out := fmt.Sprint(d.Record.ID, d.EventID, d.Offset, d.Record.Status, d.Duplicate, d.Record.Attributes, d.Record.StartedAt, d.Record.CompletedAt)
	if d.Refusal != nil {
		out += d.Refusal.Code
	}
	for i := range d.Events {
		out += string(d.Events[i].Type)
	}
	return out
}
