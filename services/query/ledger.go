package query

import (
	"context"
	"errors"
	"net/http"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/tally"
)

// balance is the answer of /ledger/balance (contract 5).
type balance struct {
	Balanced    bool           `json:"balanced"`
	AsOf        httpapi.AsOf   `json:"as_of"`
	Accepted    uint64         `json:"accepted"`
	Projected   uint64         `json:"projected"`
	Quarantined uint64         `json:"quarantined"`
	Discarded   uint64         `json:"discarded"`
	Skipped     uint64         `json:"skipped"`
	Items       []balanceEntry `json:"items"`
}

type balanceEntry struct {
	Stream      string     `json:"stream"`
	Type        event.Type `json:"type"`
	Accepted    uint64     `json:"accepted"`
	Projected   uint64     `json:"projected"`
	Quarantined uint64     `json:"quarantined"`
	Discarded   uint64     `json:"discarded"`
	Skipped     uint64     `json:"skipped"`
	Difference  int64      `json:"difference"`
}

// Accounting lets the service tell what was accepted, from the logs of its
// streams by short name. It must be called before the service is used.
func (s *Service) Accounting(logs map[string]eventlog.Reader) *Service {
	s.logs = logs
	return s
}

func (s *Service) getBalance(_ http.ResponseWriter, r *httpapi.Request) error {
	if _, err := s.fresh(r); err != nil {
		return err
	}
	out := balance{Balanced: true, Items: []balanceEntry{}}
	var reached []readmodel.Progress
	for _, stream := range s.streamsOf(r.Identity.Account) {
		upTo, entries, err := s.balanceOf(r.Context(), r.Identity.Account, stream)
		if err != nil {
			return err
		}
		if upTo.Offset > 0 {
			reached = append(reached, upTo)
		}
		for _, e := range entries {
			item := balanceEntry{stream, e.Type, e.Accepted, e.Projected, e.Quarantined, e.Discarded, e.Skipped, e.Difference()}
			out.Items = append(out.Items, item)
			out.Balanced = out.Balanced && item.Difference == 0
			out.Accepted += item.Accepted
			out.Projected += item.Projected
			out.Quarantined += item.Quarantined
			out.Discarded += item.Discarded
			out.Skipped += item.Skipped
		}
	}
	out.AsOf = asOf(reached)
	return r.JSON(http.StatusOK, out)
}

// balanceOf holds what was accepted of an account against what the read model
// has, at the position that the read model has reached.
func (s *Service) balanceOf(ctx context.Context, account, stream string) (readmodel.Progress, []projection.Entry, error) {
	upTo, held, err := s.model.EventCounts(ctx, account, stream)
	if err != nil {
		return upTo, nil, err
	}
	accepted, err := tally.Accepted(ctx, s.logs[stream], stream, upTo.Offset.Seq())
	if err != nil {
		return upTo, nil, logUnavailable(err)
	}
	for k := range accepted {
		if k.Account != account {
			delete(accepted, k)
		}
	}
	return upTo, projection.Balance(accepted, held), nil
}

// logUnavailable tells that the log does not answer. A log that contradicts
// itself is nothing that passes.
func logUnavailable(err error) error {
	if errors.Is(err, tally.ErrInconsistent) {
		return err
	}
	return fault.New(fault.Unavailable, "LOG_UNAVAILABLE", "the event log does not answer right now").Because(err)
}
