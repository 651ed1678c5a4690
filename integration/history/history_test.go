// Package history_test loads histories, a real one and the generated one,
// through the public interface and asks for them back through it alone.
package history_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
	"github.com/shipledger/shipledger/services/all"
	"github.com/shipledger/shipledger/services/cli"
)

func TestMain(m *testing.M) { chservertest.Main(m) }

// system is a running Shipledger with embedded backends.
type system struct {
	t     *testing.T
	url   string
	admin string
	pat   string
	stop  func()
}

// start runs the whole system on dir until stop is called or the test ends.
func start(t *testing.T, dir string) *system {
	t.Helper()
	chservertest.Engine(t)
	s := &system{t: t}
	app, err := all.New(all.Config{
		Data: dir, Addr: "127.0.0.1:0", RateLimit: "off", EngineCache: os.Getenv("SHIPLEDGER_ENGINE_CACHE"),
		Listening: func(a net.Addr) { s.url = "http://" + a.String() },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.stop = lifecycletest.Run(t, app)
	var first struct {
		PAT      string `json:"pat"`
		AdminPAT string `json:"admin_pat"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "bootstrap-credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &first); err != nil {
		t.Fatal(err)
	}
	s.admin, s.pat = first.AdminPAT, first.PAT
	return s
}

func (s *system) load(items iter.Seq[cli.Item]) cli.Summary {
	s.t.Helper()
	sum, err := cli.Load(s.t.Context(), http.DefaultClient, s.url, s.admin, items, cli.Options{
		Refused: func(r cli.Refusal) { s.t.Error(r) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("loaded %d events, %d of them known, in %s (%.0f events/s)", sum.Events(), sum.Duplicate, sum.Elapsed.Round(time.Millisecond), sum.Rate())
	return sum
}

// patience is no expectation: only what hangs reaches it.
const patience = 5 * time.Minute

func (s *system) get(path string, query url.Values, into any) {
	s.t.Helper()
	s.ask(http.MethodGet, path+"?"+query.Encode(), s.pat, "", into)
}

// ask sends a request, and again while it is told to come again: the read model may be
// behind a whole history, or its tables not yet made.
func (s *system) ask(method, path, token, body string, into any) {
	s.t.Helper()
	for deadline := time.After(patience); ; {
		status, answer := s.once(method, path, token, body)
		if status < 300 {
			if err := json.Unmarshal(answer, into); err != nil {
				s.t.Fatal(err)
			}
			return
		}
		if status != http.StatusServiceUnavailable {
			s.t.Fatalf("%s %s = %d: %s", method, path, status, answer)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			s.t.Fatalf("%s %s = %d: %s", method, path, status, answer)
		}
	}
}

func (s *system) once(method, path, token, body string) (status int, answer []byte) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, answer
}

// walk gives every item of a list, page by page.
func walk[T any](s *system, path, position string) iter.Seq[T] {
	return narrowed[T](s, path, url.Values{}, position)
}

// narrowed gives those items that a filter leaves.
func narrowed[T any](s *system, path string, filter url.Values, position string) iter.Seq[T] {
	return func(yield func(T) bool) {
		query := maps.Clone(filter)
		query.Set("limit", "500")
		query.Set("min_position", position)
		for {
			var page struct {
				Items []T     `json:"items"`
				Next  *string `json:"next_cursor"`
			}
			s.get(path, query, &page)
			for _, item := range page.Items {
				if !yield(item) {
					return
				}
			}
			if page.Next == nil {
				return
			}
			query.Set("cursor", *page.Next)
		}
	}
}

type deployment struct {
	ID          string    `json:"id"`
	Product     string    `json:"product_name"`
	Environment string    `json:"environment_name"`
	Version     string    `json:"version"`
	Status      string    `json:"status"`
	DeployedAt  time.Time `json:"deployed_at"`
	CompletedAt time.Time `json:"completed_at"`
}

// answers are the figures of an answer key.
type answers struct {
	Events       int              `json:"events"`
	Products     int              `json:"products"`
	Environments map[string]int   `json:"environments"`
	Versions     int              `json:"versions"`
	PerYear      map[string]int   `json:"production_per_year"`
	Busiest      [][2]any         `json:"busiest_product"`
	AsOf         map[string]cells `json:"asof"`
	Last         cells            `json:"-"`
}

type cells struct {
	Cells    int    `json:"cells"`
	Both     int    `json:"apps_with_integration_and_production"`
	Drifting int    `json:"drifting"`
	Hash     string `json:"sha256_of_sorted_cells"`
}

type matrixRow struct {
	Product string `json:"product_name"`
	Cells   []struct {
		Environment string `json:"environment_name"`
		Version     string `json:"version"`
	} `json:"cells"`
}

// answers works them out of what the public interface says.
func (s *system) answers(position string, moments []string) answers {
	a := answers{Environments: map[string]int{}, PerYear: map[string]int{}}
	perProduct := map[string]int{}
	for d := range walk[deployment](s, "/deployments/", position) {
		a.Events++
		a.Environments[d.Environment]++
		perProduct[d.Product]++
		if d.Environment == "production" {
			a.PerYear[d.CompletedAt.Format("2006")]++
		}
	}
	for range walk[struct{}](s, "/products/", position) {
		a.Products++
	}
	for range walk[struct{}](s, "/versions/", position) {
		a.Versions++
	}
	names := make([]string, 0, len(perProduct))
	for name := range perProduct {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int { return perProduct[y] - perProduct[x] })
	for _, name := range names[:min(3, len(names))] {
		a.Busiest = append(a.Busiest, [2]any{name, float64(perProduct[name])})
	}
	a.Last = s.matrix(url.Values{}, position)
	a.AsOf = map[string]cells{}
	for _, moment := range moments {
		a.AsOf[moment] = s.matrix(url.Values{"at": {moment}}, position)
	}
	return a
}

func (s *system) matrix(filter url.Values, position string) cells {
	var c cells
	var lines []string
	for row := range narrowed[matrixRow](s, "/matrix", filter, position) {
		at := map[string]string{}
		for _, cell := range row.Cells {
			at[cell.Environment] = cell.Version
			lines = append(lines, row.Product+"\t"+cell.Environment+"\t"+cell.Version)
		}
		if at["integration"] != "" && at["production"] != "" {
			c.Both++
			if at["integration"] != at["production"] {
				c.Drifting++
			}
		}
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	c.Cells, c.Hash = len(lines), hex.EncodeToString(sum[:])
	return c
}

// historyDir is where the real history lies: beside the repository, or where
// SHIPLEDGER_HISTORY_DIR says.
func historyDir() string {
	if dir := os.Getenv("SHIPLEDGER_HISTORY_DIR"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "..", "shared", "data")
}

func TestTheRealHistoryComesBackAsItsAnswerKeySays(t *testing.T) {
	key, err := os.ReadFile(filepath.Join(historyDir(), "govuk-answer-key.json"))
	if err != nil {
		t.Skipf("the real history is not here (SHIPLEDGER_HISTORY_DIR names its directory): %v", err)
	}
	packed, err := os.ReadFile(filepath.Join(historyDir(), "govuk-deployments-2022-2024.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	var want answers
	if err := json.Unmarshal(key, &want); err != nil {
		t.Fatal(err)
	}
	moments := slices.Sorted(maps.Keys(want.AsOf))
	want.Last = want.AsOf["2024-12-31T23:59:59Z"] // the last event is before it

	dir := t.TempDir()
	s := start(t, dir)
	first := s.load(lines(t, packed))
	if first.Accepted != want.Events {
		t.Errorf("accepted %d of %d", first.Accepted, want.Events)
	}
	if diff := cmp.Diff(want, s.answers(first.Position, moments)); diff != "" {
		t.Errorf("after the import (-key +answer): %s", diff)
	}

	deliveryOfTheRealHistory(s, first.Position, want.PerYear, key)

	again := s.load(lines(t, packed))
	if again.Accepted != 0 || again.Duplicate != want.Events || again.Position != first.Position {
		t.Errorf("imported again: %+v, the log ended at %s", again, first.Position)
	}
	s.stop()

	s = start(t, dir)
	if diff := cmp.Diff(want, s.answers(first.Position, moments)); diff != "" {
		t.Errorf("after a second import and a restart (-key +answer): %s", diff)
	}
}

// deliveryOfTheRealHistory holds the delivery metrics to what the answer key
// counts by other means, and to their evidence.
func deliveryOfTheRealHistory(s *system, position string, perYear map[string]int, key []byte) {
	s.t.Helper()
	var want struct {
		Redeploys int `json:"production_redeploys_of_an_earlier_version"`
	}
	if err := json.Unmarshal(key, &want); err != nil {
		s.t.Fatal(err)
	}
	redeploys := 0
	for year, deployments := range perYear {
		query := url.Values{
			"environment": {"production"}, "from": {year + "-01-01T00:00:00Z"}, "to": {year + "-12-31T23:59:59.999Z"}, "period": {"week"},
			"min_position": {position},
		}
		var got struct {
			Frequency struct{ Count int }       `json:"deployment_frequency"`
			Failures  struct{ Count, Hits int } `json:"change_failure_rate"`
			Rework    struct{ Count, Hits int } `json:"rework_rate"`
			Rules     map[string]map[string]int `json:"rules"`
		}
		s.get("/metrics/dora", query, &got)
		if got.Frequency.Count != deployments || got.Rework.Count != deployments {
			s.t.Errorf("%s: %d and %d deployments, the key has %d", year, got.Frequency.Count, got.Rework.Count, deployments)
		}
		redeploys += got.Rules["rework_rate"]["rollback"]
		query.Set("metric", "change_failure_rate")
		counted, hits, judged := 0, 0, 0
		for e := range narrowed[struct {
			Counted bool `json:"counted"`
			Hit     bool `json:"hit"`
		}](s, "/metrics/dora/evidence", query, position) {
			judged++
			if e.Counted {
				counted++
			}
			if e.Hit {
				hits++
			}
		}
		if judged != deployments || counted != got.Failures.Count || hits != got.Failures.Hits {
			s.t.Errorf("%s: evidence of %d deployments, %d counted, %d failed; the figures say %+v", year, judged, counted, hits, got.Failures)
		}
	}
	if redeploys != want.Redeploys {
		s.t.Errorf("%d deployments of an earlier version, the key has %d", redeploys, want.Redeploys)
	}
}

func lines(t *testing.T, packed []byte) iter.Seq[cli.Item] {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	return cli.NewLines(z).All()
}

func TestTheDemoHistoryComesBackAsItWasTold(t *testing.T) {
	end := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	type told struct {
		Product     string    `json:"product_name"`
		Environment string    `json:"environment_name"`
		Version     string    `json:"version"`
		Status      string    `json:"status"`
		Run         string    `json:"invoke_id"`
		CompletedAt time.Time `json:"completed_at"`
	}
	ends := map[string]int{}
	live := map[string]told{}
	n := 0
	for item := range cli.DemoHistory(1, end) {
		var e told
		if err := json.Unmarshal(item.Body, &e); err != nil {
			t.Fatal(err)
		}
		n++
		if e.Environment == "" || e.CompletedAt.IsZero() {
			continue
		}
		ends[e.Environment+" "+word[e.Status]]++
		cell := e.Product + "\t" + e.Environment
		if word[e.Status] == "completed" && !e.CompletedAt.Before(live[cell].CompletedAt) {
			live[cell] = e
		}
	}
	s := start(t, t.TempDir())
	sum := s.load(cli.DemoHistory(1, end))
	if sum.Accepted != n {
		t.Errorf("accepted %d of %d", sum.Accepted, n)
	}
	got := map[string]int{}
	for d := range walk[deployment](s, "/deployments/", sum.Position) {
		got[d.Environment+" "+d.Status]++
	}
	if diff := cmp.Diff(ends, got); diff != "" {
		t.Errorf("deployments by environment and status (-told +answer): %s", diff)
	}
	want, have := []string{}, []string{}
	for cell, e := range live {
		want = append(want, cell+"\t"+e.Version)
	}
	for row := range walk[matrixRow](s, "/matrix", sum.Position) {
		for _, c := range row.Cells {
			have = append(have, fmt.Sprintf("%s\t%s\t%s", row.Product, c.Environment, c.Version))
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("live cells (-told +answer): %s", diff)
	}
}

var word = map[string]string{
	"success": "completed", "completed": "completed", "failed": "failed", "failure": "failed", "error": "failed",
	"aborted": "aborted", "cancelled": "aborted", "canceled": "aborted",
}
