package keyring_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/keyring"
)

func digest(t *testing.T, value, file, dir string) credential.Digest {
	t.Helper()
	p, err := keyring.LoadPeppers(value, file, dir, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := p.Digest("x")
	return d
}

func TestThePepperIsMadeOnceAndKeptPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := digest(t, "", "", dir)
	if digest(t, "", "", dir) != first {
		t.Error("the second start has another pepper")
	}
	if digest(t, "", "", t.TempDir()) == first {
		t.Error("another directory has the same pepper")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v; want one file", entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestProcessesThatStartTogetherAgreeOnAPepper(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	got := make([]credential.Digest, 8)
	for i := range got {
		wg.Go(func() { got[i] = digest(t, "", "", dir) })
	}
	wg.Wait()
	for _, d := range got {
		if d != got[0] {
			t.Fatal("two processes have different peppers")
		}
	}
}

func TestAGivenPepperWinsOverAFileWinsOverTheDirectory(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	one, two := hex.EncodeToString(bytes.Repeat([]byte{1}, 32)), hex.EncodeToString(bytes.Repeat([]byte{2}, 32))
	if err := os.WriteFile(file, []byte(two+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	made := digest(t, "", "", dir)
	if a, b, c := digest(t, one, file, dir), digest(t, "", file, dir), digest(t, one, "", ""); a != c || a == b || b == made || a == made {
		t.Error("the wrong source was read")
	}
}

func TestAPepperThatCannotBeReadIsNeverReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pepper"), []byte("abcd"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ value, file, dir string }{{"", "", dir}, {"", "", ""}, {"short", "", dir}, {"", filepath.Join(dir, "missing"), dir}} {
		if _, err := keyring.LoadPeppers(c.value, c.file, c.dir, rand.Reader); err == nil {
			t.Errorf("%+v gave a pepper", c)
		}
	}
	if _, err := keyring.LoadPeppers("", "", t.TempDir(), strings.NewReader("little")); err == nil {
		t.Error("a pepper was made of six bytes")
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "pepper")); string(text) != "abcd" {
		t.Error("the file was replaced")
	}
}

func TestTheKeyOfSessionsIsMadeOnceBesideThePepper(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	digest(t, "", "", dir)
	ids := map[string]bool{}
	for range 2 {
		k, err := keyring.LoadSessionKeys("", "", dir, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ids[k.Public()[0].ID] = true
	}
	info, err := os.Stat(filepath.Join(dir, "session-key"))
	if err != nil || info.Mode().Perm() != 0o600 || len(ids) != 1 {
		t.Errorf("%v, %v, %d keys; want one, of mode 0600", info, err, len(ids))
	}
	given, err := keyring.LoadSessionKeys(strings.Repeat("ab", 32), "", dir, rand.Reader)
	if err != nil || ids[given.Public()[0].ID] {
		t.Errorf("the given key is not used: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "session-key"), []byte("abcd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.LoadSessionKeys("", "", dir, rand.Reader); err == nil {
		t.Error("a key that cannot be read was replaced")
	}
}
