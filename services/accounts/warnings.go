package accounts

import (
	"context"
	"log/slog"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

// warnEvery is how often the service looks for credentials that end soon.
const warnEvery = time.Minute

// Warnings is the lifecycle.Service that records the warnings of credentials
// that end soon. Any number of processes may run it: the log lets one of them
// record each warning.
type Warnings struct {
	service *Service
	logger  *slog.Logger
}

// Warnings gives the service's scheduler.
func (s *Service) Warnings(logger *slog.Logger) *Warnings { return &Warnings{s, logger} }

// Run looks at once, and then every minute until ctx is done.
func (w *Warnings) Run(ctx context.Context, ready func()) error {
	ready()
	ticks := time.NewTicker(warnEvery)
	defer ticks.Stop()
	for {
		w.service.warn(ctx, w.logger)
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// warn records every warning that is due. What cannot be recorded is due again
// the next time.
func (s *Service) warn(ctx context.Context, logger *slog.Logger) {
	if s.ring.Healthy() != nil {
		return // what it knows may be old
	}
	for _, id := range s.ring.Warnings(s.now()) {
		for ctx.Err() == nil {
			done, err := s.inTurn(ctx, func(ctx context.Context, now time.Time, before uint64) (committed, error) {
				held, _ := s.ring.Record(id)
				c, due := held.Warn(now)
				if !due { // another process was faster, or it was revoked
					return committed{}, nil
				}
				seq, err := s.append(ctx, fact{recordable: &c.Record, is: credential.Expiring, after: held.At.Seq()}, warner, now, before)
				return committed{seq: seq}, err
			})
			if err != nil {
				logger.WarnContext(ctx, "cannot record that a credential ends soon", "credential", id, "err", err)
			}
			if err != nil || done.seq == 0 {
				break
			}
		}
	}
}

var warner = event.Author{CredentialName: "expiry warnings", Mode: event.Live}
