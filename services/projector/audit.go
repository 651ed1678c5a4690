package projector

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/tally"
)

// restPerCheck makes checks cost one part in as many of a core, however large
// the tables are.
const restPerCheck = 100

// defaultAudit is for an audit that is not told how often.
const defaultAudit = time.Minute

// Audit checks again and again that the read model accounts for every event
// that was accepted. It implements lifecycle.Service.
type Audit struct {
	log    eventlog.Reader
	model  readmodel.Ledger
	stream string
	every  time.Duration
	logger *slog.Logger

	mu  sync.Mutex
	err error

	imbalance, checked prometheus.Gauge
}

// NewAudit returns an audit of what model has of the stream with that short
// name, at most once in every; 0 means every minute.
func NewAudit(log eventlog.Reader, model readmodel.Ledger, stream string, every time.Duration, logger *slog.Logger) *Audit {
	if every <= 0 {
		every = defaultAudit
	}
	labels := prometheus.Labels{"stream": stream}
	return &Audit{
		log: log, model: model, stream: stream, every: every, logger: logger,
		imbalance: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shipledger_ledger_imbalance", ConstLabels: labels,
			Help: "Events that the read model does not account for, or has though nobody accepted them, as of the last check.",
		}),
		checked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shipledger_ledger_checked_sequence", ConstLabels: labels, Help: "Sequence up to which the balance was last checked.",
		}),
	}
}

// Collectors gives the audit's metrics, for registering.
func (a *Audit) Collectors() []prometheus.Collector {
	return []prometheus.Collector{a.imbalance, a.checked}
}

// Run checks until ctx is done. It is ready at once: nobody waits for a check.
func (a *Audit) Run(ctx context.Context, ready func()) error {
	ready()
	for pause := a.every; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		began := time.Now()
		if err := a.Check(ctx); err != nil && ctx.Err() == nil {
			a.logger.WarnContext(ctx, "balance not checked", "stream", a.stream, "err", err)
		}
		pause = max(a.every, restPerCheck*time.Since(began))
	}
}

// Check checks now. An error says that it could not, and what the last check
// found stays.
func (a *Audit) Check(ctx context.Context) error {
	upTo, held, err := a.model.EventCounts(ctx, "", a.stream)
	if err != nil {
		return err
	}
	accepted, err := tally.Accepted(ctx, a.log, a.stream, upTo.Offset.Seq())
	if err != nil {
		return err
	}
	var off uint64
	for _, e := range projection.Balance(accepted, held) {
		if d := e.Difference(); d != 0 {
			a.logger.ErrorContext(ctx, "the read model does not account for every event; rebuild it", "stream", a.stream,
				"sequence", upTo.Offset.Seq(), "account", e.Account, "type", e.Type, "accepted", e.Accepted, "missing", d)
			off += uint64(max(d, -d))
		}
	}
	a.imbalance.Set(float64(off))
	a.checked.Set(float64(upTo.Offset.Seq()))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = nil
	if off > 0 {
		a.err = fmt.Errorf("%d events of %s are not accounted for up to sequence %d", off, a.stream, upTo.Offset.Seq())
	}
	return nil
}

// Healthy tells what the last check found, nil if the ledger balanced.
func (a *Audit) Healthy() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}
