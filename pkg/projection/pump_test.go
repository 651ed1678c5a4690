package projection_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
)

var received = time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)

// fill appends frames of n products each.
func fill(t *testing.T, log *memlog.Log, frames, n int) {
	t.Helper()
	for range frames {
		last, err := log.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var events []event.Event
		for i := range n {
			name := fmt.Sprintf("p%d-%d", last+1, i)
			id := event.ProductIDOf("acme", name)
			events = append(events, event.Event{
				ID: ulid.MustNew(ulid.Timestamp(received), ulid.DefaultEntropy()), Account: "acme", Type: event.ProductCreated, Subject: id.String(),
				Time: received, Payload: &event.Product{ID: id, Name: name, CreatedAt: received},
			})
		}
		appendBody(t, log, event.AppendFrame(nil, last+1, events))
	}
}

func appendBody(t *testing.T, log *memlog.Log, body []byte) {
	t.Helper()
	last, _ := log.Last(t.Context())
	if _, err := log.AppendFrame(t.Context(), eventlog.Frame{ID: fmt.Sprint(last + 1), Body: body}, last); err != nil {
		t.Fatal(err)
	}
}

// recordingSink notes what is stored.
type recordingSink struct {
	*memmodel.Model
	stores []string
	fail   error
}

func (s *recordingSink) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	if s.fail != nil {
		return s.fail
	}
	s.stores = append(s.stores, fmt.Sprintf("%d to %d.%d", len(rows.Events), upTo.Offset.Seq(), upTo.Offset.Index()))
	return s.Model.Store(ctx, rows, upTo)
}

type counts struct{ events, unknown int }

func (c *counts) Projected(_ string, _ readmodel.Progress, events, unknown int) {
	c.events += events
	c.unknown += unknown
}

func reading(log *memlog.Log, after uint64) projection.Source {
	return func(ctx context.Context) iter.Seq2[eventlog.Recorded, error] { return log.Read(ctx, after) }
}

// pump projects what the log holds after a sequence.
func pump(t *testing.T, log *memlog.Log, after uint64, sink readmodel.Sink, cfg projection.Config) (readmodel.Progress, counts, error) {
	t.Helper()
	var c counts
	done, err := projection.Pump(t.Context(), "t0", reading(log, after), sink, cfg, &c)
	return done, c, err
}

func TestFramesAreNeverSplitBetweenTwoStores(t *testing.T) {
	log := memlog.New()
	fill(t, log, 5, 4)
	sink := &recordingSink{Model: memmodel.New()}
	done, c, err := pump(t, log, 0, sink, projection.Config{MaxRows: 10, Pause: time.Hour})
	if err != nil || done.Offset != event.At(5, 3) || c.events != 20 {
		t.Fatalf("done = %+v, %+v, %v", done, c, err)
	}
	for _, s := range sink.stores {
		var n, seq, index int
		if _, err := fmt.Sscanf(s, "%d to %d.%d", &n, &seq, &index); err != nil || index != 3 {
			t.Errorf("a store ends inside a frame: %s", s)
		}
	}
}

// However many rows a portion may have, large events end it (MaxBytes): it never holds
// more of the log than that and one frame.
func TestAPortionOfLargeEventsIsStoredBeforeItHasManyRows(t *testing.T) {
	const frames, most = 20, 4000
	log := memlog.New()
	fill(t, log, frames, 4)
	var largest, size int
	for f, err := range log.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		size += len(f.Body)
		largest = max(largest, len(f.Body))
	}
	for _, batched := range []bool{false, true} {
		sink := &batchingSink{recordingSink: recordingSink{Model: memmodel.New()}}
		cfg := projection.Config{MaxRows: 1_000_000, MaxBytes: most, Backlog: frames, Ahead: 4}
		if batched {
			cfg.Batch = sink.Batch
		}
		if done, c, err := pump(t, log, 0, sink, cfg); err != nil || done.Offset != event.At(frames, 3) || c.events != 4*frames {
			t.Fatalf("done = %+v, %+v, %v", done, c, err)
		}
		before := 0
		for _, s := range sink.stores {
			var n, seq, index int
			if _, err := fmt.Sscanf(s, "%d to %d.%d", &n, &seq, &index); err != nil {
				t.Fatal(err)
			}
			held := 0
			for f, err := range log.Read(t.Context(), uint64(before)) {
				if err != nil || f.Seq > uint64(seq) {
					break
				}
				held += len(f.Body)
			}
			if before = seq; held >= most+largest {
				t.Errorf("batched %v: a store holds %d bytes of the log: %s", batched, held, s)
			}
		}
		if len(sink.stores) < size/(most+largest) || len(sink.stores) > 1+size/most {
			t.Errorf("batched %v: %d stores of %d bytes", batched, len(sink.stores), size)
		}
	}
}

func TestPumpGoesOnWhereTheSinkSays(t *testing.T) {
	log := memlog.New()
	fill(t, log, 3, 2)
	sink := &recordingSink{Model: memmodel.New()}
	if _, _, err := pump(t, log, 0, sink, projection.DefaultConfig); err != nil {
		t.Fatal(err)
	}
	fill(t, log, 2, 2)
	from, err := sink.Progress(t.Context(), "t0")
	if err != nil {
		t.Fatal(err)
	}
	done, c, err := pump(t, log, from.Offset.Seq(), sink, projection.DefaultConfig)
	if err != nil || c.events != 4 || done.Offset != event.At(5, 1) {
		t.Errorf("done = %+v, %+v, %v; want the 4 new events", done, c, err)
	}
	products, err := sink.Products(t.Context(), "acme", readmodel.Page{Limit: 100})
	if err != nil || len(products) != 10 {
		t.Errorf("%d products, %v; want 10", len(products), err)
	}
}

func TestAStoreThatFailsIsNotProgress(t *testing.T) {
	log := memlog.New()
	fill(t, log, 2, 1)
	boom := errors.New("boom")
	sink := &recordingSink{Model: memmodel.New(), fail: boom}
	done, c, err := pump(t, log, 0, sink, projection.DefaultConfig)
	if !errors.Is(err, boom) || done.Offset != 0 || c.events != 0 {
		t.Errorf("done = %+v, %+v, %v", done, c, err)
	}
}

func TestAStoreThatFailsEndsThePumpThoughNothingFollows(t *testing.T) {
	log := memlog.New()
	fill(t, log, 1, 1)
	boom := errors.New("boom")
	following := func(ctx context.Context) iter.Seq2[eventlog.Recorded, error] { return log.Follow(ctx, 0) }
	_, err := projection.Pump(t.Context(), "t0", following, &recordingSink{Model: memmodel.New(), fail: boom}, projection.DefaultConfig, &counts{})
	if !errors.Is(err, boom) {
		t.Errorf("err = %v", err)
	}
}

func TestEventsOfUnknownTypeAreKeptAndCounted(t *testing.T) {
	log := memlog.New()
	appendBody(t, log, []byte(`[{"specversion":"1.0","id":"01JW2C5R3V0E6H7Q8S9T0A1B2D","source":"/accounts/acme","type":"deployment.teleported",`+
		`"subject":"x","time":"2026-05-04T09:00:00Z","dataschema":"teleport/1","data":{}}]`))
	sink := &recordingSink{Model: memmodel.New()}
	_, c, err := pump(t, log, 0, sink, projection.DefaultConfig)
	if diff := cmp.Diff(counts{1, 1}, c, cmp.AllowUnexported(counts{})); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestPumpEndsWithItsContext(t *testing.T) {
	log := memlog.New()
	fill(t, log, 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	sink := &recordingSink{Model: memmodel.New()}
	following := func(ctx context.Context) iter.Seq2[eventlog.Recorded, error] { return log.Follow(ctx, 0) }
	_, err := projection.Pump(ctx, "t0", following, sink, projection.DefaultConfig, endAfter(cancel))
	if err != nil {
		t.Error(err)
	}
}

type endAfter func()

func (f endAfter) Projected(string, readmodel.Progress, int, int) { f() }

// batchingSink is a recordingSink that takes batches, and holds a store up until
// it is let go on.
type batchingSink struct {
	recordingSink
	hold  chan struct{} // nil: stores go on by themselves
	added chan struct{} // nil, or with room for every frame
}

func (s *batchingSink) Batch() readmodel.Batch { return &recordedBatch{sink: s} }

type recordedBatch struct {
	sink *batchingSink
	rows readmodel.Rows
}

func (b *recordedBatch) Add(rows *readmodel.Rows) {
	b.rows.Events = append(b.rows.Events, rows.Events...)
	b.rows.Products = append(b.rows.Products, rows.Products...)
	b.rows.Quarantine = append(b.rows.Quarantine, rows.Quarantine...)
	if b.sink.added != nil {
		b.sink.added <- struct{}{}
	}
}

func (b *recordedBatch) Store(ctx context.Context, upTo readmodel.Progress) error {
	if b.sink.hold != nil {
		select {
		case <-b.sink.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { b.rows = readmodel.Rows{} }()
	return b.sink.Store(ctx, &b.rows, upTo)
}

func TestBatchesAreFullWhereTheLogIsKnownToHoldMore(t *testing.T) {
	log := memlog.New()
	fill(t, log, 10, 4)
	sink := &batchingSink{recordingSink: recordingSink{Model: memmodel.New()}}
	done, c, err := pump(t, log, 0, sink, projection.Config{MaxRows: 24, Backlog: 10, Batch: sink.Batch}) // a product has two rows
	if err != nil || done.Offset != event.At(10, 3) || c.events != 40 {
		t.Fatalf("done = %+v, %+v, %v", done, c, err)
	}
	if diff := cmp.Diff([]string{"12 to 3.3", "12 to 6.3", "12 to 9.3", "4 to 10.3"}, sink.stores); diff != "" {
		t.Error(diff)
	}
	products, err := sink.Products(t.Context(), "acme", readmodel.Page{Limit: 100})
	if err != nil || len(products) != 40 {
		t.Errorf("%d products, %v; want 40", len(products), err)
	}
}

func TestABatchIsProgressThoughNothingFollows(t *testing.T) {
	log := memlog.New()
	fill(t, log, 3, 1)
	ctx, cancel := context.WithCancel(t.Context())
	sink := &batchingSink{recordingSink: recordingSink{Model: memmodel.New()}}
	following := func(ctx context.Context) iter.Seq2[eventlog.Recorded, error] { return log.Follow(ctx, 0) }
	done, err := projection.Pump(ctx, "t0", following, sink, projection.Config{MaxRows: 100, Backlog: 3, Batch: sink.Batch}, endAfter(cancel))
	if err != nil || done.Offset != event.At(3, 0) {
		t.Errorf("done = %+v, %v", done, err)
	}
}

func TestOneBatchIsGatheredWhileAnotherIsStored(t *testing.T) {
	log := memlog.New()
	fill(t, log, 4, 1)
	sink := &batchingSink{recordingSink: recordingSink{Model: memmodel.New()}, hold: make(chan struct{}), added: make(chan struct{}, 4)}
	ended := make(chan error, 1)
	go func() {
		_, err := projection.Pump(t.Context(), "t0", reading(log, 0), sink, projection.Config{MaxRows: 1, Batch: sink.Batch}, &counts{})
		ended <- err
	}()
	for range 2 { // though no store has ended
		<-sink.added
	}
	close(sink.hold)
	if err := <-ended; err != nil || len(sink.stores) != 4 {
		t.Errorf("%v, stores %v", err, sink.stores)
	}
}

func TestABatchThatFailsIsNotProgress(t *testing.T) {
	for _, cause := range []error{errors.New("boom"), readmodel.ErrRefused} {
		log := memlog.New()
		fill(t, log, 9, 1)
		sink := &batchingSink{recordingSink: recordingSink{Model: memmodel.New(), fail: cause}}
		done, c, err := pump(t, log, 0, sink, projection.Config{MaxRows: 2, Batch: sink.Batch})
		if !errors.Is(err, cause) || done.Offset != 0 || c.events != 0 {
			t.Errorf("done = %+v, %+v, %v; want %v", done, c, err, cause)
		}
	}
}
