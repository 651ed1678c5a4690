package query

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/logarchive"
)

const (
	// exportPause is how long a client may take nothing of an export.
	exportPause = 60 * time.Second
	// exportBuffer is what is written at once, and bounds what an export holds.
	exportBuffer = 256 << 10
	// exportSteps is how many frames pass between two looks at the client's time.
	exportSteps = 256
)

// archive is what may be exported, and by whom.
type archive struct {
	keeper   *logarchive.Keeper
	streams  []string
	operator func() (account string, ok bool)
}

// Exporting lets the service export the logs of keeper by these short names:
// whole to admins of the operator's account, and to others what their account
// has in its partition. It must be called before the
// service is used.
func (s *Service) Exporting(keeper *logarchive.Keeper, operator func() (account string, ok bool), streams ...string) *Service {
	s.archive = &archive{keeper, streams, operator}
	return s
}

func (s *Service) exportLog(w http.ResponseWriter, r *httpapi.Request) error {
	if s.archive == nil {
		return fault.New(fault.Unavailable, "LOG_UNAVAILABLE", "this process has no log to export")
	}
	operator, known := s.archive.operator()
	whole := known && operator == r.Identity.Account
	streams := s.archive.streams
	if !whole {
		streams = s.streamsOf(r.Identity.Account)
	}
	sources, err := s.archive.keeper.Sources(r.Context(), streams...)
	if err != nil {
		return logUnavailable(err)
	}
	if err := r.Reverify(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", "shipledger-"+r.Identity.Account+".jsonl"))
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	// The answer goes on for as long as the client takes it, and no longer than
	// its credential holds.
	control := http.NewResponseController(w)
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	progress := func(done, _ uint64) {
		if done%exportSteps != 1 {
			return
		}
		_ = control.SetWriteDeadline(time.Now().Add(exportPause)) // it is not served by a connection where it cannot be set
		if err := r.Reverify(); err != nil {
			cancel(err)
		}
	}
	out := bufio.NewWriterSize(w, exportBuffer)
	options := logarchive.Options{Signer: s.archive.keeper.Signer(), Progress: progress}
	if whole {
		_, err = logarchive.Write(ctx, out, sources, options)
	} else {
		err = logarchive.WriteAccount(ctx, out, r.Identity.Account, sources, options)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	return out.Flush()
}
