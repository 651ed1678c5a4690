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
	request, err := s.spec.DecodeEvent(as, body)
	if sub.backfill {
		err = requireRun(body, &request, err)
	}
	if err != nil {
		return nil, err
	}
	kind := event.Build
	if as == httpapi.DeploymentEvent {
		kind = event.Deployment
	}
	cmd := &tracking.Command{
		Account: sub.identity.Account, Author: sub.identity.Author(), Kind: kind,
		Hash:     hash(kind, sub.identity.Account, sub.identity.PublicID, body),
		BodyHash: hash(kind, "", "", body), IdempotencyKey: string(credential.RedactIn([]byte(sub.key))), Backfill: sub.backfill,
	}
	// No secret that a pipeline printed into an event is kept (contract 21).
	stored := jsontext.Value(credential.RedactIn(body))
	if &stored[0] != &body[0] {
		if request, err = event.ReadRequest(stored); err != nil {
			return nil, err
		}
	}
	if err := stored.Compact(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, httpapi.InvalidJSON()
	}
	cmd.Body, cmd.Asked = stored, &request
	fill(cmd, &request)
	return cmd, nil
}

func fill(cmd *tracking.Command, r *event.Request) {
	cmd.ProductName, cmd.Version = r.ProductName, r.Version
	cmd.Attributes = r.Attributes(cmd.Kind)
	cmd.StartedAt, cmd.CompletedAt = moment(r.StartedAt), moment(r.CompletedAt)
	cmd.Status, _ = event.ParseStatus(r.Status) // checked
	cmd.SkipPreflight = r.SkipPreflightChecks
	if len(r.ExtraMetadata) > 0 && r.ExtraMetadata.Kind() == '{' {
		cmd.Extra = compact(r.ExtraMetadata)
		r.ExtraMetadata = cmd.Extra // as it stands in the body that is kept
	}
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
	v = v.Clone()
	if v.Compact(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) != nil {
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
	h := sha256.New()
	_, _ = h.Write([]byte{byte(kind)})
	_, _ = h.Write([]byte(account + "\x00" + credentialID + "\x00"))
	_, _ = h.Write(body)
	var sum [sha256.Size]byte
	return max(1, binary.BigEndian.Uint64(h.Sum(sum[:0])))
}
