package credential_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/credential"
)

// Rows: VR-34
func TestLogsShowAtMostKindAccountIDAndLastFour(t *testing.T) {
	key, pat := "sk_acme_k1_"+digits40+"1sKkfI", "pat_p7Qx_"+digits40+"3TDOwO"
	for token, want := range map[string]string{
		key:                        "sk_acme_k1_...KkfI",
		pat:                        "pat_p7Qx_...DOwO",
		key[:20]:                   "sk_...",
		pat + "!":                  "pat_...",
		"some other secret":        "...",
		"":                         "...",
		"vso_" + digits40:          "...",
		"Bearer " + key:            "...",
		key[:len(key)-1] + "X":     "sk_acme_k1_...KkfX", // a mistyped one is a secret all the same
		"eyJhbGciOiJFZERTQSJ9.e.s": "...",
	} {
		if got := credential.Redact(token); got != want {
			t.Errorf("Redact(%q) = %q, want %q", token, got, want)
		}
	}
}

// Rows: VR-34
func TestCredentialsInsideDocumentsAreRedacted(t *testing.T) {
	key, pat := "sk_acme_k1_"+digits40+"1sKkfI", "pat_p7Qx_"+digits40+"3TDOwO"
	const shownKey, shownPAT = "sk_k1_...KkfI", "pat_p7Qx_...DOwO"
	for _, c := range []struct{ name, body, want string }{
		{"value", `{"a":"` + key + `"}`, `{"a":"` + shownKey + `"}`},
		{"member name", `{"` + pat + `":1}`, `{"` + shownPAT + `":1}`},
		{"within text", `["curl -H 'Authorization: Bearer ` + key + `' and ` + pat + `."]`, `["curl -H 'Authorization: Bearer ` + shownKey + `' and ` + shownPAT + `."]`},
		{"glued to text", `["ta` + key + `xyz"]`, `["ta` + shownKey + `xyz"]`},
		{"after an escape", `["\n` + key + `\n` + key + `"]`, `["\n` + shownKey + `\n` + shownKey + `"]`},
		{"prefix before it", `["sk_pat_sk_` + key + `"]`, `["sk_pat_sk_` + shownKey + `"]`},
		{"twice", `["` + key + key + `"]`, `["` + shownKey + shownKey + `"]`},
		{"escaped characters", `["\u0073k\u005Facme_k1_` + digits40 + `1sKkf\u0049"]`, `["` + shownKey + `"]`},
		{"escaped backslash stays", `["\\u0073` + key + `"]`, `["\\u0073` + shownKey + `"]`},
		{"one overlapping the last one's end", `["` + overlapping() + `"]`, ``},
		{"nothing", `{"product_name":"task_risk_disk_pat_"}`, `{"product_name":"task_risk_disk_pat_"}`},
		{"escapes and nothing", `{"a":"\u0041\u005f"}`, `{"a":"\u0041\u005f"}`},
		{"wrong checksum", `["` + key[:len(key)-1] + `J"]`, `["` + key[:len(key)-1] + `J"]`},
		{"cut off", `["` + key[:50], `["` + key[:50]},
		{"empty", ``, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := string(credential.RedactIn([]byte(c.body)))
			if c.want != "" && got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if found := findSecret(got); found != "" {
				t.Errorf("%s still holds %s", got, found)
			}
		})
	}
}

// overlapping gives two credentials of which the first one's last characters
// are the second one's first.
func overlapping() string {
	for i := range 100_000 { // one in 3844 will do
		first := withChecksum(fmt.Sprintf("pat_x_%040d", i))
		if strings.HasSuffix(first, "sk") {
			return first + withChecksum("sk_acme_k1_" + digits40)[2:]
		}
	}
	panic("no checksum ends in sk")
}

var maybeSecret = regexp.MustCompile(`(sk_[a-z0-9-]{1,40}_[kt][0-9]+|pat_[0-9A-Za-z]+)_[0-9A-Za-z]{46,}`)

// findSecret looks for what verifies, slowly and in another way.
func findSecret(text string) string {
	for from := range text {
		m := maybeSecret.FindString(text[from:])
		for end := range len(m) + 1 {
			if _, err := credential.Parse(m[:end]); err == nil {
				return m[:end]
			}
		}
		if m == "" {
			return ""
		}
	}
	return ""
}

func TestNothingThatVerifiesIsLeftInADocument(t *testing.T) {
	secrets := []string{"sk_acme_k1_" + digits40 + "1sKkfI", "pat_p7Qx_" + digits40 + "3TDOwO", withChecksum("sk_a_t9_" + digits40 + "abcsk")}
	pieces := append([]string{"_", "sk", "pat_", "sk_", "a", " ", "-", "é", `"`, `\`, "\n", "k1_", digits40, "_acme_k1_"}, secrets...)
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 12).Draw(t, "pieces"), "")
		body, err := json.Marshal(map[string]string{"note": text})
		if err != nil {
			t.Fatal(err)
		}
		got := credential.RedactIn(bytes.Clone(body))
		var back map[string]string
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatalf("%s is no JSON any more: %v", got, err)
		}
		if found := findSecret(back["note"]); found != "" {
			t.Fatalf("%s still holds %s", got, found)
		}
		if findSecret(text) == "" && !bytes.Equal(got, body) {
			t.Fatalf("%s was changed to %s without a reason", body, got)
		}
		if again := credential.RedactIn(got); !bytes.Equal(again, got) {
			t.Fatalf("redacting twice differs: %s, %s", got, again)
		}
	})
}

func BenchmarkRedactInWithoutSecrets(b *testing.B) {
	body := []byte(`{"product_name":"checkout-service","version":"2.41.7","environment_name":"production","status":"success",` +
		`"scm_sha":"4f2a9c1e5b7d3f6a8c0e2b4d6f8a0c2e4b6d8f0a","scm_branch":"main","scm_repository":"acme/checkout-service","build_number":"4711",` +
		`"deploy_url":"https://ci.example.com/acme/checkout-service/actions/runs/9911223344","invoke_id":"9911223344","deployed_by":"ci",` +
		`"deployed_by_email":"ci@example.com","extra_metadata":{"vi_gh_workflow":"deploy","vi_gh_job":"task_runner","region":"eu-west-1"}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		credential.RedactIn(body)
	}
}
