package replay_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// changedMetrics are what a preview says of metrics.
type changedMetrics struct {
	Definition int
	From, To   string
	AsOf       *struct{ Old, New struct{ Position string } } `json:"as_of"`
	Reason     *string
	Overall    []changedFigure
	Changed    int `json:"products_changed"`
	Products   []struct {
		Name    string `json:"product_name"`
		Figures []changedFigure
	}
}

type changedFigure struct {
	Name, Unit string
	Old, New   *float64
}

// figures gives what a list of changes says, by name.
func figures(list []changedFigure) map[string][2]string {
	out := map[string][2]string{}
	for _, f := range list {
		out[f.Name] = [2]string{number(f.Old), number(f.New)}
	}
	return out
}

func number(v *float64) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprint(*v)
}

func (w *world) metricsOf(id string) (m changedMetrics) {
	w.t.Helper()
	var diff struct{ Metrics *changedMetrics }
	if code := w.ask(http.MethodGet, "/replays/"+id+"/diff", "", &diff); code != http.StatusOK || diff.Metrics == nil {
		w.t.Fatalf("%d %+v", code, diff)
	}
	return *diff.Metrics
}

// dora gives the figures of /metrics/dora by path; of all products if none is named.
func (w *world) dora(m *changedMetrics, product string) map[string]string {
	w.t.Helper()
	q := url.Values{"from": {m.From}, "to": {m.To}}
	if product != "" {
		q.Set("product", product)
	}
	var answer map[string]any
	if code := w.ask(http.MethodGet, "/metrics/dora?"+q.Encode(), "", &answer); code != http.StatusOK {
		w.t.Fatal(code)
	}
	out := map[string]string{}
	for _, metric := range []string{"deployment_frequency", "lead_time", "change_failure_rate", "recovery_time", "rework_rate"} {
		for name, v := range answer[metric].(map[string]any) {
			text := "none"
			if v != nil {
				text = fmt.Sprint(v)
			}
			out[metric+"."+name] = text
		}
	}
	return out
}

// lenient is the projection with failures that count as aborted, of two products and
// of whatever another account has.
func lenient(r event.Recorded, rows *readmodel.Rows) bool {
	n := len(rows.Deployments)
	known := projection.Project(r, rows)
	for i := range rows.Deployments[n:] {
		rec := &rows.Deployments[n+i].Record
		if rec.Status == event.Failed && (rec.ProductName == "shop" || rec.ProductName == "docs" || rec.ProductName == "vault") {
			rec.Status = event.Aborted
		}
	}
	return known
}

func TestThePreviewListsTheMetricsThatWouldChangeAndNoOthers(t *testing.T) {
	w := newWorld(t)
	w.start(w.model)
	report := func(product string, statuses ...string) {
		var b strings.Builder
		for i, status := range statuses {
			fmt.Fprintf(&b, `{"type":"deployment","product_name":%q,"version":"1.%d","environment_name":"production","status":%q,"invoke_id":"%s-%d"}`+"\n", product, i, status, product, i)
		}
		var got struct{ Accepted int }
		if code := w.ask(http.MethodPost, "/events/batch", b.String(), &got); code != http.StatusOK || got.Accepted != len(statuses) {
			t.Fatalf("%d: %d are accepted", code, got.Accepted)
		}
	}
	products := []string{"cart", "docs", "shop"}
	report("cart", "success", "failed", "success", "success")
	report("docs", "success", "failed")
	report("shop", "success", "failed", "success", "failed", "success")
	w.other = true
	report("vault", "success", "failed", "failed", "success")
	w.other = false
	w.projected()

	same := w.startReplay(`{}`)
	w.reaches(same.ID, "ready")
	if m := w.metricsOf(same.ID); len(m.Overall) > 0 || m.Changed > 0 || len(m.Products) > 0 || m.Reason != nil || m.AsOf == nil || m.AsOf.Old != m.AsOf.New {
		t.Errorf("of equal tables: %+v", m)
	}
	w.cancelled(same.ID)

	w.code(lenient)
	r := w.startReplay(`{}`)
	w.reaches(r.ID, "ready")
	m := w.metricsOf(r.ID)
	if m.Definition != 1 || m.Reason != nil || m.AsOf == nil || m.AsOf.Old != m.AsOf.New || m.Changed != 2 || len(m.Products) != 2 {
		t.Fatalf("%+v", m)
	}
	w.other = true // who has not started it sees nothing of it
	if code := w.ask(http.MethodGet, "/replays/"+r.ID+"/diff", "", nil); code != http.StatusForbidden {
		t.Errorf("another account is answered %d", code)
	}
	w.other = false

	// What was previewed is what the metrics are before the switch, and after it.
	before := map[string]map[string]string{}
	for _, p := range append(products, "") {
		before[p] = w.dora(&m, p)
	}
	w.switched(r, `{"consent":true}`)
	want := map[string]map[string][2]string{}
	for p, old := range before {
		for name, now := range w.dora(&m, p) {
			if now != old[name] {
				if want[p] == nil {
					want[p] = map[string][2]string{}
				}
				want[p][name] = [2]string{old[name], now}
			}
		}
	}
	got := map[string]map[string][2]string{"": figures(m.Overall)}
	for _, p := range m.Products {
		got[p.Name] = figures(p.Figures)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// By hand: of docs one change of two failed, and was never recovered from.
	docs := map[string][2]string{
		"change_failure_rate.count": {"2", "1"}, "change_failure_rate.hits": {"1", "0"}, "change_failure_rate.rate": {"0.5", "0"},
	}
	if d := cmp.Diff(docs, got["docs"]); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([2]string{"4", "1"}, got[""]["change_failure_rate.hits"]); d != "" {
		t.Error("of all products of the account:", d)
	}
	if d := cmp.Diff(m, w.metricsOf(r.ID)); d != "" {
		t.Error("after the switch the preview is another:", d)
	}
	w.undone(r.ID, 1)
	if undone := w.metricsOf(r.ID); undone.Reason == nil || undone.AsOf != nil || len(undone.Overall) > 0 {
		t.Errorf("of tables that are no longer kept: %+v", undone)
	}
}
