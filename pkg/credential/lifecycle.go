package credential

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// A Change is what was decided about a credential: the record as it will
// stand, whole, and the type of the event that says so. It counts once that
// event is stored as the next one of the record's subject; if another came
// first, the question has to be put again.
type Change struct {
	Type   event.Type
	Record Record
}

// Why a credential cannot be changed (contract 3.5).
var (
	ErrRevoked   = fault.New(fault.Conflict, "CREDENTIAL_REVOKED", "This credential was revoked. That cannot be undone, and nothing about it can change any more.")
	ErrExpired   = fault.New(fault.Conflict, "CREDENTIAL_EXPIRED", "This credential has expired. Nothing about it can change any more.")
	ErrSuspended = fault.New(fault.Conflict, "CREDENTIAL_SUSPENDED", "This credential is suspended already.")
	ErrExists    = fault.New(fault.Conflict, "CREDENTIAL_EXISTS", "This very credential is known already.")
	ErrRotated   = fault.New(fault.Conflict, "CREDENTIAL_ROTATED", "This credential was rotated already: rotate its successor.")
	ErrActive    = fault.New(fault.Conflict, "CREDENTIAL_ACTIVE", "This credential is active: there is nothing to resume.")
)

// An Order is what somebody wants of a new credential, read but not granted.
type Order struct {
	Kind        Kind
	Name        string
	Description string
	Scopes      Scopes
	Mode        event.Mode
	ExpiresAt   time.Time
	AllowFrom   []netip.Prefix
	Rate        Rate
}

// Create decides about a new credential of by's account. A token becomes by's
// own and may not do more than by's role. The record has no id and no secret
// yet: those are drawn, not decided.
func Create(o Order, by *Identity, now time.Time) (Change, error) {
	r := Record{
		Kind: o.Kind, Account: by.Account, Name: o.Name, Description: o.Description, Scopes: o.Scopes, Mode: o.Mode,
		Status: Active, CreatedAt: now.UTC().Truncate(time.Millisecond), CreatedBy: by.UserID, ExpiresAt: o.ExpiresAt,
		AllowFrom: o.AllowFrom, Rate: o.Rate,
	}
	if o.Kind == PAT {
		r.UserID = by.UserID
		if by.Role == RoleBilling || by.Role == RoleViewer {
			return Change{}, fault.New(fault.Forbidden, "INSUFFICIENT_ROLE", "The role %s has no personal access tokens.", by.Role)
		}
		if !RoleScopes(by.Role).Has(o.Scopes.named()) {
			return Change{}, fault.New(fault.Forbidden, "INSUFFICIENT_ROLE", "A personal access token cannot do more than the role %s of its owner: it cannot have the scope %s.",
				by.Role, strings.Join(o.Scopes.Names(), ", "))
		}
	}
	return Change{Created, r}, nil
}

// Import decides about a credential that another system made, as Create does.
// Holder is whose the value is already, if it is anybody's.
func Import(o Order, by *Identity, holder *Record, now time.Time) (Change, error) {
	if holder != nil {
		return Change{}, ErrExists
	}
	c, err := Create(o, by, now)
	c.Type, c.Record.Legacy = Imported, true
	return c, err
}

// A Patch says what is to become of a record; nil leaves a part as it is.
type Patch struct {
	Name, Description *string
	AllowFrom         *[]netip.Prefix
	Rate              *Rate
}

// Update decides about a new name, description, allow-list or budget.
func (r *Record) Update(p Patch, now time.Time) (Change, error) {
	return r.change(Updated, now, func(next *Record) error {
		if p.Name != nil {
			next.Name = *p.Name
		}
		if p.Description != nil {
			next.Description = *p.Description
		}
		if p.AllowFrom != nil {
			next.AllowFrom = *p.AllowFrom
		}
		if p.Rate != nil {
			next.Rate = *p.Rate
		}
		return nil
	})
}

// Suspend decides whether a credential is refused until it is resumed.
func (r *Record) Suspend(now time.Time) (Change, error) {
	return r.change(WasSuspended, now, func(next *Record) error {
		if next.Status == Suspended {
			return ErrSuspended
		}
		next.Status = Suspended
		return nil
	})
}

// Resume decides whether a suspended credential is let in again.
func (r *Record) Resume(now time.Time) (Change, error) {
	return r.change(Resumed, now, func(next *Record) error {
		if next.Status == Active {
			return ErrActive
		}
		next.Status = Active
		return nil
	})
}

// Revoke decides whether a credential is refused for ever.
func (r *Record) Revoke(now time.Time) (Change, error) {
	return r.change(WasRevoked, now, func(next *Record) error {
		next.Status = Revoked
		return nil
	})
}

// A Rotation replaces a credential by another of the same name and rights. The
// successor has no id and no secret yet, and Old does not name it yet.
type Rotation struct{ Old, Successor Change }

// Rotate decides whether a credential makes way for a successor. Both work
// until the grace is over; then the old one has expired. A zero expiry gives
// the successor the term that the old one was made for.
func (r *Record) Rotate(grace time.Duration, expires time.Time, by *Identity, now time.Time) (Rotation, error) {
	at := now.UTC().Truncate(time.Millisecond)
	old, err := r.change(Rotated, now, func(next *Record) error {
		switch {
		case next.RotatedTo != "":
			return ErrRotated
		case next.Status == Suspended:
			return fault.New(fault.Conflict, ErrSuspended.Code, "This credential is suspended: resume it before you rotate it.")
		}
		next.RotatedAt, next.GraceUntil, next.DaysLeft = at, at.Add(grace), 0
		if !next.ExpiresAt.IsZero() && next.ExpiresAt.Before(next.GraceUntil) {
			next.GraceUntil = next.ExpiresAt
		}
		next.ExpiresAt = next.GraceUntil
		return nil
	})
	if err != nil {
		return Rotation{}, err
	}
	switch {
	case !expires.IsZero():
	case r.ExpiresAt.IsZero():
		expires = at.AddDate(1, 0, 0)
	default:
		expires = at.Add(r.ExpiresAt.Sub(r.CreatedAt))
	}
	return Rotation{old, Change{Created, Record{
		Kind: r.Kind, Account: r.Account, Name: r.Name, Description: r.Description, Scopes: r.Scopes, Mode: r.Mode, Status: Active,
		UserID: r.UserID, CreatedAt: at, CreatedBy: by.UserID, ExpiresAt: expires, FirstStart: r.FirstStart, RotatedFrom: r.ID,
		AllowFrom: r.AllowFrom, Rate: r.Rate,
	}}}, nil
}

// maxGrace is the longest that two generations of a credential may overlap.
const maxGrace = 30 * 24 * time.Hour

// ParseGrace reads how long a rotated credential goes on working: 0, hours such
// as 12h or days such as 7d, up to 30d.
func ParseGrace(text string) (time.Duration, error) {
	units := map[byte]time.Duration{'h': time.Hour, 'd': 24 * time.Hour}
	if text == "0" {
		return 0, nil
	}
	if text != "" {
		n, err := strconv.ParseUint(text[:len(text)-1], 10, 16)
		if unit := units[text[len(text)-1]]; err == nil && unit > 0 && time.Duration(n)*unit <= maxGrace {
			return time.Duration(n) * unit, nil
		}
	}
	return 0, fault.New(fault.Unprocessable, "", "use 0, hours such as 12h or days such as 7d, up to 30d")
}

// change makes a change of a credential that is not at the end of its life.
func (r *Record) change(t event.Type, now time.Time, to func(*Record) error) (Change, error) {
	switch r.StatusAt(now) {
	case Revoked:
		return Change{}, ErrRevoked
	case Expired:
		return Change{}, ErrExpired
	case Active, Suspended:
	}
	next := *r
	if err := to(&next); err != nil {
		return Change{}, err
	}
	return Change{t, next}, nil
}

// ParseExpiry reads when a new credential is to expire: 30d, 90d or 1y from
// now, or a date (its first moment in UTC) or an RFC 3339 time to come.
func ParseExpiry(text string, now time.Time) (time.Time, error) {
	now = now.UTC().Truncate(time.Millisecond)
	switch text {
	case "30d":
		return now.AddDate(0, 0, 30), nil
	case "90d":
		return now.AddDate(0, 0, 90), nil
	case "1y":
		return now.AddDate(1, 0, 0), nil
	case "never":
		return time.Time{}, fault.New(fault.Unprocessable, "", "every credential expires: use 30d, 90d, 1y, a date or a time")
	}
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		if at, err = event.ParseTime(text); err != nil {
			return time.Time{}, fault.New(fault.Unprocessable, "", "use 30d, 90d, 1y, a date such as 2030-01-31, or an RFC 3339 time")
		}
	}
	if !at.After(now) {
		return time.Time{}, fault.New(fault.Unprocessable, "", "the expiry must be in the future")
	}
	return at, nil
}

// expiringSoon is how long before its end a credential is marked (contract 3.5).
const expiringSoon = 14 * 24 * time.Hour

// ExpiringSoon tells whether a credential that still could be used ends within
// 14 days.
func (r *Record) ExpiringSoon(now time.Time) bool {
	s := r.StatusAt(now)
	return (s == Active || s == Suspended) && !r.ExpiresAt.IsZero() && r.ExpiresAt.Sub(now) <= expiringSoon
}
