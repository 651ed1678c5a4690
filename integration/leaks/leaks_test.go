package leaks_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

// gitleaks is the tool and its version; MIT licence.
const gitleaks = "github.com/zricethezav/gitleaks/v8@v8.30.1"

// The rules find every minted credential, however it stands in a text, and
// nothing that only begins alike. What a rule cannot know is whether the
// checksum is right; the server does, and the test of Parse holds that.
func TestTheRulesFindOurCredentialsAndNoLookAlikes(t *testing.T) {
	mint := func(kind credential.Kind, account, id string, mode event.Mode) string {
		secret, err := credential.Mint(kind, account, id, mode, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	var want []string
	var corpus strings.Builder
	for i := range 50 {
		key := mint(credential.APIKey, "acme-corp", credential.KeyID(event.Live, i+1), event.Live)
		test := mint(credential.APIKey, "a", credential.KeyID(event.Test, i+1), event.Test)
		id, err := credential.NewTokenID(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		token := mint(credential.PAT, "", id, event.Live)
		want = append(want, key, test, token)
		fmt.Fprintf(&corpus, "VERSIONER_API_KEY=%s\n{\"token\":\"%s\"}\ncurl -H 'Authorization: Bearer %s' https://ledger.example\n", key, token, test)
	}
	// Keys of other systems, identifiers, documentation and what logs show of ours.
	// The parts are put together here, so that no scanner takes this file for a leak.
	alike := []string{
		"sk_" + "live_" + "51H8x2eKZvKYlo2C0aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567890aBcDeF", "sk_" + "test_" + "4eC39HqLyjWDarjtT1zdp7dc",
		"sk-" + "proj-" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5bC7dE9fG", "github_" + "pat_" + "11ABCDEFG0aBcDeFgHiJkL_mNoPqRsTuVwXyZ0123456789aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456",
		"glpat-" + "aB3dE5fG7hJ9kL1mN3pQ", "dapi" + "0123456789abcdef0123456789abcdef", "pat_" + "words_in_a_snake_case_identifier_of_some_length_that_goes_on",
		"sk_buff_alloc_k1_and_so_on", "risk_k1_0123456789", "task_acme_k1_" + strings.Repeat("aB3", 20), "pat_token", "sk_{account}_{key_id}_{random}{checksum}",
		"sk_acme_k1_...AbCd", "pat_p7Qx_...DOwO", "sk_acme_k1_" + strings.Repeat("x", 46), "pat_p7Qx_" + strings.Repeat("0", 46), "sk_acme_k1_" + strings.Repeat("aB3", 10),
		"sk_acme_x1_" + "q3Wz8LkT5vB2nM7cX9sD4fG6hJ1pR0yU5tE3wQ8aZ2kVb7Lm",
	}
	for _, text := range alike {
		fmt.Fprintf(&corpus, "value = %q\n", text)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "corpus.txt"), []byte(corpus.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range scan(t, dir) {
		got = append(got, f.Secret)
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("what the rules find (-want +got):\n%s", d)
	}
}

type finding struct{ Secret, RuleID string }

func scan(t *testing.T, dir string) []finding {
	t.Helper()
	rules, err := filepath.Abs("../../deploy/gitleaks.toml")
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.json")
	tool := exec.CommandContext(t.Context(), "go", "run", gitleaks, "dir", "--config", rules, "--report-format", "json", "--report-path", report, "--exit-code", "0", "--no-banner", dir)
	if out, err := tool.CombinedOutput(); err != nil {
		t.Fatalf("run %s: %v\n%s", gitleaks, err, out)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var found []finding
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	return found
}
