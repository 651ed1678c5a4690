package ingest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// submission is what surrounds the body of an event.
type submission struct {
	identity *credential.Identity
	key      string // idempotency key
	backfill bool
}

// command reads and checks a body and says what it asks for. Aliases and
// spellings end here (contract 4.1, 4.2, 9).
func (s *Service) command(as httpapi.EventBody, body []byte, sub submission) (*tracking.Command, error) {
	if scanned, ok := event.ScanRequest(body); ok && httpapi.Acceptable(as, &scanned.Request) {
		return s.scanned(as, body, &scanned, sub)
	}
	request, err := s.spec.DecodeEvent(as, body)
	if sub.backfill {
		err = requireRun(body, &request, err)
	}
	if err != nil {
		return nil, err
	}
	cmd := sub.command(as, body)
	// No secret that a pipeline printed into an event is kept (contract 21).
	stored := jsontext.Value(credential.RedactIn(body))
	if &stored[0] != &body[0] {
		if request, err = event.ReadRequest(stored); err != nil {
			return nil, err
		}
	}
	if stored, err = event.Plain(stored); err != nil {
		return nil, httpapi.InvalidJSON()
	}
	cmd.Body, cmd.Asked = stored, &request
	fill(cmd, &request)
	return cmd, nil
}

// scanned is command for a body that is in order and was read in one pass. Such
// a body has no white space, and most hold no secret.
func (s *Service) scanned(as httpapi.EventBody, body []byte, scanned *event.Scanned, sub submission) (*tracking.Command, error) {
	request := &scanned.Request
	if sub.backfill {
		if err := requireRun(body, request, nil); err != nil {
			return nil, err
		}
	}
	cmd := sub.command(as, body)
	if stored := credential.RedactIn(body); &stored[0] != &body[0] {
		redacted, err := event.ReadRequest(stored)
		if err != nil {
			return nil, err
		}
		cmd.Body, cmd.Asked = stored, &redacted
		fill(cmd, &redacted)
		return cmd, nil
	}
	cmd.Body, cmd.Asked = body, request
	fillFields(cmd, request)
	cmd.Extra, cmd.Members = request.ExtraMetadata, scanned.Members
	return cmd, nil
}

// command begins a command with what does not stand in the body.
func (sub *submission) command(as httpapi.EventBody, body []byte) *tracking.Command {
	kind := event.Build
	if as == httpapi.DeploymentEvent {
		kind = event.Deployment
	}
	cmd := &tracking.Command{
		Account: sub.identity.Account, Author: sub.identity.Author(), Kind: kind, Backfill: sub.backfill,
		Hash: hash(kind, sub.identity.Account, sub.identity.PublicID, body),
	}
	if sub.key != "" {
		cmd.IdempotencyKey, cmd.BodyHash = string(credential.RedactIn([]byte(sub.key))), hash(kind, "", "", body)
	}
	return cmd
}

func fill(cmd *tracking.Command, r *event.Request) {
	fillFields(cmd, r)
	if len(r.ExtraMetadata) > 0 && r.ExtraMetadata.Kind() == '{' {
		cmd.Extra = compact(r.ExtraMetadata)
		r.ExtraMetadata = cmd.Extra // as it stands in the body that is kept
		cmd.Members = event.ReadObject(cmd.Extra)
	}
}

// fillFields takes over all but extra_metadata.
func fillFields(cmd *tracking.Command, r *event.Request) {
	cmd.ProductName, cmd.Version = r.ProductName, r.Version
	cmd.Attributes = r.Attributes(cmd.Kind)
	cmd.StartedAt, cmd.CompletedAt = moment(r.StartedAt), moment(r.CompletedAt)
	cmd.Status, _ = event.ParseStatus(r.Status) // checked
	cmd.SkipPreflight = r.SkipPreflightChecks
	if cmd.Kind == event.Deployment {
		if cmd.EnvironmentName = r.EnvironmentName; cmd.EnvironmentName == "" {
			cmd.EnvironmentName = r.Environment
		}
		return
	}
	if cmd.CompletedAt.IsZero() {
		cmd.CompletedAt = moment(r.BuiltAt)
	}
	if cmd.Status == 0 {
		cmd.Status = event.Completed // only /version-events/ may leave it out
	}
}

func compact(v jsontext.Value) []byte {
	v, err := event.Plain(v.Clone())
	if err != nil {
		return nil
	}
	return v
}

// moment reads a time that was checked; zero where it is absent.
func moment(s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	t, err := event.ParseTime(s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// requireRun asks of history what makes loading it again safe: the run's id
// (contract 4.4). It is one fault among those that err tells, if any.
func requireRun(body []byte, r *event.Request, err error) error {
	v, invalid := errors.AsType[*httpapi.ValidationError](err)
	switch {
	case err != nil && !invalid:
		return err
	case invalid:
		read, unreadable := event.ReadRequest(body) // r may end at the first fault
		if unreadable != nil {
			return err
		}
		r = &read
	default:
		v = &httpapi.ValidationError{}
	}
	loc := []string{"body", "invoke_id"}
	if r.InvokeID != "" || slices.ContainsFunc(v.Faults, func(f httpapi.FieldFault) bool { return slices.Equal(f.Loc, loc) }) {
		return err
	}
	v.Faults = append(v.Faults, httpapi.FieldFault{Loc: loc, Msg: "field required", Type: "value_error.missing"})
	return v
}

// hash stands for the very bytes of an event, from a credential, to a kind of
// endpoint (contract 4.3). It is stable and never zero.
func hash(kind event.Kind, account, credentialID string, body []byte) uint64 {
	var stack [128]byte
	head := append(stack[:0], byte(kind))
	head = append(append(head, account...), 0)
	head = append(append(head, credentialID...), 0)
	h := sha256.New()
	_, _ = h.Write(head)
	_, _ = h.Write(body)
	var sum [sha256.Size]byte
	return max(1, binary.BigEndian.Uint64(h.Sum(sum[:0])))
}
