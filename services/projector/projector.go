// Package projector keeps the read model in step with the log.
//
// It is the only writer of the read model. It keeps no state of its own: where
// to go on stands in the read model, stored after the rows it covers.
package projector

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// The back-off after a failure.
const (
	firstPause = 200 * time.Millisecond
	maxPause   = 5 * time.Second
)

// Service projects one stream. It implements lifecycle.Service.
type Service struct {
	log    eventlog.Reader
	open   func(context.Context) (readmodel.Sink, error)
	sink   readmodel.Sink // nil until it was opened
	ready  func()
	stream string
	cfg    projection.Config
	logger *slog.Logger

	mu    sync.Mutex
	state State

	projected, unknown prometheus.Counter
	sequence, received prometheus.Gauge
}

// State is how far a projector is, for health and metrics.
type State struct {
	Progress readmodel.Progress
	Events   uint64 // projected since the start
	Unknown  uint64 // of them of a type that this version does not know
	Err      error  // why it does not go on; nil while it does
}

// New returns a projector of the stream with that short name. It asks open for
// the sink when it first can, and again after a failure: whoever writes the
// tables also makes them.
func New(log eventlog.Reader, open func(context.Context) (readmodel.Sink, error), stream string, logger *slog.Logger) *Service {
	labels := prometheus.Labels{"stream": stream}
	return &Service{
		log: log, open: open, stream: stream, cfg: projection.DefaultConfig, logger: logger,
		projected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shipledger_events_projected_total", Help: "Events stored in the read model since the start.", ConstLabels: labels,
		}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shipledger_events_unknown_total", Help: "Of them, events of a type that this version does not know.", ConstLabels: labels,
		}),
		sequence: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shipledger_projected_sequence", Help: "Sequence of the last frame in the read model.", ConstLabels: labels,
		}),
		received: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shipledger_projected_received_seconds", Help: "Receipt of the last event in the read model, Unix time.", ConstLabels: labels,
		}),
	}
}

// Collectors gives the projector's metrics, for registering.
func (s *Service) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.projected, s.unknown, s.sequence, s.received}
}

// Run projects until ctx is done. It is ready once the tables are there, or
// cannot be made: a read model that does not answer stops nobody but readers,
// and is caught up with when it does.
func (s *Service) Run(ctx context.Context, ready func()) error {
	s.ready = sync.OnceFunc(ready)
	pause := firstPause
	for {
		before := s.State().Progress
		err := s.project(ctx)
		s.ready()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end was asked for
		}
		if s.State().Progress.Offset > before.Offset {
			pause = firstPause
		}
		s.stopped(err)
		level := slog.LevelError // a frame that cannot be read or stored stays so until somebody looks
		if fault.KindOf(err) == fault.Unavailable {
			level = slog.LevelWarn
		}
		s.logger.Log(ctx, level, "projection stopped, trying again", "stream", s.stream, "pause", pause, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

func (s *Service) project(ctx context.Context) error {
	if s.sink == nil {
		sink, err := s.open(ctx)
		if err != nil {
			return err
		}
		s.sink = sink
	}
	from, err := s.sink.Progress(ctx, s.stream)
	if err != nil {
		return err
	}
	s.resumed(from)
	s.ready()
	follow := func(ctx context.Context) iter.Seq2[eventlog.Recorded, error] {
		return s.log.Follow(ctx, from.Offset.Seq())
	}
	_, err = projection.Pump(ctx, s.stream, follow, s.sink, s.cfg, s)
	return err
}

func (s *Service) resumed(from readmodel.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Progress, s.state.Err = from, nil
}

func (s *Service) stopped(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Err = err
}

// Projected implements projection.Observer.
func (s *Service) Projected(_ string, upTo readmodel.Progress, events, unknown int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Progress, s.state.Err = upTo, nil
	s.state.Events += uint64(events)
	s.state.Unknown += uint64(unknown)
	s.projected.Add(float64(events))
	s.unknown.Add(float64(unknown))
	s.sequence.Set(float64(upTo.Offset.Seq()))
	s.received.Set(float64(upTo.Time.UnixMilli()) / 1000)
}

// State gives how far the projector is.
func (s *Service) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Healthy tells why the read model falls behind, nil while it does not.
func (s *Service) Healthy() error { return s.State().Err }
