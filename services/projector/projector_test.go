package projector_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
	"github.com/shipledger/shipledger/services/projector"
)

var away = fault.New(fault.Unavailable, "READ_MODEL_UNAVAILABLE", "away")

// store is a read model that can be away.
type store struct {
	*memmodel.Model
	away atomic.Bool
}

func (s *store) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	if s.away.Load() {
		return away
	}
	return s.Model.Store(ctx, rows, upTo)
}

func (s *store) open(context.Context) (readmodel.Sink, error) {
	if s.away.Load() {
		return nil, away
	}
	return s, nil
}

// add records a product more.
func add(t *testing.T, log *memlog.Log) {
	t.Helper()
	last, err := log.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprint("p", last+1)
	id := event.ProductIDOf("acme", name)
	body := event.AppendFrame(nil, last+1, []event.Event{{
		ID: ulid.MustNew(last+1, ulid.DefaultEntropy()), Account: "acme", Type: event.ProductCreated, Subject: id.String(),
		Time: time.UnixMilli(int64(last)), Payload: &event.Product{ID: id, Name: name, CreatedAt: time.UnixMilli(int64(last))},
	}})
	if _, err := log.AppendFrame(t.Context(), eventlog.Frame{ID: name, Body: body}, last); err != nil {
		t.Fatal(err)
	}
}

// start runs a projector inside a bubble; stop waits for it.
func start(t *testing.T, log *memlog.Log, s *store) (p *projector.Service, ready *atomic.Bool, stop func()) {
	t.Helper()
	p = projector.New(
		projector.Config{Streams: []projector.Stream{{Name: "t0", Log: log}}, Entropy: rand.Reader},
		memlog.New(), projector.Single(s.open), nil, slog.New(slog.DiscardHandler),
	)
	ctx, cancel := context.WithCancel(context.Background())
	ready = new(atomic.Bool)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, func() { ready.Store(true) }) }()
	return p, ready, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAReadModelThatIsAwayStopsNobodyAndIsCaughtUpWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, s := memlog.New(), &store{Model: memmodel.New()}
		s.away.Store(true)
		add(t, log)
		p, ready, stop := start(t, log, s)
		defer stop()
		synctest.Wait()
		if !ready.Load() {
			t.Error("whoever waits for the projector cannot start while the read model is away")
		}
		if p.Healthy() == nil {
			t.Error("it says that all is well")
		}
		add(t, log)
		s.away.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := p.State(); got.Progress.Offset != event.At(2, 0) || got.Events != 2 || p.Healthy() != nil {
			t.Errorf("a minute later: %+v", got)
		}
	})
}

func TestAStoreThatFailsIsTriedAgainFromWhereItStood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, s := memlog.New(), &store{Model: memmodel.New()}
		add(t, log)
		p, _, stop := start(t, log, s)
		defer stop()
		time.Sleep(time.Second)
		s.away.Store(true)
		add(t, log)
		add(t, log)
		time.Sleep(time.Minute)
		if got := p.State(); got.Progress.Offset != event.At(1, 0) || got.Err == nil {
			t.Errorf("while it is away: %+v", got)
		}
		s.away.Store(false)
		time.Sleep(time.Minute)
		products, err := s.Products(t.Context(), "acme", readmodel.Page{Limit: 10})
		if err != nil || len(products) != 3 {
			t.Errorf("%d products, %v; want 3", len(products), err)
		}
	})
}
