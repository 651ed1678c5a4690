package cli_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/tlsfiles"
	"github.com/shipledger/shipledger/pkg/tlsfiles/tlsfilestest"
)

// accounts runs `shipledger accounts` with these arguments.
func accounts(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	out, _, err := shipledger(t, append([]string{"accounts"}, args...)...)
	return out, err
}

// A server of https:// is believed by the authority that is named, and shown the
// certificate that it asks for.
func TestACommandBelievesTheAuthorityThatIsNamed(t *testing.T) {
	authority, err := tlsfilestest.New(t.TempDir(), "authority")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := authority.Issue("both", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	files, err := tlsfiles.Open(tlsfiles.Config{Cert: cert, Key: key, Clients: authority.File}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "{}")
	}))
	server.TLS, server.Config.ErrorLog = files.Server(), slog.NewLogLogger(slog.DiscardHandler, slog.LevelWarn)
	server.StartTLS()
	defer server.Close()
	t.Setenv("SHIPLEDGER_URL", server.URL)
	t.Setenv("SHIPLEDGER_TOKEN", "pat_x")
	create := func() error {
		_, err := accounts(t, "create", "fresh", "--admin-email", "a@b", "--out", filepath.Join(t.TempDir(), "out"))
		return err
	}
	if create() == nil {
		t.Error("a server was believed that nobody knows")
	}
	t.Setenv("SHIPLEDGER_TLS_CA", authority.File)
	if create() == nil {
		t.Error("who shows no certificate was answered")
	}
	t.Setenv("SHIPLEDGER_TLS_CERT", cert)
	t.Setenv("SHIPLEDGER_TLS_KEY", key)
	if err := create(); err != nil {
		t.Error(err)
	}
}

func TestAnAccountIsMadeAndItsSecretsGoIntoAFileOfItsOwn(t *testing.T) {
	status, answer := http.StatusCreated, `{"account":"fresh","admin_password":"s3cret","url":"http://x"}`
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.URL.Path != "/accounts/" || r.Header.Get("Authorization") != "Bearer pat_x" || !strings.Contains(string(body), `"admin_email":"a@b"`) {
			t.Errorf("%s %s %s", r.Method, r.URL, body)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	t.Setenv("SHIPLEDGER_URL", server.URL)
	t.Setenv("SHIPLEDGER_TOKEN", "pat_x")
	path := filepath.Join(t.TempDir(), "fresh.json")
	out, err := accounts(t, "create", "fresh", "--admin-email", "a@b", "--out", path)
	if err != nil || !strings.Contains(out, path) || strings.Contains(out, "s3cret") {
		t.Errorf("%q, %v", out, err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "s3cret") {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := accounts(t, "create", "fresh", "--admin-email", "a@b", "--out", path); err == nil || asked != 1 {
		t.Errorf("a file that is there is written over: %v, %d calls", err, asked)
	}
	second := path + ".2"
	if out, err := accounts(t, "create", "fresh", "--admin-email", "a@b", "--out", second, "--json"); err != nil || !strings.Contains(out, `"file":`) || strings.Contains(out, "s3cret") {
		t.Errorf("%q, %v", out, err)
	}
	status, answer = http.StatusConflict, `{"detail":{"code":"NAME_IN_USE"},"error":"conflict","message":"An account of this name exists.","code":"NAME_IN_USE"}`
	third := path + ".3"
	if _, err := accounts(t, "create", "fresh", "--admin-email", "a@b", "--out", third); err == nil || !strings.Contains(err.Error(), "An account of this name exists.") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(third); !os.IsNotExist(err) {
		t.Errorf("a file is left where no account was made: %v", err)
	}
	t.Setenv("SHIPLEDGER_TOKEN", "")
	if _, err := accounts(t, "create", "fresh", "--admin-email", "a@b", "--out", third); err == nil {
		t.Error("without a token somebody is asked")
	}
}
