// Package telemetry serves what a process counts of itself, for Prometheus, on
// a listener of its own: the API's address may be public, this one need not be.
package telemetry

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const headerTimeout = 5 * time.Second

// NewRegistry returns a registry that knows the process and the Go runtime.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Requests registers the metrics of an HTTP API and gives what counts an answer.
func Requests(r prometheus.Registerer) func(operation string, status int, took time.Duration) {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "shipledger_http_request_seconds", Help: "Time to answer, by operation and status.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
	}, []string{"operation", "status"})
	r.MustRegister(seconds)
	return func(operation string, status int, took time.Duration) {
		seconds.WithLabelValues(operation, strconv.Itoa(status)).Observe(took.Seconds())
	}
}

// Server serves /metrics. It implements lifecycle.Service.
type Server struct {
	Addr     string      // empty: off
	TLS      *tls.Config // if set, it is spoken there
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger
}

// Run serves until ctx is done. An address that is taken is logged and nothing
// else: what is not observed still works.
func (s *Server) Run(ctx context.Context, ready func()) error {
	ready()
	if s.Addr == "" {
		<-ctx.Done()
		return nil
	}
	ln, err := net.Listen("tcp", s.Addr)
	if err != nil {
		s.Logger.WarnContext(ctx, "metrics are not served; SHIPLEDGER_METRICS_ADDR takes another address, or none", "err", err)
		<-ctx.Done()
		return nil
	}
	if s.TLS != nil {
		ln = tls.NewListener(ln, s.TLS)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
