package credential

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// ErrForeignAddress refuses a credential outside of the addresses it works from.
var ErrForeignAddress = fault.New(fault.Forbidden, "IP_NOT_ALLOWED", "This credential does not work from this address.")

// AsOf gives the last of a subject's events that was stored at a moment or
// before, and what it left behind (see Decode); nil if there was none yet. The
// events come in the order of the log.
func AsOf(events []event.Recorded, at time.Time) (state any, last *event.Recorded, err error) {
	for i := range events {
		if events[i].Time.UnixMilli() <= at.UnixMilli() {
			last = &events[i]
		}
	}
	if last != nil {
		state, err = Decode(&last.Event)
	}
	return state, last, err
}

// Explain tells why a request with a credential is refused at a moment, by what
// it and its owner are then; nil: it is let in. A nil record is one that does not
// exist yet. Zero members of a request leave out what they would ask.
func Explain(r *Record, owner *User, at time.Time, scope Scopes, from netip.Addr) error {
	if r == nil {
		return ErrInvalidKey
	}
	switch r.StatusAt(at) {
	case Active:
	case Suspended:
		return ErrSuspendedKey
	case Revoked:
		return ErrRevokedKey
	case Expired:
		return ErrExpiredKey
	default:
		return ErrInvalidKey
	}
	may := r.Scopes
	if r.Kind == PAT {
		if owner == nil || owner.Removed || owner.Invited || owner.Account != r.Account {
			return ErrInvalidKey
		}
		may &= RoleScopes(owner.Role)
	}
	if from.IsValid() && len(r.AllowFrom) > 0 && !slices.ContainsFunc(r.AllowFrom, func(p netip.Prefix) bool { return p.Contains(from.Unmap()) }) {
		return ErrForeignAddress
	}
	if scope != 0 && !may.Has(scope) {
		return fault.New(fault.Forbidden, "INSUFFICIENT_SCOPE", "The credential did not have the scope for this.")
	}
	return nil
}
