package cli

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// demoYears is how far back the generated history reaches.
const demoYears = 2

// The environments of the generated history.
const (
	development  = "development"
	staging      = "staging"
	production   = "production"
	productionEU = "production-eu"
)

// DemoHistory gives the invented history of a company for the two years before
// end, as backfill bodies in the order of time: forty services of eight teams,
// built and deployed on working days, each at its own pace. A version is
// promoted from development to staging to production, and from there to
// production-eu where a service runs there. Deployments fail and are retried,
// are called off, or are rolled back by deploying the version before; some
// versions turn out to be bad hours after they went live.
//
// What a deployment pipeline guarantees holds here as well: a build is done
// before its version is deployed, a cell (a service in an environment) has one
// deployment at a time, every start has an end, and a version is one commit.
//
// The same seed and end give the same bytes. Nothing happens after end.
func DemoHistory(seed uint64, end time.Time) iter.Seq[Item] {
	end = end.UTC().Truncate(time.Second)
	return func(yield func(Item) bool) {
		var all []demoEvent
		for i, s := range demoServices {
			all = append(all, simulate(seed, end, s, demoTeams[i%len(demoTeams)])...)
		}
		slices.SortStableFunc(all, func(a, b demoEvent) int {
			return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.ProductName, b.ProductName))
		})
		for i := range all {
			body, err := json.Marshal(&all[i], json.Deterministic(true))
			item := Item{Line: i + 1, Body: body}
			if err != nil { // only strings and maps of strings are in it
				item = Item{Line: i + 1, Fault: err.Error()}
			}
			if !yield(item) {
				return
			}
		}
	}
}

// demoEvent is a backfill body; the order of the fields is that of the bytes.
type demoEvent struct {
	at time.Time

	Kind            string            `json:"kind"`
	ProductName     string            `json:"product_name"`
	Version         string            `json:"version"`
	EnvironmentName string            `json:"environment_name,omitzero"`
	Status          string            `json:"status"`
	SourceSystem    string            `json:"source_system"`
	BuildNumber     string            `json:"build_number"`
	SCMSHA          string            `json:"scm_sha"`
	SCMBranch       string            `json:"scm_branch"`
	SCMRepository   string            `json:"scm_repository"`
	BuildURL        string            `json:"build_url,omitzero"`
	DeployURL       string            `json:"deploy_url,omitzero"`
	InvokeID        string            `json:"invoke_id"`
	BuiltBy         string            `json:"built_by,omitzero"`
	BuiltByEmail    string            `json:"built_by_email,omitzero"`
	BuiltByName     string            `json:"built_by_name,omitzero"`
	DeployedBy      string            `json:"deployed_by,omitzero"`
	DeployedByEmail string            `json:"deployed_by_email,omitzero"`
	DeployedByName  string            `json:"deployed_by_name,omitzero"`
	StartedAt       string            `json:"started_at"`
	CompletedAt     string            `json:"completed_at,omitzero"`
	ErrorMessage    string            `json:"error_message,omitzero"`
	ExtraMetadata   map[string]string `json:"extra_metadata"`
}

// demoService is what makes a service differ from the others.
type demoService struct {
	name   string
	ci     string  // source system
	naming string  // of versions
	pace   float64 // versions on an ordinary working day
	risk   float64 // how much more often than usual its deployments go wrong
	launch float64 // the share of the two years that passed before it existed
	eu     bool
}

var demoServices = []demoService{
	{name: "account-api", ci: "github", naming: "semver", pace: 0.62, risk: 0.8, eu: true},
	{name: "address-lookup", ci: "github", naming: "semver", pace: 0.16, risk: 0.7},
	{name: "api-gateway", ci: "github", naming: "semver", pace: 0.42, risk: 0.6, eu: true},
	{name: "audit-trail", ci: "gitlab", naming: "number", pace: 0.22, risk: 0.5},
	{name: "billing", ci: "jenkins", naming: "semver", pace: 0.34, risk: 1.3},
	{name: "booking-engine", ci: "github", naming: "calendar", pace: 0.55, risk: 1.1},
	{name: "cart", ci: "github", naming: "semver", pace: 0.78, risk: 0.9, eu: true},
	{name: "catalogue", ci: "github", naming: "semver", pace: 0.66, risk: 0.8, eu: true},
	{name: "checkout", ci: "github", naming: "semver", pace: 0.98, risk: 1.2, eu: true},
	{name: "content-cms", ci: "gitlab", naming: "number", pace: 0.48, risk: 1.0},
	{name: "currency-rates", ci: "gitlab", naming: "number", pace: 0.14, risk: 0.4},
	{name: "customer-portal", ci: "github", naming: "commit", pace: 1.15, risk: 1.0, eu: true},
	{name: "delivery-tracker", ci: "github", naming: "semver", pace: 0.44, risk: 0.9},
	{name: "document-store", ci: "jenkins", naming: "semver", pace: 0.18, risk: 0.8},
	{name: "email-sender", ci: "github", naming: "semver", pace: 0.24, risk: 0.6},
	{name: "feature-flags", ci: "github", naming: "commit", pace: 0.40, risk: 0.7, eu: true},
	{name: "fraud-check", ci: "gitlab", naming: "calendar", pace: 0.52, risk: 1.5},
	{name: "geo-search", ci: "github", naming: "semver", pace: 0.20, risk: 0.9},
	{name: "identity", ci: "github", naming: "semver", pace: 0.50, risk: 0.5, eu: true},
	{name: "image-resizer", ci: "gitlab", naming: "number", pace: 0.12, risk: 0.6},
	{name: "inventory", ci: "jenkins", naming: "semver", pace: 0.46, risk: 1.4},
	{name: "invoice-pdf", ci: "jenkins", naming: "semver", pace: 0.10, risk: 0.7},
	{name: "loyalty", ci: "github", naming: "semver", pace: 0.36, risk: 1.0, launch: 0.35},
	{name: "mobile-bff", ci: "github", naming: "commit", pace: 0.88, risk: 0.9, eu: true},
	{name: "notification-hub", ci: "github", naming: "semver", pace: 0.38, risk: 0.8, launch: 0.2},
	{name: "order-history", ci: "gitlab", naming: "number", pace: 0.26, risk: 0.7},
	{name: "order-intake", ci: "github", naming: "semver", pace: 0.70, risk: 1.1, eu: true},
	{name: "partner-api", ci: "gitlab", naming: "semver", pace: 0.28, risk: 0.9},
	{name: "payment-gateway", ci: "jenkins", naming: "semver", pace: 0.40, risk: 1.2},
	{name: "price-engine", ci: "github", naming: "calendar", pace: 0.64, risk: 1.3},
	{name: "product-search", ci: "github", naming: "semver", pace: 0.58, risk: 0.9},
	{name: "recommendations", ci: "gitlab", naming: "calendar", pace: 0.60, risk: 1.2, launch: 0.1},
	{name: "refund-desk", ci: "github", naming: "semver", pace: 0.20, risk: 0.8, launch: 0.6},
	{name: "report-builder", ci: "jenkins", naming: "number", pace: 0.16, risk: 1.1},
	{name: "returns", ci: "github", naming: "semver", pace: 0.30, risk: 0.8, launch: 0.45},
	{name: "review-moderation", ci: "gitlab", naming: "commit", pace: 0.32, risk: 0.9},
	{name: "session-store", ci: "gitlab", naming: "number", pace: 0.12, risk: 0.5, eu: true},
	{name: "shipping-labels", ci: "jenkins", naming: "semver", pace: 0.22, risk: 1.0},
	{name: "tax-calculator", ci: "github", naming: "calendar", pace: 0.24, risk: 0.6, launch: 0.75},
	{name: "web-storefront", ci: "github", naming: "commit", pace: 1.30, risk: 1.0, eu: true},
}

type demoPerson struct{ login, name string }

// demoTeams: whoever is first has more to do.
var demoTeams = [][]demoPerson{
	{{"aokafor", "Ada Okafor"}, {"mlind", "Matti Lind"}, {"tbrandt", "Tessa Brandt"}},
	{{"rsilva", "Rui Silva"}, {"hnakata", "Hana Nakata"}, {"jweber", "Jonas Weber"}, {"cdupont", "Claire Dupont"}},
	{{"pkowal", "Piotr Kowal"}, {"nharris", "Nell Harris"}, {"ysaito", "Yuki Saito"}},
	{{"elarsen", "Eva Larsen"}, {"drossi", "Dario Rossi"}, {"fmensah", "Femi Mensah"}},
	{{"gnovak", "Greta Novak"}, {"isantos", "Ines Santos"}, {"bkelly", "Brendan Kelly"}, {"lzhou", "Lin Zhou"}},
	{{"ojensen", "Ole Jensen"}, {"vpatel", "Vani Patel"}, {"smoreau", "Sami Moreau"}},
	{{"kadler", "Kim Adler"}, {"wtan", "Wei Tan"}, {"dcohen", "Dina Cohen"}},
	{{"ahaddad", "Amal Haddad"}, {"bjovic", "Bojan Jovic"}, {"qfarrell", "Quinn Farrell"}, {"uziegler", "Uta Ziegler"}},
}

var (
	demoDeployErrors = []string{
		"readiness probe failed: 2 of 6 pods did not become ready within 300s",
		"database migration failed: lock timeout",
		"smoke test failed: GET /health answered 503",
		"image pull timed out",
		"helm upgrade failed: timed out waiting for the condition",
		"configuration check failed: missing secret",
	}
	demoBuildErrors = []string{"unit tests failed", "lint failed", "dependency could not be resolved", "compile error"}
	demoReasons     = []string{
		"error rate above 2 %", "latency p99 doubled", "checkout conversion dropped", "memory leak",
		"wrong totals reported by support", "queue backlog grows",
	}
)

// demoVersion is a version on its way through the environments.
type demoVersion struct {
	name, sha, branch string
	build             int
	committed         time.Time
	author            demoPerson
}

// simulation is one service's two years. It draws from a source of its own, so
// that a change to one service does not change the history of the others.
type simulation struct {
	demoService
	team   []demoPerson
	rng    *rand.Rand
	end    time.Time
	events []demoEvent

	builds      int
	semver      [3]int
	day         string // of the last calendar version
	ofDay       int
	free        map[string]time.Time     // when a cell takes the next deployment
	live        map[string][]demoVersion // what succeeded in a cell, oldest first
	buildsUntil time.Time
}

func simulate(seed uint64, end time.Time, s demoService, team []demoPerson) []demoEvent {
	name := fnv.New64a()
	_, _ = name.Write([]byte(s.name))
	sim := &simulation{
		demoService: s, team: team, end: end, rng: rand.New(rand.NewPCG(seed, name.Sum64())),
		free: map[string]time.Time{}, live: map[string][]demoVersion{},
	}
	sim.builds = 40 + sim.rng.IntN(900) // the services are older than their history
	sim.semver = [3]int{1 + sim.rng.IntN(4), sim.rng.IntN(40), sim.rng.IntN(9)}
	if s.launch > 0 {
		sim.builds, sim.semver = 0, [3]int{0, 1, -1}
	}

	start := end.AddDate(-demoYears, 0, 0)
	begin := start.Add(time.Duration(float64(end.Sub(start)) * s.launch))
	for day := begin.Truncate(24 * time.Hour); day.Before(end); day = day.AddDate(0, 0, 1) {
		grown := 0.85 + 0.35*float64(day.Sub(start))/float64(end.Sub(start)) // more is deployed every month
		for _, merged := range sim.merges(day, s.pace*grown*mood(day)) {
			if !merged.Before(begin) {
				sim.release(merged)
			}
		}
	}
	return sim.events
}

// mood is how much of an ordinary working day's work is done on a day.
func mood(day time.Time) float64 {
	m := [...]float64{time.Sunday: 0.02, 0.95, 1.15, 1.15, 1.1, 0.65, time.Saturday: 0.03}[day.Weekday()]
	switch {
	case day.Month() == time.December && day.Day() >= 22, day.Month() == time.January && day.Day() <= 2:
		m *= 0.12
	case day.Month() == time.August:
		m *= 0.75
	}
	return m
}

// merges gives the moments of a day at which a version is born.
func (s *simulation) merges(day time.Time, mean float64) []time.Time {
	var at []time.Time
	for p := s.rng.Float64(); p > math.Exp(-mean); p *= s.rng.Float64() { // Poisson
		peak := 10.5 // before lunch
		if s.rng.IntN(2) == 0 {
			peak = 15
		}
		hour := min(max(peak+1.4*s.rng.NormFloat64(), 6), 20)
		at = append(at, day.Add(time.Duration(hour*float64(time.Hour))).Truncate(time.Millisecond))
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// release builds what was merged and takes it as far as it comes. A change that
// broke the build is mended at once.
func (s *simulation) release(merged time.Time) {
	merged = later(merged, s.buildsUntil)
	for range 3 {
		v := s.version(merged)
		done, ok := s.build(v, merged)
		if ok {
			s.promote(v, done)
			return
		}
		if done.IsZero() || s.chance(0.25) {
			return
		}
		merged = done.Add(s.between(10*time.Minute, 90*time.Minute))
	}
}

func (s *simulation) version(merged time.Time) demoVersion {
	var sha [20]byte
	for i := range sha {
		sha[i] = byte(s.rng.UintN(256))
	}
	s.builds++
	v := demoVersion{
		sha: hex.EncodeToString(sha[:]), build: s.builds, branch: "main", author: s.person(),
		committed: merged.Add(-time.Minute - time.Duration(s.rng.ExpFloat64()*float64(9*time.Hour))).Truncate(time.Second),
	}
	switch s.naming {
	case "number":
		v.name = "v" + strconv.Itoa(s.builds)
	case "commit":
		v.name = v.sha[:8]
	case "calendar":
		if day := merged.Format("2006.01.02"); day != s.day {
			s.day, s.ofDay = day, 0
		}
		s.ofDay++
		v.name = s.day + "." + strconv.Itoa(s.ofDay)
	default:
		switch n := s.rng.IntN(100); {
		case n < 1:
			s.semver = [3]int{s.semver[0] + 1, 0, 0}
		case n < 38:
			s.semver = [3]int{s.semver[0], s.semver[1] + 1, 0}
		default:
			s.semver[2]++
		}
		v.name = fmt.Sprintf("%d.%d.%d", s.semver[0], s.semver[1], s.semver[2])
	}
	if s.chance(0.02) {
		v.branch = "hotfix/" + v.sha[:6]
	}
	return v
}

// build gives when the build ended and whether there is something to deploy;
// no time at all if it did not end within the history.
func (s *simulation) build(v demoVersion, want time.Time) (time.Time, bool) {
	began := later(want, s.buildsUntil)
	done := began.Add(s.between(2*time.Minute, 13*time.Minute))
	if done.After(s.end) {
		return time.Time{}, false
	}
	s.buildsUntil = done.Add(time.Second)
	e := s.event("build", v, began)
	e.BuildURL = s.url("builds", e.InvokeID)
	e.BuiltBy, e.BuiltByName, e.BuiltByEmail = v.author.login, v.author.name, v.author.login+"@example.com"
	e.Status, e.at, e.CompletedAt = "completed", done, stamp(done)
	switch n := s.rng.IntN(100); {
	case n < 5:
		e.Status, e.ErrorMessage = "failed", pick(s.rng, demoBuildErrors)
	case n < 6:
		e.Status = "aborted"
	}
	s.events = append(s.events, e)
	return done, e.Status == "completed"
}

// promote takes a version from one environment to the next.
func (s *simulation) promote(v demoVersion, built time.Time) {
	at, ok := s.roll(v, development, built.Add(s.between(10*time.Second, 4*time.Minute)))
	if !ok || !s.chance(0.92) {
		return
	}
	at, ok = s.roll(v, staging, at.Add(s.between(5*time.Minute, 150*time.Minute)))
	if !ok || !s.chance(0.88) {
		return
	}
	at, ok = s.roll(v, production, s.office(at.Add(s.between(20*time.Minute, 22*time.Hour))))
	if !ok || !s.eu {
		return
	}
	s.roll(v, productionEU, s.office(at.Add(s.between(30*time.Minute, 7*time.Hour))))
}

// roll deploys a version until it stays, is given up, or is replaced by the one
// before it. It gives when it was live; false if it is not to be promoted.
func (s *simulation) roll(v demoVersion, env string, want time.Time) (time.Time, bool) {
	before, had := demoVersion{}, false
	if h := s.live[env]; len(h) > 0 {
		before, had = h[len(h)-1], true
	}
	inProduction := env == production || env == productionEU
	for try := range 3 {
		at, status := s.deploy(v, env, want, s.outcome(inProduction, try), "")
		switch {
		case status == "":
			return at, false // the history ends here
		case status == "completed":
			if inProduction && had && s.chance(0.022*s.risk) {
				s.rollBack(before, env, at.Add(s.between(12*time.Minute, 5*time.Hour)), pick(s.rng, demoReasons))
				return at, false
			}
			return at, true
		case inProduction && had && s.chance(0.4):
			s.rollBack(before, env, at.Add(s.between(2*time.Minute, 15*time.Minute)), "deployment "+status)
			return at, false
		case s.chance(0.2):
			return at, false // the next version will have it
		}
		want = at.Add(s.between(4*time.Minute, 40*time.Minute))
	}
	return want, false
}

func (s *simulation) outcome(inProduction bool, try int) string {
	fails := 0.055 * s.risk
	if inProduction {
		fails = 0.034 * s.risk
	}
	if try > 0 {
		fails *= 2 // what failed once is not just bad luck
	}
	switch p := s.rng.Float64(); {
	case p < fails:
		return "failed"
	case p < fails+0.011:
		return "aborted"
	}
	return "completed"
}

// rollBack deploys a version again that was live before; it is known to work.
func (s *simulation) rollBack(to demoVersion, env string, want time.Time, reason string) {
	s.deploy(to, env, want, "completed", reason)
}

// deploy records one deployment with its start and its end; the status is empty
// if it would not have ended within the history.
func (s *simulation) deploy(v demoVersion, env string, want time.Time, status, rollback string) (time.Time, string) {
	began := later(want, s.free[env])
	done := began.Add(s.between(50*time.Second, 9*time.Minute))
	if status == "failed" {
		done = done.Add(s.between(time.Minute, 6*time.Minute)) // time-outs take their time
	}
	if done.After(s.end) {
		s.free[env] = s.end
		return s.end, ""
	}
	s.free[env] = done.Add(30 * time.Second)

	e := s.event("deployment", v, began)
	e.EnvironmentName, e.Status, e.at = env, "started", began
	e.DeployURL = s.url("deploys", e.InvokeID)
	by := demoPerson{s.ci + "-deployer", "Deployment pipeline"}
	if rollback != "" || (env == production || env == productionEU) && s.chance(0.6) {
		by = s.person()
		e.DeployedByEmail = by.login + "@example.com"
	}
	e.DeployedBy, e.DeployedByName = by.login, by.name
	if rollback != "" {
		e.ExtraMetadata["rollback_reason"] = rollback
	}
	s.events = append(s.events, e)

	ended := e
	ended.Status, ended.at, ended.CompletedAt = status, done, stamp(done)
	if status == "failed" {
		ended.ExtraMetadata = map[string]string{
			"commit_time": stamp(v.committed),
			"error":       pick(s.rng, demoDeployErrors),
		}
	}
	s.events = append(s.events, ended)
	if status == "completed" {
		s.live[env] = append(s.live[env], v)
	}
	return done, status
}

// event gives what a build and a deployment have in common. A run id is the
// moment at which the run began, as no cell begins two at one moment.
func (s *simulation) event(kind string, v demoVersion, began time.Time) demoEvent {
	run := strconv.FormatInt(began.UnixMilli(), 10)
	if s.ci == "jenkins" {
		run = s.name + "-" + kind + "-" + run
	}
	return demoEvent{
		Kind: kind, ProductName: s.name, Version: v.name, SourceSystem: s.ci, BuildNumber: strconv.Itoa(v.build),
		SCMSHA: v.sha, SCMBranch: v.branch, SCMRepository: "harbour/" + s.name,
		InvokeID: run, StartedAt: stamp(began),
		ExtraMetadata: map[string]string{"commit_time": stamp(v.committed)},
	}
}

func (s *simulation) url(what, run string) string {
	return "https://ci.example.com/harbour/" + s.name + "/" + what + "/" + run
}

// office moves a moment into working hours: nobody deploys to production at
// night, at the weekend, or late on a Friday.
func (s *simulation) office(t time.Time) time.Time {
	for {
		closes := 17
		if t.Weekday() == time.Friday {
			closes = 14
		}
		switch {
		case t.Weekday() == time.Saturday, t.Weekday() == time.Sunday, t.Hour() >= closes:
			next := t.Truncate(24*time.Hour).AddDate(0, 0, 1)
			t = next.Add(8 * time.Hour).Add(s.between(0, 4*time.Hour))
		case t.Hour() < 8:
			t = t.Truncate(24 * time.Hour).Add(8 * time.Hour).Add(s.between(0, 3*time.Hour))
		default:
			return t
		}
	}
}

func (s *simulation) person() demoPerson {
	return s.team[min(s.rng.IntN(len(s.team)), s.rng.IntN(len(s.team)))]
}

func (s *simulation) chance(p float64) bool { return s.rng.Float64() < p }

func (s *simulation) between(least, most time.Duration) time.Duration {
	return (least + time.Duration(s.rng.Int64N(int64(most-least)))).Truncate(time.Millisecond)
}

func pick(rng *rand.Rand, from []string) string { return from[rng.IntN(len(from))] }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000Z") }
