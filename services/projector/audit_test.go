package projector_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
	"github.com/shipledger/shipledger/services/projector"
)

// forgetful is a read model that loses rows of events before it stores them.
type forgetful struct {
	*memmodel.Model
	lose int // how many more
}

func (s *forgetful) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	n := min(s.lose, len(rows.Events))
	s.lose -= n
	rows.Events = rows.Events[n:]
	return s.Model.Store(ctx, rows, upTo)
}

func imbalance(t *testing.T, a *projector.Audit) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(a.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "shipledger_ledger_imbalance" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no such metric")
	return 0
}

// audited projects five events into a model that loses some, with an audit
// beside it, for ten minutes.
func audited(t *testing.T, lose int) *projector.Audit {
	t.Helper()
	log, s := memlog.New(), &forgetful{memmodel.New(), lose}
	a := projector.NewAudit(log, s, "t0", time.Minute, slog.New(slog.DiscardHandler))
	p := projector.New(
		projector.Config{Streams: []projector.Stream{{Name: "t0", Log: log}}, Entropy: rand.Reader}, memlog.New(),
		projector.Single(func(context.Context) (readmodel.Sink, error) { return s, nil }), nil, slog.New(slog.DiscardHandler),
	)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- p.Run(ctx, func() {}) }()
	go func() { done <- a.Run(ctx, func() {}) }()
	for range 5 {
		add(t, log)
	}
	time.Sleep(10 * time.Minute)
	cancel()
	if err := errors.Join(<-done, <-done); err != nil {
		t.Error(err)
	}
	return a
}

func TestAReadModelThatLacksRowsRaisesTheAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := audited(t, 2)
		if got := imbalance(t, a); got != 2 || a.Healthy() == nil {
			t.Errorf("imbalance %v, %v; want 2 and the reason", got, a.Healthy())
		}
	})
}

func TestAReadModelThatHasEveryEventIsHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := audited(t, 0)
		if got := imbalance(t, a); got != 0 || a.Healthy() != nil {
			t.Errorf("imbalance %v, %v; want none", got, a.Healthy())
		}
	})
}
