package projection_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
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

// Architecture 6.
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
	dies   int   // at that store, half-way; 0: never
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
	if s.stores == s.dies {
		part := *rows
		part.Quarantine = nil
		_ = s.Model.Store(ctx, &part, readmodel.Progress{})
		return errors.New("killed")
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

// decided are decisions of a test, about the stream t0.
type decided struct {
	last, all uint64
	asked     map[event.Offset]uint64
	discarded event.Offset
}

// Last implements projection.Decisions.
func (d *decided) Last() uint64 { return d.last }

// Discarded implements projection.Decisions.
func (d *decided) Discarded(p event.Position) (string, bool) {
	return "a test", d.discarded > 0 && p.Offset == d.discarded
}

// Asked implements projection.Decisions.
func (d *decided) Asked(r *readmodel.QuarantineRow) uint64 {
	return max(d.all, d.asked[r.Position.Offset])
}

// poison fails on some events, and a store refuses others.
type poison map[event.Offset]string

func (p poison) project(r event.Recorded, rows *readmodel.Rows) (bool, error) {
	switch p[r.Position.Offset] {
	case "panics":
		panic("of a bug")
	case "fails":
		return false, errors.New("of a bug")
	}
	return projection.Project(r, rows), nil
}

func (p poison) refused() (out []event.Offset) {
	for at, how := range p {
		if how == "is refused" {
			out = append(out, at)
		}
	}
	return out
}

// state is all that a model has, but for what was set aside.
func state(t *rapid.T, m *memmodel.Model) any {
	ctx := context.Background()
	products, err := m.Products(ctx, "acme", readmodel.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	upTo, counts, err := m.EventCounts(ctx, "", "t0")
	if err != nil {
		t.Fatal(err)
	}
	events, err := m.Events(ctx, "acme", readmodel.EventFilter{}, readmodel.Spans{"t0": {UpTo: ^event.Offset(0)}}, false, 10000)
	if err != nil {
		t.Fatal(err)
	}
	return []any{products, upTo, counts, events}
}

// Whatever cannot be applied, whenever the store dies and whatever was tried in
// vain before: once the code is mended, all is as if nothing had ever happened.
//
// Architecture 6.
func TestWhatIsRedrivenWithMendedCodeIsAsIfItHadNeverFailed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		log, p := memlog.New(), poison{}
		subjects := []string{"a", "b", "c", "d", "e"}
		for seq := range uint64(rapid.IntRange(1, 12).Draw(t, "frames")) {
			var events []event.Event
			for i := range rapid.IntRange(1, 6).Draw(t, "events") {
				name := rapid.SampledFrom(subjects).Draw(t, "subject")
				events = append(events, event.Event{
					ID: ulid.MustNew((seq+1)*1024+uint64(i), nil), Account: "acme", Type: event.ProductUpdated, Subject: name, Time: received,
					Payload: &event.Product{ID: event.ProductIDOf("acme", name), Name: name, Description: fmt.Sprint(seq, i), CreatedAt: received},
				})
				if how := rapid.SampledFrom([]string{"", "", "", "panics", "fails", "is refused"}).Draw(t, "what"); how != "" {
					p[event.At(seq+1, i)] = how
				}
			}
			if _, err := log.AppendFrame(ctx, eventlog.Frame{ID: fmt.Sprint(seq), Body: event.AppendFrame(nil, seq+1, events)}, seq); err != nil {
				t.Fatal(err)
			}
		}
		model, book := memmodel.New(), &decided{asked: map[event.Offset]uint64{}}
		// run projects with code that has these defects, and dies now and then.
		run := func(p poison) {
			for deaths := rapid.IntRange(0, 2).Draw(t, "deaths"); ; deaths-- {
				var sink readmodel.Sink = &refusing{Model: model, poison: p.refused()}
				if deaths > 0 {
					sink = &refusing{Model: model, poison: p.refused(), dies: rapid.IntRange(1, 8).Draw(t, "stores until it dies")}
				}
				cfg := projection.Config{MaxRows: rapid.IntRange(1, 30).Draw(t, "rows"), Project: p.project, Decisions: book, CodeVersion: "x"}
				from, _ := model.Progress(ctx, "t0")
				var err error
				if cfg.Shelf, err = projection.Redrive(ctx, "t0", log, sink, cfg); err == nil {
					source := func(ctx context.Context) iter.Seq2[eventlog.Recorded, error] { return log.Read(ctx, from.Offset.Seq()) }
					_, err = projection.Pump(ctx, "t0", source, sink, cfg, &counts{})
				}
				upTo, held, _ := model.EventCounts(ctx, "", "t0")
				accepted, _ := tally.Accepted(ctx, log, "t0", upTo.Offset.Seq())
				for _, e := range projection.Balance(accepted, held) {
					if e.Difference() != 0 {
						t.Fatalf("the ledger does not balance: %+v", e)
					}
				}
				if err == nil {
					if open := cfg.Shelf.Open(); uint64(open) != sumOf(held) {
						t.Fatalf("the shelf counts %d, the model %+v", open, held)
					}
					return
				}
				if deaths <= 0 {
					t.Fatal(err)
				}
			}
		}
		run(p)
		inOrder(t, model, p)
		for range rapid.IntRange(0, 2).Draw(t, "tries in vain") {
			for at := range p {
				if rapid.Bool().Draw(t, "mended") {
					delete(p, at)
				}
			}
			rows, _ := model.Quarantine(ctx, readmodel.QuarantineFilter{State: readmodel.Quarantined}, readmodel.Page{Limit: 1000})
			if len(rows) > 0 {
				r := rapid.SampledFrom(rows).Draw(t, "one of them")
				book.last++
				book.asked[r.Position.Offset] = book.last
			}
			run(p)
		}
		book.last++
		book.all = book.last
		run(nil)

		fresh := memmodel.New()
		if _, err := projection.Pump(ctx, "t0", reading(log, 0), fresh, projection.Config{MaxRows: 1000}, &counts{}); err != nil {
			t.Fatal(err)
		}
		if _, err := projection.Redrive(ctx, "t0", log, fresh, projection.Config{Decisions: book}); err != nil { // it has nothing to do, and says so
			t.Fatal(err)
		}
		if diff := cmp.Diff(state(t, fresh), state(t, model)); diff != "" {
			t.Fatalf("-fresh +redriven: %s", diff)
		}
	})
}

func sumOf(held []readmodel.EventCount) (n uint64) {
	for _, c := range held {
		n += c.Quarantined
	}
	return n
}

// inOrder holds a model to it that nothing of a subject was applied after
// something of it that was not.
func inOrder(t *rapid.T, m *memmodel.Model, p poison) {
	rows, err := m.Quarantine(context.Background(), readmodel.QuarantineFilter{State: readmodel.Quarantined}, readmodel.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	first := map[string]event.Offset{}
	for _, r := range rows {
		if _, ok := first[r.Subject]; !ok {
			first[r.Subject] = r.Position.Offset
			if p[r.Position.Offset] == "" {
				t.Fatalf("%s is set aside, and nothing is wrong with it: %s", r.Position, r.Reason)
			}
		}
	}
	events, err := m.Events(context.Background(), "acme", readmodel.EventFilter{}, readmodel.Spans{"t0": {UpTo: ^event.Offset(0)}}, false, 10000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if at, ok := first[e.Subject]; ok && e.Position.Offset > at {
			t.Fatalf("%s of %s is applied before %d", e.Position, e.Subject, at)
		}
	}
}

func TestADiscardLetsThoseBehindItGoOnAndARebuildLeavesItOutToo(t *testing.T) {
	log := memlog.New()
	frame(t, log, "a", "b")
	frame(t, log, "a", "b", "a")
	model, book := memmodel.New(), &decided{}
	broken := poison{event.At(1, 0): "fails"}
	if _, _, err := pump(t, log, 0, model, projection.Config{Project: broken.project}); err != nil {
		t.Fatal(err)
	}
	book.last, book.discarded = 1, event.At(1, 0)
	shelf, err := projection.Redrive(t.Context(), "t0", log, model, projection.Config{Project: broken.project, Decisions: book})
	if err != nil || shelf.Open() != 0 {
		t.Fatal(shelf.Open(), err)
	}
	rebuilt := memmodel.New()
	if _, _, err := pump(t, log, 0, rebuilt, projection.Config{Decisions: book}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*memmodel.Model{model, rebuilt} {
		if diff := cmp.Diff(map[string]string{"a": "as of 2.2", "b": "as of 2.1"}, descriptions(t, m)); diff != "" {
			t.Error(diff)
		}
		if got := aside(t, m); got[0] != `t0.1.0 discarded "a" a test` {
			t.Error(got)
		}
		balanced(t, log, m)
		events, err := m.Events(t.Context(), "acme", readmodel.EventFilter{}, readmodel.Spans{"t0": {UpTo: ^event.Offset(0)}}, false, 10)
		if err != nil || len(events) != 4 {
			t.Error(len(events), err)
		}
	}
}
