package credential

import "time"

// A Leak says that the secret of a credential was found where others read it;
// the zero Leak says nothing.
type Leak struct {
	At     time.Time
	URL    string // where; may be unknown
	Source string // who told: github
}

// MarkLeaked decides what becomes of a credential whose secret was found. A
// second report of it changes nothing: the Change has no type then.
func (r *Record) MarkLeaked(l Leak, revoke bool, now time.Time) (Change, error) {
	if !r.Leak.At.IsZero() && !revoke {
		return Change{Record: *r}, nil
	}
	t := Updated
	if revoke {
		t = WasRevoked
	}
	return r.change(t, now, func(next *Record) error {
		if next.Leak.At.IsZero() {
			next.Leak = l
		}
		if revoke {
			next.Status = Revoked
		}
		return nil
	})
}

type leakWire struct {
	At     time.Time `json:"at"`
	URL    string    `json:"url,omitzero"`
	Source string    `json:"source"`
}

func toLeakWire(l Leak) *leakWire {
	if l.At.IsZero() {
		return nil
	}
	return &leakWire{l.At.UTC(), l.URL, l.Source}
}

func (w *leakWire) leak() Leak {
	if w == nil {
		return Leak{}
	}
	return Leak(*w)
}
