// Package delivery says how well software is delivered: the five DORA metrics of
// the deployments of a cell, and for each deployment by which rule it counts.
//
// Everything is a function of its arguments: Judge judges the deployments of one
// cell, one by one; a Tally adds judgements up to figures. So a figure and its
// evidence are the same judgements, once added up and once listed. DEFINITIONS.md
// beside this file states the rules with worked examples, and a test reads it.
//
// The read model hands over the deployments; services/query asks and shows,
// and services/projector compares what two versions of the tables say.
package delivery

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// Definition is the version of the rules of this package. A change of a rule
// that changes a figure is another definition.
const Definition = 1

// RollbackWithin is how soon a rollback makes the deployment that it takes back
// a failed change.
const RollbackWithin = 24 * time.Hour

// A Metric is one of the five, by its name on the wire (contract 5.1).
type Metric string

// The metrics.
const (
	DeploymentFrequency Metric = "deployment_frequency"
	LeadTime            Metric = "lead_time"
	ChangeFailureRate   Metric = "change_failure_rate"
	RecoveryTime        Metric = "recovery_time"
	ReworkRate          Metric = "rework_rate"
)

// Metrics are all of them, in the order in which they are shown.
var Metrics = []Metric{DeploymentFrequency, LeadTime, ChangeFailureRate, RecoveryTime, ReworkRate}

// A Run is a deployment as the metrics see it.
type Run struct {
	ID          ulid.ULID
	Version     string
	VersionID   event.VersionID
	Status      event.Status
	At          time.Time // when it ended; of one that has not, when it began
	CommittedAt time.Time // of its commit, as its metadata says; zero where it does not
	Mode        event.Mode
	Offset      event.Offset // of its newest event; orders runs of the same moment
}

// A Rule says why a deployment counts for a metric, or does not.
type Rule string

// The rules by which deployments count.
const (
	Succeeded   Rule = "succeeded"           // it succeeded
	CommitTime  Rule = "from_commit_time"    // lead time from extra_metadata.commit_time
	FirstBuild  Rule = "from_first_build"    // lead time from the version's first build
	FailedRule  Rule = "failed"              // it failed
	RolledBack  Rule = "rolled_back"         // the next success took it back within RollbackWithin
	RecoveredBy Rule = "recovered"           // the next success ended the failure that began with it
	IsRollback  Rule = "rollback"            // it deployed again what had been live before
	Fixed       Rule = "first_after_failure" // it ended a failure
	Planned     Rule = "planned"             // it succeeded, and nothing had failed
)

// The rules that leave deployments out.
const (
	TestMode       Rule = "test_mode"                // a test key reported it
	NotFinished    Rule = "not_finished"             // it is pending or runs
	Aborted        Rule = "aborted"                  // it was aborted
	Refused        Rule = "preflight_failed"         // a rule refused it
	NotSucceeded   Rule = "not_succeeded"            // it failed
	NotFirst       Rule = "version_was_live_before"  // the version had reached this environment already
	NoStart        Rule = "no_commit_time_nor_build" // nobody said when the change was made
	StartTooLate   Rule = "commit_after_deployment"  // its commit or build is later than itself
	Repairs        Rule = "rollback_is_no_change"    // what it deployed had counted when it was new
	NotFailed      Rule = "not_a_failure"            // nothing had to be recovered from
	AlreadyFailing Rule = "already_failing"          // an earlier failure had begun and counts
	NotRecovered   Rule = "not_recovered"            // no success has followed yet
)

// A Judgement says whether and why a run counts for a metric.
type Judgement struct {
	Run     *Run
	Metric  Metric
	Counted bool
	Hit     bool          // of rates: it counts in the numerator as well
	Timed   bool          // of times: Value is what counts
	Value   time.Duration // lead or recovery time
	Rule    Rule
}

// Compare orders the runs of a cell: by At, then by Offset.
func Compare(a, b Run) int {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Offset, b.Offset), a.ID.Compare(b.ID))
}

// told is what a run is to those before and after it.
type told struct {
	rollback  bool
	of        int // the success that was live right before; -1 for none
	first     bool
	takenBack bool // by a rollback within RollbackWithin
	fixes     bool // it ended a failure
	begins    bool // a failure began with it
	recovery  int  // the success that ended that failure; -1 for none yet
}

// tell finds out what each of the runs of a cell is to the others. Runs must be
// in the order of Compare. Those of test keys are as if they were not there.
func tell(runs []Run) []told {
	out := make([]told, len(runs))
	live, failing := -1, -1
	was := map[string]bool{}
	for i := range runs {
		r, x := &runs[i], &out[i]
		x.of, x.recovery = live, -1
		if r.Mode == event.Test {
			continue
		}
		switch r.Status {
		case event.Completed:
			x.first = !was[r.Version]
			x.rollback = !x.first && runs[live].Version != r.Version
			if x.rollback && r.At.Sub(runs[live].At) <= RollbackWithin {
				out[live].takenBack = true
				if failing >= 0 { // it failed after what is taken back, which began it
					out[failing].begins = false
				}
				failing, out[live].begins = live, true
			}
			if failing >= 0 {
				out[failing].recovery, x.fixes, failing = i, true, -1
			}
			was[r.Version], live = true, i
		case event.Failed:
			if failing < 0 {
				failing, x.begins = i, true
			}
		case event.Pending, event.Started, event.Aborted, event.PreflightFailed:
		}
	}
	return out
}

// Window is the time whose deployments are judged: those with From ≤ At < To.
type Window struct{ From, To time.Time }

func (w Window) holds(t time.Time) bool { return !t.Before(w.From) && t.Before(w.To) }

// NeedBuilds gives the versions whose first build Judge will ask for.
func NeedBuilds(runs []Run, w Window) []event.VersionID {
	var out []event.VersionID
	was := map[string]bool{}
	for i := range runs {
		r := &runs[i]
		if r.Status != event.Completed || r.Mode == event.Test || was[r.Version] {
			continue
		}
		was[r.Version] = true
		if r.CommittedAt.IsZero() && w.holds(r.At) {
			out = append(out, r.VersionID)
		}
	}
	return out
}

// Judge judges the runs of one cell that lie in the window, in the order of
// Compare, in which they must be. All runs of the cell must be among them: what
// lies outside the window tells what a run in it is. firstBuild gives when a
// version was first built; zero where it never was.
func Judge(runs []Run, firstBuild map[event.VersionID]time.Time, w Window, each func(Judgement)) {
	known := tell(runs)
	for i := range runs {
		r, x := &runs[i], &known[i]
		if !w.holds(r.At) {
			continue
		}
		if rule, out := leftOut(r); out {
			for _, m := range Metrics {
				each(Judgement{Run: r, Metric: m, Rule: rule})
			}
			continue
		}
		succeeded := r.Status == event.Completed
		if succeeded {
			each(Judgement{Run: r, Metric: DeploymentFrequency, Counted: true, Rule: Succeeded})
			each(leadTime(r, x, firstBuild))
		} else {
			each(Judgement{Run: r, Metric: DeploymentFrequency, Rule: NotSucceeded})
			each(Judgement{Run: r, Metric: LeadTime, Rule: NotSucceeded})
		}
		each(changeFailure(r, x))
		each(recovery(runs, r, x))
		switch {
		case !succeeded:
			each(Judgement{Run: r, Metric: ReworkRate, Rule: NotSucceeded})
		case x.rollback:
			each(Judgement{Run: r, Metric: ReworkRate, Counted: true, Hit: true, Rule: IsRollback})
		case x.fixes:
			each(Judgement{Run: r, Metric: ReworkRate, Counted: true, Hit: true, Rule: Fixed})
		default:
			each(Judgement{Run: r, Metric: ReworkRate, Counted: true, Rule: Planned})
		}
	}
}

// leftOut gives the rule by which a run counts for no metric at all.
func leftOut(r *Run) (Rule, bool) {
	switch {
	case r.Mode == event.Test:
		return TestMode, true
	case r.Status == event.Aborted:
		return Aborted, true
	case r.Status == event.PreflightFailed:
		return Refused, true
	case !r.Status.Terminal():
		return NotFinished, true
	}
	return "", false
}

func leadTime(r *Run, x *told, firstBuild map[event.VersionID]time.Time) Judgement {
	j := Judgement{Run: r, Metric: LeadTime}
	start := r.CommittedAt
	rule := CommitTime
	if start.IsZero() {
		start, rule = firstBuild[r.VersionID], FirstBuild
	}
	switch {
	case !x.first:
		j.Rule = NotFirst
	case start.IsZero():
		j.Rule = NoStart
	case start.After(r.At):
		j.Rule = StartTooLate
	default:
		j.Counted, j.Timed, j.Value, j.Rule = true, true, r.At.Sub(start), rule
	}
	return j
}

func changeFailure(r *Run, x *told) Judgement {
	j := Judgement{Run: r, Metric: ChangeFailureRate, Counted: true}
	switch {
	case r.Status == event.Failed:
		j.Hit, j.Rule = true, FailedRule
	case x.takenBack:
		j.Hit, j.Rule = true, RolledBack
	case x.rollback:
		j.Counted, j.Rule = false, Repairs
	default:
		j.Rule = Succeeded
	}
	return j
}

func recovery(runs []Run, r *Run, x *told) Judgement {
	j := Judgement{Run: r, Metric: RecoveryTime}
	switch {
	case x.begins && x.recovery >= 0:
		j.Counted, j.Timed, j.Value, j.Rule = true, true, runs[x.recovery].At.Sub(r.At), RecoveredBy
	case x.begins:
		j.Rule = NotRecovered
	case r.Status == event.Failed || x.takenBack:
		j.Rule = AlreadyFailing
	default:
		j.Rule = NotFailed
	}
	return j
}

// A Tally adds judgements up. Its memory grows by a number for each lead and
// recovery time, and not otherwise.
type Tally struct {
	counts map[Metric]*count
}

type count struct {
	counted, hit int
	values       []time.Duration
	rules        map[Rule]int
}

// Add counts a judgement.
func (t *Tally) Add(j Judgement) {
	if t.counts == nil {
		t.counts = map[Metric]*count{}
	}
	c := t.counts[j.Metric]
	if c == nil {
		c = &count{rules: map[Rule]int{}}
		t.counts[j.Metric] = c
	}
	c.rules[j.Rule]++
	if !j.Counted {
		return
	}
	c.counted++
	if j.Hit {
		c.hit++
	}
	if j.Timed {
		c.values = append(c.values, j.Value)
	}
}

// Counted gives how many deployments count for a metric, and how many of them
// in the numerator of a rate.
func (t *Tally) Counted(m Metric) (counted, hit int) {
	if c := t.counts[m]; c != nil {
		return c.counted, c.hit
	}
	return 0, 0
}

// Rules gives how many deployments each rule was applied to.
func (t *Tally) Rules(m Metric) map[Rule]int {
	if c := t.counts[m]; c != nil {
		return c.rules
	}
	return nil
}

// Percentile gives the p-th percentile of a metric's times by nearest rank: the
// smallest value that at least p % of the values do not exceed. ok is false
// where there are none.
func (t *Tally) Percentile(m Metric, p int) (value time.Duration, ok bool) {
	c := t.counts[m]
	if c == nil || len(c.values) == 0 {
		return 0, false
	}
	slices.Sort(c.values)
	return c.values[max((p*len(c.values)+99)/100, 1)-1], true
}

// PerDay gives how many deployments a day count for a metric, in a window.
func (t *Tally) PerDay(m Metric, w Window) float64 {
	n, _ := t.Counted(m)
	return float64(n) / (w.To.Sub(w.From).Hours() / 24)
}

// Rate gives the share of a metric's deployments that are in its numerator; ok is
// false where none counts.
func (t *Tally) Rate(m Metric) (rate float64, ok bool) {
	n, hits := t.Counted(m)
	if n == 0 {
		return 0, false
	}
	return float64(hits) / float64(n), true
}

// Percentiles are those that are shown of a metric's times.
var Percentiles = [...]int{50, 75, 90, 95}

// A Figure is one number of a metric.
type Figure struct {
	Name  string // on the wire, as a path: lead_time.p50
	Unit  string // deployments, deployments/day, seconds, or ratio: 0 to 1
	Value float64
	Known bool // false where nothing counts, so that there is no value
}

// Figures gives all numbers of all metrics, always the same ones in the same order.
func (t *Tally) Figures(w Window) []Figure {
	var out []Figure
	for _, m := range Metrics {
		n, hits := t.Counted(m)
		add := func(name, unit string, value float64, known bool) {
			out = append(out, Figure{string(m) + "." + name, unit, value, known})
		}
		add("count", "deployments", float64(n), true)
		switch m {
		case DeploymentFrequency:
			add("per_day", "deployments/day", t.PerDay(m, w), true)
		case LeadTime, RecoveryTime:
			for _, p := range Percentiles {
				v, ok := t.Percentile(m, p)
				add("p"+strconv.Itoa(p), "seconds", v.Seconds(), ok)
			}
		case ChangeFailureRate, ReworkRate:
			rate, ok := t.Rate(m)
			add("hits", "deployments", float64(hits), true)
			add("rate", "ratio", rate, ok)
		}
	}
	return out
}

// A Rollback says what a deployment that was one took back, and to what.
type Rollback struct {
	Of ulid.ULID // the deployment that was live right before it
	To ulid.ULID // the latest earlier success of the same version
}

// A Neighbourhood is what a deployment is among the others of its cell.
type Neighbourhood struct {
	Previous *Run // the success that was live right before it
	Next     *Run // the success that came next
	Rollback *Rollback
	Takeback *Run // the rollback that took it back, however late
}

// Around gives the neighbourhood of the run with an id, by the same rules as the
// metrics; false where it is not among them. Runs must be all those of the cell,
// in the order of Compare. Here those of test keys are runs like others.
func Around(runs []Run, id ulid.ULID) (Neighbourhood, bool) {
	at := slices.IndexFunc(runs, func(r Run) bool { return r.ID == id })
	if at < 0 {
		return Neighbourhood{}, false
	}
	all := slices.Clone(runs)
	for i := range all {
		all[i].Mode = event.Live
	}
	known := tell(all)
	var out Neighbourhood
	if of := known[at].of; of >= 0 {
		out.Previous = &runs[of]
	}
	for i := at + 1; i < len(runs); i++ {
		if runs[i].Status == event.Completed {
			out.Next = &runs[i]
			if known[i].rollback && runs[at].Status == event.Completed {
				out.Takeback = &runs[i]
			}
			break
		}
	}
	if known[at].rollback {
		out.Rollback = &Rollback{Of: runs[known[at].of].ID}
		for i := at - 1; i >= 0; i-- {
			if runs[i].Status == event.Completed && runs[i].Version == runs[at].Version {
				out.Rollback.To = runs[i].ID
				break
			}
		}
	}
	return out, true
}

// A Stay is the time that a deployment was live in its cell.
type Stay struct {
	Run   *Run
	Until time.Time // zero while it is live
}

// Stays gives how long the deployments of a version were live, oldest first.
// Runs must be all those of a cell, in the order of Compare.
func Stays(runs []Run, version string) []Stay {
	var out []Stay
	open := false
	for i := range runs {
		if runs[i].Status != event.Completed {
			continue
		}
		if open {
			out[len(out)-1].Until = runs[i].At
		}
		if open = runs[i].Version == version; open {
			out = append(out, Stay{Run: &runs[i]})
		}
	}
	return out
}
