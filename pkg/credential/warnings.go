package credential

import "time"

// warnings are how many days before a credential's end its admins are told
// (contract 3.5).
var warnings = []int{14, 3}

const day = 24 * time.Hour

// Warn decides about the warning of a credential's end that is due at now; false:
// none is. Of those that were missed each is due, one after the other. A moment
// before the end was decided, at the creation or the rotation, is no moment to
// warn of it.
func (r *Record) Warn(now time.Time) (Change, bool) {
	if s := r.StatusAt(now); s != Active && s != Suspended || r.ExpiresAt.IsZero() {
		return Change{}, false
	}
	decided := r.CreatedAt
	if r.RotatedAt.After(decided) {
		decided = r.RotatedAt
	}
	for _, days := range warnings {
		at := r.ExpiresAt.Add(-time.Duration(days) * day)
		if r.DaysLeft > 0 && r.DaysLeft <= days || now.Before(at) || at.Before(decided) {
			continue
		}
		next := *r
		next.DaysLeft = days
		return Change{Expiring, next}, true
	}
	return Change{}, false
}

// Warnings gives the credentials that a warning is due for at now.
func (k *Keyring) Warnings(now time.Time) []string {
	var due []string
	for id, e := range k.byID {
		if _, ok := e.record.Warn(now); ok {
			due = append(due, id)
		}
	}
	return due
}
