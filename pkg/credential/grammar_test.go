package credential_test

import (
	"crypto/rand"
	"errors"
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const digits40 = "0123456789012345678901234567890123456789"

func mint(t testing.TB, kind credential.Kind, account, id string, mode event.Mode) string {
	t.Helper()
	token, err := credential.Mint(kind, account, id, mode, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// withChecksum makes a token of any body valid, by another way than the product.
func withChecksum(body string) string {
	sum := new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(body)))).Text(62)
	sum = strings.Repeat("0", 6-len(sum)) + sum
	return body + strings.Map(func(r rune) rune { // big.Int has the lower case first
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, sum)
}

// Rows: VR-01, VR-12
func TestMintedTokensSplitIntoTheirParts(t *testing.T) {
	keys := regexp.MustCompile(`^sk_acme_(k1|k2|t1|t2)_[0-9A-Za-z]{46,}$`)
	for _, k := range []struct {
		mode event.Mode
		n    int
		id   string
	}{{event.Live, 1, "k1"}, {event.Live, 2, "k2"}, {event.Test, 1, "t1"}, {event.Test, 2, "t2"}} {
		id := credential.KeyID(k.mode, k.n)
		if id != k.id {
			t.Errorf("key %d in %s mode is %q, want %q", k.n, k.mode, id, k.id)
		}
		token := mint(t, credential.APIKey, "acme", id, k.mode)
		if parts := strings.Split(token, "_"); len(parts) != 4 || parts[0] != "sk" || parts[1] != "acme" || parts[2] != id || !keys.MatchString(token) {
			t.Errorf("%q does not split into sk, acme, %s and the secret", token, id)
		}
	}
	id, err := credential.NewTokenID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	token := mint(t, credential.PAT, "", id, event.Live)
	if parts := strings.Split(token, "_"); len(parts) != 3 || parts[0] != "pat" || parts[1] != id {
		t.Errorf("%q does not split into pat, %s and the secret", token, id)
	}
}

// Rows: VR-02
func TestTenThousandSecretsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		token := mint(t, credential.APIKey, "acme", "k1", event.Live)
		secret := strings.Split(token, "_")[3]
		random := secret[:len(secret)-6]
		if len(random) < 40 {
			t.Fatalf("%d random characters, want at least 40", len(random))
		}
		if seen[random] {
			t.Fatal("a secret was minted twice")
		}
		seen[random] = true
	}
}

func TestEveryCharacterIsEquallyLikely(t *testing.T) {
	all := make([]byte, 256) // each byte once: the fair ones give each character four times
	for i := range all {
		all[i] = byte(i)
	}
	got, err := credential.Random(248, strings.NewReader(string(all)+string(all[:256])))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range base62 {
		if n := strings.Count(got, string(c)); n != 4 {
			t.Errorf("%c occurs %d times in 248, want 4", c, n)
		}
	}
}

func TestMintFailsWithoutRandomness(t *testing.T) {
	if token, err := credential.Mint(credential.PAT, "", "p7Qx", event.Live, strings.NewReader("short")); err == nil {
		t.Errorf("minted %q of five bytes", token)
	}
}

func TestMintRefusesWhatCouldNotBeParsed(t *testing.T) {
	for _, c := range []struct {
		kind        credential.Kind
		account, id string
		mode        event.Mode
	}{
		{credential.APIKey, "", "k1", event.Live},
		{credential.APIKey, "Acme", "k1", event.Live},
		{credential.APIKey, "a_b", "k1", event.Live},
		{credential.APIKey, strings.Repeat("a", 41), "k1", event.Live},
		{credential.APIKey, "acme", "k1", event.Test},
		{credential.APIKey, "acme", "t1", event.Live},
		{credential.APIKey, "acme", "k0", event.Live},
		{credential.APIKey, "acme", "k01", event.Live},
		{credential.APIKey, "acme", "k", event.Live},
		{credential.APIKey, "acme", "x1", event.Live},
		{credential.APIKey, "acme", "", event.Live},
		{credential.PAT, "", "", event.Live},
		{credential.PAT, "", "a_b", event.Live},
		{credential.PAT, "acme", "p7Qx", event.Live},
		{credential.Session, "", "p7Qx", event.Live},
	} {
		if token, err := credential.Mint(c.kind, c.account, c.id, c.mode, rand.Reader); err == nil {
			t.Errorf("minted %q", token)
		}
	}
}

// Rows: VT-03
func TestPublishedChecksumVectorsHold(t *testing.T) {
	for _, c := range []struct {
		body, checksum string
		want           credential.Token
		mode           event.Mode
	}{
		{"sk_acme_k1_" + digits40, "1sKkfI", credential.Token{Kind: credential.APIKey, Account: "acme", PublicID: "k1"}, event.Live},
		{"sk_acme_t1_" + digits40, "2lv6aT", credential.Token{Kind: credential.APIKey, Account: "acme", PublicID: "t1"}, event.Test},
		{"pat_p7Qx_" + digits40, "3TDOwO", credential.Token{Kind: credential.PAT, PublicID: "p7Qx"}, event.Live},
	} {
		got, err := credential.Parse(c.body + c.checksum)
		if err != nil || got != c.want {
			t.Errorf("Parse(%s%s) = %+v, %v; want %+v", c.body, c.checksum, got, err, c.want)
		}
		if mode := credential.ModeOf(got.Kind, got.PublicID); mode != c.mode {
			t.Errorf("%s is of mode %s, want %s", got.PublicID, mode, c.mode)
		}
		if made := withChecksum(c.body); made != c.body+c.checksum {
			t.Errorf("the test's own checksum of %s is wrong: %s", c.body, made)
		}
	}
}

func TestEveryMintedTokenParses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := credential.Token{Kind: credential.PAT, PublicID: rapid.StringMatching(`[0-9A-Za-z]{1,40}`).Draw(t, "token id")}
		mode := event.Live
		if rapid.Bool().Draw(t, "key") {
			mode = rapid.SampledFrom([]event.Mode{event.Live, event.Test}).Draw(t, "mode")
			want = credential.Token{
				Kind: credential.APIKey, Account: rapid.StringMatching(`[a-z0-9-]{1,40}`).Draw(t, "account"),
				PublicID: credential.KeyID(mode, rapid.IntRange(1, 9_999_999_999).Draw(t, "n")),
			}
		}
		token, err := credential.Mint(want.Kind, want.Account, want.PublicID, mode, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := credential.Parse(token); err != nil || got != want {
			t.Fatalf("Parse(%s) = %+v, %v; want %+v", token, got, err, want)
		}
	})
}

// Rows: VT-04
func TestOneChangedCharacterIsRefusedBeforeAnyLookUp(t *testing.T) {
	for _, token := range []string{
		mint(t, credential.APIKey, "acme", "k1", event.Live), mint(t, credential.PAT, "", "p7Qx", event.Live),
	} {
		secretFrom := strings.LastIndexByte(token, '_') + 1
		for i := range len(token) {
			for _, c := range []byte(base62) {
				if token[i] == c {
					continue
				}
				_, err := credential.Parse(token[:i] + string(c) + token[i+1:])
				if !errors.Is(err, credential.ErrInvalidKey) && (i >= secretFrom || !errors.Is(err, credential.ErrInvalidFormat)) {
					t.Fatalf("%q with %c at %d: %v", token, c, i, err)
				}
			}
		}
	}
}

// Rows: VT-12
func TestWhatIsNoTokenIsAFormatError(t *testing.T) {
	good := mint(t, credential.APIKey, "acme", "k1", event.Live)
	for _, token := range []string{
		"", "sk_", "pat_", "sk", "hello", "Bearer " + good, " " + good, good + " ", good + "_", good + "!",
		strings.ToUpper(good), "SK" + good[2:], "pk" + good[2:], "sk-" + good[3:],
		withChecksum("sk__k1_" + digits40), withChecksum("sk_acme__" + digits40), withChecksum("sk_acme_k1"),
		withChecksum("sk_Acme_k1_" + digits40), withChecksum("sk_ac.me_k1_" + digits40), withChecksum("sk_" + strings.Repeat("a", 41) + "_k1_" + digits40),
		withChecksum("sk_acme_k0_" + digits40), withChecksum("sk_acme_k01_" + digits40), withChecksum("sk_acme_x1_" + digits40),
		withChecksum("sk_acme_k12345678901_" + digits40), withChecksum("sk_acme_k1_x_" + digits40),
		withChecksum("sk_acme_k1_" + digits40[1:]), withChecksum("sk_acme_k1_-" + digits40),
		withChecksum("pat__" + digits40), withChecksum("pat_" + digits40), withChecksum("pat_a-b_" + digits40), withChecksum("pat_" + digits40 + "x_" + digits40),
		withChecksum("sk_acme_k1_" + strings.Repeat("a", 300)), good[:len(good)-1] + "é", "sk_acme_k1_\x00" + digits40,
	} {
		if got, err := credential.Parse(token); !errors.Is(err, credential.ErrInvalidFormat) {
			t.Errorf("Parse(%q) = %+v, %v; want ErrInvalidFormat", token, got, err)
		}
	}
}

func TestLongerSecretsThanThoseMintedAreAccepted(t *testing.T) {
	if _, err := credential.Parse(withChecksum("sk_acme_k1_" + digits40 + digits40)); err != nil {
		t.Error(err)
	}
}

var (
	keyShape = regexp.MustCompile(`^sk_([a-z0-9-]{1,40})_([kt][1-9][0-9]{0,9})_[0-9A-Za-z]{46,}$`)
	patShape = regexp.MustCompile(`^pat_([0-9A-Za-z]{1,40})_[0-9A-Za-z]{46,}$`)
)

// FuzzParse holds the parser to the grammar as regular expressions.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "sk_", "pat_", "sk_acme_k1_" + digits40 + "1sKkfI", "sk_acme_t1_" + digits40 + "2lv6aT", "pat_p7Qx_" + digits40 + "3TDOwO",
		"sk_acme_k1_" + digits40 + "1sKkfJ", "sk_a-b_k10_" + digits40 + "aaaaaa", "pat_versioner_io_abc", "vso_0123", "sk_acme_k1_" + digits40,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		got, err := credential.Parse(token)
		want := credential.Token{}
		if m := keyShape.FindStringSubmatch(token); m != nil {
			want = credential.Token{Kind: credential.APIKey, Account: m[1], PublicID: m[2]}
		} else if m := patShape.FindStringSubmatch(token); m != nil {
			want = credential.Token{Kind: credential.PAT, PublicID: m[1]}
		}
		switch {
		case want.Kind == 0 || len(token) > 256:
			if !errors.Is(err, credential.ErrInvalidFormat) {
				t.Errorf("Parse(%q) = %v, want ErrInvalidFormat", token, err)
			}
		case withChecksum(token[:len(token)-6]) != token:
			if !errors.Is(err, credential.ErrInvalidKey) {
				t.Errorf("Parse(%q) = %v, want ErrInvalidKey", token, err)
			}
		case err != nil || got != want:
			t.Errorf("Parse(%q) = %+v, %v; want %+v", token, got, err, want)
		}
		if strings.Contains(credential.Redact(token), digits40) {
			t.Errorf("Redact(%q) shows a secret", token)
		}
	})
}
