// Package accounts owns keys, tokens, users and accounts: whatever decides who
// may do what. Its decisions are events in the stream of credentials, and every
// process folds that stream into a keyring of its own.
//
//	request ─► keyring: what stands now ─► credential: decide ─► log, after what was decided on
//	answer  ◄── keyring has applied it ◄────────────────────────┘
//
// It makes the first credentials (Bootstrap) and answers /api-keys/,
// /personal-access-tokens/, /auth/, /users/ and /accounts/ (Service). It keeps nothing itself, so any
// number of processes may do this at the same time.
package accounts

import (
	"io"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/pkg/usage"
)

// Config says how people sign in. Zero values are replaced by the defaults.
type Config struct {
	// SessionLife is how long a web session lasts. Default 12 h.
	SessionLife time.Duration
	// Attempts counts attempts to sign in; nil: no limit.
	Attempts ratelimit.Bank
	// Leaks says whose reports of found secrets are believed; nil: nobody's.
	Leaks *LeaksConfig
	// OIDC is the issuer that people may sign in through; nil: none.
	OIDC *OIDCConfig
	// Nodes are the processes that an answer to a change waits for; nil: there is
	// no other.
	Nodes *keyring.Nodes
	// Usage knows when credentials were used; nil: nobody counts.
	Usage *usage.Book
	// Flight is what the service decides by its keyring; nil: nobody asks.
	Flight *keyring.Flight
	// Settings gives what an account decided; nil: every account has the defaults.
	Settings func(account string) event.Settings
}

const defaultLife = 12 * time.Hour

// Service answers the operations on credentials.
type Service struct {
	spec      *httpapi.Spec
	log       eventlog.Log
	ring      *keyring.Ring
	peppers   *credential.Peppers
	sessions  *credential.SessionKeys
	life      time.Duration
	attempts  ratelimit.Bank
	issuer    *issuerClient // nil: none
	signers   *signers      // of leak reports; nil: none
	passwords verifier
	nodes     *keyring.Nodes
	settings  func(account string) event.Settings
	flight    *keyring.Flight
	usage     *usage.Book
	now       func() time.Time
	entropy   io.Reader // safe for concurrent use
	turn      chan struct{}
}

// New returns a service that stores its decisions in log, which ring follows.
// The document says what it accepts; sessions are the keys that ring trusts.
func New(cfg Config, spec *httpapi.Spec, log eventlog.Log, ring *keyring.Ring, peppers *credential.Peppers, sessions *credential.SessionKeys, now func() time.Time, entropy io.Reader) *Service {
	if cfg.SessionLife <= 0 {
		cfg.SessionLife = defaultLife
	}
	if cfg.Settings == nil {
		cfg.Settings = func(string) event.Settings { return event.DefaultSettings() }
	}
	if cfg.Flight == nil {
		cfg.Flight = &keyring.Flight{}
	}
	return &Service{
		settings: cfg.Settings, usage: cfg.Usage, nodes: cfg.Nodes, flight: cfg.Flight,
		spec: spec, log: log, ring: ring, peppers: peppers, sessions: sessions, life: cfg.SessionLife, attempts: cfg.Attempts, issuer: newIssuerClient(cfg.OIDC, now), signers: newSigners(cfg.Leaks, now),
		passwords: make(verifier, verifications), now: now, entropy: entropy, turn: make(chan struct{}, 1),
	}
}

// Handlers gives the handler of each operation, for the API to mount.
func (s *Service) Handlers() httpapi.Handlers {
	all := httpapi.Handlers{
		"logIn": s.logIn, "logOut": s.logOut, "getPublicKeys": s.publicKeys,
		"reportGitHubLeaks": s.reportGitHubLeaks,
		"beginOIDC":         s.oidcLogin, "finishOIDC": s.oidcCallback,
		"listUsers": s.listUsers, "updateUser": s.updateUser, "removeUser": s.removeUser,
		"inviteUser": s.inviteUser, "getInvitation": s.invitation, "joinByInvitation": s.join,
		"openPasswordReset": s.openReset, "askForPasswordReset": s.askReset, "resetPassword": s.resetPassword, "changePassword": s.changePassword,
		"listAccounts": s.listAccounts, "createAccount": s.createAccount,
	}
	for _, f := range []family{apiKeys, tokens} {
		all["list"+f.operations+"s"] = s.list(f)
		all["create"+f.operations] = s.create(f)
		all["import"+f.operations] = s.importing(f)
		all["get"+f.operations] = s.get(f)
		all["update"+f.operations] = s.update(f)
		all["suspend"+f.operations] = s.change(f, (*credential.Record).Suspend)
		all["resume"+f.operations] = s.change(f, (*credential.Record).Resume)
		all["revoke"+f.operations] = s.revoke(f)
		all["rotate"+f.operations] = s.rotation(f)
		all["list"+f.operations+"Callers"] = s.callers(f)
		all["get"+f.operations+"Propagation"] = s.propagation(f)
		all["get"+f.operations+"State"] = s.stateAt(f)
	}
	return all
}
