package compose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const unverified = "unverified"

// monitorTimeout bounds the question to NATS.
const monitorTimeout = 10 * time.Second

// maxVarz is the most bytes that are read of its settings.
const maxVarz = 1 << 20

// checkDurability refuses a NATS server that answers before its disk has a
// message (architecture 9). Only a server's monitoring address tells; without
// one, health says that nobody knows.
func checkDurability(ctx context.Context, cfg Config, transport http.RoundTripper) (string, error) {
	if cfg.NATSURL == "" {
		return "", nil // ours writes through
	}
	if cfg.NATSMonitorURL == "" {
		return unverified, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(cfg.NATSMonitorURL, "/")+"/varz", http.NoBody)
	if err != nil {
		return "", fmt.Errorf("ask NATS for its settings: %w", err)
	}
	// It is the operator's own NATS, which is where the operator says: in the private
	// network, as a rule. The question goes nowhere else.
	monitor := &http.Client{
		Timeout: monitorTimeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer monitor.CloseIdleConnections()
	res, err := monitor.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask NATS for its settings: %w", err)
	}
	defer res.Body.Close()
	var varz struct {
		JetStream struct {
			Config struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxVarz)).Decode(&varz); err != nil {
		return "", fmt.Errorf("read the settings of NATS: %w", err)
	}
	if !varz.JetStream.Config.SyncAlways {
		return "", errors.New("this NATS acknowledges before its disk has a message, so events could be lost after their acknowledgement: " +
			"set jetstream { sync_interval: always } in its configuration and start it again")
	}
	return "", nil
}
