// Package ingest accepts build and deployment events over HTTP, and what people
// change of the things that events speak of. It decides what they mean, and
// answers when the log has them on disk.
//
//	request ─► httpapi: path, credential, scope ─► decode and check ─► Committer ─► log
//	answer  ◄──────────────────────────────────────────────────────────┘
//
// It needs the log and the keyring and nothing else: while the read model is
// down, pipelines go on.
package ingest

import (
	"context"
	"maps"
	"net/http"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/tracking"
)

const (
	maxIdempotencyKey    = 255
	idempotencyKeyHeader = "Idempotency-Key"
	answerSize           = 1 << 10 // of most answers
)

// Service answers the operations of ingest.
type Service struct {
	spec       *httpapi.Spec
	committers []*Committer                                   // by the number of their partition
	everywhere func(ctx context.Context, account string) bool // nil: there is no other process
}

// New returns a service that hands what it accepts to the committer of the
// account's partition (event.PartitionOf); they are named in the order of the
// partitions, of which there is at least one. The document says what it accepts.
func New(spec *httpapi.Spec, committers ...*Committer) *Service {
	return &Service{spec: spec, committers: committers}
}

// committer gives who decides about an account.
func (s *Service) committer(account string) *Committer {
	return s.committers[event.PartitionOf(account, len(s.committers))]
}

// Telling names who tells the other processes what an account decided, and
// returns whether all live ones act by it. It must be called before the service
// is used.
func (s *Service) Telling(everywhere func(ctx context.Context, account string) bool) *Service {
	s.everywhere = everywhere
	return s
}

// Handlers gives the handler of each operation, for the API to mount.
func (s *Service) Handlers() httpapi.Handlers {
	handlers := s.managing()
	maps.Copy(handlers, httpapi.Handlers{
		"postDeploymentEvent": s.single(httpapi.DeploymentEvent),
		"postBuildEvent":      s.single(httpapi.BuildEvent),
		"postVersionEvent":    s.single(httpapi.VersionEvent),
		"postEventBatch":      s.batch,
	})
	return handlers
}

// single answers one event.
func (s *Service) single(as httpapi.EventBody) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		key, err := idempotencyKey(r)
		if err != nil {
			return err
		}
		body, err := r.ReadJSON()
		if err != nil {
			return err
		}
		places, err := s.committer(r.Identity.Account).Reserve(1)
		if err != nil {
			return err
		}
		defer places.Release()
		cmd, err := s.command(as, body, submission{identity: &r.Identity, key: key})
		if err != nil {
			return err
		}
		r.SourceSystem = cmd.Attributes[event.SourceSystem]
		results, err := places.Submit(r.Context(), []tracking.Input{cmd}, r.Reverify)
		if err != nil {
			return err
		}
		out := results[0]
		if out.Err != nil {
			return out.Err
		}
		w.Header()[httpapi.PositionHeader] = []string{out.Position.String()}
		if err := refusal(&out.Decision); err != nil {
			return err
		}
		return r.Bytes(http.StatusOK, httpapi.AppendRun(make([]byte, 0, answerSize), out.Decision.Record, out.Decision.EventID))
	}
}

// refusal tells why a start was refused; nil where it was not (contract 6.2).
func refusal(d *tracking.Decision) error {
	if d.Refusal == nil {
		return nil
	}
	details := map[string]any{"rule_name": d.Refusal.Rule, "deployment_id": d.Record.ID.String()}
	if c := d.Conflict; c != nil {
		details["conflicting_deployment_id"] = c.ID.String()
		details["conflicting_deployment_status"] = c.Status.String()
		details["conflicting_deployment_started"] = httpapi.Moment(c.StartedAt)
	}
	return &httpapi.Blocked{Kind: fault.Conflict, Code: d.Refusal.Code, Message: d.Refusal.Message, Details: details}
}

// idempotencyKey gives the key that the caller sent, if any.
func idempotencyKey(r *httpapi.Request) (string, error) {
	key := r.Header.Get(idempotencyKeyHeader)
	if len(key) > maxIdempotencyKey {
		return "", &httpapi.ValidationError{Faults: []httpapi.FieldFault{keyTooLong([]string{"header", idempotencyKeyHeader})}}
	}
	return key, nil
}

func keyTooLong(loc []string) httpapi.FieldFault {
	return httpapi.FieldFault{Loc: loc, Msg: "ensure this value has at most 255 characters", Type: "value_error.any_str.max_length"}
}
