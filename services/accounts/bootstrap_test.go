package accounts_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/argon2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/services/accounts"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newPeppers(t testing.TB, b byte) *credential.Peppers {
	t.Helper()
	p, err := credential.NewPeppers(map[int][]byte{1: bytes.Repeat([]byte{b}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func config(dir string) accounts.BootstrapConfig {
	return accounts.BootstrapConfig{DataDir: dir, Account: "acme", AdminEmail: "ops@acme.example", URL: "http://127.0.0.1:8080"}
}

// start is one start of a process.
func start(t testing.TB, dir string, log eventlog.Log) (accounts.Bootstrapped, error) {
	return accounts.Bootstrap(t.Context(), config(dir), log, newPeppers(t, 1), func() time.Time { return noon }, rand.Reader)
}

func mustStart(t testing.TB, dir string, log eventlog.Log) accounts.Bootstrapped {
	t.Helper()
	done, err := start(t, dir, log)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

const fileName = "bootstrap-credentials.json"

func readFile(t testing.TB, dir string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func frames(t testing.TB, log eventlog.Reader) []eventlog.Recorded {
	t.Helper()
	var out []eventlog.Recorded
	for f, err := range log.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

// checkWorks folds the log and uses the secrets of the file.
func checkWorks(t testing.TB, dir string, log eventlog.Reader) {
	t.Helper()
	file := readFile(t, dir)
	keys := credential.NewKeyring(newPeppers(t, 1))
	var user *credential.User
	all := frames(t, log)
	if len(all) != 5 {
		t.Errorf("%d events, want 5", len(all))
	}
	for _, f := range all {
		e, err := event.DecodeEvent(event.Position{Stream: event.CredentialStream, Offset: event.At(f.Seq, 0)}, f.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Apply(e); err != nil {
			t.Fatal(err)
		}
		if e.ID.String() != f.ID || f.ContentType != credential.ContentType {
			t.Errorf("frame %s of type %q holds event %s", f.ID, f.ContentType, e.ID)
		}
		if state, _ := credential.Decode(&e.Event); e.Type == credential.UserJoined {
			user = state.(*credential.User)
		}
	}
	if user == nil {
		t.Fatal("nobody joined")
	}
	expires := noon.AddDate(1, 0, 0)
	key := credential.Identity{
		Kind: credential.APIKey, Account: "acme", RecordID: file["api_key_id"], PublicID: "k1", Name: "first key",
		Mode: event.Live, Scopes: credential.EventsWrite, ExpiresAt: expires,
	}
	pat := credential.Identity{
		Kind: credential.PAT, Account: "acme", RecordID: file["pat_id"], PublicID: publicID(file["pat"]), Name: "first token",
		Mode: event.Live, Scopes: credential.Read, UserID: user.ID, Role: "admin", ExpiresAt: expires,
	}
	admin := pat
	admin.PublicID, admin.Name, admin.Scopes, admin.FirstStart = publicID(file["admin_pat"]), "first admin token", credential.RoleScopes("admin"), true
	for field, want := range map[string]credential.Identity{"api_key": key, "pat": pat, "admin_pat": admin} {
		got, err := keys.Verify(file[field], expires.Add(-time.Second))
		if err != nil {
			t.Errorf("%s: %v", field, err)
			continue
		}
		if field == "admin_pat" {
			want.RecordID = got.RecordID // which the file does not tell
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", field, diff)
		}
		if _, err := keys.Verify(file[field], expires); !errors.Is(err, credential.ErrExpiredKey) {
			t.Errorf("%s a year later: %v", field, err)
		}
	}
	if user.Role != "admin" || user.Email != "ops@acme.example" || !opens(t, user.PasswordHash, file["admin_password"]) || opens(t, user.PasswordHash, "x") {
		t.Errorf("the admin %+v does not sign in with the password", *user)
	}
	if diff := cmp.Diff([]string{fileName}, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func publicID(pat string) string { return strings.Split(pat, "_")[1] }

// opens checks a password against a PHC string, by what the string says.
func opens(t testing.TB, phc, password string) bool {
	t.Helper()
	var version, memory, time uint32
	var threads uint8
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		t.Fatalf("%q is no PHC string of argon2id", phc)
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &time, &threads); err != nil || version != argon2.Version {
		t.Fatalf("%q: %v", phc, err)
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	key, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err := errors.Join(err1, err2); err != nil || len(salt) < 16 || len(key) < 32 {
		t.Fatalf("%q: %v", phc, err)
	}
	return bytes.Equal(key, argon2.IDKey([]byte(password), salt, time, memory, threads, uint32(len(key))))
}

func TestTheFirstStartMakesAWorkingSet(t *testing.T) {
	dir, log := filepath.Join(t.TempDir(), "data"), memlog.New()
	want := accounts.Bootstrapped{Created: true, File: filepath.Join(dir, fileName)}
	if got := mustStart(t, dir, log); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	checkWorks(t, dir, log)

	file := readFile(t, dir)
	fields := []string{"account", "admin_email", "admin_password", "api_key", "api_key_id", "pat", "pat_id", "admin_pat", "url"}
	for _, f := range fields {
		if file[f] == "" {
			t.Errorf("field %s is missing", f)
		}
	}
	if len(file) != len(fields) || file["account"] != "acme" || file["admin_email"] != "ops@acme.example" || file["url"] != "http://127.0.0.1:8080" {
		t.Errorf("the file has %d fields, of account %q, e-mail %q, url %q", len(file), file["account"], file["admin_email"], file["url"])
	}
	info, err := os.Stat(want.File)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestEachEventStandsOnItsSubject(t *testing.T) {
	dir, log := t.TempDir(), memlog.New()
	mustStart(t, dir, log)
	file := readFile(t, dir)
	var got []string
	for _, f := range frames(t, log) {
		got = append(got, f.Subject)
	}
	want := []string{
		"cred.acme.account.acme", got[1], "cred.acme.sk.k1", "cred.acme.pat." + publicID(file["pat"]), "cred.acme.pat." + publicID(file["admin_pat"]),
	}
	if diff := cmp.Diff(want, got); diff != "" || !strings.HasPrefix(got[1], "cred.acme.user.") {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
}

func TestALaterStartChangesNothing(t *testing.T) {
	dir, log := t.TempDir(), memlog.New()
	mustStart(t, dir, log)
	before := readFile(t, dir)
	if got, want := mustStart(t, dir, log), (accounts.Bootstrapped{File: filepath.Join(dir, fileName)}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if diff := cmp.Diff(before, readFile(t, dir)); diff != "" {
		t.Error("the file changed")
	}
	checkWorks(t, dir, log)

	elsewhere := t.TempDir()
	if got := mustStart(t, elsewhere, log); got != (accounts.Bootstrapped{}) || len(names(t, elsewhere)) != 0 {
		t.Errorf("%+v, files %v; want none", got, names(t, elsewhere))
	}
}

func TestDefaultsMakeTheMainAccount(t *testing.T) {
	dir := t.TempDir()
	_, err := accounts.Bootstrap(t.Context(), accounts.BootstrapConfig{DataDir: dir}, memlog.New(), newPeppers(t, 1), time.Now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if file := readFile(t, dir); file["account"] != "main" || file["admin_email"] != "admin@localhost" || !strings.HasPrefix(file["api_key"], "sk_main_k1_") {
		t.Errorf("account %q, e-mail %q", file["account"], file["admin_email"])
	}
}

func TestABadAccountLeavesNothingBehind(t *testing.T) {
	dir, log := t.TempDir(), memlog.New()
	cfg := config(dir)
	cfg.Account = "Acme Ltd"
	if _, err := accounts.Bootstrap(t.Context(), cfg, log, newPeppers(t, 1), time.Now, rand.Reader); err == nil {
		t.Error("made an account that no key can name")
	}
	if _, err := accounts.Bootstrap(t.Context(), config(dir), log, newPeppers(t, 1), time.Now, strings.NewReader("few bytes")); err == nil {
		t.Error("made secrets of nine bytes")
	}
	if len(names(t, dir)) != 0 || len(frames(t, log)) != 0 {
		t.Errorf("files %v, %d events", names(t, dir), len(frames(t, log)))
	}
}

// Rows: VF-06
func TestNoSecretIsInTheLog(t *testing.T) {
	dir, log := t.TempDir(), memlog.New()
	mustStart(t, dir, log)
	file := readFile(t, dir)
	for _, f := range frames(t, log) {
		for _, secret := range []string{file["admin_password"], random(file["api_key"]), random(file["pat"]), random(file["admin_pat"])} {
			for i := range len(secret) - 8 {
				if bytes.Contains(f.Body, []byte(secret[i:i+8])) {
					t.Fatalf("%s holds part of a secret", f.Subject)
				}
			}
		}
	}
}

func random(token string) string { return token[strings.LastIndexByte(token, '_')+1:] }

// dying is a log whose process dies at its n-th append, before or after the
// frame is stored.
type dying struct {
	eventlog.Log
	at    int
	after bool
	err   error
	n     int
}

var errKilled = errors.New("killed")

func (d *dying) AppendFrame(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	return d.append(func() (uint64, error) { return d.Log.AppendFrame(ctx, f, after) })
}

func (d *dying) AppendToSubject(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	return d.append(func() (uint64, error) { return d.Log.AppendToSubject(ctx, f, after) })
}

func (d *dying) append(do func() (uint64, error)) (uint64, error) {
	if d.n++; d.n != d.at {
		return do()
	}
	if d.after {
		if _, err := do(); err != nil {
			return 0, err
		}
	}
	return 0, d.err
}

// forgetful answers a repeated frame as a server on one replica does.
type forgetful struct{ eventlog.Log }

func (l forgetful) AppendFrame(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	if last, err := l.Last(ctx); err != nil || last != after {
		return 0, fmt.Errorf("%w: %w", eventlog.ErrConflict, errors.Join(err))
	}
	return l.Log.AppendFrame(ctx, f, after)
}

func (l forgetful) AppendToSubject(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	for r, err := range l.Read(ctx, 0) {
		if err != nil || r.Subject == f.Subject && after == 0 {
			return 0, eventlog.ErrConflict
		}
	}
	return l.Log.AppendToSubject(ctx, f, after)
}

func TestAStartThatDiedAtAnyEventIsResumedWithTheSameSecrets(t *testing.T) {
	for at := 1; at <= 5; at++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("event %d, stored %v", at, after), func(t *testing.T) {
				dir, log := t.TempDir(), forgetful{memlog.New()}
				if _, err := start(t, dir, &dying{Log: log, at: at, after: after, err: errKilled}); !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				pending := names(t, dir)
				if diff := cmp.Diff([]string{fileName + ".pending"}, pending); diff != "" {
					t.Fatalf("files (-want +got):\n%s", diff)
				}
				if info, err := os.Stat(filepath.Join(dir, pending[0])); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
				}
				planned, err := os.ReadFile(filepath.Join(dir, pending[0]))
				if err != nil {
					t.Fatal(err)
				}
				if got := mustStart(t, dir, log); !got.Created {
					t.Errorf("%+v", got)
				}
				checkWorks(t, dir, log)
				if key := readFile(t, dir)["api_key"]; !bytes.Contains(planned, []byte(key)) {
					t.Error("the key is another one than planned")
				}
			})
		}
	}
}

func TestAStartThatDiedBetweenTheTwoFilesIsResumed(t *testing.T) {
	dir, log := t.TempDir(), memlog.New()
	if _, err := start(t, dir, &dying{Log: log, at: 1, err: errKilled}); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	plan, err := os.ReadFile(filepath.Join(dir, fileName+".pending"))
	if err != nil {
		t.Fatal(err)
	}
	mustStart(t, dir, log)
	before := readFile(t, dir)
	if err := os.WriteFile(filepath.Join(dir, fileName+".pending"), plan, 0o600); err != nil { // as if it had not been removed
		t.Fatal(err)
	}
	mustStart(t, dir, log)
	if diff := cmp.Diff(before, readFile(t, dir)); diff != "" {
		t.Error("the file changed")
	}
	checkWorks(t, dir, log)
}

func TestALogThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	for at := 1; at <= 5; at++ {
		for _, after := range []bool{false, true} {
			dir, log := t.TempDir(), forgetful{memlog.New()}
			mustStart(t, dir, &dying{Log: log, at: at, after: after, err: eventlog.ErrAmbiguous})
			checkWorks(t, dir, log)
		}
	}
}

func TestOneOfSeveralProcessesWins(t *testing.T) {
	log := memlog.New()
	var wg sync.WaitGroup
	dirs, got := make([]string, 6), make([]accounts.Bootstrapped, 6)
	for i := range dirs {
		dirs[i] = t.TempDir()
		wg.Go(func() {
			var err error
			if got[i], err = start(t, dirs[i], log); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	winners := 0
	for i, dir := range dirs {
		if got[i].Created {
			winners++
			checkWorks(t, dir, log)
		} else if left := names(t, dir); len(left) != 0 {
			t.Errorf("a loser left %v", left)
		}
	}
	if winners != 1 {
		t.Errorf("%d winners", winners)
	}
}

func TestProcessesInOneDirectoryAgree(t *testing.T) {
	for range 10 {
		dir, log := t.TempDir(), memlog.New()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				got, err := start(t, dir, log)
				if err != nil || got.File == "" {
					t.Errorf("%+v, %v", got, err)
				}
			})
		}
		wg.Wait()
		checkWorks(t, dir, log)
	}
}

func TestAResumedStartThatLostMeanwhileForgetsItsPlan(t *testing.T) {
	log, dead, alive := memlog.New(), t.TempDir(), t.TempDir()
	if _, err := start(t, dead, &dying{Log: log, at: 1, err: errKilled}); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	mustStart(t, alive, log)
	if got := mustStart(t, dead, log); got != (accounts.Bootstrapped{}) || len(names(t, dead)) != 0 {
		t.Errorf("%+v, files %v", got, names(t, dead))
	}
	checkWorks(t, alive, log)
}

func TestAPepperThatChangedInTheMiddleIsNoticed(t *testing.T) {
	dir, log := t.TempDir(), memlog.New()
	if _, err := start(t, dir, &dying{Log: log, at: 3, err: errKilled}); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	_, err := accounts.Bootstrap(t.Context(), config(dir), log, newPeppers(t, 2), func() time.Time { return noon }, rand.Reader)
	if err == nil || !strings.Contains(err.Error(), "pepper") {
		t.Errorf("err = %v", err)
	}
	mustStart(t, dir, log) // the right one still works
	checkWorks(t, dir, log)
}

func TestABrokenPlanIsNeverOverwritten(t *testing.T) {
	dir, log := t.TempDir(), memlog.New()
	pending := filepath.Join(dir, fileName+".pending")
	if err := os.WriteFile(pending, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := start(t, dir, log); err == nil {
		t.Error("started anew")
	}
	if text, _ := os.ReadFile(pending); string(text) != "{" || len(frames(t, log)) != 0 {
		t.Error("the plan was overwritten")
	}
}
