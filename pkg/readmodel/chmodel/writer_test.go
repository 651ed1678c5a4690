package chmodel_test

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// storesOf cuts rows of events into as many stores as there are streams.
func storesOf(t *testing.T, streams ...string) (stores []readmodel.Rows, upTo []readmodel.Progress) {
	t.Helper()
	rows, last := sample(newLedger(1000, epoch), 10*len(streams))
	for i, stream := range streams {
		stores = append(stores, readmodel.Rows{Events: slices.Clone(rows.Events[10*i : 10*i+10])})
		upTo = append(upTo, readmodel.Progress{Stream: stream, Offset: last.Offset + event.Offset(i), Time: last.Time})
	}
	return stores, upTo
}

// storeAtOnce stores while another store of w is under way, so that all wait for it.
func storeAtOnce(t *testing.T, w *chmodel.Writer, stores []readmodel.Rows, upTo []readmodel.Progress) []error {
	t.Helper()
	release := chmodel.Hold(w)
	errs := make([]error, len(stores))
	var wg sync.WaitGroup
	for i := range stores {
		wg.Go(func() { errs[i] = w.Store(t.Context(), &stores[i], upTo[i]) })
	}
	release(len(stores))
	wg.Wait()
	return errs
}

// blocks gives how many blocks of events were stored, and how many rows.
func blocks(t *testing.T, conn clickhouse.Conn) (blocks int64, rows uint64) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT max(max_block_number) - min(min_block_number) + 1 FROM system.parts WHERE database = currentDatabase() AND table = 'events_v1'").Scan(&blocks); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM events_v1").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return blocks, rows
}

func TestStoresThatWaitForEachOtherAreStoredAsOne(t *testing.T) {
	srv := chservertest.Start(t)
	var database string
	_, w := open(t, srv, inDatabase(&database))
	stores, upTo := storesOf(t, "t0", "t1", "t2")
	for i, err := range storeAtOnce(t, w, stores, upTo) {
		if err != nil {
			t.Errorf("store %d: %v", i, err)
		}
		p, err := w.Progress(t.Context(), upTo[i].Stream)
		if err != nil || p.Offset != upTo[i].Offset {
			t.Errorf("%s is at %d, %v, and %d was stored", upTo[i].Stream, p.Offset, err, upTo[i].Offset)
		}
	}
	if n, rows := blocks(t, connect(t, srv, database)); n != 1 || rows != 30 {
		t.Errorf("%d rows are stored in %d blocks", rows, n)
	}
}

// Those who wait for an answer have the same processors.
func TestOfFewEventsOneTableIsStoredAfterTheOther(t *testing.T) {
	srv := chservertest.Start(t)
	var database string
	_, w := open(t, srv, inDatabase(&database))
	l := newLedger(1000, epoch)
	for _, c := range []struct {
		events int
		atOnce bool
	}{{1000, false}, {25_000, true}} {
		rows, upTo := sample(l, c.events)
		stored := make(chan error, 1)
		go func() { stored <- w.Store(t.Context(), rows, upTo) }()
		most := 0
		for ended := false; !ended; runtime.Gosched() {
			most = max(most, chmodel.Inserting(w))
			select {
			case err := <-stored:
				if err != nil {
					t.Fatal(err)
				}
				ended = true
			default:
			}
		}
		if (most > 1) != c.atOnce {
			t.Errorf("%d events: %d inserts at a time", c.events, most)
		}
	}
}

func TestWhatIsRefusedOfOneStoreStopsNoOtherThatWaitedWithIt(t *testing.T) {
	srv := chservertest.Start(t)
	var database string
	_, w := open(t, srv, inDatabase(&database))
	conn := connect(t, srv, database)
	if err := conn.Exec(t.Context(), "ALTER TABLE events_v1 ADD CONSTRAINT sane CHECK subject != 'poison'"); err != nil {
		t.Fatal(err)
	}
	stores, upTo := storesOf(t, "t0", "t1", "t2")
	stores[1].Events[7].Subject = "poison"
	for i, err := range storeAtOnce(t, w, stores, upTo) {
		if refused := errors.Is(err, readmodel.ErrRefused); refused != (i == 1) || err != nil && !refused {
			t.Errorf("store %d: %v", i, err)
		}
		p, err := w.Progress(t.Context(), upTo[i].Stream)
		if stored := p.Offset == upTo[i].Offset; err != nil || stored == (i == 1) {
			t.Errorf("%s is at %d, %v", upTo[i].Stream, p.Offset, err)
		}
	}
	if _, rows := blocks(t, conn); rows != 20 {
		t.Errorf("%d rows are stored", rows)
	}
}
