package accounts_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/kv/memkv"
	"github.com/shipledger/shipledger/services/accounts"
)

// reporter signs as GitHub's secret scanning does.
type reporter struct {
	key       *ecdsa.PrivateKey
	id        string
	published []byte
}

func newReporter(t *testing.T) *reporter {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	published, err := json.Marshal(map[string]any{"public_keys": []any{map[string]any{"key_identifier": "key-1", "key": string(text), "is_current": true}}})
	if err != nil {
		t.Fatal(err)
	}
	return &reporter{key, "key-1", published}
}

func (r *reporter) sign(t *testing.T, body string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	raw, err := ecdsa.SignASN1(rand.Reader, r.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

type label struct {
	Hash  string `json:"token_hash"`
	Type  string `json:"token_type"`
	Label string `json:"label"`
}

// report posts a report and gives the status and the feedback.
func (p *process) report(body, id, signature string) (int, []label) {
	p.t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/leaks/github", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("GITHUB-PUBLIC-KEY-IDENTIFIER", id)
	r.Header.Set("GITHUB-PUBLIC-KEY-SIGNATURE", signature)
	w := httptest.NewRecorder()
	p.api.ServeHTTP(w, r)
	var told []label
	if w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil {
			p.t.Error(err)
		}
	}
	return w.Code, told
}

func leaking(t *testing.T, cfg accounts.LeaksConfig) (*process, eventlog.Log) {
	t.Helper()
	log, admin := founded(t)
	return newNode(t, log, memkv.New(), admin, func(c *accounts.Config) { c.Leaks = &cfg }), log
}

func TestAReportedCredentialIsRevokedAndTheReporterToldSo(t *testing.T) {
	by := newReporter(t)
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, by.published, 0o600); err != nil {
		t.Fatal(err)
	}
	p, log := leaking(t, accounts.LeaksConfig{GitHubKeys: path})
	key, other := p.create(), p.create()
	wrong := key.Secret[:len(key.Secret)-1] + "0"
	if wrong == key.Secret {
		wrong = key.Secret[:len(key.Secret)-1] + "1"
	}
	body := `[{"token":"` + key.Secret + `","type":"shipledger_api_key","url":"https://github.com/acme/site/blob/main/.env","source":"content"},` +
		`{"token":"` + wrong + `","type":"shipledger_api_key","url":"","source":"content"},{"token":"x","type":"t"}]`
	before, _ := log.Last(t.Context())
	status, told := p.report(body, by.id, by.sign(t, body))
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	want := []label{
		{hash(key.Secret), "shipledger_api_key", "true_positive"}, {hash(wrong), "shipledger_api_key", "false_positive"}, {hash("x"), "t", "false_positive"},
	}
	if d := cmp.Diff(want, told); status != http.StatusOK || d != "" {
		t.Fatalf("%d (-want +got):\n%s", status, d)
	}
	if _, err := p.ring.Verify(key.Secret); err != credential.ErrRevokedKey { //nolint:errorlint // that very value
		t.Errorf("the reported key: %v", err)
	}
	if _, err := p.ring.Verify(other.Secret); err != nil {
		t.Errorf("another key: %v", err)
	}
	held, _ := p.ring.Record(key.ID)
	if held.Leak.URL != "https://github.com/acme/site/blob/main/.env" || held.Leak.Source != "github" || !held.Leak.At.Equal(noon) {
		t.Errorf("the record says %+v", held.Leak)
	}
	for range 2 { // replayed
		if status, again := p.report(body, by.id, by.sign(t, body)); status != http.StatusOK || !cmp.Equal(want, again) {
			t.Errorf("%d %v", status, again)
		}
	}
	if last, _ := log.Last(t.Context()); last != before+1 {
		t.Errorf("%d events were stored, want 1", last-before)
	}
	for f, err := range log.Read(t.Context(), 0) {
		if err != nil || strings.Contains(string(f.Body), key.Secret[len(key.Secret)-30:]) {
			t.Errorf("frame %d holds the secret, %v", f.Seq, err)
		}
	}
}

func TestAReportThatIsNotSignedChangesNothing(t *testing.T) {
	by, stranger := newReporter(t), newReporter(t)
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, by.published, 0o600); err != nil {
		t.Fatal(err)
	}
	p, log := leaking(t, accounts.LeaksConfig{GitHubKeys: path})
	key := p.create()
	body := `[{"token":"` + key.Secret + `","type":"t","url":"u"}]`
	before, _ := log.Last(t.Context())
	good := by.sign(t, body)
	for name, c := range map[string]struct{ body, id, signature string }{
		"no signature":            {body, by.id, ""},
		"no key":                  {body, "", good},
		"an unknown key":          {body, "key-2", good},
		"another's signature":     {body, by.id, stranger.sign(t, body)},
		"of another body":         {body + " ", by.id, good},
		"no base64":               {body, by.id, "!" + good},
		"something behind it":     {body, by.id, good + "AAAA"},
		"of the hash of the hash": {body, by.id, by.sign(t, string(sha256.New().Sum([]byte(body))))},
	} {
		if status, _ := p.report(c.body, c.id, c.signature); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, status)
		}
	}
	for _, c := range []string{"{}", "[", `[{"token":7}]`} {
		if status, _ := p.report(c, by.id, by.sign(t, c)); status != http.StatusBadRequest {
			t.Errorf("%s: %d", c, status)
		}
	}
	if _, err := p.ring.Verify(key.Secret); err != nil {
		t.Error(err)
	}
	if last, _ := log.Last(t.Context()); last != before {
		t.Errorf("%d events were stored", last-before)
	}
	if log := p.logs.String(); strings.Contains(log, key.Secret) {
		t.Error("the log holds the secret")
	}
}

func TestAReportedCredentialIsOnlyMarkedWhereTheOperatorSaysSo(t *testing.T) {
	by := newReporter(t)
	published := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(by.published) }))
	defer published.Close()
	p, log := leaking(t, accounts.LeaksConfig{GitHubKeys: published.URL, Client: published.Client(), MarkOnly: true})
	key := p.create()
	body := `[{"token":"` + key.Secret + `","type":"t","url":"u"}]`
	before, _ := log.Last(t.Context())
	for range 2 {
		if status, told := p.report(body, by.id, by.sign(t, body)); status != http.StatusOK || told[0].Label != "true_positive" {
			t.Errorf("%d %v", status, told)
		}
	}
	if _, err := p.ring.Verify(key.Secret); err != nil {
		t.Error(err)
	}
	if held, _ := p.ring.Record(key.ID); held.Leak.At.IsZero() {
		t.Error("it is not marked")
	}
	if last, _ := log.Last(t.Context()); last != before+1 {
		t.Errorf("%d events were stored, want 1", last-before)
	}
}

func TestWithoutKeysNoReportIsTaken(t *testing.T) {
	log, admin := founded(t)
	p := newProcess(t, log, admin)
	if status, _ := p.report("[]", "key-1", "x"); status != http.StatusNotFound {
		t.Errorf("%d", status)
	}
	p, _ = leaking(t, accounts.LeaksConfig{GitHubKeys: filepath.Join(t.TempDir(), "missing")})
	if status, _ := p.report("[]", "key-1", "AAAA"); status != http.StatusServiceUnavailable {
		t.Errorf("%d", status)
	}
}
