package history_test

import (
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/logarchive"
	"github.com/shipledger/shipledger/services/all"
	"github.com/shipledger/shipledger/services/cli"
)

// lists are what a client can walk of a ledger.
var lists = []string{"/deployments/", "/builds/", "/products/", "/environments/", "/versions/", "/releases/", "/matrix", "/events/"}

// Issue 5: a snapshot of the log in a file is enough. Restored into an empty data
// directory, the next start makes the read model of it, and every list is as it was.
func TestEveryAnswerComesBackFromASnapshotOfTheLog(t *testing.T) {
	const events = 5000
	from := t.TempDir()
	s := start(t, from)
	sum := s.load(firstOf(events, cli.DemoHistory(1, time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC))))
	if sum.Accepted != events {
		t.Fatalf("accepted %d of %d", sum.Accepted, events)
	}
	before := s.everything(sum.Position)
	snapshot := filepath.Join(t.TempDir(), "log")
	s.export(snapshot)
	s.stop()

	to := t.TempDir()
	secrets, err := os.ReadDir(from) // what an operator copies by hand
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range secrets {
		if !e.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func() (io.ReadCloser, error) { return logarchive.Open(snapshot) }
	if _, err := all.Restore(t.Context(), all.Config{Data: to, NATSReplicas: 1}, open, logarchive.Expect{}, nil); err != nil {
		t.Fatal(err)
	}
	s = start(t, to)
	after := s.everything(sum.Position)
	for _, list := range lists {
		if len(before[list]) == 0 && list != "/releases/" {
			t.Errorf("%s was empty", list)
		}
		if diff := cmp.Diff(before[list], after[list]); diff != "" {
			t.Errorf("%s (-before +restored): %.2000s", list, diff)
		}
	}
}

func firstOf(n int, items iter.Seq[cli.Item]) iter.Seq[cli.Item] {
	return func(yield func(cli.Item) bool) {
		for item := range items {
			if n--; n < 0 || !yield(item) {
				return
			}
		}
	}
}

// everything gives the items of every list as they are sent.
func (s *system) everything(position string) map[string][]string {
	s.t.Helper()
	out := map[string][]string{}
	for _, list := range lists {
		for item := range walk[json.RawMessage](s, list, position) {
			out[list] = append(out[list], string(item))
		}
	}
	return out
}

// export fetches the log into a file.
func (s *system) export(file string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/log/export", http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.admin)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, res.Body); err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("the log is answered %d, %v", res.StatusCode, err)
	}
}
