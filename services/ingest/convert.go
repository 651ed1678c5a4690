package ingest

import (
	"crypto/sha256"
	"encoding/binary"
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
	if err != nil {
		return nil, err
	}
	if sub.backfill {
		if err := checkBackfill(&request); err != nil {
			return nil, err
		}
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

// checkBackfill asks of history what makes loading it again safe (contract 4.4).
func checkBackfill(r *event.Request) error {
	var faults []httpapi.FieldFault
	if r.InvokeID == "" {
		faults = append(faults, httpapi.FieldFault{Loc: []string{"body", "invoke_id"}, Msg: "field required", Type: "value_error.missing"})
	}
	for name, text := range map[string]string{"started_at": r.StartedAt, "completed_at": r.CompletedAt} {
		if t := moment(text); text != "" && (t.Year() < 1970 || t.Year() > 9999) {
			faults = append(faults, httpapi.FieldFault{Loc: []string{"body", name}, Msg: "ensure this time is in 1970 or later", Type: "value_error.date"})
		}
	}
	if len(faults) > 0 {
		return &httpapi.ValidationError{Faults: faults}
	}
	return nil
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
