package telemetry_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/telemetry"
)

func TestATakenAddressStopsNobody(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var log strings.Builder
	s := telemetry.Server{Addr: taken.Addr().String(), Gatherer: telemetry.NewRegistry(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Run(ctx, cancel); err != nil {
		t.Errorf("Run = %v", err)
	}
	if !strings.Contains(log.String(), "SHIPLEDGER_METRICS_ADDR") {
		t.Errorf("the log does not say what to do: %q", log.String())
	}
}
