package credential_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/credential"
)

func pepperKey(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func newPeppers(t testing.TB, keys map[int][]byte) *credential.Peppers {
	t.Helper()
	p, err := credential.NewPeppers(keys)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Rows: VF-06
func TestDigestIsAnHMACUnderTheNewestPepper(t *testing.T) {
	old, both := newPeppers(t, map[int][]byte{1: pepperKey(1)}), newPeppers(t, map[int][]byte{1: pepperKey(1), 2: pepperKey(2)})
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.String().Draw(t, "token")
		m := hmac.New(sha256.New, pepperKey(2))
		m.Write([]byte(token))
		got, version := both.Digest(token)
		if version != 2 || !bytes.Equal(got[:], m.Sum(nil)) {
			t.Fatalf("digest %x under version %d, want %x under 2", got, version, m.Sum(nil))
		}
		if other, _ := old.Digest(token); other == got {
			t.Fatal("the digest is the same under another pepper")
		}
	})
}

func TestPeppersAreReadAsOperatorsWriteThem(t *testing.T) {
	one, two := pepperKey(0xfb), pepperKey(2)
	want, _ := newPeppers(t, map[int][]byte{1: one}).Digest("x")
	for _, text := range []string{
		hex.EncodeToString(one), strings.ToUpper(hex.EncodeToString(one)), "1:" + hex.EncodeToString(one) + "\n",
		base64.StdEncoding.EncodeToString(one), base64.RawStdEncoding.EncodeToString(one),
		base64.URLEncoding.EncodeToString(one), base64.RawURLEncoding.EncodeToString(one),
	} {
		p, err := credential.ParsePeppers(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, version := p.Digest("x"); version != 1 || got != want {
			t.Errorf("%s reads as another pepper", text)
		}
	}
	p, err := credential.ParsePeppers("2:" + hex.EncodeToString(two) + ",\r\n 1:" + hex.EncodeToString(one))
	if err != nil {
		t.Fatal(err)
	}
	if p.Current() != 2 {
		t.Errorf("current version %d, want 2", p.Current())
	}
}

func TestBadPeppersAreRefusedWithoutShowingThem(t *testing.T) {
	good := hex.EncodeToString(pepperKey(0xab))
	for _, text := range []string{"", " \n", good[:40], "0:" + good, "-1:" + good, "x:" + good, good + "," + good, "1:" + good + " 1:" + good, good + "!", "2:"} {
		p, err := credential.ParsePeppers(text)
		if err == nil {
			t.Errorf("%q reads as a pepper of version %d", text, p.Current())
		} else if strings.Contains(err.Error(), "abab") {
			t.Errorf("%q: the error shows the value: %v", text, err)
		}
	}
}
