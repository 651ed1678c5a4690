package credential_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

func aRecord(status credential.Status) credential.Record {
	return credential.Record{
		ID: "01JW2C5R3V0E6H7Q8S9T0A1B2C", Kind: credential.APIKey, Account: "acme", PublicID: "k1", Name: "ci", Description: "old",
		Scopes: credential.EventsWrite, Mode: event.Live, Status: status, CreatedAt: noon, ExpiresAt: noon.AddDate(1, 0, 0),
	}
}

func TestAChangeCarriesTheWholeRecordAndChangesOnlyWhatItIsAbout(t *testing.T) {
	name := "new"
	for _, c := range []struct {
		what   string
		from   credential.Status
		decide func(*credential.Record) (credential.Change, error)
		typ    event.Type
		to     func(*credential.Record)
	}{
		{"update", credential.Suspended, func(r *credential.Record) (credential.Change, error) {
			return r.Update(credential.Patch{Name: &name}, noon)
		}, credential.Updated, func(r *credential.Record) { r.Name = "new" }},
		{"update", credential.Active, func(r *credential.Record) (credential.Change, error) {
			return r.Update(credential.Patch{Description: &name}, noon)
		}, credential.Updated, func(r *credential.Record) { r.Description = "new" }},
		{"suspend", credential.Active, func(r *credential.Record) (credential.Change, error) { return r.Suspend(noon) }, credential.WasSuspended, func(r *credential.Record) { r.Status = credential.Suspended }},
		{"resume", credential.Suspended, func(r *credential.Record) (credential.Change, error) { return r.Resume(noon) }, credential.Resumed, func(r *credential.Record) { r.Status = credential.Active }},
		{"revoke", credential.Active, func(r *credential.Record) (credential.Change, error) { return r.Revoke(noon) }, credential.WasRevoked, func(r *credential.Record) { r.Status = credential.Revoked }},
		{"revoke", credential.Suspended, func(r *credential.Record) (credential.Change, error) { return r.Revoke(noon) }, credential.WasRevoked, func(r *credential.Record) { r.Status = credential.Revoked }},
	} {
		r, want := aRecord(c.from), aRecord(c.from)
		c.to(&want)
		got, err := c.decide(&r)
		if err != nil {
			t.Errorf("%s of a %s key: %v", c.what, c.from, err)
			continue
		}
		if diff := cmp.Diff(credential.Change{Type: c.typ, Record: want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
		if diff := cmp.Diff(aRecord(c.from), r); diff != "" {
			t.Errorf("%s changed what it was asked about: %s", c.what, diff)
		}
	}
}

func TestTheEndOfALifeIsFinal(t *testing.T) {
	name := "new"
	decisions := map[string]func(*credential.Record, time.Time) (credential.Change, error){
		"suspend": (*credential.Record).Suspend, "resume": (*credential.Record).Resume, "revoke": (*credential.Record).Revoke,
		"describe": func(r *credential.Record, now time.Time) (credential.Change, error) {
			return r.Update(credential.Patch{Name: &name}, now)
		},
	}
	refused := func(what string, status credential.Status, now time.Time, want error) {
		t.Helper()
		r := aRecord(status)
		if _, err := decisions[what](&r, now); !errors.Is(err, want) || fault.KindOf(err) != fault.Conflict {
			t.Errorf("%s of a %s key at %s: %v, want %v", what, status, now, err, want)
		}
	}
	for what := range decisions {
		refused(what, credential.Revoked, noon, credential.ErrRevoked)
		refused(what, credential.Revoked, noon.AddDate(2, 0, 0), credential.ErrRevoked)
		refused(what, credential.Active, noon.AddDate(1, 0, 0), credential.ErrExpired)
		refused(what, credential.Suspended, noon.AddDate(1, 0, 0), credential.ErrExpired)
	}
	refused("suspend", credential.Suspended, noon, credential.ErrSuspended)
	refused("resume", credential.Active, noon, credential.ErrActive)
}

func TestATokenIsItsMakersAndNeverMoreThanTheirRole(t *testing.T) {
	for _, c := range []struct {
		role, scope string
		allowed     bool
	}{
		{credential.RoleAdmin, "admin", true},
		{credential.RoleDeveloper, "write", true},
		{credential.RoleDeveloper, "events:write", true},
		{credential.RoleDeveloper, "admin", false},
		{credential.RoleQA, "write", true},
		{credential.RoleQA, "events:write", false},
		{credential.RoleQA, "admin", false},
		{credential.RoleViewer, "read", false},
		{credential.RoleBilling, "read", false},
		{"a role of tomorrow", "read", false},
	} {
		scopes, err := credential.ParseScopes(credential.PAT, []string{c.scope})
		if err != nil {
			t.Fatal(err)
		}
		by := credential.Identity{Kind: credential.PAT, Account: "acme", UserID: "u1", Role: c.role}
		got, err := credential.Create(credential.Order{Kind: credential.PAT, Name: "mine", Scopes: scopes, Mode: event.Live, ExpiresAt: noon}, &by, noon)
		if !c.allowed {
			if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Forbidden || f.Code != "INSUFFICIENT_ROLE" {
				t.Errorf("a token with %s of %s: %v", c.scope, c.role, err)
			}
			continue
		}
		want := credential.Change{Type: credential.Created, Record: credential.Record{
			Kind: credential.PAT, Account: "acme", Name: "mine", Scopes: scopes, Mode: event.Live, Status: credential.Active,
			UserID: "u1", CreatedAt: noon, CreatedBy: "u1", ExpiresAt: noon,
		}}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("a token with %s of %s: %v %s", c.scope, c.role, err, diff)
		}
	}
}

func TestAnExpiryIsATermADateOrATimeToCome(t *testing.T) {
	for text, want := range map[string]time.Time{
		"30d": noon.AddDate(0, 0, 30), "90d": noon.AddDate(0, 0, 90), "1y": noon.AddDate(1, 0, 0),
		"2026-03-02": time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), "2026-03-01T14:00:00.5+01:00": noon.Add(time.Hour + 500*time.Millisecond),
	} {
		if got, err := credential.ParseExpiry(text, noon); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"never", "", "31d", "0d", "-30d", "2026-03-01", "2020-01-01", "2026-03-01T12:00:00Z", "2026-03-01T11:59:59Z", "2026-03-02T12:00:00", "tomorrow", "2026-13-01"} {
		if got, err := credential.ParseExpiry(text, noon); fault.KindOf(err) != fault.Unprocessable {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
}

func TestACredentialIsMarkedFourteenDaysBeforeItsEnd(t *testing.T) {
	const day = 24 * time.Hour
	for left, want := range map[time.Duration]bool{14*day + time.Second: false, 14 * day: true, time.Second: true, 0: false, -day: false} {
		r := aRecord(credential.Active)
		if got := r.ExpiringSoon(r.ExpiresAt.Add(-left)); got != want {
			t.Errorf("%s before its end: %v", left, got)
		}
	}
	revoked := aRecord(credential.Revoked)
	unending := aRecord(credential.Active)
	unending.ExpiresAt = time.Time{}
	if revoked.ExpiringSoon(revoked.ExpiresAt.Add(-day)) || unending.ExpiringSoon(noon) {
		t.Error("what is revoked or never ends does not expire soon")
	}
}

func TestAKeyIDIsNeverUsedAgain(t *testing.T) {
	w := newWorld(t)
	next := func(mode event.Mode, want string) {
		t.Helper()
		if got := w.keys.NextKeyID("acme", mode); got != want {
			t.Errorf("the next key in %s mode is %s, want %s", mode, got, want)
		}
	}
	next(event.Live, "k1")
	next(event.Test, "t1")
	_, _ = w.create(credential.Record{Kind: credential.APIKey, Account: "other", PublicID: "k7"})
	u := w.user(credential.RoleAdmin)
	_, _ = w.create(credential.Record{Kind: credential.PAT, PublicID: "k8", UserID: u.ID})
	next(event.Live, "k1")
	for _, id := range []string{"k1", "k2", "k10"} {
		_, r := w.key(id)
		r.Status = credential.Revoked
		w.record(&r, credential.WasRevoked)
	}
	next(event.Live, "k11")
	next(event.Test, "t1")
	for _, subject := range []string{"cred.acme.sk.k12", "cred.acme.sk.t3", "cred.acme.sk.", "cred.acme.sk.x"} { // unreadable, but claimed
		w.keys.Distrust(subject, event.At(1000, 0))
	}
	next(event.Live, "k13")
	next(event.Test, "t4")
}

func TestTheKeyringTellsTheRecordsAndWhereTheyWereLeft(t *testing.T) {
	w := newWorld(t)
	u := w.user(credential.RoleAdmin)
	_, key := w.key("k1")
	_, pat := w.pat(u)
	_, _ = w.create(credential.Record{Kind: credential.APIKey, Account: "other", PublicID: "k1"})
	key.Name = "another name"
	at := w.record(&key, credential.Updated).Position.Offset
	for kind, want := range map[credential.Kind]string{credential.APIKey: key.ID, credential.PAT: pat.ID} {
		held := w.keys.Records("acme", kind)
		if len(held) != 1 || held[0].ID != want {
			t.Errorf("%s: %+v", kind, held)
		}
	}
	held, ok := w.keys.Record(key.ID)
	if !ok || held.Name != "another name" || held.At != at {
		t.Errorf("%+v, want it as of %d", held, at)
	}
	w.keys.Distrust(key.LogSubject(), event.At(1000, 0))
	if _, ok := w.keys.Record(key.ID); ok || len(w.keys.Records("acme", credential.APIKey)) != 0 {
		t.Error("a record that is not to be trusted is told")
	}
}

func TestARotationKeepsTheRightsAndEndsTheOldOneWithItsGrace(t *testing.T) {
	r := aRecord(credential.Active)
	r.FirstStart = true
	by := credential.Identity{UserID: "u2"}
	for _, c := range []struct {
		grace            time.Duration
		expires, ends    time.Time
		successorExpires time.Time
	}{
		{0, time.Time{}, noon, noon.AddDate(1, 0, 0)},
		{24 * time.Hour, time.Time{}, noon.AddDate(0, 0, 1), noon.AddDate(1, 0, 0)},
		{24 * time.Hour, noon.AddDate(0, 0, 9), noon.AddDate(0, 0, 1), noon.AddDate(0, 0, 9)},
	} {
		got, err := r.Rotate(c.grace, c.expires, &by, noon)
		if err != nil {
			t.Fatal(err)
		}
		old, next := r, r
		old.ExpiresAt, old.RotatedAt, old.GraceUntil = c.ends, noon, c.ends
		next.ID, next.PublicID, next.RotatedFrom, next.CreatedBy, next.ExpiresAt = "", "", r.ID, "u2", c.successorExpires
		want := credential.Rotation{Old: credential.Change{Type: credential.Rotated, Record: old}, Successor: credential.Change{Type: credential.Created, Record: next}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("grace %s (-want +got):\n%s", c.grace, diff)
		}
		if status := got.Old.Record.StatusAt(c.ends); status != credential.Expired {
			t.Errorf("after its grace it is %s", status)
		}
	}
	late, err := r.Rotate(30*24*time.Hour, time.Time{}, &by, r.ExpiresAt.Add(-time.Hour))
	if err != nil || !late.Old.Record.ExpiresAt.Equal(r.ExpiresAt) {
		t.Errorf("a grace reaches beyond the expiry: %s, %v", late.Old.Record.ExpiresAt, err)
	}
	r.RotatedTo = "another"
	if _, err := r.Rotate(0, time.Time{}, &by, noon); !errors.Is(err, credential.ErrRotated) {
		t.Errorf("rotated twice: %v", err)
	}
}

func TestLineageSurvivesTheLog(t *testing.T) {
	w := newWorld(t)
	_, r := w.key("k1")
	r.RotatedFrom, r.RotatedTo, r.GraceUntil = "01JW2C5R3V0E6H7Q8S9T0A1B2C", "01JW2C5R3V0E6H7Q8S9T0A1B2D", noon.AddDate(0, 0, 7)
	w.record(&r, credential.Rotated)
	held, _ := w.keys.Record(r.ID)
	if diff := cmp.Diff(r, held.Record); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
