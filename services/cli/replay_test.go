package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// replays is a server with one replay that is verified after some looks.
type replays struct {
	*httptest.Server
	looks   int
	verdict string
	asked   []string
}

const replayJSON = `{"id":"R1","state":%q,"projection":"ledger","version":2,"previous_version":1,"switch":"manual","account":null,"from":null,
"events":%d,"total":100,"rate":50,"seconds_left":1,"verdict":%s,"started_at":"2026-05-24T14:06:06Z","started_by":"ada","verified_at":null,
"switched_at":null,"undo_until":null,"ended_at":null,"reason":null}`

func newReplays(t *testing.T, verdict string) *replays {
	t.Helper()
	s := &replays{verdict: verdict}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.Close)
	return s
}

func (s *replays) answer(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.asked = append(s.asked, fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, body))
	running := fmt.Sprintf(replayJSON, "running", 50, "null")
	ready := fmt.Sprintf(replayJSON, "ready", 100, `"`+s.verdict+`"`)
	switch r.Method + " " + r.URL.Path {
	case "POST /replays/":
		_, _ = io.WriteString(w, running)
	case "GET /replays/":
		_, _ = io.WriteString(w, `{"items":[`+running+`],"next_cursor":null,"as_of":{"position":"o.1.0","time":null}}`)
	case "GET /replays/R1":
		s.looks++
		switch s.looks {
		case 1:
			_, _ = io.WriteString(w, running)
		case 2:
			http.Error(w, `{"detail":"Service temporarily unavailable"}`, http.StatusServiceUnavailable)
		case 3:
			w.Header().Set("Retry-After", "0")
			http.Error(w, `{"detail":"Rate limit exceeded.","error":{"code":"RATE_LIMIT_EXCEEDED","message":"Too many requests."}}`, http.StatusTooManyRequests)
		default:
			_, _ = io.WriteString(w, ready)
		}
	case "GET /replays/R1/certificate":
		first := ""
		if s.verdict == "different" {
			first = `,"first_difference":{"table":"events","account":"acme","key":{"pos":"1024"},"columns":["flag"],"old":{"flag":""},"new":{"flag":"odd"},` +
				`"event":{"position":"t0.1.0","id":"E1","type":"deployment.completed","subject":"D1"}}`
		}
		_, _ = io.WriteString(w, `{"replay_id":"R1","verdict":"`+s.verdict+`","from":"t0.1.0","to":"t0.9.0","events":12345,"deployments":40,"seconds":2,`+
			`"stood_still_seconds":0.02,"tables":[{"name":"events","rows":12345,"hash_old":"aa","hash_new":"aa"}]`+first+`}`)
	case "GET /replays/R1/diff":
		_, _ = io.WriteString(w, `{"items":[],"next_cursor":null,"as_of":{"position":"t0.9.0","time":null},"replay_id":"R1","verdict":"different","tables":[],"metrics":`+
			`{"definition":1,"from":"2026-02-23T14:06:06Z","to":"2026-05-24T14:06:06Z","as_of":null,"reason":null,`+
			`"overall":[{"name":"change_failure_rate.rate","unit":"ratio","old":0.25,"new":0.125}],"products_changed":102,`+
			`"products":[{"product_name":"checkout","figures":[{"name":"recovery_time.p50","unit":"seconds","old":90,"new":null}]}]}}`)
	case "POST /replays/R1/switch":
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"detail":"They differ.","message":"They differ.","error":"conflict","code":"REPLAY_DIFFERS","success":false}`)
	default:
		http.NotFound(w, r)
	}
}

// command runs a command line of `shipledger replay`.
func (s *replays) command(t *testing.T, args ...string) (out, failure string) {
	t.Helper()
	stdout, stderr, err := shipledger(t, append(append([]string{"replay"}, args...), "--url", s.URL, "--token", "pat_secret")...)
	if err != nil {
		failure = err.Error()
	}
	if strings.Contains(stdout+stderr+failure, "pat_secret") {
		t.Error("the token is printed")
	}
	return stdout, failure
}

func TestAReplayIsWatchedUntilItIsVerified(t *testing.T) {
	s := newReplays(t, "equal")
	out, failure := s.command(t, "start", "--watch", "--every", "1ms")
	if failure != "" {
		t.Fatal(failure)
	}
	for _, want := range []string{"state        ready", "verdict      equal", "12,345", "shipledger replay switch"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing:\n%s", want, out)
		}
	}
	if s.asked[0] != `POST /replays/ {"switch":"manual"}` {
		t.Error(s.asked[0])
	}
}

func TestAReplayThatDiffersNamesTheRowTheEventAndWhatToDo(t *testing.T) {
	s := newReplays(t, "different")
	out, failure := s.command(t, "watch", "--every", "1ms")
	for _, want := range []string{`"" -> "odd"`, "deployment.completed of D1 at t0.1.0", "shipledger replay diff", "--consent"} {
		if !strings.Contains(out, want) || failure != "" {
			t.Errorf("%q is missing: %s\n%s", want, failure, out)
		}
	}
	if _, failure = s.command(t, "switch", "R1"); !strings.Contains(failure, "REPLAY_DIFFERS") && !strings.Contains(failure, "shipledger replay diff") {
		t.Errorf("the error does not say what to do: %s", failure)
	}
}

func TestAReplayForMachinesIsOneJSONValue(t *testing.T) {
	s := newReplays(t, "equal")
	s.looks = 2
	out, failure := s.command(t, "status", "R1", "--json")
	var got struct {
		Replay      struct{ ID, State string }
		Certificate struct{ Events int }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || failure != "" || got.Replay.State != "ready" || got.Certificate.Events != 12345 {
		t.Errorf("%v %s\n%s", err, failure, out)
	}
}

func TestACommandWithoutAServerSaysHowToStartOne(t *testing.T) {
	s := newReplays(t, "equal")
	s.URL = noServer
	if _, failure := s.command(t, "status"); !strings.Contains(failure, "shipledger up") {
		t.Error(failure)
	}
}

func TestADiffShowsTheMetricsThatWouldChangeSideBySide(t *testing.T) {
	out, failure := newReplays(t, "different").command(t, "diff", "R1")
	if failure != "" {
		t.Fatal(failure)
	}
	shown := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"metrics (definition 1) of 2026-02-23 to 2026-05-24: those of 102 products would change",
		"all products change_failure_rate.rate 0.25 -> 0.125 ratio", "checkout recovery_time.p50 90 -> none seconds", "and 101 products more",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is missing:\n%s", want, out)
		}
	}
	out, failure = newReplays(t, "different").command(t, "diff", "R1", "--json")
	var got struct {
		Metrics struct {
			Changed int `json:"products_changed"`
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || failure != "" || got.Metrics.Changed != 102 {
		t.Errorf("%v %s\n%s", err, failure, out)
	}
}
