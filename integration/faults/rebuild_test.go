//go:build linux

package faults_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	roundsFlag  = flag.Int("rounds", 3, "how often a rebuild is killed")
	rebuiltFlag = flag.Int("rebuilt", 10_000, "how many events it rebuilds")
)

const (
	rebuiltBatch = 1000
	lateBatch    = 100 // events that arrive while something is dead
)

// Issue 5: whichever of the server, its ClickHouse or NATS is killed at whichever
// moment of a rebuild, it goes on by itself and ends equal.
func TestARebuildThatIsKilledGoesOnAndEndsEqual(t *testing.T) {
	moment := newRand(t)
	nats := startNATS(t, natsOptions{Dir: t.TempDir(), SyncAlways: true})
	s := setup{dir: t.TempDir(), env: nats.env(true)}
	srv := start(t, s)
	k := srv.keys(t)
	l, at := newLedger(), newTarget(srv.url)
	c := newClient(at, l, k.APIKey)
	post := func(name string, n int) {
		t.Helper()
		var entries []entry
		for i := range n {
			entries = append(entries, entry{
				report:  report{"deployment", fmt.Sprintf("%s-%d", name, i), []string{"completed", "failed"}[i%2]},
				product: fmt.Sprintf("svc-%d", i%50), environment: "production", version: fmt.Sprintf("1.%d", i),
			})
		}
		if err := c.batch(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
	}
	for i := range *rebuiltFlag / rebuiltBatch {
		post(newName("before", i), rebuiltBatch)
	}
	newReader(srv.url, k.PAT).sees(t, l)

	r := newReplays(t, at, k.AdminPAT)
	undisturbed := r.start()
	began := time.Now()
	r.ends(undisturbed)
	span := time.Since(began)
	t.Logf("undisturbed, a rebuild of %d events is verified after %s", l.count(), span.Round(time.Millisecond))

	victims := []string{"server", "ClickHouse", "NATS"}
	for round := 0; round < *roundsFlag; {
		victim := victims[round%len(victims)]
		id := r.start()
		// The one wait for a time to pass: the failure itself is at a random moment.
		after := time.Duration(moment.Int64N(int64(span)))
		<-time.After(after)
		was := r.read(id)
		if was.State == "ready" { // nothing of it is left to kill
			span = after
			r.ends(id)
			continue
		}
		round++
		switch victim {
		case "server":
			srv.kill()
			at.move("")
			srv = start(t, s)
			at.move(srv.url)
		case "ClickHouse":
			if err := syscall.Kill(srv.engine(t), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		case "NATS":
			nats.kill()
			nats = nats.again(t)
		}
		post(newName("during", round), lateBatch)
		end := r.ends(id)
		t.Logf("round %d: %s killed %s after the start (%s, %d of %d events); equal over %d events",
			round, victim, after.Round(time.Millisecond), was.State, was.Events, was.Total, end.Events)
		if t.Failed() {
			return
		}
	}
	newReader(srv.url, k.PAT).sees(t, l)
	l.clean(t)
	srv.interrupt(t)
	nats.stop()
}

// replays are those of the server, wherever it is by now.
type replays struct {
	t     *testing.T
	at    *target
	token string
	body  string // of requests
}

func newReplays(t *testing.T, at *target, token string) *replays {
	return &replays{t, at, token, "{}"}
}

type replayAnswer struct {
	ID, State, Verdict string
	Events, Total      int
	Reason             string
}

func (r *replays) do(method, path string, wanted int, into any) error {
	url, err := r.at.await(r.t.Context())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, url+path, strings.NewReader(r.body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: answerWithin}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var body json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		return err
	}
	if res.StatusCode != wanted {
		return fmt.Errorf("%s %s: %d: %s", method, path, res.StatusCode, body)
	}
	return json.Unmarshal(body, into)
}

func (r *replays) start() string {
	r.t.Helper()
	var a replayAnswer
	eventually(r.t, "a replay starts", func() error { return r.do(http.MethodPost, "/replays/", http.StatusCreated, &a) })
	return a.ID
}

func (r *replays) read(id string) (a replayAnswer) {
	r.t.Helper()
	eventually(r.t, "the replay can be read", func() error { return r.do(http.MethodGet, "/replays/"+id, http.StatusOK, &a) })
	return a
}

// ends waits for the verdict, wants it to be equal and drops the tables.
func (r *replays) ends(id string) replayAnswer {
	r.t.Helper()
	a := r.isEqual(id)
	eventually(r.t, "its tables are given up", func() error {
		err := r.do(http.MethodPost, "/replays/"+id+"/cancel", http.StatusOK, &replayAnswer{})
		if err != nil && r.read(id).State == "cancelled" { // by a try whose answer came before that was in force
			err = nil
		}
		return err
	})
	return a
}

// isEqual waits for the verdict and wants it to be equal.
func (r *replays) isEqual(id string) (a replayAnswer) {
	r.t.Helper()
	eventually(r.t, "the replay is verified", func() error {
		if a = r.read(id); a.State == "failed" {
			r.t.Fatalf("the replay failed: %s", a.Reason)
		}
		if a.State == "running" || a.State == "verifying" {
			return errors.New("it is " + a.State)
		}
		return nil
	})
	if a.State != "ready" || a.Verdict != "equal" {
		r.t.Errorf("the replay is %s: %s", a.State, a.Verdict)
	}
	return a
}
