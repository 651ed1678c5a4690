package credential

import (
	"time"

	"github.com/shipledger/shipledger/pkg/fault"
)

// Scopes is a set of rights. A set that was parsed holds what it implies, so
// that Has needs no rules; narrowing to a role may take single rights out of it.
type Scopes uint8

// The scopes, least first (contract 3.4). Admin includes Write, Write includes
// EventsWrite and Read.
const (
	Read Scopes = 1 << iota
	EventsWrite
	Write
	Admin
)

const (
	allOfWrite = Write | EventsWrite | Read
	allOfAdmin = Admin | allOfWrite
)

// Has tells whether all of want is granted.
func (s Scopes) Has(want Scopes) bool { return s&want == want }

// Names gives the canonical names, without those that another one implies.
func (s Scopes) Names() []string {
	switch {
	case s.Has(Admin):
		return []string{"admin"}
	case s.Has(Write):
		return []string{"write"}
	}
	names := make([]string, 0, 2)
	if s.Has(Read) {
		names = append(names, "read")
	}
	if s.Has(EventsWrite) {
		names = append(names, "events:write")
	}
	return names
}

// named gives the rights that Names spells out, without those they imply: a
// role may hold Write and not all of what it implies elsewhere.
func (s Scopes) named() Scopes {
	switch {
	case s.Has(Admin):
		return Admin
	case s.Has(Write):
		return Write
	}
	return s
}

// ParseScopes reads the scopes asked for at creation, by name or alias. None
// gives the kind's default, which is its least.
func ParseScopes(kind Kind, names []string) (Scopes, error) {
	if len(names) == 0 {
		if kind == APIKey {
			return EventsWrite, nil
		}
		return Read, nil
	}
	var s Scopes
	for _, name := range names {
		granted, ok := scopeByName[name]
		if !ok {
			return 0, fault.New(fault.Unprocessable, "", "scope %q is unknown: use read, events:write, write or admin", name)
		}
		if kind != APIKey && granted == EventsWrite {
			granted |= Read // only an API key can submit without seeing
		}
		s |= granted
	}
	return s, nil
}

var scopeByName = map[string]Scopes{
	"read": Read, "read-only": Read,
	"events:write": EventsWrite,
	"sync-trigger": EventsWrite | Read,
	"write":        allOfWrite,
	"admin":        allOfAdmin,
}

// The roles, one per user (contract 18).
const (
	RoleAdmin          = "admin"
	RoleReleaseManager = "release_manager"
	RoleProduct        = "product"
	RoleDeveloper      = "developer"
	RoleSRE            = "sre"
	RoleQA             = "qa"
	RoleSecurity       = "security"
	RoleCompliance     = "compliance"
	RoleBilling        = "billing"
	RoleViewer         = "viewer"
)

// RoleScopes gives the most that a PAT of a user in this role can do. Write
// says that some object is the role's to change; which ones is decided by the
// route. A role that is unknown, as of a newer release, may do nothing.
func RoleScopes(role string) Scopes {
	switch role {
	case RoleAdmin:
		return allOfAdmin
	case RoleReleaseManager, RoleDeveloper, RoleSRE:
		return allOfWrite
	case RoleProduct, RoleQA, RoleSecurity, RoleCompliance: // these create no deployments
		return Write | Read
	case RoleBilling, RoleViewer:
		return Read
	}
	return 0
}

// Status is where a credential stands in its life (contract 3.5).
type Status string

// The statuses. Suspended goes back to Active; Revoked and Expired are final.
// Expired is never recorded: it follows from the time.
const (
	Active    Status = "active"
	Suspended Status = "suspended"
	Revoked   Status = "revoked"
	Expired   Status = "expired"
)

// statusAt gives the status at now of what is recorded. A revocation stays one
// for ever; a suspended credential expires as any other does.
func statusAt(recorded Status, expires, now time.Time) Status {
	if recorded != Revoked && !expires.IsZero() && !now.Before(expires) {
		return Expired
	}
	return recorded
}
