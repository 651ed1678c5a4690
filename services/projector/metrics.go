package projector

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/delivery"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/replay"
)

const (
	// previewWindow is the time before a comparison of which metrics are compared.
	previewWindow = 90 * 24 * time.Hour
	// previewProducts is how many products with other metrics are listed.
	previewProducts = 100
)

// metricsAnswer is what a switch would change of an account's delivery metrics.
type metricsAnswer struct {
	Definition int             `json:"definition"`
	From       *time.Time      `json:"from"`
	To         *time.Time      `json:"to"`
	AsOf       *sidesAnswer    `json:"as_of"`
	Reason     httpapi.Text    `json:"reason"` // why they are not compared
	Overall    []figureAnswer  `json:"overall"`
	Changed    int             `json:"products_changed"`
	Products   []productAnswer `json:"products"`
}

// sidesAnswer is how far the tables of each side were.
type sidesAnswer struct {
	Old httpapi.AsOf `json:"old"`
	New httpapi.AsOf `json:"new"`
}

type productAnswer struct {
	ProductName string         `json:"product_name"`
	Figures     []figureAnswer `json:"figures"`
}

// figureAnswer is one number that differs; null where nothing counts.
type figureAnswer struct {
	Name string   `json:"name"`
	Unit string   `json:"unit"`
	Old  *float64 `json:"old"`
	New  *float64 `json:"new"`
}

// changedMetrics compares the metrics of an account as the tables from before a
// replay and those that it made give them now. What has arrived since they were
// compared is after the window, but for what was backdated.
func (s *Service) changedMetrics(ctx context.Context, account string, r *replay.Replay) (*metricsAnswer, error) {
	w := delivery.Window{From: r.Certificate.MadeAt.Add(-previewWindow), To: r.Certificate.MadeAt}
	a := &metricsAnswer{
		Definition: delivery.Definition, From: httpapi.Moment(w.From), To: httpapi.Moment(w.To),
		Overall: []figureAnswer{}, Products: []productAnswer{},
	}
	if r.Certificate.Verdict == replay.Equal { // what is made of equal rows is equal
		at := httpapi.AsOf{Position: r.Certificate.To, Time: httpapi.Moment(r.Certificate.MadeAt)}
		a.AsOf = &sidesAnswer{at, at}
		return a, nil
	}
	reason, err := s.incomparable(ctx, account, r)
	if err != nil {
		return nil, err
	}
	if reason != "" {
		a.Reason = httpapi.Text(reason)
		return a, nil
	}
	var sides [2]measured
	for i, version := range []uint32{r.Previous, r.Version} {
		sides[i], err = s.measure(ctx, account, version, w)
		if f, ok := errors.AsType[*fault.Error](err); ok && f.Code == "QUERY_TOO_EXPENSIVE" { // the cells are worth showing all the same
			a.Reason = "The metrics of this account take more time or memory than one question may."
			return a, nil
		}
		if err != nil {
			return nil, err
		}
	}
	a.AsOf = &sidesAnswer{sides[0].at, sides[1].at}
	a.Overall = differing(sides[0].overall, sides[1].overall)
	a.Products, a.Changed = differingProducts(&sides[0], &sides[1], (&delivery.Tally{}).Figures(w))
	return a, nil
}

// incomparable says why the metrics of a replay cannot be compared; "": they can.
func (s *Service) incomparable(ctx context.Context, account string, r *replay.Replay) (string, error) {
	switch {
	case r.Part.From.Offset > 0:
		return "The new tables hold a part of the log only.", nil
	case r.Part.Account != "" && r.Part.Account != account:
		return "The new tables hold another account only.", nil
	case r.State != replay.Ready && r.State != replay.Switched:
		return "The new tables are no longer kept.", nil
	}
	versions, err := s.tables.TableVersions(ctx)
	if err == nil && (!slices.Contains(versions, r.Previous) || !slices.Contains(versions, r.Version)) {
		return "The tables of one side are no longer kept.", nil
	}
	return "", err
}

// measured is what one version of the tables says of an account.
type measured struct {
	at       httpapi.AsOf
	overall  []delivery.Figure
	products map[event.ProductID][]delivery.Figure
	names    map[event.ProductID]string
}

// measure computes metrics as /metrics/dora does, of one version.
func (s *Service) measure(ctx context.Context, account string, version uint32, w delivery.Window) (measured, error) {
	m := measured{products: map[event.ProductID][]delivery.Figure{}, names: map[event.ProductID]string{}}
	progress, err := s.tables.ProgressOf(ctx, version)
	if err != nil {
		return m, err
	}
	positions, newest := readmodel.Reached(progress)
	m.at = httpapi.AsOf{Position: positions, Time: httpapi.Moment(newest)}
	var whole delivery.Tally
	tallies := map[event.ProductID]*delivery.Tally{}
	err = readmodel.Judge(ctx, s.tables.DeliveriesOf(version), account, readmodel.CellFilter{}, w, func(j readmodel.Judged) error {
		p := &j.Cell.Product
		t := tallies[p.ID]
		if t == nil {
			t = &delivery.Tally{}
			tallies[p.ID], m.names[p.ID] = t, p.Name
		}
		whole.Add(j.Judgement)
		t.Add(j.Judgement)
		return nil
	})
	m.overall = whole.Figures(w)
	for id, t := range tallies {
		m.products[id] = t.Figures(w)
	}
	return m, err
}

// differing lists the figures that are not the same.
func differing(old, rebuilt []delivery.Figure) []figureAnswer {
	out := []figureAnswer{}
	value := func(f *delivery.Figure) *float64 {
		if !f.Known {
			return nil
		}
		return &f.Value
	}
	for i := range old {
		if old[i] != rebuilt[i] {
			out = append(out, figureAnswer{old[i].Name, old[i].Unit, value(&old[i]), value(&rebuilt[i])})
		}
	}
	return out
}

// differingProducts lists the products whose figures differ by name, as many as are
// shown, and counts all of them. none is what a side says that has no deployment.
func differingProducts(old, rebuilt *measured, none []delivery.Figure) ([]productAnswer, int) {
	names := maps.Clone(old.names)
	maps.Copy(names, rebuilt.names)
	ids := slices.SortedFunc(maps.Keys(names), func(a, b event.ProductID) int {
		return cmp.Or(cmp.Compare(names[a], names[b]), bytes.Compare(a[:], b[:]))
	})
	side := func(m *measured, id event.ProductID) []delivery.Figure {
		if f, ok := m.products[id]; ok {
			return f
		}
		return none
	}
	out, n := []productAnswer{}, 0
	for _, id := range ids {
		figures := differing(side(old, id), side(rebuilt, id))
		if len(figures) == 0 {
			continue
		}
		if n++; n <= previewProducts {
			out = append(out, productAnswer{names[id], figures})
		}
	}
	return out, n
}
