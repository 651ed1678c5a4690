package history_test

import (
	"iter"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/services/cli"
)

// every gives the items of a history whose number is, or is not, a multiple of n.
func every(n int, items iter.Seq[cli.Item], multiples bool) iter.Seq[cli.Item] {
	return func(yield func(cli.Item) bool) {
		i := 0
		for item := range items {
			if i++; (i%n == 0) == multiples && !yield(item) {
				return
			}
		}
	}
}

// upTo gives the first n items.
func upTo(n int, items iter.Seq[cli.Item]) iter.Seq[cli.Item] {
	return func(yield func(cli.Item) bool) {
		i := 0
		for item := range items {
			if i++; i > n || !yield(item) {
				return
			}
		}
	}
}

// manage sends a request as the admin.
func (s *system) manage(method, path, body string, into any) {
	s.t.Helper()
	s.ask(method, path, s.admin, body, into)
}

// rebuild makes the tables anew, and switches to them if they are equal.
func (s *system) rebuild() {
	s.t.Helper()
	var replay struct {
		ID      string `json:"id"`
		State   string `json:"state"`
		Verdict string `json:"verdict"`
	}
	s.manage(http.MethodPost, "/replays/", `{"switch":"when_equal"}`, &replay)
	// Between the verdict and the switch it is ready.
	for deadline := time.Now().Add(patience); replay.State != "switched" && replay.State != "failed" && (replay.State != "ready" || replay.Verdict == "equal"); {
		if time.Now().After(deadline) {
			s.t.Fatalf("the rebuild stands at %+v", replay)
		}
		<-time.After(50 * time.Millisecond)
		s.manage(http.MethodGet, "/replays/"+replay.ID, "", &replay)
	}
	if replay.State != "switched" || replay.Verdict != "equal" {
		s.t.Fatalf("the rebuild ended as %+v", replay)
	}
}

func TestAQuestionOfTwoMomentsIsAnsweredAlikeAfterNewEventsARestartAndARebuild(t *testing.T) {
	end := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	const some = 4_500
	history := func(late bool) iter.Seq[cli.Item] { return every(3, upTo(some, cli.DemoHistory(1, end)), late) }
	dir := t.TempDir()
	s := start(t, dir)
	sum := s.load(history(false))

	var first struct {
		AsOf struct {
			Time time.Time `json:"time"`
		} `json:"as_of"`
	}
	s.get("/matrix", url.Values{"min_position": {sum.Position}, "limit": {"1"}}, &first)
	known := first.AsOf.Time
	began := end.AddDate(-2, 0, 0)
	var questions []url.Values
	for _, at := range []time.Time{began.AddDate(0, 0, 10), began.AddDate(0, 1, 0), began.AddDate(0, 3, 0), {}} {
		q := url.Values{"known_at": {known.Format(time.RFC3339Nano)}, "limit": {"500"}}
		if !at.IsZero() {
			q.Set("at", at.Format(time.RFC3339Nano))
		}
		questions = append(questions, q)
	}
	ask := func() (answers []any) {
		t.Helper()
		for _, q := range questions {
			var m struct {
				Environments []any `json:"environments"`
				Items        []any `json:"items"`
			}
			s.get("/matrix", q, &m)
			answers = append(answers, m.Environments, m.Items)
		}
		return answers
	}
	before := ask()
	same := func(after string) {
		t.Helper()
		if diff := cmp.Diff(before, ask()); diff != "" {
			t.Errorf("after %s (-before +after): %s", after, diff)
		}
	}

	late := s.load(history(true)) // reports about every time before
	s.get("/matrix", url.Values{"min_position": {late.Position}, "limit": {"1"}}, &first)
	if !first.AsOf.Time.After(known) {
		t.Fatalf("what came later is of %s, not after %s", first.AsOf.Time, known)
	}
	same("new events")
	s.stop()
	s = start(t, dir)
	same("a restart")
	s.rebuild()
	same("a rebuild")
	questions = []url.Values{{"at": {end.Format(time.RFC3339)}, "limit": {"500"}}}
	if now := ask(); cmp.Equal(before[len(before)-1], now[1]) {
		t.Error("the late reports changed nothing: the test shows nothing")
	}
}
