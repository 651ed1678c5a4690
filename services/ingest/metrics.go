package ingest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what a committer does.
type metrics struct {
	frames    prometheus.Counter
	events    prometheus.Counter
	decided   *prometheus.CounterVec
	outcomes  map[string]prometheus.Counter // those of decided: finding one by its label takes as long as counting ten
	conflicts prometheus.Counter
	failures  prometheus.Counter
	append    prometheus.Histogram
	queued    prometheus.GaugeFunc
	sequence  prometheus.Gauge
	closed    prometheus.Gauge
	fresh     prometheus.Gauge
}

func newMetrics(c *Committer) metrics {
	labels := prometheus.Labels{"stream": c.stream}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	}
	m := metrics{
		frames:    counter("shipledger_frames_appended_total", "Frames that the log has on disk."),
		events:    counter("shipledger_events_appended_total", "Events in these frames."),
		conflicts: counter("shipledger_append_conflicts_total", "Frames decided again because another process was first."),
		failures:  counter("shipledger_append_failures_total", "Frames that could not be stored; their events were not acknowledged."),
		decided: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shipledger_commands_decided_total", Help: "Commands by what became of them.", ConstLabels: labels,
		}, []string{"outcome"}),
		append: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shipledger_append_seconds", Help: "Time to append one frame, the disk included.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		queued: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shipledger_commands_waiting", Help: "Commands queued or being decided.", ConstLabels: labels,
		}, func() float64 { return float64(c.Waiting()) }),
		sequence: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shipledger_log_sequence", Help: "Sequence of the last frame known to the write side.", ConstLabels: labels,
		}),
		closed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shipledger_closed_runs", Help: "Runs that are closed and remembered so that their repeats are known.", ConstLabels: labels,
		}),
		fresh: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shipledger_closed_runs_in_memory", Help: "Closed runs that are not in files yet.", ConstLabels: labels,
		}),
	}
	m.outcomes = map[string]prometheus.Counter{}
	for _, outcome := range []string{"refused", "blocked", "duplicate", "accepted"} {
		m.outcomes[outcome] = m.decided.WithLabelValues(outcome)
	}
	return m
}

// Collectors gives the committer's metrics, for registering.
func (c *Committer) Collectors() []prometheus.Collector {
	m := &c.metrics
	return []prometheus.Collector{m.frames, m.events, m.conflicts, m.failures, m.decided, m.append, m.queued, m.sequence, m.closed, m.fresh}
}

func (m *metrics) stored(f *frame, took time.Duration) {
	m.frames.Inc()
	m.events.Add(float64(len(f.events)))
	m.append.Observe(took.Seconds())
	m.sequence.Set(float64(f.seq))
}

// outcome names what became of a command.
func (r *Result) outcome() string {
	switch {
	case r.Err != nil:
		return "refused"
	case r.Decision.Refusal != nil:
		return "blocked"
	case r.Decision.Duplicate:
		return "duplicate"
	}
	return "accepted"
}
