package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// compareStates holds what tells how state changed to the state itself: the
// changes between two moments are how the two matrices differ, and the stay that
// a moment lies in is what the matrix of that moment shows.
func (w *world) compareStates(s store) {
	from, to, known := w.anyMoment("from"), w.anyMoment("to"), w.anyMoment("known at, for changes")
	for _, known := range []time.Time{{}, known} {
		before, after := w.live(s, from, known), w.live(s, to, known)
		var want []string
		for place, x := range before {
			if y := after[place]; y.version != x.version {
				want = append(want, fmt.Sprintf("%v: %v to %v", place, x, y))
			}
		}
		for place, y := range after {
			if _, was := before[place]; !was {
				want = append(want, fmt.Sprintf("%v: %v to %v", place, occupant{}, y))
			}
		}
		changes, err := s.Changes(context.Background(), w.account, readmodel.ChangeFilter{From: from, To: to, KnownAt: known}, readmodel.Page{Limit: 1000})
		if err != nil {
			w.t.Fatal(err)
		}
		var got []string
		for _, c := range changes {
			got = append(got, fmt.Sprintf("%v: %v to %v", readmodel.Place{Product: c.Product.ID, Environment: c.Environment.ID}, occupantOf(c.From), occupantOf(c.To)))
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := gocmp.Diff(want, got); diff != "" {
			w.t.Fatalf("changes from %s to %s, known at %s (-matrices +changes): %s", when(from), when(to), when(known), diff)
		}
		w.compareStays(s, from, known, before)
	}
}

// compareStays holds the stays of every cell to what was live at a moment.
func (w *world) compareStays(s store, at, known time.Time, live map[readmodel.Place]occupant) {
	cells := map[readmodel.Place]bool{}
	for _, r := range w.runs {
		if c := r.reports[0].cmd; c.Kind == event.Deployment {
			cells[readmodel.Place{
				Product: event.ProductIDOf(w.account, c.ProductName), Environment: event.EnvironmentIDOf(w.account, c.EnvironmentName),
			}] = true
		}
	}
	for place := range cells {
		stays, err := s.Stays(context.Background(), w.account, readmodel.StayFilter{Product: place.Product, Environment: place.Environment, KnownAt: known}, readmodel.Page{Limit: 1000})
		if err != nil {
			w.t.Fatal(err)
		}
		got := occupant{}
		for _, stay := range stays {
			if !stay.From.After(at) && (stay.Until.IsZero() || at.Before(stay.Until)) {
				if got != (occupant{}) {
					w.t.Fatalf("at %s, known at %s, two stays of %v", when(at), when(known), place)
				}
				got = occupant{stay.Live.Record.Version, stay.Live.Record.ID.String()}
			}
		}
		if diff := gocmp.Diff(live[place], got, gocmp.AllowUnexported(occupant{})); diff != "" {
			w.t.Fatalf("%v at %s, known at %s (-matrix +stay): %s", place, when(at), when(known), diff)
		}
	}
}

// occupant is what is live in a cell; its zero value is nothing.
type occupant struct{ version, run string }

func occupantOf(o *readmodel.Occupant) occupant {
	if o == nil {
		return occupant{}
	}
	return occupant{o.Version, o.Deployment.String()}
}

// live reads what the matrix of a moment shows.
func (w *world) live(s store, at, known time.Time) map[readmodel.Place]occupant {
	m, err := s.Matrix(context.Background(), w.account, readmodel.MatrixFilter{At: at, KnownAt: known}, readmodel.Page{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[readmodel.Place]occupant{}
	for i := range m.Items {
		for _, c := range m.Items[i].Cells {
			if c.Live != nil {
				out[readmodel.Place{Product: m.Items[i].Product.ID, Environment: c.Environment}] = occupant{c.Live.Version, c.Live.ID.String()}
			}
		}
	}
	return out
}
