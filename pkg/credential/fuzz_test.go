package credential_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

// FuzzWords feeds one text to everything that reads what people write of
// credentials. What is taken has a meaning within its bounds.
func FuzzWords(f *testing.F) {
	for _, seed := range []string{
		"", "30d", "1y", "never", "0", "12h", "2099-01-01", "2099-01-01T00:00:00Z", "99999999999999999999d", "-1d", "read", "events:write", "admin", "read,write", "10.0.0.0/8", "::1", "fe80::1%eth0",
		"1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "1:3031323334353637383930313233343536373839303132333435363738393031,2:x", "ÿ", "\x00",
	} {
		f.Add(seed)
	}
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if at, err := credential.ParseExpiry(text, now); err == nil && !at.IsZero() && !at.After(now) {
			t.Errorf("%q expires at %v, before now", text, at)
		}
		if d, err := credential.ParseGrace(text); err == nil && (d < 0 || d > 30*24*time.Hour) {
			t.Errorf("%q is a grace of %v", text, d)
		}
		for _, kind := range []credential.Kind{credential.APIKey, credential.PAT} {
			if s, err := credential.ParseScopes(kind, strings.Split(text, ",")); err == nil && s == 0 {
				t.Errorf("%q gives no scope", text)
			}
		}
		if all, err := credential.ParsePrefixes([]string{text}); err == nil {
			for _, p := range all {
				if !p.IsValid() || p != p.Masked() {
					t.Errorf("%q is the network %v", text, p)
				}
			}
		}
		_, _ = credential.ParsePeppers(text)
		_, _ = credential.ParseSessionKeys(text)
	})
}

// FuzzSessionTokens: nothing is a session but what was signed.
func FuzzSessionTokens(f *testing.F) {
	keys, err := credential.NewSessionKeys(map[int][]byte{1: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	signed, err := keys.Sign(&credential.WebSession{ID: "s", UserID: "u", Account: "a", StartedAt: now, ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	header, rest, _ := strings.Cut(signed, ".")
	claims, signature, _ := strings.Cut(rest, ".")
	for _, seed := range []string{signed, header + "..", header + "." + claims + ".", "eyJhbGciOiJub25lIn0." + claims + ".", header + "." + claims + "." + signature + "=", "eyJ", "..", signed + ".x"} {
		f.Add(seed)
	}
	peppers, err := credential.NewPeppers(map[int][]byte{1: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	ring := credential.NewKeyring(peppers)
	ring.TrustSessions(keys)
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := ring.Verify(token, now); err == nil {
			t.Errorf("%q is %+v", token, id)
		}
	})
}

// FuzzDecode feeds data of any shape to what reads events about credentials.
func FuzzDecode(f *testing.F) {
	for _, schema := range []string{"credential/1", "user/1", "account/1", "session/1", "invitation/1"} {
		f.Add(schema, []byte(`{}`))
		f.Add(schema, []byte(`{"credential":{"kind":"sk","key_id":"k1","scopes":["read"],"status":"active","digest":"AA==","pepper":1,"created_at":"2026-01-01T00:00:00Z"},"user":{"email":"a@b","role":"admin"},"account":{"name":"a"},"session":{"user_id":"u"}}`))
		f.Add(schema, []byte(`{"credential":null,"user":[],"account":1}`))
	}
	f.Fuzz(func(t *testing.T, schema string, data []byte) {
		e := event.Event{Account: "acme", Subject: "01HZX3V5K6QJ8W9Y0A1B2C3D4E", Payload: event.Opaque{Schema: schema, Data: data}}
		_, _ = credential.Decode(&e)
		if shown := credential.Shown(event.Opaque{Schema: schema, Data: data}); shown != nil && !json.Valid(shown) {
			t.Errorf("%q is shown as %q", data, shown)
		}
	})
}

// FuzzRedactIn: what was JSON stays JSON, and redacting it again changes nothing.
func FuzzRedactIn(f *testing.F) {
	secret, err := credential.Mint(credential.APIKey, "acme", "k1", event.Live, bytes.NewReader(make([]byte, 256)))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{`{"a":"` + secret + `"}`, `{"a":"x` + secret + secret + `"}`, `{"a":"\u0073` + secret[1:] + `"}`, `{"a":"\\u0073"}`, `"\u00`, secret} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out := credential.RedactIn(bytes.Clone(in))
		if json.Valid(in) && !json.Valid(out) {
			t.Fatalf("%q became %q", in, out)
		}
		if again := credential.RedactIn(bytes.Clone(out)); !bytes.Equal(again, out) {
			t.Fatalf("%q became %q, and then %q", in, out, again)
		}
		if bytes.Contains(out, []byte(secret)) {
			t.Fatalf("%q still holds a secret", out)
		}
	})
}
