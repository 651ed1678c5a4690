package replay_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/logarchive"
	"github.com/shipledger/shipledger/services/all"
)

// tenant is an account of a system, asked with credentials of its own.
type tenant struct {
	system
	account     string
	stream      string // of its partition
	first, last int    // its events are numbered so; nobody else's are
}

// tenants makes accounts until every partition has one and one has two, each with n
// events of its own.
func (s *system) tenants(partitions, n int) []*tenant {
	s.t.Helper()
	own := &tenant{system: *s, account: account, stream: event.TrackStream(event.PartitionOf(account, partitions))}
	out, lived := []*tenant{own}, map[string]int{own.stream: 1}
	for i := 0; len(lived) < partitions || len(out) <= partitions; i++ {
		name := fmt.Sprintf("team-%d", i)
		stream := event.TrackStream(event.PartitionOf(name, partitions))
		if lived[stream] > 0 && len(out)-len(lived) > 0 {
			continue
		}
		var made struct {
			APIKey   string `json:"api_key"`
			PAT      string `json:"pat"`
			AdminPAT string `json:"admin_pat"`
		}
		order := fmt.Sprintf(`{"account":%q,"name":%q,"admin_email":"a@%s.example"}`, name, name, name)
		if code, raw := s.ask(http.MethodPost, "/accounts/", s.admin, order, &made); code != http.StatusCreated {
			s.t.Fatalf("%d %s", code, raw)
		}
		t := &tenant{system: *s, account: name, stream: stream}
		t.key, t.pat, t.admin = made.APIKey, made.PAT, made.AdminPAT
		out, lived[stream] = append(out, t), lived[stream]+1
	}
	for i, t := range out {
		t.first = 10_000 * (i + 1)
		t.writes(n + i) // another number of each
		if i < 2 || i == len(out)-1 {
			for range 420 { // so many frames that a rebuild reads them in turns
				t.writes(1)
			}
		}
	}
	return out
}

// writes stores n events more of a tenant.
func (t *tenant) writes(n int) {
	t.t.Helper()
	from := max(t.first, t.last+1)
	t.post(from, n)
	t.last = from + n - 1
	if !strings.HasPrefix(t.position, t.stream+".") {
		t.t.Errorf("%s writes at %s, want its partition %s", t.account, t.position, t.stream)
	}
}

var numbered = regexp.MustCompile(`"version":"1\.([0-9]+)"`)

// sees gives what every tenant is answered, and looks that none sees another's.
func sees(tenants []*tenant) map[string]map[string]any {
	out := map[string]map[string]any{}
	for _, t := range tenants {
		out[t.account] = t.answers()
		text, err := json.Marshal(out[t.account])
		if err != nil {
			t.t.Fatal(err)
		}
		found := numbered.FindAllSubmatch(text, -1)
		for _, m := range found {
			if n, _ := strconv.Atoi(string(m[1])); n < t.first || n > t.last { // the pattern takes digits only
				t.t.Errorf("%s sees version 1.%d; its own are %d to %d", t.account, n, t.first, t.last)
				break
			}
		}
		if len(found) == 0 {
			t.t.Errorf("%s sees nothing", t.account)
		}
	}
	return out
}

// The whole of it on a log of four partitions, with accounts in every one: whatever is
// restarted, rebuilt, switched, restored, each account is answered the same, from its
// own partition, behind its own writes.
func TestALogOfSeveralPartitionsIsOneLedger(t *testing.T) {
	const partitions = 4
	s := startPartitions(t, partitions)
	tenants := s.tenants(partitions, 120)
	moved := func() { // to where the system is now
		for _, x := range tenants {
			x.url = s.url
		}
	}
	before := sees(tenants)
	same := func(when string) {
		t.Helper()
		if diff := cmp.Diff(before, sees(tenants)); diff != "" {
			t.Errorf("%s other things are answered (-before +after): %.4000s", when, diff)
		}
	}
	for i, x := range tenants {
		var page struct {
			AsOf struct{ Position string } `json:"as_of"`
		}
		x.ask(http.MethodGet, "/deployments/?min_position="+x.position, x.pat, "", &page)
		if !strings.HasPrefix(page.AsOf.Position, x.stream+".") || strings.Contains(page.AsOf.Position, ",") {
			t.Errorf("%s is answered as of %s", x.account, page.AsOf.Position)
		}
		for _, other := range tenants[i+1:] {
			if other.stream == x.stream {
				continue
			}
			if code, raw := x.ask(http.MethodGet, "/matrix?min_position="+other.position, x.pat, "", nil); code != http.StatusUnprocessableEntity {
				t.Errorf("%s waits for %s: %d %s", x.account, other.position, code, raw)
			}
		}
	}

	s.stop()
	s.partitions = 0 // what the log says is learned from it
	s.start()
	moved()
	same("after a restart")

	id := s.replayed(`{}`, "ready")
	var c certificate
	if s.ask(http.MethodGet, "/replays/"+id+"/certificate", s.pat, "", &c); c.Verdict != "equal" || c.Events < 5*120 {
		t.Errorf("%+v", c)
	}
	same("beside a replay")
	s.did(id, "switch")
	same("after the switch")
	for i := range partitions {
		var one struct{ Verdict string }
		checked := s.replayed(fmt.Sprintf(`{"from":"t%d.1.0"}`, i), "ready")
		if s.ask(http.MethodGet, "/replays/"+checked+"/certificate", s.pat, "", &one); one.Verdict != "equal" {
			t.Errorf("partition %d alone is %s", i, one.Verdict)
		}
	}

	s.archive("monday.jsonl")
	for _, x := range tenants[:3] { // what the snapshot does not hold
		x.writes(50)
	}
	before = sees(tenants)
	s.replayed(`{"snapshot":"monday.jsonl","switch":"when_equal"}`, "switched")
	same("after a replay from a snapshot")

	snapshot := s.archive("tuesday.jsonl")
	s.stop()
	s.restored(snapshot, partitions)
	s.start()
	moved()
	same("after the log was restored")

	s.stop()
	if err := s.refusesToStart(2); err == nil || !strings.Contains(err.Error(), "SHIPLEDGER_PARTITIONS") || !strings.Contains(err.Error(), "4") {
		t.Errorf("with another number it starts: %v", err)
	}
}

// archive exports the log into the folder of snapshots.
func (s *system) archive(name string) string {
	s.t.Helper()
	code, archive := s.ask(http.MethodGet, "/log/export", s.admin, "", nil)
	if code != http.StatusOK {
		s.t.Fatalf("%d %.300s", code, archive)
	}
	found, err := logarchive.Scan(bytes.NewReader(archive), logarchive.Expect{}, nil)
	if err != nil || !found.OK() || len(found.Signed) != len(found.Streams) {
		s.t.Errorf("the log is not sound: %+v, %v", found, err)
	}
	file := filepath.Join(s.snapshots, name)
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// restored makes a new data directory of an archive, with the secrets of the old one.
func (s *system) restored(archive string, partitions int) {
	s.t.Helper()
	to := s.t.TempDir()
	secrets, err := os.ReadDir(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range secrets {
		if !e.Type().IsRegular() {
			continue
		}
		text, err := fs.ReadFile(os.DirFS(s.dir), e.Name())
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), text, 0o600)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	open := func() (io.ReadCloser, error) { return logarchive.Open(archive) }
	result, err := all.Restore(s.t.Context(), all.Config{Data: to, NATSReplicas: 1}, open, logarchive.Expect{}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range partitions {
		if !slices.ContainsFunc(result.Streams, func(e logarchive.End) bool { return e.Stream == event.TrackStream(i) && e.Frames > 0 }) {
			s.t.Errorf("partition %d is not restored: %+v", i, result.Streams)
		}
	}
	s.dir = to
}

// refusesToStart starts the system with another number of partitions.
func (s *system) refusesToStart(partitions int) error {
	system, err := all.New(all.Config{
		Data: s.dir, Addr: "127.0.0.1:0", Account: account, NATSReplicas: 1, Partitions: partitions, Version: "test", RateLimit: "off",
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	stop, err := lifecycle.Start(s.t.Context(), system)
	if err != nil {
		return err
	}
	return stop()
}
