package accounts

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/outbound"
)

// LeaksConfig says whose reports of found secrets are believed.
type LeaksConfig struct {
	// GitHubKeys is the file, or the https address, of the public keys that
	// GitHub's secret scanning signs with.
	GitHubKeys string
	// MarkOnly leaves a found credential in use: it is marked, not revoked.
	MarkOnly bool
	// Client reads the keys where they have an address; nil: one that calls the public internet only.
	Client *http.Client
}

const (
	maxLeaks       = 1000
	maxLeakURL     = 2048
	maxKeysBytes   = 1 << 20
	keysReadAgain  = time.Minute // at the soonest, for a key that is not known
	leakSource     = "github"
	keyIDHeader    = "Github-Public-Key-Identifier"
	keySignatureIn = "Github-Public-Key-Signature"
)

var (
	errNoLeaks   = fault.New(fault.NotFound, "NOT_FOUND", "Reports of found secrets are not set up here.")
	errSignature = fault.New(fault.Unauthenticated, "INVALID_SIGNATURE", "The signature of this report does not verify.")
)

// signers are the public keys of whoever reports.
type signers struct {
	cfg LeaksConfig
	now func() time.Time

	mu     sync.Mutex
	keys   map[string]*ecdsa.PublicKey
	readAt time.Time
}

func newSigners(cfg *LeaksConfig, now func() time.Time) *signers {
	if cfg == nil || cfg.GitHubKeys == "" {
		return nil
	}
	s := &signers{cfg: *cfg, now: now}
	if s.cfg.Client == nil {
		s.cfg.Client = outbound.New(outbound.Config{})
	}
	return s
}

// key gives a public key by its identifier. One that is not known is looked for
// again, now and then: signers change their keys.
func (s *signers) key(ctx context.Context, id string) (*ecdsa.PublicKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.keys[id]; k != nil || !s.readAt.IsZero() && s.now().Sub(s.readAt) < keysReadAgain {
		return k, nil
	}
	text, err := s.read(ctx)
	if err == nil {
		var keys map[string]*ecdsa.PublicKey
		if keys, err = parseSigners(text); err == nil {
			s.keys, s.readAt = keys, s.now()
		}
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "", "The keys of the reporter cannot be read. Try again later.").Because(err)
	}
	return s.keys[id], nil
}

func (s *signers) read(ctx context.Context) ([]byte, error) {
	if !strings.HasPrefix(s.cfg.GitHubKeys, "https://") {
		return os.ReadFile(s.cfg.GitHubKeys)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.GitHubKeys, nil)
	if err != nil {
		return nil, err
	}
	res, err := s.cfg.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the keys are answered with %s", res.Status)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxKeysBytes+1))
	if err == nil && len(text) > maxKeysBytes {
		err = outbound.ErrTooLong
	}
	return text, err
}

// parseSigners reads keys in the form that GitHub publishes them in.
func parseSigners(text []byte) (map[string]*ecdsa.PublicKey, error) {
	var published struct {
		Keys []struct {
			ID  string `json:"key_identifier"`
			Key string `json:"key"`
		} `json:"public_keys"`
	}
	if err := json.Unmarshal(text, &published); err != nil {
		return nil, fmt.Errorf("read the keys of the reporter: %w", err)
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, k := range published.Keys {
		block, _ := pem.Decode([]byte(k.Key))
		if block == nil {
			return nil, fmt.Errorf("the key %s is no PEM", k.ID)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read the key %s: %w", k.ID, err)
		}
		public, ok := key.(*ecdsa.PublicKey)
		if !ok {
			return nil, fmt.Errorf("the key %s is no ECDSA key", k.ID)
		}
		keys[k.ID] = public
	}
	return keys, nil
}

// leakWire is one match of a report, in the shape of GitHub's partner programme.
type leakWire struct {
	Token  string `json:"token"`
	Type   string `json:"type"`
	URL    string `json:"url"`
	Source string `json:"source"`
}

// feedback is what the reporter is told of a match. It names the token by its
// hash: no answer holds a secret.
type feedback struct {
	TokenHash string `json:"token_hash"`
	TokenType string `json:"token_type"`
	Label     string `json:"label"`
}

// reportGitHubLeaks marks, and unless it is told otherwise revokes, the
// credentials that GitHub found. Told again, it finds nothing left to do.
func (s *Service) reportGitHubLeaks(w http.ResponseWriter, r *httpapi.Request) error {
	if s.signers == nil {
		return errNoLeaks
	}
	body, err := r.ReadJSON()
	if err != nil {
		return err
	}
	if err := s.signers.verify(r, body); err != nil {
		return err
	}
	if err := s.ring.Healthy(); err != nil {
		return err
	}
	var found []leakWire
	if !jsontext.Value(body).IsValid() || json.Unmarshal(body, &found) != nil {
		return httpapi.InvalidJSON()
	}
	if len(found) > maxLeaks {
		return &httpapi.ValidationError{Faults: []httpapi.FieldFault{{
			Loc: []string{"body"}, Msg: fmt.Sprintf("a report may have %d matches", maxLeaks), Type: "value_error.list.max_items",
		}}}
	}
	told, last := make([]feedback, len(found)), uint64(0)
	for i, leak := range found {
		ours, seq, err := s.leaked(r.Context(), leak)
		if err != nil {
			return err
		}
		last = max(last, seq)
		sum := sha256.Sum256([]byte(leak.Token))
		told[i] = feedback{hex.EncodeToString(sum[:]), leak.Type, "false_positive"}
		if ours {
			told[i].Label = "true_positive"
		}
	}
	if last > 0 {
		s.everywhere(w, r, last)
	}
	return r.JSON(http.StatusOK, told)
}

func (s *signers) verify(r *httpapi.Request, body []byte) error {
	id, signature := r.Header.Get(keyIDHeader), r.Header.Get(keySignatureIn)
	raw, err := base64.StdEncoding.DecodeString(signature)
	if id == "" || err != nil || len(raw) == 0 {
		return errSignature
	}
	key, err := s.key(r.Context(), id)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if key == nil || !ecdsa.VerifyASN1(key, sum[:], raw) {
		return errSignature
	}
	return nil
}

// leaked tells whether a found token is a credential of ours, and gives the
// sequence of the event that says so; 0 where nothing was left to say.
func (s *Service) leaked(ctx context.Context, leak leakWire) (ours bool, seq uint64, _ error) {
	if _, ours = s.ring.Holder(leak.Token); !ours {
		return false, 0, nil
	}
	where := string(credential.RedactIn([]byte(leak.URL[:min(len(leak.URL), maxLeakURL)])))
	done, err := s.inTurn(ctx, func(ctx context.Context, now time.Time, before uint64) (committed, error) {
		held, ok := s.ring.Holder(leak.Token)
		if !ok {
			return committed{}, nil
		}
		told := credential.Leak{At: now.UTC().Truncate(time.Millisecond), URL: where, Source: leakSource}
		c, err := held.MarkLeaked(told, !s.signers.cfg.MarkOnly, now)
		if errors.Is(err, credential.ErrRevoked) || errors.Is(err, credential.ErrExpired) || err == nil && c.Type == "" {
			return committed{}, nil // it opens nothing any more, or was told before
		} else if err != nil {
			return committed{}, err
		}
		by := event.Author{CredentialName: "GitHub secret scanning", Mode: event.Live}
		seq, err := s.append(ctx, fact{recordable: &c.Record, is: c.Type, after: held.At.Seq()}, by, now, before)
		return committed{seq: seq}, err
	})
	return true, done.seq, err
}
