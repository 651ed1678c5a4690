package credential_test

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

const digits32 = "01234567890123456789012345678901"

var hex48 = strings.Repeat("0123456789ab", 4)

// foreignValues are all forms of contract 3.2.
var foreignValues = map[string]credential.Form{
	"sk_acme_k1_" + digits32:                 {Kind: credential.APIKey, Mode: event.Live},
	"sk_acme_t7_" + digits32 + "Ab1z":        {Kind: credential.APIKey, Mode: event.Test},
	"sk_acme-corp_9fJx_" + digits32 + "Ab1z": {Kind: credential.APIKey, Mode: event.Live},
	"vrt_live_" + digits32 + "_Ab1z":         {Kind: credential.APIKey, Mode: event.Live},
	"vrt_test_" + digits32 + "_Ab1z":         {Kind: credential.APIKey, Mode: event.Test},
	"vf_tok_" + digits32:                     {Kind: credential.APIKey, Mode: event.Live},
	"vf_tok_abc-def_0123456789":              {Kind: credential.APIKey, Mode: event.Live},
	"vso_" + hex48:                           {Kind: credential.PAT, Mode: event.Live},
	"pat_versioner_io_" + digits32:           {Kind: credential.PAT, Mode: event.Live},
	"pat_" + digits32:                        {Kind: credential.PAT, Mode: event.Live},
}

// Rows: VO-01, VT-03, VF-11
func TestTheFormsOfOtherSystemsAreKnown(t *testing.T) {
	for value, want := range foreignValues {
		if got, ok := credential.ParseForeign(value); !ok || got != want {
			t.Errorf("%s: %+v, %v; want %+v", value, got, ok, want)
		}
	}
	for _, value := range []string{
		"", "sk_", "pat_", "vso_", "vrt_", "vf_tok_", "hello", "eyJhbGciOiJFZERTQSJ9.e30.c2ln",
		"vso_" + hex48[1:], "vso_" + hex48 + "0", "vso_" + strings.Replace(hex48, "a", "A", 1), "vso_" + strings.Replace(hex48, "a", "g", 1),
		"vrt_live_" + digits32, "vrt_live_" + digits32 + "_Ab1", "vrt_live_" + digits32 + "_Ab1zz", "vrt_prod_" + digits32 + "_Ab1z", "vrt_live_short_Ab1z",
		"vf_tok_short", "vf_tok_" + digits32 + "!", "pat_short", "pat_" + digits32 + ".",
		"sk_acme_k1_" + digits32[1:], "sk_Acme_k1_" + digits32, "sk_acme__" + digits32, "sk_" + digits32, "sk_acme_k1_" + digits32 + "-",
		"pat_" + strings.Repeat("a", 300),
	} {
		if got, ok := credential.ParseForeign(value); ok {
			t.Errorf("%q is taken for %+v", value, got)
		}
	}
}

// take puts a foreign value into the keyring.
func (w *world) take(value string, owner credential.User) credential.Record {
	w.t.Helper()
	form, ok := credential.ParseForeign(value)
	if !ok {
		w.t.Fatalf("%q is of no form", value)
	}
	r := credential.Record{Kind: form.Kind, Account: "acme", Mode: form.Mode, Name: "old", Scopes: credential.Read, Status: credential.Active, Legacy: true}
	r.ID = owner.ID[:20] + "000000"
	if form.Kind == credential.APIKey {
		r.PublicID = w.keys.NextKeyID("acme", form.Mode)
	} else {
		r.PublicID, r.UserID = "old"+value[len(value)-3:], owner.ID
	}
	r.ID = r.ID[:len(r.ID)-len(r.PublicID)] + strings.ToUpper(r.PublicID)
	r.Digest, r.Pepper = w.peppers.Digest(value)
	w.record(&r, credential.Imported)
	return r
}

// Rows: VO-01, VT-03, VF-11
func TestAnImportedCredentialWorksUntilItIsRevoked(t *testing.T) {
	for value := range foreignValues {
		w := newWorld(t)
		owner := w.user(credential.RoleAdmin)
		if _, err := w.keys.Verify(value, noon); err == nil {
			t.Fatalf("%s works before it was imported", value)
		}
		r := w.take(value, owner)
		if id, err := w.keys.Verify(value, noon); err != nil || id.RecordID != r.ID || id.Scopes != credential.Read {
			t.Errorf("%s: %+v, %v", value, id, err)
		}
		last := value[:len(value)-1] + "0"
		if strings.HasSuffix(value, "0") {
			last = value[:len(value)-1] + "1"
		}
		if _, err := w.keys.Verify(last, noon); !errors.Is(err, credential.ErrInvalidKey) && !errors.Is(err, credential.ErrInvalidFormat) {
			t.Errorf("a neighbour of %s: %v", value, err)
		}
		if held, ok := w.keys.Holder(value); !ok || held.ID != r.ID {
			t.Errorf("%s is not known to be held", value)
		}
		r.Status = credential.Revoked
		w.record(&r, credential.WasRevoked)
		if _, err := w.keys.Verify(value, noon); !errors.Is(err, credential.ErrRevokedKey) {
			t.Errorf("%s after its revocation: %v", value, err)
		}
	}
}

func TestAnImportedCredentialWhoseEventCannotBeReadIsRefused(t *testing.T) {
	w := newWorld(t)
	value := "vf_tok_" + digits32
	r := w.take(value, w.user(credential.RoleAdmin))
	w.keys.Distrust(r.LogSubject(), event.At(100, 0))
	if _, err := w.keys.Verify(value, noon); !errors.Is(err, credential.ErrInvalidKey) {
		t.Errorf("%v", err)
	}
}

// A keyring without peppers can digest nothing and so look nothing up by
// digest: it would panic. Nothing is imported, so nothing is looked up.
//
// Rows: VO-01, VF-11
func TestWhereNothingWasImportedNoDigestIsLookedUp(t *testing.T) {
	keys := credential.NewKeyring(nil)
	for value := range foreignValues {
		want := credential.ErrInvalidKey
		if _, err := credential.Parse(value); errors.Is(err, credential.ErrInvalidFormat) && (strings.HasPrefix(value, "sk_") || strings.HasPrefix(value, "pat_")) {
			want = credential.ErrInvalidFormat
		}
		if _, err := keys.Verify(value, noon); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", value, err, want)
		}
	}
	for _, value := range []string{"vso_" + hex48[1:], "vso_" + strings.ToUpper(hex48)} {
		if _, err := keys.Verify(value, noon); !errors.Is(err, credential.ErrInvalidFormat) {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// What has no form is never digested, wherever something was imported.
//
// Rows: VO-01
func TestWhatHasNoFormIsNotLookedUp(t *testing.T) {
	w := newWorld(t)
	w.take("vso_"+hex48, w.user(credential.RoleAdmin))
	for _, value := range []string{"vso_" + hex48[1:], "vso_" + hex48 + "0", "vso_" + strings.ToUpper(hex48), "hello"} {
		if _, err := w.keys.Verify(value, noon); !errors.Is(err, credential.ErrInvalidFormat) {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestAllowListsAdmitTheirNetworksAndNobodyElse(t *testing.T) {
	all, err := credential.ParsePrefixes([]string{"10.1.2.3/8", " 192.0.2.7 ", "2001:db8::/32", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	l := &credential.Limits{From: all}
	for text, want := range map[string]bool{
		"10.255.0.1": true, "11.0.0.1": false, "192.0.2.7": true, "192.0.2.8": false, "2001:db8:1::1": true, "2001:db9::1": false, "::1": true,
		"::ffff:10.0.0.1": true, "::2": false,
	} {
		if got := l.Admits(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if l.Admits(netip.Addr{}) {
		t.Error("an address that nobody knows is admitted")
	}
	var none *credential.Limits
	if !none.Admits(netip.Addr{}) {
		t.Error("without a list somebody is refused")
	}
	for _, bad := range []string{"", "10.0.0.0/33", "example.org", "10.0.0", "fe80::1%eth0", "::ffff:10.0.0.0/104"} {
		if _, err := credential.ParsePrefixes([]string{bad}); err == nil {
			t.Errorf("%q is taken for a network", bad)
		}
	}
}

var foreignShapes = regexp.MustCompile(`^(sk_[a-z0-9-]{1,40}_[0-9A-Za-z]{1,40}_[0-9A-Za-z]{32,}|pat_[0-9A-Za-z_-]{16,}|vrt_(live|test)_[0-9A-Za-z]{16,}_[0-9A-Za-z]{4}|vf_tok_[0-9A-Za-z_-]{16,}|vso_[0-9a-f]{48})$`)

// FuzzParseForeign holds the parser to the forms as a regular expression, and
// the keyring to letting in no value but the one that was imported.
func FuzzParseForeign(f *testing.F) {
	for value := range foreignValues {
		f.Add(value)
	}
	f.Add("vso_" + strings.ToUpper(hex48))
	w := newWorld(f)
	imported := "vf_tok_" + digits32
	w.take(imported, w.user(credential.RoleAdmin))
	f.Fuzz(func(t *testing.T, value string) {
		_, ok := credential.ParseForeign(value)
		if want := len(value) <= 256 && foreignShapes.MatchString(value) && !strings.HasSuffix(value, "\n"); ok != want {
			t.Errorf("ParseForeign(%q) = %v, want %v", value, ok, want)
		}
		if _, err := w.keys.Verify(value, noon); (err == nil) != (value == imported) {
			t.Errorf("Verify(%q): %v", value, err)
		}
	})
}
