package readmodeltest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// stateQuestions walks what States lists, by pages like p.
func (a *account) stateQuestions(ctx context.Context, p readmodel.Page) []question {
	var out []question
	early, late := epoch.Add(600*time.Millisecond), epoch.Add(1400*time.Millisecond)
	for _, f := range []readmodel.ChangeFilter{
		{From: early, To: late},
		{From: late, To: early, KnownAt: late},
		{From: time.Unix(-1, 0), To: late, Environments: []string{"*o*"}},
		{From: epoch.AddDate(0, 0, -40), To: late},
		{From: epoch.AddDate(0, 0, -61), To: epoch.AddDate(0, 0, -20), Product: a.products[0]},
		{Left: a.environments[0], Right: a.environments[1], At: epoch.AddDate(0, 0, -30)},
		{From: early, Search: "CHECK", Environment: a.environments[0]},
		{From: early, Product: a.products[0]},
		{Left: a.environments[0], Right: a.environments[1]},
		{Left: a.environments[1], Right: a.environments[2], At: late},
		{Left: a.environments[2], Right: a.environments[0], KnownAt: early, Search: "%"},
		{Left: a.environments[0], Right: a.environments[len(a.environments)-1]},
		{Left: a.environments[0], Right: a.environments[0]},
	} {
		out = append(out, question{fmt.Sprintf("changes of %s %+v by %d", a.name, f, p.Limit), func(r readmodel.Reader) (any, error) {
			return all(p, func(p readmodel.Page) ([]readmodel.Change, error) { return r.Changes(ctx, a.name, f, p) }, (*readmodel.Change).Key)
		}})
	}
	for _, f := range []readmodel.StayFilter{
		{Product: a.products[0], Environment: a.environments[0]},
		{Product: a.products[1], Environment: a.environments[1], KnownAt: late},
		{Product: a.products[len(a.products)-1], Environment: a.environments[0]},
		{Product: a.products[0], Environment: a.environments[2]},
	} {
		out = append(out, question{fmt.Sprintf("stays of %s %+v by %d", a.name, f, p.Limit), func(r readmodel.Reader) (any, error) {
			stays, err := all(p, func(p readmodel.Page) ([]readmodel.Stay, error) { return r.Stays(ctx, a.name, f, p) }, (*readmodel.Stay).Key)
			var shown []any
			for _, s := range stays {
				shown = append(shown, s.Live, s.From, s.Until, s.Key())
			}
			return shown, err
		}})
	}
	return out
}

// staysAndChanges holds Stays and Changes to the matrix of past moments.
func staysAndChanges(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	f := newFixture(t, sink)
	at := func(minutes int) time.Time { return epoch.Add(time.Duration(minutes) * time.Minute) }
	for i, version := range []string{"1", "2", "2", "1", "3"} {
		run := f.deployment(at(10*i), version, event.Completed)
		f.store(readmodel.Rows{Cells: []readmodel.Cell{{Record: run.Record, EffectiveAt: at(10 * i), ReceivedAt: at(10 * i), Position: run.Position}}})
	}
	stays, err := reader.Stays(t.Context(), f.account, readmodel.StayFilter{Product: f.product(), Environment: f.environment()}, readmodel.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range stays {
		text := s.Live.Record.Version + " from " + s.From.Format("15:04")
		if !s.Until.IsZero() {
			text += " until " + s.Until.Format("15:04")
		}
		got = append(got, text)
	}
	want := []string{"3 from 12:40", "1 from 12:30 until 12:40", "2 from 12:20 until 12:30", "2 from 12:10 until 12:20", "1 from 12:00 until 12:10"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stays (-want +got):\n%s", diff)
	}
	for _, step := range []struct {
		from, to int
		want     string
	}{
		{-1, 0, " 1"}, {0, 5, ""}, {5, 15, "1 2"}, {15, 25, ""}, {5, 35, ""}, {25, 45, "2 3"}, {45, 25, "3 2"}, {0, -1, "1 "},
	} {
		changes, err := reader.Changes(t.Context(), f.account, readmodel.ChangeFilter{From: at(step.from), To: at(step.to)}, readmodel.Page{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		version := func(o *readmodel.Occupant) string {
			if o == nil {
				return ""
			}
			return o.Version
		}
		for _, c := range changes {
			got = append(got, version(c.From)+" "+version(c.To))
		}
		if text := strings.Join(got, ","); text != step.want {
			t.Errorf("from %d to %d: %q, want %q", step.from, step.to, text, step.want)
		}
	}
}
