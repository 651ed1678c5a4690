package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/logarchive"
	"github.com/shipledger/shipledger/services/cli"
)

// runLog gives what `shipledger log …` prints for these arguments.
func runLog(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, errOut, err := shipledger(t, append([]string{"log"}, args...)...)
	return out + errOut, err
}

// exporting serves the log of a small ledger, changed by damage.
func exporting(t *testing.T, damage func([]byte) []byte) (url, key string) {
	t.Helper()
	log := memlog.New()
	for i := range uint64(5) {
		body := fmt.Appendf(nil, `[{"id":"E%d"}]`, i+1)
		if _, err := log.AppendFrame(t.Context(), eventlog.Frame{ID: fmt.Sprint(i), Body: body}, i); err != nil {
			t.Fatal(err)
		}
	}
	signer, err := logarchive.NewSigner(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/log/export" || r.Header.Get("Authorization") != "Bearer "+adminToken {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		var file bytes.Buffer
		if _, err := logarchive.Write(r.Context(), &file, []logarchive.Source{{Stream: "t0", Log: log}}, logarchive.Options{Signer: signer}); err != nil {
			t.Error(err)
		}
		_, _ = w.Write(damage(file.Bytes())) // the client may be gone
	}))
	t.Cleanup(srv.Close)
	return srv.URL, signer.PublicKey().String()
}

func whole(b []byte) []byte { return b }

func TestALogIsExportedVerifiedAndProved(t *testing.T) {
	url, key := exporting(t, whole)
	t.Setenv("SHIPLEDGER_TOKEN", adminToken)
	file, proof := filepath.Join(t.TempDir(), "log.jsonl.zst"), filepath.Join(t.TempDir(), "proof.json")
	if out, err := runLog(t, "export", "-o", file, "--url", url); err != nil || !strings.Contains(out, key) {
		t.Fatal(out, err)
	}
	if out, err := runLog(t, "verify", file, "--key", key); err != nil || !strings.Contains(out, "signed with the key that was given") {
		t.Error(out, err)
	}
	if out, err := runLog(t, "prove", file, "E3", "-o", proof); err != nil {
		t.Fatal(out, err)
	}
	if out, err := runLog(t, "verify", proof, "--proof", "--key", key); err != nil || !strings.Contains(out, "t0.3.0") {
		t.Error(out, err)
	}
	if _, err := runLog(t, "prove", file, "E9"); !errors.Is(err, logarchive.ErrNotInArchive) {
		t.Errorf("got %v", err)
	}
}

func TestVerifyNamesTheFrameAndFails(t *testing.T) {
	url, key := exporting(t, whole)
	file := filepath.Join(t.TempDir(), "log.jsonl")
	if out, err := runLog(t, "export", "-o", file, "--url", url, "--token", adminToken, "--json"); err != nil {
		t.Fatal(out, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte(`"E4"`), []byte(`"E5"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runLog(t, "verify", file, "--key", key)
	if !errors.Is(err, cli.ErrNotSound) || !strings.Contains(out, "frame t0.4 (line 5)") {
		t.Error(out, err)
	}
}

func TestAnExportThatIsNotWholeLeavesNoFile(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut off": func(b []byte) []byte { return b[:len(b)/2] },
		"damaged": func(b []byte) []byte { return bytes.Replace(b, []byte(`"E2"`), []byte(`"E1"`), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := exporting(t, damage)
			dir := t.TempDir()
			_, err := runLog(t, "export", "-o", filepath.Join(dir, "log.jsonl"), "--url", url, "--token", adminToken)
			if err == nil || !strings.Contains(err.Error(), "frame t0.") {
				t.Errorf("got %v", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}
