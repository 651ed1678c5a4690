package replay_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
	"github.com/shipledger/shipledger/services/all"
)

// system is the whole of it as an operator starts it, asked over the network.
type system struct {
	t         *testing.T
	dir       string // of the data
	snapshots string
	url       string
	stop      func()

	key, pat, admin string
	position        string // of the last batch
	partitions      int    // of a log that is made now
	period          string // what metrics are asked for
}

func startSystem(t *testing.T) *system { return startPartitions(t, 0) }

// startPartitions starts it on a log of so many partitions.
func startPartitions(t *testing.T, partitions int) *system {
	t.Helper()
	chservertest.Engine(t)
	now := time.Now().UTC()
	s := &system{t: t, partitions: partitions, dir: t.TempDir(), snapshots: t.TempDir()}
	s.period = "from=" + now.AddDate(0, 0, -7).Format(time.RFC3339) + "&to=" + now.AddDate(0, 0, 7).Format(time.RFC3339) + "&period=day"
	s.start()
	text, err := os.ReadFile(filepath.Join(s.dir, "bootstrap-credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	var first struct {
		APIKey   string `json:"api_key"`
		PAT      string `json:"pat"`
		AdminPAT string `json:"admin_pat"`
	}
	if err := json.Unmarshal(text, &first); err != nil {
		t.Fatal(err)
	}
	s.key, s.pat, s.admin = first.APIKey, first.PAT, first.AdminPAT
	return s
}

func (s *system) start() {
	s.t.Helper()
	var addr net.Addr
	system, err := all.New(all.Config{
		Data: s.dir, Snapshots: s.snapshots, Addr: "127.0.0.1:0", Account: account, NATSReplicas: 1, Partitions: s.partitions, Version: "test", RateLimit: "off",
		Listening: func(a net.Addr) { addr = a },
	}, slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		s.t.Fatal(err)
	}
	s.stop = lifecycletest.Run(s.t, system)
	s.url = "http://" + addr.String()
}

// ask sends a request. What says that it is to be asked again is.
func (s *system) ask(method, path, token, body string, into any) (code int, raw []byte) {
	s.t.Helper()
	deadline := time.Now().Add(patient)
	for {
		r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		switch {
		case path == "/events/batch":
			r.Header.Set("Content-Type", "application/x-ndjson")
		case body != "":
			r.Header.Set("Content-Type", "application/json")
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			s.t.Fatal(err)
		}
		raw, err = io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil {
			s.t.Fatal(err)
		}
		if answer.StatusCode == http.StatusServiceUnavailable && time.Now().Before(deadline) {
			continue
		}
		if p := answer.Header.Get("X-Shipledger-Position"); path == "/events/batch" && p != "" {
			s.position = p
		}
		if into != nil {
			if err := json.Unmarshal(raw, into); err != nil {
				s.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
			}
		}
		return answer.StatusCode, raw
	}
}

// post stores n events more, of several kinds.
func (s *system) post(from, n int) {
	s.t.Helper()
	var b bytes.Buffer
	for i := from; i < from+n; i++ {
		if i%4 == 0 {
			fmt.Fprintf(&b, `{"type":"build","product_name":"svc-%d","version":"1.%d","status":"success","scm_sha":"%040x"}`+"\n", i%products, i, i)
			continue
		}
		fmt.Fprintf(&b, `{"type":"deployment","product_name":"svc-%d","version":"1.%d","environment_name":%q,"status":%q,"invoke_id":"%d"}`+"\n",
			i%products, i, environments[i/products%len(environments)], []string{"success", "failed", "aborted"}[i%3], i)
	}
	var got struct{ Accepted int }
	if code, raw := s.ask(http.MethodPost, "/events/batch", s.key, b.String(), &got); code != http.StatusOK || got.Accepted != n {
		s.t.Fatalf("%d %s", code, raw)
	}
}

// answers are those of every kind of question, but for how far they see.
func (s *system) answers() map[string]any {
	s.t.Helper()
	out := map[string]any{}
	for _, path := range []string{
		"/matrix", "/matrix?at=2026-01-01T00:00:00Z", "/matrix?known_at=2100-01-01T00:00:00Z", "/matrix/history?product=svc-1&environment=dev",
		"/matrix/diff?left=dev&right=staging", "/deployments/?limit=500", "/builds/?limit=500", "/versions/?limit=500", "/products/", "/environments/",
		"/releases/", "/events/?limit=500&family=deployment", "/metrics/dora?" + s.period, "/metrics/dora/evidence?metric=change_failure_rate&" + s.period,
		"/ledger/balance", "/quarantine/", "/exports/deployments", "/exports/events?family=build", "/exports/cells",
	} {
		at := path + "?"
		if strings.Contains(path, "?") {
			at = path + "&"
		}
		if path == "/quarantine/" { // which says how far it sees by itself
			at = path
		} else {
			at += "min_position=" + s.position
		}
		code, raw := s.ask(http.MethodGet, at, s.pat, "", nil)
		if code != http.StatusOK {
			s.t.Errorf("%s is answered %d: %.300s", path, code, raw)
			continue
		}
		var parsed map[string]any
		if json.Unmarshal(raw, &parsed) != nil {
			out[path] = string(raw)
			continue
		}
		delete(parsed, "as_of")
		out[path] = parsed
	}
	return out
}

func (s *system) active() (version int) {
	s.t.Helper()
	var p struct {
		Items []struct {
			ActiveVersion int `json:"active_version"`
		}
	}
	if code, raw := s.ask(http.MethodGet, "/projections/", s.pat, "", &p); code != http.StatusOK || len(p.Items) != 1 {
		s.t.Fatalf("%d %s", code, raw)
	}
	return p.Items[0].ActiveVersion
}

// replayed starts a replay and watches it until it is in a state.
func (s *system) replayed(body, state string) string {
	s.t.Helper()
	var r replayState
	if code, raw := s.ask(http.MethodPost, "/replays/", s.admin, body, &r); code != http.StatusCreated {
		s.t.Fatalf("%d %s", code, raw)
	}
	deadline, tick := time.After(patient), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		if code, raw := s.ask(http.MethodGet, "/replays/"+r.ID, s.pat, "", &r); code != http.StatusOK || r.State == "failed" {
			s.t.Fatalf("%d %s", code, raw)
		}
		if r.State == state {
			return r.ID
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("not %s after %s, but %s", state, patient, r.State)
		}
	}
}

func (s *system) did(id, what string) {
	s.t.Helper()
	code, raw := s.ask(http.MethodPost, "/replays/"+id+"/"+what, s.admin, "", nil)
	if code == http.StatusOK {
		return
	}
	var r replayState // it may have been recorded by a try whose answer came before it was in force
	s.ask(http.MethodGet, "/replays/"+id, s.pat, "", &r)
	if r.State != map[string]string{"switch": "switched", "undo": "undone"}[what] {
		s.t.Fatalf("%s: %d %s", what, code, raw)
	}
}

// recorded holds the audit log to have these events of a replay, and the certificate.
func (s *system) recorded(id string, want ...string) {
	s.t.Helper()
	var page struct {
		Items []struct {
			Type  string
			Actor string
			Data  struct {
				Replay struct {
					Version     int
					Certificate *certificate
				}
			}
		}
	}
	path := "/events/?order=oldest&family=replay&subject=" + id
	deadline := time.Now().Add(patient)
	for s.ask(http.MethodGet, path, s.pat, "", &page); len(page.Items) < len(want) && time.Now().Before(deadline); {
		s.ask(http.MethodGet, path, s.pat, "", &page)
	}
	var got []string
	for _, e := range page.Items {
		got = append(got, e.Type)
		if c := e.Data.Replay.Certificate; e.Actor == "" || e.Type != "replay.started" && (c == nil || c.Verdict != "equal" || c.Events == 0) {
			s.t.Errorf("%+v", e)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("of the replay other things are recorded: %s", diff)
	}
}

// The same on everything that an operator starts: real logs, the logins that the
// services have, the network between. Whatever a replay does, answers stay the same;
// a restart keeps what was decided.
//
// Architecture 7.
func TestAReplayOfTheWholeSystemChangesNoAnswer(t *testing.T) {
	s := startSystem(t)
	s.post(1, 300)
	before := s.answers()
	same := func(when string, version int) {
		t.Helper()
		if diff := cmp.Diff(before, s.answers()); diff != "" {
			t.Errorf("%s other things are answered (-before +after): %s", when, diff)
		}
		for deadline := time.Now().Add(patient); s.active() != version; {
			if time.Now().After(deadline) {
				t.Fatalf("%s version %d is live, not %d", when, s.active(), version)
			}
		}
	}
	first := s.replayed(`{}`, "ready")
	var c certificate
	if s.ask(http.MethodGet, "/replays/"+first+"/certificate", s.pat, "", &c); c.Verdict != "equal" || c.Events < 300 {
		t.Errorf("%+v", c)
	}
	same("beside a replay", 1)
	s.did(first, "switch")
	same("after the switch", 2)
	s.did(first, "undo")
	same("after undoing it", 1)
	s.recorded(first, "replay.started", "replay.verified", "replay.switched", "replay.undone")

	code, archive := s.ask(http.MethodGet, "/log/export", s.admin, "", nil)
	if code != http.StatusOK {
		t.Fatalf("%d %.300s", code, archive)
	}
	if err := os.WriteFile(filepath.Join(s.snapshots, "monday.jsonl"), archive, 0o600); err != nil {
		t.Fatal(err)
	}
	s.post(301, 100) // what the snapshot does not hold
	before = s.answers()
	second := s.replayed(`{"snapshot":"monday.jsonl","switch":"when_equal"}`, "switched")
	same("after a replay from a snapshot", 3)

	s.stop()
	s.start()
	same("after a restart", 3)
	s.post(401, 100)
	before = s.answers()
	s.did(second, "undo")
	same("after undoing it", 1)
}
