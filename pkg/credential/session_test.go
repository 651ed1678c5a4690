package credential_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

func sessionKeys(t testing.TB, seeds map[int][]byte) *credential.SessionKeys {
	t.Helper()
	k, err := credential.NewSessionKeys(seeds)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seed(b byte) []byte { return bytes.Repeat([]byte{b}, ed25519.SeedSize) }

// session starts a session that lasts until an hour after noon.
func (w *world) session(keys *credential.SessionKeys, of credential.User) (string, credential.WebSession) {
	w.t.Helper()
	s := credential.WebSession{ID: ulid.Make().String(), Account: of.Account, UserID: of.ID, StartedAt: noon, ExpiresAt: noon.Add(time.Hour)}
	w.record(&s, credential.SessionStarted)
	token, err := keys.Sign(&s)
	if err != nil {
		w.t.Fatal(err)
	}
	return token, s
}

func (w *world) refusedSession(token string, s credential.WebSession, now time.Time, want error) {
	w.t.Helper()
	w.refused(token, credential.Record{ID: s.ID}, now, want)
}

func TestASessionHasTheRightsOfItsUsersRoleAtTheTime(t *testing.T) {
	w, keys := newWorld(t), sessionKeys(t, map[int][]byte{1: seed(1)})
	w.keys.TrustSessions(keys)
	u := w.user(credential.RoleDeveloper)
	token, s := w.session(keys, u)
	want := credential.Identity{
		Kind: credential.Session, Account: "acme", RecordID: s.ID, PublicID: s.ID, Name: "web session", Mode: event.Live,
		Scopes: credential.RoleScopes(credential.RoleDeveloper), UserID: u.ID, Role: credential.RoleDeveloper, ExpiresAt: s.ExpiresAt,
	}
	if got, err := w.keys.Verify(token, noon); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if err := w.keys.Alive(s.ID, noon); err != nil {
		t.Error(err)
	}
	u.Role = credential.RoleViewer
	w.record(&u, credential.RoleChanged)
	if got, err := w.keys.Verify(token, noon); err != nil || got.Scopes != credential.Read || got.Role != credential.RoleViewer {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestASessionEndsByItselfByLogOutAndWithItsUser(t *testing.T) {
	w, keys := newWorld(t), sessionKeys(t, map[int][]byte{1: seed(1)})
	w.keys.TrustSessions(keys)
	u := w.user(credential.RoleAdmin)
	expired, e := w.session(keys, u)
	w.refusedSession(expired, e, e.ExpiresAt, credential.ErrExpiredSession)

	ended, s := w.session(keys, u)
	started := w.events[len(w.events)-1]
	over, err := s.End()
	if err != nil {
		t.Fatal(err)
	}
	w.record(&over, credential.SessionEnded)
	w.refusedSession(ended, s, noon, credential.ErrEndedSession)
	if err := w.keys.Apply(started); err != nil { // late, as from a snapshot
		t.Fatal(err)
	}
	w.refusedSession(ended, s, noon, credential.ErrEndedSession)
	if _, err := over.End(); !errors.Is(err, credential.ErrEndedSession) {
		t.Errorf("ended twice: %v", err)
	}

	token, s := w.session(keys, u)
	w.keys.Distrust(s.LogSubject(), event.At(uint64(len(w.events)), 0)+1)
	w.refusedSession(token, s, noon, credential.ErrInvalidKey)

	token, s = w.session(keys, u)
	u.Removed = true
	w.record(&u, credential.UserRemoved)
	w.refusedSession(token, s, noon, credential.ErrInvalidKey)
}

func TestOnlyASignatureOfAKnownKeyOverAKnownSessionCounts(t *testing.T) {
	w, keys := newWorld(t), sessionKeys(t, map[int][]byte{2: seed(2), 1: seed(1)})
	w.keys.TrustSessions(keys)
	u := w.user(credential.RoleAdmin)
	token, s := w.session(keys, u)
	parts := strings.Split(token, ".")
	b64 := base64.RawURLEncoding
	none := b64.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	symmetric := b64.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))
	stranger, _ := sessionKeys(t, map[int][]byte{1: seed(9)}).Sign(&s)
	strangers := strings.Split(stranger, ".")
	unknown, _ := keys.Sign(&credential.WebSession{ID: ulid.Make().String(), Account: "acme", UserID: u.ID, StartedAt: noon, ExpiresAt: noon.Add(time.Hour)})
	forgotten, _ := keys.Sign(&credential.WebSession{ID: ulid.Make().String(), Account: "acme", UserID: u.ID, StartedAt: noon, ExpiresAt: noon})
	last := parts[2][len(parts[2])-1]
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"without a signature":        {none + "." + parts[1] + ".", credential.ErrInvalidKey},
		"of another algorithm":       {symmetric + "." + parts[1] + "." + parts[2], credential.ErrInvalidKey},
		"of a stranger":              {stranger, credential.ErrInvalidKey},
		"with our header":            {parts[0] + "." + strangers[1] + "." + strangers[2], credential.ErrInvalidKey},
		"of two parts":               {parts[0] + "." + parts[1], credential.ErrInvalidKey},
		"of four parts":              {token + "." + parts[2], credential.ErrInvalidKey},
		"with padding":               {token + "=", credential.ErrInvalidKey},
		"with another last letter":   {token[:len(token)-1] + string(last+1), credential.ErrInvalidKey},
		"of the beginning only":      {"eyJ", credential.ErrInvalidKey},
		"of nobody's session":        {unknown, credential.ErrInvalidKey},
		"of a session that is over":  {forgotten, credential.ErrExpiredSession},
		"that is no token of a kind": {"x" + token, credential.ErrInvalidFormat},
	} {
		if id, err := w.keys.Verify(c.token, noon); !errors.Is(err, c.want) || id != (credential.Identity{}) {
			t.Errorf("a token %s: %+v, %v; want %v", name, id, err, c.want)
		}
	}
	// A key that is replaced goes on verifying while it is held.
	old, err := sessionKeys(t, map[int][]byte{1: seed(1)}).Sign(&s)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{token, old} {
		if _, err := w.keys.Verify(token, noon); err != nil {
			t.Error(err)
		}
	}
	w.keys.TrustSessions(nil)
	w.refusedVerify(token)
}

func (w *world) refusedVerify(token string) {
	w.t.Helper()
	if _, err := w.keys.Verify(token, noon); !errors.Is(err, credential.ErrInvalidKey) {
		w.t.Error(err)
	}
}

func TestSessionsThatAreOverAreForgotten(t *testing.T) {
	w, keys := newWorld(t), sessionKeys(t, map[int][]byte{1: seed(1)})
	w.keys.TrustSessions(keys)
	u := w.user(credential.RoleAdmin)
	live, _ := w.session(keys, u)
	var over []credential.WebSession
	for range 3000 {
		s := credential.WebSession{ID: ulid.Make().String(), Account: "acme", UserID: u.ID, StartedAt: noon.Add(-time.Hour), ExpiresAt: noon}
		w.record(&s, credential.SessionStarted)
		over = append(over, s)
	}
	held := 0
	for _, s := range over {
		if _, ok := w.keys.Session(s.ID); ok {
			held++
		}
	}
	if held > 1100 {
		t.Errorf("%d of %d sessions that are over are still held", held, len(over))
	}
	if _, err := w.keys.Verify(live, noon); err != nil {
		t.Error(err)
	}
}

func TestSessionKeysAreReadLikePeppersAndNeverShown(t *testing.T) {
	good := fmt.Sprintf("%x", seed(7))
	k, err := credential.ParseSessionKeys("1:" + good + "\n")
	if err != nil || len(k.Public()) != 1 || len(k.Public()[0].Key) != ed25519.PublicKeySize {
		t.Fatalf("%v", err)
	}
	for _, text := range []string{"", good[:60], good + "00", "x:" + good, "1:" + good + ",1:" + good, "0:" + good, "not a key"} {
		_, err := credential.ParseSessionKeys(text)
		if err == nil || strings.Contains(err.Error(), good[:16]) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// RFC 8037, appendix A.
func TestAKeyIsNamedAfterItsThumbprint(t *testing.T) {
	d, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	if err != nil {
		t.Fatal(err)
	}
	p := sessionKeys(t, map[int][]byte{1: d}).Public()[0]
	if got := base64.RawURLEncoding.EncodeToString(p.Key); got != "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" || p.ID != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("%s is named %s", got, p.ID)
	}
}
