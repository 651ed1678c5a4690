package projection_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
	"github.com/shipledger/shipledger/pkg/tally"
)

// frame stores a frame with an event of each of these subjects.
func frame(t *testing.T, log *memlog.Log, subjects ...string) {
	t.Helper()
	last, err := log.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var events []event.Event
	for i, name := range subjects {
		id := event.ProductIDOf("acme", name)
		events = append(events, event.Event{
			ID: ulid.MustNew((last+1)*1024+uint64(i), ulid.DefaultEntropy()), Account: "acme", Type: event.ProductUpdated, Subject: name,
			Time: received, Payload: &event.Product{ID: id, Name: name, Description: fmt.Sprintf("as of %d.%d", last+1, i), CreatedAt: received},
		})
	}
	appendBody(t, log, event.AppendFrame(nil, last+1, events))
}

// failing fails on events of a subject up to an offset; 0: always.
func failing(name string, upTo event.Offset) projection.Func {
	return func(r event.Recorded, rows *readmodel.Rows) (bool, error) {
		known := projection.Project(r, rows)
		if r.Subject == name && (upTo == 0 || r.Position.Offset <= upTo) {
			if r.Position.Offset.Index()%2 == 1 {
				panic("of a bug")
			}
			return false, errors.New("of a bug")
		}
		return known, nil
	}
}

// aside lists what is set aside, in words.
func aside(t *testing.T, sink readmodel.Sink) []string {
	t.Helper()
	rows, err := sink.Quarantine(t.Context(), readmodel.QuarantineFilter{}, readmodel.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range rows {
		out = append(out, fmt.Sprintf("%s %s %q %s", r.Position, r.State, r.Subject, r.Reason))
	}
	return out
}

// balanced holds what a log accepted against what a model has.
func balanced(t *testing.T, log *memlog.Log, model *memmodel.Model) (quarantined uint64) {
	t.Helper()
	upTo, held, err := model.EventCounts(t.Context(), "", "t0")
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := tally.Accepted(t.Context(), log, "t0", upTo.Offset.Seq())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range projection.Balance(accepted, held) {
		if e.Difference() != 0 {
			t.Errorf("the ledger does not balance: %+v", e)
		}
		quarantined += e.Quarantined
	}
	return quarantined
}

// descriptions gives what the model says of each product.
func descriptions(t *testing.T, model *memmodel.Model) map[string]string {
	t.Helper()
	products, err := model.Products(t.Context(), "acme", readmodel.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range products {
		out[p.Name] = p.Description
	}
	return out
}

// Rows: architecture 6
func TestWhatCannotBeAppliedIsSetAsideAndTheRestGoesOn(t *testing.T) {
	log := memlog.New()
	frame(t, log, "a", "b")
	appendBody(t, log, []byte(`[{"specversion":"1.0","id":"nonsense","source":"/accounts/acme","type":"product.updated","subject":"a"},`+
		`{"specversion":"1.0","id":"01JW2C5R3V0E6H7Q8S9T0A1B2D","source":"/accounts/acme","type":"product.updated","subject":5,"time":"2026-05-04T09:00:00Z"}]`))
	frame(t, log, "b", "a", "c")
	appendBody(t, log, []byte("this is no batch"))
	frame(t, log, "b", "d", "d", "c")
	model := memmodel.New()
	done, c, err := pump(t, log, 0, model, projection.Config{MaxRows: 3, Project: failing("d", 0)})
	if err != nil || done.Offset != event.At(5, 3) || c.events != 12 {
		t.Errorf("done = %+v, %+v, %v", done, c, err)
	}
	got := aside(t, model)
	for i, want := range []struct{ is, because string }{
		{`t0.2.0 quarantined "a"`, "id: "},
		{`t0.2.1 quarantined ""`, "unmarshal JSON number into Go string"},
		{`t0.3.1 quarantined "a"`, "waits behind t0.2.0"},
		{`t0.4.0 quarantined ""`, "decode frame"},
		{`t0.5.1 quarantined "d"`, "the projection panics: of a bug"},
		{`t0.5.2 quarantined "d"`, "waits behind t0.5.1"},
	} {
		if i >= len(got) || !strings.HasPrefix(got[i], want.is) || !strings.Contains(got[i], want.because) {
			t.Errorf("%d: want %+v of\n%s", i, want, strings.Join(got, "\n"))
		}
	}
	want := map[string]string{"a": "as of 1.0", "b": "as of 5.0", "c": "as of 5.3"}
	if diff := cmp.Diff(want, descriptions(t, model)); diff != "" || len(got) != 6 {
		t.Error(len(got), diff)
	}
	if n := balanced(t, log, model); n != 6 {
		t.Errorf("%d are quarantined, want 6", n)
	}
}

func TestAProjectionThatFailsLeavesNoHalfOfAnEvent(t *testing.T) {
	log := memlog.New()
	frame(t, log, "a", "b")
	model := memmodel.New()
	if _, _, err := pump(t, log, 0, model, projection.Config{MaxRows: 3, Project: failing("a", 0)}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"b": "as of 1.1"}, descriptions(t, model)); diff != "" {
		t.Error(diff)
	}
}

// refusing refuses rows of events with some offsets, whatever else is with them.
type refusing struct {
	*memmodel.Model
	poison []event.Offset
	fail   error // of what it does not refuse
	stores int
}

func (s *refusing) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	s.stores++
	for _, r := range rows.Events {
		if slices.Contains(s.poison, r.Position.Offset) {
			return fmt.Errorf("violates a constraint: %w", readmodel.ErrRefused)
		}
	}
	if s.fail != nil {
		return s.fail
	}
	return s.Model.Store(ctx, rows, upTo)
}

func TestAnEventThatTheStoreRefusesIsFoundAmongThoseItTakes(t *testing.T) {
	log := memlog.New()
	frame(t, log, "a", "b", "c", "d")
	frame(t, log, "a", "b", "c", "d")
	frame(t, log, "e", "b", "c", "a")
	sink := &refusing{Model: memmodel.New(), poison: []event.Offset{event.At(1, 1), event.At(2, 2)}}
	done, _, err := pump(t, log, 0, sink, projection.Config{MaxRows: 1000})
	if err != nil || done.Offset != event.At(3, 3) {
		t.Errorf("done = %+v, %v", done, err)
	}
	const because = "violates a constraint: the store refuses the rows for what they hold"
	if diff := cmp.Diff([]string{
		`t0.1.1 quarantined "b" ` + because, `t0.2.1 quarantined "b" waits behind t0.1.1`,
		`t0.2.2 quarantined "c" ` + because,
		`t0.3.1 quarantined "b" waits behind t0.1.1`, `t0.3.2 quarantined "c" waits behind t0.2.2`,
	}, aside(t, sink)); diff != "" {
		t.Error(diff)
	}
	want := map[string]string{"a": "as of 3.3", "c": "as of 1.2", "d": "as of 2.3", "e": "as of 3.0"}
	if diff := cmp.Diff(want, descriptions(t, sink.Model)); diff != "" {
		t.Error(diff)
	}
	balanced(t, log, sink.Model)
}

func TestAnOutageWhileARefusedEventIsSearchedForSetsNothingAside(t *testing.T) {
	log := memlog.New()
	frame(t, log, "a", "b")
	away := errors.New("away")
	sink := &refusing{Model: memmodel.New(), poison: []event.Offset{event.At(1, 1)}, fail: away}
	done, _, err := pump(t, log, 0, sink, projection.DefaultConfig)
	if !errors.Is(err, away) || done.Offset != 0 || len(aside(t, sink)) != 0 {
		t.Errorf("done = %+v, %v, %v", done, err, aside(t, sink))
	}
}

// dying is a store that dies after it took the rows and before the progress.
type dying struct{ *memmodel.Model }

func (s dying) Store(ctx context.Context, rows *readmodel.Rows, _ readmodel.Progress) error {
	if err := s.Model.Store(ctx, rows, readmodel.Progress{}); err != nil {
		return err
	}
	return errors.New("killed")
}

func TestAShelfIsLoadedAndACrashBeforeTheProgressChangesNothing(t *testing.T) {
	log := memlog.New()
	frame(t, log, "a", "b")
	frame(t, log, "c")
	broken := projection.Config{MaxRows: 1000, Project: failing("a", 0)}
	t.Run("the code is as before", func(t *testing.T) {
		model := memmodel.New()
		if _, _, err := pump(t, log, 0, dying{model}, broken); err == nil {
			t.Fatal("it was not killed")
		}
		if _, _, err := pump(t, log, 0, model, broken); err != nil {
			t.Fatal(err)
		}
		if n := balanced(t, log, model); n != 1 {
			t.Errorf("%d are quarantined", n)
		}
		more := memlog.New()
		for range 2 {
			frame(t, more, "a", "b")
		}
		frame(t, more, "b", "a")
		if _, _, err := pump(t, more, 2, model, projection.Config{MaxRows: 10}); err != nil {
			t.Fatal(err)
		}
		if got := aside(t, model); len(got) != 2 || got[1] != `t0.3.1 quarantined "a" waits behind t0.1.0` {
			t.Errorf("after a restart with other code: %q", got)
		}
	})
	t.Run("the code is mended", func(t *testing.T) {
		model := memmodel.New()
		if _, _, err := pump(t, log, 0, dying{model}, broken); err == nil {
			t.Fatal("it was not killed")
		}
		if _, _, err := pump(t, log, 0, model, projection.Config{MaxRows: 1000}); err != nil {
			t.Fatal(err)
		}
		if n := balanced(t, log, model); n != 0 || !strings.Contains(aside(t, model)[0], "redriven") {
			t.Errorf("%d are quarantined: %q", n, aside(t, model))
		}
	})
}
