// Package accounts owns keys, tokens, users and accounts: whatever decides who
// may do what. Its decisions are events in the stream of credentials, and every
// process folds that stream into a keyring of its own.
//
//	request ─► keyring: what stands now ─► credential: decide ─► log, after what was decided on
//	answer  ◄── keyring has applied it ◄────────────────────────┘
//
// It makes the first credentials (Bootstrap) and answers /api-keys/ and
// /personal-access-tokens/ (Service). It keeps nothing itself, so any number of
// processes may do this at the same time.
package accounts

import (
	"io"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
)

// Service answers the operations on credentials.
type Service struct {
	spec    *httpapi.Spec
	log     eventlog.Log
	ring    *keyring.Ring
	peppers *credential.Peppers
	now     func() time.Time
	entropy io.Reader // safe for concurrent use
	turn    chan struct{}
}

// New returns a service that stores its decisions in log, which ring follows.
// The document says what it accepts.
func New(spec *httpapi.Spec, log eventlog.Log, ring *keyring.Ring, peppers *credential.Peppers, now func() time.Time, entropy io.Reader) *Service {
	return &Service{spec, log, ring, peppers, now, entropy, make(chan struct{}, 1)}
}

// Handlers gives the handler of each operation, for the API to mount.
func (s *Service) Handlers() httpapi.Handlers {
	all := httpapi.Handlers{}
	for _, f := range []family{apiKeys, tokens} {
		all["list"+f.operations+"s"] = s.list(f)
		all["create"+f.operations] = s.create(f)
		all["get"+f.operations] = s.get(f)
		all["update"+f.operations] = s.update(f)
		all["suspend"+f.operations] = s.change(f, (*credential.Record).Suspend)
		all["resume"+f.operations] = s.change(f, (*credential.Record).Resume)
		all["revoke"+f.operations] = s.revoke(f)
		all["rotate"+f.operations] = s.rotation(f)
	}
	return all
}
