package tracking_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/tracking"
)

func TestWhatIsUnknownIsCreatedBeforeTheEventThatNamesIt(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("success", nil))
	l.post(deployment("success", fields{"environment_name": "staging"}))
	l.post(build("success", fields{"product_name": "other"}))
	want := []string{
		"product.created", "environment.created", "version.created", "deployment.completed",
		"environment.created", "deployment.completed",
		"product.created", "version.created", "build.completed",
	}
	if diff := cmp.Diff(want, l.types()); diff != "" {
		t.Error(diff)
	}
}

func TestIdsAreDerivedFromTheNames(t *testing.T) {
	l := newLedger(t)
	d := l.post(deployment("success", nil))
	same(t, "product", d.Record.ProductID, "2f9cabf2-105e-5671-9b62-5f0a651b0848")
	same(t, "environment", d.Record.EnvironmentID, "e2fddf61-0e17-58c7-b67a-f37132604680")
	same(t, "version", d.Record.VersionID, "b1313a1d-0ef8-582a-b91f-dd1626c8b731")
}

func TestEventsOfOneRunAreOneDeployment(t *testing.T) {
	for name, run := range map[string]fields{"with a run id": {"invoke_id": "7"}, "without": nil} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t)
			started := l.post(deployment("started", run))
			done := l.after(time.Minute).post(deployment("success", run))
			same(t, "id", done.Record.ID, started.Record.ID)
			same(t, "status", done.Record.Status, event.Completed)
			same(t, "started", done.Record.StartedAt, epoch)
			same(t, "completed", done.Record.CompletedAt, epoch.Add(time.Minute))
		})
	}
}

func TestALateStartChangesNoStatusAndFillsTheStart(t *testing.T) {
	l := newLedger(t)
	run := fields{"invoke_id": "7"}
	done := l.post(deployment("success", fields{"invoke_id": "7", "completed_at": "2026-05-04T08:00:00Z"}))
	late := l.after(time.Minute).post(deployment("started", run))
	same(t, "id", late.Record.ID, done.Record.ID)
	same(t, "status", late.Record.Status, event.Completed)
	same(t, "start, at the end at the latest", late.Record.StartedAt, done.Record.CompletedAt)
	same(t, "completed", late.Record.CompletedAt, "2026-05-04 08:00:00 +0000 UTC")
	same(t, "last event", l.types()[len(l.events)-1], "deployment.started")
}

func TestTwoRunsOfOneVersionAreTwoDeployments(t *testing.T) {
	l := newLedger(t)
	a := l.post(deployment("success", fields{"invoke_id": "1"}))
	b := l.post(deployment("success", fields{"invoke_id": "2"}))
	c := l.post(deployment("success", fields{"invoke_id": "2", "extra_metadata": fields{"vi_gh_run_attempt": "2"}}))
	if a.Record.ID == b.Record.ID || b.Record.ID == c.Record.ID {
		t.Errorf("ids %v %v %v are not three", a.Record.ID, b.Record.ID, c.Record.ID)
	}
}

func TestTheFirstTerminalStatusStays(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("failed", fields{"invoke_id": "1"}))
	d := l.after(time.Second).post(deployment("success", fields{"invoke_id": "1"}))
	same(t, "status", d.Record.Status, event.Failed)
	same(t, "completed", d.Record.CompletedAt, epoch)
	same(t, "flag", l.events[len(l.events)-1].Payload.(*event.Run).Flag, event.FlagSecondTerminal)
}

func TestTheSameBytesWithARunIDAddNothingWheneverTheyCome(t *testing.T) {
	l := newLedger(t)
	start := deployment("started", fields{"invoke_id": "1"})
	first := l.post(start)
	done := l.post(deployment("success", fields{"invoke_id": "1"}))
	n := len(l.events)
	again := l.after(9000 * time.Hour).post(start)
	same(t, "events", len(l.events), n)
	same(t, "duplicate", again.Duplicate, true)
	same(t, "id", again.Record.ID, first.Record.ID)
	same(t, "event", again.EventID, first.EventID)
	same(t, "position", again.Offset, first.Offset)
	same(t, "status", again.Record.Status, done.Record.Status)
}

func TestOnlyTheNewestSixteenEventsOfARunAreRemembered(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("started", fields{"invoke_id": "1"}))
	for i := range event.MaxReceipts {
		l.post(deployment("started", fields{"invoke_id": "1", "build_number": string(rune('a' + i))}))
	}
	same(t, "the seventeenth newest", l.post(deployment("started", fields{"invoke_id": "1"})).Duplicate, false)
	same(t, "the newest", l.post(deployment("started", fields{"invoke_id": "1", "build_number": "p"})).Duplicate, true)
}

func TestWithoutARunIDOnlyOpenRecordsCollapse(t *testing.T) {
	l := newLedger(t)
	a := l.post(deployment("started", nil))
	same(t, "start again", l.post(deployment("started", nil)).Duplicate, true)
	l.post(deployment("success", nil))
	b := l.post(deployment("success", nil))
	same(t, "a second terminal post", b.Duplicate, false)
	if b.Record.ID == a.Record.ID {
		t.Error("two identical terminal posts are one record")
	}
}

func TestASecondRunCannotStartWhileOneIsUnderWay(t *testing.T) {
	l := newLedger(t)
	first := l.post(deployment("started", fields{"invoke_id": "1"}))
	d := l.refuse(deployment("started", fields{"invoke_id": "2"}))
	same(t, "code", d.Refusal.Code, "CONCURRENT_DEPLOYMENT")
	same(t, "conflict", d.Refusal.Conflict, first.Record.ID)
	same(t, "record", d.Record.Status, event.PreflightFailed)
	same(t, "own start again", l.post(deployment("started", fields{"invoke_id": "1", "build_number": "2"})).Record.ID, first.Record.ID)
	l.post(deployment("started", fields{"invoke_id": "3", "environment_name": "staging"}))
	l.post(deployment("started", fields{"invoke_id": "4", "product_name": "other"}))
	l.post(deployment("success", fields{"invoke_id": "1"}))
	l.post(deployment("started", fields{"invoke_id": "2"}))
}

func TestARefusedRunBeginsAnewWithItsNextEvent(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("started", fields{"invoke_id": "1"}))
	refused := l.refuse(deployment("started", fields{"invoke_id": "2"}))
	l.post(deployment("failed", fields{"invoke_id": "1"}))
	again := l.post(deployment("started", fields{"invoke_id": "2"}))
	if again.Record.ID == refused.Record.ID {
		t.Error("the refused record was taken up again")
	}
}

func TestAPendingRunThatMayNotStartIsClosed(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("started", fields{"invoke_id": "1"}))
	pending := l.post(deployment("pending", fields{"invoke_id": "2"}))
	refused := l.refuse(deployment("started", fields{"invoke_id": "2"}))
	same(t, "id", refused.Record.ID, pending.Record.ID)
	same(t, "status", refused.Record.Status, event.PreflightFailed)
}

func TestARefusedStartSentAgainIsRecordedOnce(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("started", fields{"invoke_id": "1"}))
	first := l.refuse(deployment("started", fields{"invoke_id": "2"}))
	n := len(l.events)
	again := l.after(150 * time.Second).refuse(deployment("started", fields{"invoke_id": "2"}))
	same(t, "events", len(l.events), n)
	same(t, "record", again.Record.ID, first.Record.ID)
	later := l.after(time.Millisecond).refuse(deployment("started", fields{"invoke_id": "2"}))
	if later.Record.ID == first.Record.ID {
		t.Error("after the memory's end the refusal was not recorded anew")
	}
}

func TestAStaleStartBlocksNobody(t *testing.T) {
	l := newLedger(t)
	stale := l.post(deployment("started", fields{"invoke_id": "1"}))
	l.after(60 * time.Minute).refuse(deployment("started", fields{"invoke_id": "2"}))
	l.after(time.Millisecond).post(deployment("started", fields{"invoke_id": "3"}))
	done := l.post(deployment("success", fields{"invoke_id": "1"}))
	same(t, "a late end still applies", done.Record.ID.String()+" "+done.Record.Status.String(), stale.Record.ID.String()+" completed")
}

func TestSkippingTheRulesIsHeardAndAudited(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("started", fields{"invoke_id": "1"}))
	l.post(deployment("started", fields{"invoke_id": "2", "skip_preflight_checks": true}))
	same(t, "flag", l.events[len(l.events)-1].Payload.(*event.Run).Flag, event.FlagPreflightSkipped)
}

func TestABuildFixesTheCommitOfItsVersion(t *testing.T) {
	l := newLedger(t)
	const sha = "8d1c0a7b2e4f5061728394a5b6c7d8e9f0a1b2c3"
	l.post(deployment("success", fields{"scm_sha": "ffffffffffff"})) // provisional
	l.post(build("success", fields{"scm_sha": sha[:8]}))
	l.post(build("success", fields{"scm_sha": sha}))
	l.post(build("success", fields{"scm_sha": sha[:7]}))
	l.post(build("success", nil))
	for _, other := range []string{"ffffffffffff", sha[:6], sha[:39] + "0"} {
		_, err := l.decide(command(build("success", fields{"scm_sha": other})))
		same(t, other, fault.KindOf(err), fault.Conflict)
		same(t, other, err, "Version 1.2.3 already exists with different SHA")
	}
	d := l.post(deployment("success", fields{"invoke_id": "x", "scm_sha": "ffffffffffff"}))
	same(t, "mismatch", d.Record.SHAMismatch, true)
	d = l.post(deployment("success", fields{"invoke_id": "y", "scm_sha": sha[:10]}))
	same(t, "mismatch", d.Record.SHAMismatch, false)
}

func TestTheLongestFormOfACommitIsTheFixedOne(t *testing.T) {
	l := newLedger(t)
	l.post(build("success", fields{"scm_sha": "8d1c0a7b"}))
	l.post(build("success", fields{"scm_sha": "8d1c0a7b2e4f"}))
	v := l.events[len(l.events)-2].Payload.(*event.Version)
	same(t, "type", l.events[len(l.events)-2].Type, event.VersionSHAFixed)
	same(t, "sha", v.SHA, "8d1c0a7b2e4f")
	same(t, "created", v.CreatedAt, epoch)
	if _, err := l.decide(command(build("success", fields{"scm_sha": "8d1c0a7b2e40"}))); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a form that only shares the short one: %v", err)
	}
}

func TestSameSHAComparesPrefixesOfSevenAndMore(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"abcdef1", "abcdef123", true},
		{"abcdef123", "abcdef1", true},
		{"ABCDEF1", "abcdef123", true},
		{"abcdef", "abcdef1", false},
		{"abcdef", "abcdef", true},
		{"abcdef1", "abcdef2", false},
	} {
		same(t, c.a+" "+c.b, tracking.SameSHA(c.a, c.b), c.want)
	}
}

func TestEffectiveTimesStayBetweenStartAndReceipt(t *testing.T) {
	l := newLedger(t)
	future := l.post(deployment("success", fields{"invoke_id": "1", "completed_at": "2030-01-01T00:00:00Z"}))
	same(t, "after receipt", future.Record.CompletedAt, epoch)
	l.post(deployment("started", fields{"invoke_id": "2", "version": "2"}))
	early := l.after(time.Minute).post(deployment("success", fields{"invoke_id": "2", "version": "2", "completed_at": "2020-01-01T00:00:00Z"}))
	same(t, "before the start", early.Record.CompletedAt, epoch)
	same(t, "completed_at of a start", l.post(deployment("started", fields{"invoke_id": "3", "version": "3", "completed_at": "2026-05-04T08:00:00Z"})).Record.CompletedAt, time.Time{})
}

func TestABuildsStartIsNeverOverwrittenByALaterOne(t *testing.T) {
	l := newLedger(t)
	l.post(build("started", fields{"invoke_id": "1", "started_at": "2026-05-04T08:00:00Z"}))
	d := l.post(build("success", fields{"invoke_id": "1", "started_at": "2026-05-04T08:30:00Z"}))
	same(t, "start", d.Record.StartedAt, "2026-05-04 08:00:00 +0000 UTC")
	d = l.post(build("success", fields{"invoke_id": "1", "started_at": "2026-05-04T07:00:00Z"}))
	same(t, "an earlier start", d.Record.StartedAt, "2026-05-04 07:00:00 +0000 UTC")
}

func TestFieldsKeepTheValueOfTheHighestEvent(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("success", fields{"invoke_id": "1", "deployed_by": "ada", "extra_metadata": fields{"a": 1, "b": 1}}))
	d := l.after(time.Second).post(deployment("started", fields{
		"invoke_id": "1", "deployed_by": "eve", "scm_branch": "main", "extra_metadata": fields{"b": 2, "c": 2},
	}))
	same(t, "given by the end", d.Record.Attributes[event.By], "ada")
	same(t, "given by the start only", d.Record.Attributes[event.SCMBranch], "main")
	same(t, "a", string(d.Record.Extra["a"].Value), "1")
	same(t, "b", string(d.Record.Extra["b"].Value), "1")
	same(t, "c", string(d.Record.Extra["c"].Value), "2")
	d = l.after(time.Second).post(deployment("pending", fields{"invoke_id": "1", "scm_branch": "dev", "build_number": "9"}))
	same(t, "not from an even lower one", d.Record.Attributes[event.SCMBranch], "main")
	same(t, "build number", d.Record.Attributes[event.BuildNumber], "9")
}

func TestMetadataThatWouldGrowTooLargeIsTakenAsAWhole(t *testing.T) {
	l := newLedger(t)
	big := strings.Repeat("x", 100<<10)
	l.post(deployment("started", fields{"invoke_id": "1", "extra_metadata": fields{"a": big}}))
	d := l.post(deployment("success", fields{"invoke_id": "1", "extra_metadata": fields{"b": big}}))
	if _, had := d.Record.Extra["a"]; had || len(d.Record.Extra) != 1 {
		t.Errorf("%d members are left", len(d.Record.Extra))
	}
}

func TestAnIdempotencyKeyAnswersAsTheFirstTime(t *testing.T) {
	l := newLedger(t)
	c := command(deployment("success", nil))
	c.IdempotencyKey = "once"
	first, err := l.decide(c)
	if err != nil {
		t.Fatal(err)
	}
	n := len(l.events)
	again, err := l.after(24 * time.Hour).decide(c)
	if err != nil || !again.Duplicate {
		t.Fatalf("again = %+v, %v", again, err)
	}
	same(t, "event", again.EventID, first.EventID)
	same(t, "record", again.Record.ID, first.Record.ID)
	same(t, "events", len(l.events), n)

	other := command(deployment("failed", nil))
	other.IdempotencyKey = "once"
	_, err = l.decide(other)
	same(t, "another body", fault.KindOf(err), fault.Unprocessable)

	foreign := command(deployment("failed", nil))
	foreign.IdempotencyKey, foreign.Account = "once", "other"
	if _, err := l.decide(foreign); err != nil {
		t.Errorf("another account's key: %v", err)
	}
	if d, err := l.after(time.Millisecond).decide(c); err != nil || d.Duplicate {
		t.Errorf("after a day = %+v, %v; want a new record", d.Duplicate, err)
	}
}

func TestHistoryIsTakenAsItIsTold(t *testing.T) {
	l := newLedger(t)
	c := func(status, invoke string) *tracking.Command {
		c := command(deployment(status, fields{
			"invoke_id": invoke, "started_at": "2023-01-02T10:00:00Z", "completed_at": "2023-01-02T10:05:00Z",
		}))
		c.Backfill = true
		return c
	}
	d, err := l.decide(c("success", "1"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "started", d.Record.StartedAt, "2023-01-02 10:00:00 +0000 UTC")
	same(t, "completed", d.Record.CompletedAt, "2023-01-02 10:05:00 +0000 UTC")
	same(t, "id's time", d.Record.ID.Timestamp().UTC(), "2023-01-02 10:00:00 +0000 UTC")
	l.post(deployment("started", fields{"invoke_id": "2"}))
	if d, err := l.decide(c("started", "3")); err != nil || d.Refusal != nil {
		t.Errorf("a rule looked at history: %v %v", d.Refusal, err)
	}
	n := len(l.events)
	changed := c("success", "1")
	changed.Hash++ // another credential, at another time
	d, err = l.after(9000 * time.Hour).decide(changed)
	if err != nil || !d.Duplicate || len(l.events) != n {
		t.Errorf("loaded again: %+v, %v, %d new events", d.Duplicate, err, len(l.events)-n)
	}
}

func TestARunThatTheLedgerKnowsKeepsItsIDWhenHistoryNamesIt(t *testing.T) {
	l := newLedger(t)
	live := l.post(deployment("started", fields{"invoke_id": "1"}))
	c := command(deployment("success", fields{"invoke_id": "1", "completed_at": "2026-05-04T09:01:00Z"}))
	c.Backfill = true
	d, err := l.decide(c)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "id", d.Record.ID, live.Record.ID)
}
