package credential_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a keyring and the log that it is a fold of.
type world struct {
	t       testing.TB
	peppers *credential.Peppers
	keys    *credential.Keyring
	events  []event.Recorded
}

func newWorld(t testing.TB) *world {
	p := newPeppers(t, map[int][]byte{1: pepperKey(1)})
	return &world{t: t, peppers: p, keys: credential.NewKeyring(p)}
}

type recordable interface {
	Event(id ulid.ULID, t event.Type, at time.Time, by event.Author) (event.Event, error)
}

// record writes an event, reads it back as a process would, and folds it in.
func (w *world) record(r recordable, typ event.Type) event.Recorded {
	w.t.Helper()
	rec := w.write(r, typ)
	if err := w.keys.Apply(rec); err != nil {
		w.t.Fatal(err)
	}
	return rec
}

func (w *world) write(r recordable, typ event.Type) event.Recorded {
	w.t.Helper()
	e, err := r.Event(ulid.Make(), typ, noon, event.Author{CredentialID: "k0", Actor: "someone"})
	if err != nil {
		w.t.Fatal(err)
	}
	at := event.Position{Stream: event.CredentialStream, Offset: event.At(uint64(len(w.events)+1), 0)}
	rec, err := event.DecodeEvent(at, event.AppendEvent(nil, &e, at.Offset))
	if err != nil {
		w.t.Fatal(err)
	}
	w.events = append(w.events, rec)
	return rec
}

func (w *world) user(role string) credential.User {
	u := credential.User{ID: ulid.Make().String(), Account: "acme", Email: role + "@acme.example", Role: role, CreatedAt: noon}
	w.record(&u, credential.UserJoined)
	return u
}

func (w *world) create(r credential.Record) (string, credential.Record) {
	w.t.Helper()
	r.ID, r.Status = ulid.Make().String(), credential.Active
	if r.Account == "" {
		r.Account = "acme"
	}
	if r.Mode == "" {
		r.Mode = event.Live
	}
	if r.Name == "" {
		r.Name = "a name"
	}
	r.CreatedAt = noon
	account := r.Account
	if r.Kind == credential.PAT {
		account = ""
	}
	token := mint(w.t, r.Kind, account, r.PublicID, r.Mode)
	r.Digest, r.Pepper = w.peppers.Digest(token)
	r.LastFour = credential.LastFour(token)
	w.record(&r, credential.Created)
	return token, r
}

func (w *world) key(id string) (string, credential.Record) {
	w.t.Helper()
	return w.create(credential.Record{Kind: credential.APIKey, PublicID: id, Scopes: credential.EventsWrite, ExpiresAt: noon.AddDate(1, 0, 0)})
}

func (w *world) pat(owner credential.User, scopes ...string) (string, credential.Record) {
	w.t.Helper()
	s, err := credential.ParseScopes(credential.PAT, scopes)
	if err != nil {
		w.t.Fatal(err)
	}
	id, _ := credential.NewTokenID(rand.Reader)
	return w.create(credential.Record{
		Kind: credential.PAT, Account: owner.Account, PublicID: id, Scopes: s, UserID: owner.ID, ExpiresAt: noon.AddDate(1, 0, 0),
	})
}

// refused checks the answer and the answer to the same question before a commit.
func (w *world) refused(token string, r credential.Record, now time.Time, want error) {
	w.t.Helper()
	if id, err := w.keys.Verify(token, now); !errors.Is(err, want) || id != (credential.Identity{}) {
		w.t.Errorf("Verify(%s) = %+v, %v; want %v", credential.Redact(token), id, err, want)
	}
	if id, err := w.keys.Again(r.ID, now); !errors.Is(err, want) || id != (credential.Identity{}) {
		w.t.Errorf("Again(%s) = %+v, %v; want %v", r.ID, id, err, want)
	}
	if err := w.keys.Alive(r.ID, now); !errors.Is(err, want) {
		w.t.Errorf("Alive(%s) = %v; want %v", credential.Redact(token), err, want)
	}
}

func (w *world) works(token string, r credential.Record, now time.Time) credential.Identity {
	w.t.Helper()
	id, err := w.keys.Verify(token, now)
	if err != nil {
		w.t.Errorf("Verify(%s): %v", credential.Redact(token), err)
	}
	if again, err := w.keys.Again(r.ID, now); err != nil || again != id {
		w.t.Errorf("Again(%s) = %+v, %v; Verify said %+v", r.ID, again, err, id)
	}
	if err := w.keys.Alive(r.ID, now); err != nil {
		w.t.Errorf("Alive(%s): %v", credential.Redact(token), err)
	}
	return id
}

func TestAKeySpeaksForItsAccount(t *testing.T) {
	w := newWorld(t)
	token, r := w.create(credential.Record{
		Kind: credential.APIKey, PublicID: "t7", Name: "ci", Mode: event.Test, Scopes: credential.EventsWrite, CreatedBy: "u1", ExpiresAt: noon.AddDate(0, 0, 30),
	})
	want := credential.Identity{
		Kind: credential.APIKey, Account: "acme", RecordID: r.ID, PublicID: "t7", Name: "ci", Mode: event.Test,
		Scopes: credential.EventsWrite, ExpiresAt: r.ExpiresAt,
	}
	got := w.works(token, r, noon)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	author := event.Author{CredentialID: "t7", CredentialName: "ci", Mode: event.Test}
	if got.Author() != author {
		t.Errorf("author %+v, want %+v", got.Author(), author)
	}
}

func TestATokenSpeaksForItsUser(t *testing.T) {
	w := newWorld(t)
	u := w.user(credential.RoleAdmin)
	token, r := w.create(credential.Record{Kind: credential.PAT, PublicID: "p7Qx", Name: "mine", Scopes: credential.Read, UserID: u.ID, FirstStart: true})
	want := credential.Identity{
		Kind: credential.PAT, Account: "acme", RecordID: r.ID, PublicID: "p7Qx", Name: "mine", Mode: event.Live,
		Scopes: credential.Read, UserID: u.ID, Role: "admin", FirstStart: true,
	}
	if diff := cmp.Diff(want, w.works(token, r, noon)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.works(token, r, noon.AddDate(100, 0, 0)) // it was made without an expiry
}

// Rows: VT-13
func TestAnUnknownKeyIsInvalid(t *testing.T) {
	w := newWorld(t)
	_, _ = w.key("k1")
	for _, token := range []string{
		mint(t, credential.APIKey, "acme", "k2", event.Live), mint(t, credential.APIKey, "other", "k1", event.Live),
		mint(t, credential.PAT, "", "k1", event.Live),
	} {
		w.refused(token, credential.Record{ID: "unknown"}, noon, credential.ErrInvalidKey)
	}
}

// Rows: VT-13, VT-14
func TestTheReasonIsToldOnlyToWhoHoldsTheSecret(t *testing.T) {
	w := newWorld(t)
	for i, status := range []credential.Status{credential.Active, credential.Suspended, credential.Revoked} {
		_, r := w.key(credential.KeyID(event.Live, i+1))
		r.Status = status
		w.record(&r, credential.Updated)
		guess := mint(t, credential.APIKey, "acme", r.PublicID, event.Live)
		for _, now := range []time.Time{noon, noon.AddDate(2, 0, 0)} {
			if _, err := w.keys.Verify(guess, now); !errors.Is(err, credential.ErrInvalidKey) {
				t.Errorf("a guess at a %s key at %s: %v", status, now, err)
			}
		}
	}
}

// Rows: VR-21, VR-22, VR-23, VT-14, VT-17
func TestARevokedKeyIsRefusedAndNoOther(t *testing.T) {
	w := newWorld(t)
	one, r1 := w.key("k1")
	two, r2 := w.key("k2")
	w.works(one, r1, noon)
	r1.Status = credential.Revoked
	w.record(&r1, credential.WasRevoked)
	w.refused(one, r1, noon, credential.ErrRevokedKey)
	w.refused(one, r1, noon.AddDate(2, 0, 0), credential.ErrRevokedKey) // and not expired one day
	w.works(two, r2, noon)
}

// Rows: VT-15
func TestASuspendedKeyWorksAgainOnceResumed(t *testing.T) {
	w := newWorld(t)
	token, r := w.key("k1")
	r.Status = credential.Suspended
	w.record(&r, credential.WasSuspended)
	w.refused(token, r, noon, credential.ErrSuspendedKey)
	w.refused(token, r, r.ExpiresAt, credential.ErrExpiredKey)
	r.Status = credential.Active
	w.record(&r, credential.Resumed)
	w.works(token, r, noon)
}

// Rows: VF-16, VR-36
func TestAKeyWorksOneSecondBeforeItsExpiryAndNotAtIt(t *testing.T) {
	w := newWorld(t)
	token, r := w.key("k1")
	w.works(token, r, r.ExpiresAt.Add(-time.Second))
	w.works(token, r, r.ExpiresAt.Add(-time.Nanosecond))
	w.refused(token, r, r.ExpiresAt, credential.ErrExpiredKey)
	w.refused(token, r, r.ExpiresAt.Add(time.Hour), credential.ErrExpiredKey)
}

func TestEachCauseHasItsCodeAndIsUnauthenticated(t *testing.T) {
	for code, err := range map[string]*fault.Error{
		"AUTH_MISSING": credential.ErrMissing, "AUTH_INVALID_FORMAT": credential.ErrInvalidFormat, "AUTH_INVALID_KEY": credential.ErrInvalidKey,
		"AUTH_REVOKED_KEY": credential.ErrRevokedKey, "AUTH_SUSPENDED_KEY": credential.ErrSuspendedKey, "AUTH_EXPIRED_KEY": credential.ErrExpiredKey,
	} {
		if err.Code != code || err.Kind != fault.Unauthenticated || err.Message == "" || err.Hint == "" {
			t.Errorf("%s is %+v", code, err)
		}
	}
	if want := "invalid or missing api key"; credential.ErrInvalidKey.Message != want {
		t.Errorf("message %q, want %q", credential.ErrInvalidKey.Message, want)
	}
}

func TestATokenMayNeverMoreThanItsOwnerNow(t *testing.T) {
	w := newWorld(t)
	u := w.user(credential.RoleAdmin)
	admin, ra := w.pat(u, "admin")
	reader, rr := w.pat(u)
	for _, role := range []string{
		credential.RoleAdmin, credential.RoleSRE, credential.RoleQA, credential.RoleViewer, credential.RoleBilling, "a role of tomorrow", credential.RoleReleaseManager,
	} {
		u.Role = role
		w.record(&u, credential.RoleChanged)
		if got := w.works(admin, ra, noon); got.Scopes != credential.RoleScopes(role) || got.Role != role {
			t.Errorf("as %s the admin token may %04b", role, got.Scopes)
		}
		if got := w.works(reader, rr, noon); got.Scopes != credential.RoleScopes(role)&credential.Read {
			t.Errorf("as %s the read token may %04b", role, got.Scopes)
		}
	}
}

// Rows: VR-13
func TestTokensOfARemovedUserAreInvalid(t *testing.T) {
	w := newWorld(t)
	u, stays := w.user(credential.RoleDeveloper), w.user(credential.RoleDeveloper)
	token, r := w.pat(u)
	other, ro := w.pat(stays)
	key, rk := w.create(credential.Record{Kind: credential.APIKey, PublicID: "k1", Scopes: credential.EventsWrite, CreatedBy: u.ID})
	u.Removed = true
	w.record(&u, credential.UserRemoved)
	w.refused(token, r, noon, credential.ErrInvalidKey)
	w.works(other, ro, noon)
	w.works(key, rk, noon) // it is the account's
}

func TestATokenNeedsAnOwnerInItsOwnAccount(t *testing.T) {
	w := newWorld(t)
	token, r := w.create(credential.Record{Kind: credential.PAT, PublicID: "nobody", Scopes: credential.Read, UserID: ulid.Make().String()})
	w.refused(token, r, noon, credential.ErrInvalidKey)
	u := w.user(credential.RoleAdmin)
	token, r = w.create(credential.Record{Kind: credential.PAT, Account: "other", PublicID: "foreign", Scopes: credential.Read, UserID: u.ID})
	w.refused(token, r, noon, credential.ErrInvalidKey)
}

func TestAnOldPepperVerifiesUntilItIsTakenAway(t *testing.T) {
	w := newWorld(t)
	token, r := w.key("k1")
	for want, keys := range map[error]map[int][]byte{
		nil:                      {1: pepperKey(1), 2: pepperKey(2)},
		credential.ErrInvalidKey: {2: pepperKey(1)}, // the version counts, not the value
	} {
		k := credential.NewKeyring(newPeppers(t, keys))
		if err := k.Apply(w.events[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Verify(token, noon); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", r.PublicID, err, want)
		}
	}
}

// TestOnlyALaterEventReplacesARecord is the fence of generations: any order and
// repetition of the same events leaves every credential as the last one says.
func TestOnlyALaterEventReplacesARecord(t *testing.T) {
	w := newWorld(t)
	u := w.user(credential.RoleAdmin)
	key, rk := w.key("k1")
	pat, rp := w.pat(u, "admin")
	for _, s := range []credential.Status{credential.Suspended, credential.Active, credential.Revoked} {
		rk.Status = s
		w.record(&rk, credential.Updated)
	}
	rp.Name = "renamed"
	w.record(&rp, credential.Updated)
	u.Role = credential.RoleViewer
	w.record(&u, credential.RoleChanged)

	rapid.Check(t, func(t *rapid.T) {
		keys := credential.NewKeyring(w.peppers)
		order := append(rapid.Permutation(w.events).Draw(t, "order"), rapid.SliceOf(rapid.SampledFrom(w.events)).Draw(t, "repeated")...)
		for _, e := range order {
			if err := keys.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := keys.Verify(key, noon); !errors.Is(err, credential.ErrRevokedKey) {
			t.Fatalf("the revoked key: %v", err)
		}
		got, err := keys.Verify(pat, noon)
		if err != nil || got.Name != "renamed" || got.Scopes != credential.Read {
			t.Fatalf("the token: %+v, %v", got, err)
		}
	})
}

func TestAPublicIDBelongsToTheRecordThatClaimedIt(t *testing.T) {
	w := newWorld(t)
	token, r := w.key("k1")
	thief := r
	thief.ID, thief.Name = ulid.Make().String(), "thief"
	if err := w.keys.Apply(w.write(&thief, credential.Created)); err == nil {
		t.Error("a second record took the public id")
	}
	if got := w.works(token, r, noon); got.Name != r.Name {
		t.Errorf("the key is called %q now", got.Name)
	}
}

func TestWhatCannotBeReadIsAnErrorAndThenNotTrusted(t *testing.T) {
	w := newWorld(t)
	u := w.user(credential.RoleAdmin)
	key, rk := w.key("k1")
	pat, rp := w.pat(u)
	other, ro := w.key("k2")
	for schema, data := range map[string]string{
		"credential/1": `{"credential":{"kind":"sk","key_id":"k1","status":"banned"}}`, "credential/2": `{}`, "user/9": `{}`, "user/1": `{"user":3}`,
	} {
		e := event.Recorded{Event: event.Event{Account: "acme", Payload: event.Opaque{Schema: schema, Data: []byte(data)}}}
		if err := w.keys.Apply(e); err == nil {
			t.Errorf("%s %s was taken for something", schema, data)
		}
	}
	w.works(key, rk, noon)

	at := event.At(uint64(len(w.events)+1), 0)
	w.keys.Distrust(rk.LogSubject(), at)
	w.keys.Distrust(u.LogSubject(), at)
	w.keys.Distrust("cred.acme.sk.k99", at)
	w.keys.Distrust("something.else", at)
	w.keys.Distrust(ro.LogSubject(), event.At(1, 0)) // older than what is known
	w.refused(key, rk, noon, credential.ErrInvalidKey)
	w.refused(pat, rp, noon, credential.ErrInvalidKey)
	w.works(other, ro, noon)

	w.events = append(w.events, event.Recorded{})
	w.record(&rk, credential.Updated)
	w.record(&u, credential.RoleChanged)
	w.works(key, rk, noon)
	w.works(pat, rp, noon)
}

func TestOtherEventsLeaveTheKeyringAlone(t *testing.T) {
	w := newWorld(t)
	account := credential.Account{ID: "acme", Name: "Acme", CreatedAt: noon}
	w.record(&account, credential.AccountCreated)
	for _, p := range []event.Payload{event.Opaque{Schema: "invitation/1", Data: []byte(`{}`)}, &event.Product{}} {
		if err := w.keys.Apply(event.Recorded{Event: event.Event{Account: "acme", Payload: p}}); err != nil {
			t.Error(err)
		}
	}
}

func TestRecordsSurviveTheLog(t *testing.T) {
	w := newWorld(t)
	u := credential.User{ID: ulid.Make().String(), Account: "acme", Email: "a@acme.example", Name: "Ann", Role: "qa", PasswordHash: "$argon2id$…", Removed: true, CreatedAt: noon}
	a := credential.Account{ID: "acme", Name: "Acme Ltd", CreatedAt: noon}
	r := credential.Record{
		ID: ulid.Make().String(), Kind: credential.PAT, Account: "acme", PublicID: "p7Qx", Name: "n", Description: "d",
		Scopes: credential.Read | credential.EventsWrite, Mode: event.Test, Status: credential.Suspended, Digest: credential.Digest{1, 2, 3}, Pepper: 4,
		LastFour: "wxyz", UserID: u.ID, CreatedAt: noon, CreatedBy: u.ID, ExpiresAt: noon.AddDate(1, 0, 0), Legacy: true, FirstStart: true,
	}
	s := credential.WebSession{ID: ulid.Make().String(), Account: "acme", UserID: u.ID, StartedAt: noon, ExpiresAt: noon.Add(time.Hour), Ended: true}
	for _, want := range []recordable{&u, &a, &r, &s} {
		rec := w.write(want, "some.type")
		got, err := credential.Decode(&rec.Event)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(any(want), got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if got, want := r.LogSubject(), "cred.acme.pat.p7Qx"; got != want {
		t.Errorf("log subject %s, want %s", got, want)
	}
}

// Rows: VF-06
func TestEventsHoldNoPartOfTheSecret(t *testing.T) {
	w := newWorld(t)
	token, _ := w.key("k1")
	secret := token[strings.LastIndexByte(token, '_')+1:]
	log, err := json.Marshal(w.events[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	data := string(w.events[0].Payload.(event.Opaque).Data)
	for i := range len(secret) - 8 {
		if strings.Contains(string(log)+data, secret[i:i+8]) {
			t.Fatalf("the event holds %q of the secret", secret[i:i+8])
		}
	}
}

// TestVerifyDoesNotAllocate keeps the cost of a check off the garbage collector.
func TestVerifyDoesNotAllocate(t *testing.T) {
	w := newWorld(t)
	u := w.user(credential.RoleDeveloper)
	key, rk := w.key("k1")
	pat, _ := w.pat(u, "write")
	unknown := mint(t, credential.APIKey, "acme", "k9", event.Live)
	for name, token := range map[string]string{"key": key, "token": pat, "unknown": unknown, "malformed": key[:len(key)-1] + "_"} {
		// Not exactly none: the garbage collector may empty the pool in between.
		if n := testing.AllocsPerRun(1000, func() { _, _ = w.keys.Verify(token, noon) }); n >= 1 && !raceEnabled {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { _ = w.keys.Alive(rk.ID, noon) }); n >= 1 {
		t.Errorf("alive: %v allocations", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	u := w.user(credential.RoleDeveloper)
	for i := range 10_000 {
		w.create(credential.Record{Kind: credential.APIKey, PublicID: fmt.Sprintf("k%d", i+10), Scopes: credential.EventsWrite})
	}
	key, rk := w.key("k1")
	pat, _ := w.pat(u, "write")
	wrong := key[:len(key)-1] + "0"
	if wrong == key {
		wrong = key[:len(key)-1] + "1"
	}
	for _, c := range []struct {
		name, token string
	}{{"key", key}, {"token", pat}, {"unknown", mint(b, credential.APIKey, "acme", "k2", event.Live)}, {"wrongChecksum", wrong}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = w.keys.Verify(c.token, noon)
			}
		})
	}
	b.Run("alive", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = w.keys.Alive(rk.ID, noon)
		}
	})
}
