package credential_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

var pastStart = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

func TestRecordIsAsItsLastEventBeforeAMomentLeftIt(t *testing.T) {
	r := credential.Record{ID: "01JW2C5R3V0E6H7Q8S9T0A1B2C", Kind: credential.APIKey, Account: "acme", PublicID: "k1", Mode: event.Live, Status: credential.Active, CreatedAt: pastStart}
	var events []event.Recorded
	for i, name := range []string{"first", "second", "third"} {
		r.Name = name
		e, err := r.Event(ulid.MustParse("01JW2C5R3V0E6H7Q8S9T0A1B2C"), credential.Updated, pastStart.Add(time.Duration(i)*time.Minute), event.Author{})
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, event.Recorded{Event: e, Position: event.Position{Stream: "c", Offset: event.At(uint64(i+1), 0)}})
	}
	for at, want := range map[time.Duration]string{-time.Millisecond: "", 0: "first", time.Minute - 1: "first", time.Minute: "second", time.Hour: "third"} {
		state, last, err := credential.AsOf(events, pastStart.Add(at))
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			if state != nil || last != nil {
				t.Errorf("after %s: %v", at, state)
			}
			continue
		}
		if got, ok := state.(*credential.Record); !ok || got.Name != want {
			t.Errorf("after %s: %v, want %s", at, state, want)
		}
	}
}

func TestRefusalOfThePastIsExplained(t *testing.T) {
	key := credential.Record{Kind: credential.APIKey, Account: "acme", Status: credential.Active, Scopes: credential.EventsWrite, ExpiresAt: pastStart.Add(time.Hour)}
	with := func(change func(*credential.Record)) *credential.Record {
		r := key
		change(&r)
		return &r
	}
	token := func(r *credential.Record) { r.Kind, r.Scopes = credential.PAT, credential.Admin|credential.Read }
	admin, viewer := &credential.User{Account: "acme", Role: credential.RoleAdmin}, &credential.User{Account: "acme", Role: credential.RoleViewer}
	office := func(r *credential.Record) { r.AllowFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }
	for name, c := range map[string]struct {
		record *credential.Record
		owner  *credential.User
		after  time.Duration
		scope  credential.Scopes
		from   string
		want   string
	}{
		"active":                    {record: &key},
		"unborn":                    {want: "AUTH_INVALID_KEY"},
		"expired":                   {record: &key, after: time.Hour, want: "AUTH_EXPIRED_KEY"},
		"suspended":                 {record: with(func(r *credential.Record) { r.Status = credential.Suspended }), want: "AUTH_SUSPENDED_KEY"},
		"revoked":                   {record: with(func(r *credential.Record) { r.Status = credential.Revoked }), want: "AUTH_REVOKED_KEY"},
		"within its scope":          {record: &key, scope: credential.EventsWrite},
		"outside of its scope":      {record: &key, scope: credential.Read, want: "INSUFFICIENT_SCOPE"},
		"from its network":          {record: with(office), from: "10.1.2.3"},
		"from its network, as IPv6": {record: with(office), from: "::ffff:10.1.2.3"},
		"from elsewhere":            {record: with(office), from: "192.0.2.1", want: "IP_NOT_ALLOWED"},
		"of an admin":               {record: with(token), owner: admin, scope: credential.Admin},
		"of one who may no longer":  {record: with(token), owner: viewer, scope: credential.Admin, want: "INSUFFICIENT_SCOPE"},
		"of one who was removed":    {record: with(token), owner: &credential.User{Account: "acme", Removed: true}, want: "AUTH_INVALID_KEY"},
		"of one who was not there":  {record: with(token), want: "AUTH_INVALID_KEY"},
	} {
		from, _ := netip.ParseAddr(c.from)
		err := credential.Explain(c.record, c.owner, pastStart.Add(c.after), c.scope, from)
		code := ""
		if f, ok := errors.AsType[*fault.Error](err); ok {
			code = f.Code
		}
		if code != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
