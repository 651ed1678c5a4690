package replay_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/services/cli"
)

// historyDir is where the real history lies: beside the repository, or where
// SHIPLEDGER_HISTORY_DIR says.
func historyDir() string {
	if dir := os.Getenv("SHIPLEDGER_HISTORY_DIR"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "..", "shared", "data")
}

// handled sends requests of a client straight to a handler.
type handled struct{ http.Handler }

func (h handled) Do(r *http.Request) (*http.Response, error) {
	a := httptest.NewRecorder()
	h.ServeHTTP(a, r)
	return a.Result(), nil
}

// arriving is how many events a second are to arrive while it is compared.
const arriving = 1000

// Issue 5: the real history is rebuilt while one reads the matrix in a loop and
// another posts at least a thousand events a second, where the machine has the time
// for that: no read fails, none mixes versions, the verdict is "equal", and the
// answers are those of the model in memory over the same log.
func TestTheRealHistoryIsRebuiltWhileOthersReadAndWrite(t *testing.T) {
	packed, err := os.ReadFile(filepath.Join(historyDir(), "govuk-deployments-2022-2024.jsonl.gz"))
	if err != nil {
		t.Skipf("the real history is not here (SHIPLEDGER_HISTORY_DIR names its directory): %v", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.start(w.model)
	sum, err := cli.Load(t.Context(), handled{w.api}, "http://ledger.example.com", "token", cli.NewLines(z).All(), cli.Options{})
	if err != nil || sum.Refused > 0 {
		t.Fatalf("%+v, %v", sum, err)
	}
	w.projected()
	history := w.allCells()
	t.Logf("the history has %d events, and %d cells are live at its end", sum.Accepted, len(history))

	var reads, wrong, posted atomic.Int64
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	stop := busily(
		func() {
			got := w.allCells()
			maps.DeleteFunc(got, func(cell, _ string) bool { return strings.HasPrefix(cell, "svc-") }) // what is posted meanwhile
			if diff := cmp.Diff(history, got); diff != "" && wrong.Add(1) == 1 {
				t.Errorf("a read beside the rebuild (-history +answer): %s", diff)
			}
			reads.Add(1)
		},
		func() { <-pace.C; posted.Add(int64(w.postQuickly(200))); w.keepsUp() }, // up to 2,000 a second: a rebuild has to catch up as well
	)
	defer stop()
	r := w.startReplay(`{"switch":"when_equal"}`)
	var before int64
	var compared time.Time
	w.until("it is compared", func() bool {
		if s := w.state(r.ID); s.State != "running" && compared.IsZero() {
			before, compared = posted.Load(), time.Now()
		}
		return !compared.IsZero()
	})
	w.until("it has a verdict", func() bool { s := w.state(r.ID); return s.State != "running" && s.State != "verifying" })
	arrived, took := posted.Load()-before, time.Since(compared)
	w.reaches(r.ID, "switched")
	before = reads.Load()
	w.until("the matrix is read after the switch as well", func() bool { return reads.Load() > before+1 })
	stop()

	c := w.certificate(r.ID)
	rate := float64(arrived) / took.Seconds()
	t.Logf("%d events rebuilt; %d reads, %d events posted, of them %d during the %s of the comparison: %.0f/s; live stood %.0f ms; machine's load %s",
		c.Events, reads.Load(), posted.Load(), arrived, took.Round(time.Millisecond), rate, c.StoodStill*1000, loadAverage())
	if c.Verdict != "equal" || c.First != nil || c.Events < sum.Accepted || wrong.Load() > 0 || posted.Load() == 0 {
		t.Errorf("%+v", c)
	}
	w.live(r.Version)
	if rate < arriving { // what a machine can post is no promise of the product
		t.Logf("NOT A THOUSAND EVENTS A SECOND were posted while it was compared, but %.0f", rate)
	}
	w.equalsMemory()
}

// allCells gives the whole matrix, product/environment → version.
func (w *world) allCells() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for cursor := ""; ; {
		var page struct {
			matrix

			Next *string `json:"next_cursor"`
		}
		if code := w.ask(http.MethodGet, "/matrix?limit=500"+cursor, "", &page); code != http.StatusOK {
			w.t.Errorf("a read of the matrix is answered %d", code)
			return out
		}
		for _, p := range page.Items {
			for _, c := range p.Cells {
				if c.Version != nil {
					out[p.ProductName+" in "+c.EnvironmentName] = *c.Version
				}
			}
		}
		if page.Next == nil {
			return out
		}
		cursor = "&cursor=" + *page.Next
	}
}

// postQuickly stores n deployments more, of products that the history has not.
func (w *world) postQuickly(n int) int {
	w.t.Helper()
	var b bytes.Buffer
	for range n {
		i := int(w.n.Add(1))
		fmt.Fprintf(&b, `{"type":"deployment","product_name":"svc-%d","version":"1.%d","environment_name":%q,"status":"success","invoke_id":"%d","deployed_by":"ada"}`+"\n",
			i%products, i%100, environments[i/products%len(environments)], i)
	}
	r := httptest.NewRequest(http.MethodPost, "/events/batch", &b)
	r.Header.Set("Authorization", "Bearer "+"token")
	r.Header.Set("Content-Type", "application/x-ndjson")
	a := httptest.NewRecorder()
	w.api.ServeHTTP(a, r)
	accepted := bytes.Count(a.Body.Bytes(), []byte(`"status":200`))
	if a.Code != http.StatusOK || accepted != n {
		w.t.Errorf("of %d events %d are accepted: %d %.300s", n, accepted, a.Code, a.Body)
	}
	return accepted
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(text), " ")
	return load
}
