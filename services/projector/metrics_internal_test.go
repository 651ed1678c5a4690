package projector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/delivery"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/replay"
)

var madeAt = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// sides are two versions of the tables, as far as metrics are concerned.
type sides struct {
	Tables
	of map[uint32]side
}

func (s sides) TableVersions(context.Context) ([]uint32, error) { return []uint32{1, 2}, nil }

func (s sides) DeliveriesOf(version uint32) readmodel.Deliveries { return s.of[version] }

func (s sides) ProgressOf(_ context.Context, version uint32) ([]readmodel.Progress, error) {
	return []readmodel.Progress{{Stream: "t0", Offset: event.At(uint64(version), 0), Time: madeAt}}, nil
}

// side has one deployment of each product.
type side struct {
	products int
	status   event.Status
	err      error
}

func (s side) CellRuns(_ context.Context, account string, _ readmodel.CellFilter, each func(*readmodel.Cells) error) error {
	for i := range s.products {
		name := fmt.Sprintf("product-%03d", i)
		c := readmodel.Cells{
			Product:     readmodel.ProductRow{Product: event.Product{ID: event.ProductIDOf(account, name), Name: name}},
			Environment: readmodel.EnvironmentRow{Environment: event.Environment{ID: event.EnvironmentIDOf(account, "production"), Name: "production"}},
			Runs:        []delivery.Run{{ID: ulid.ULID{1}, Version: "1", Status: s.status, At: madeAt.Add(-time.Hour)}},
		}
		if err := each(&c); err != nil {
			return err
		}
	}
	return s.err
}

func (s side) FirstBuilds(context.Context, string, []event.VersionID) (map[event.VersionID]time.Time, error) {
	return nil, nil
}

func preview(t *testing.T, of map[uint32]side) (*metricsAnswer, error) {
	t.Helper()
	s := &Service{tables: sides{of: of}}
	return s.changedMetrics(t.Context(), "acme", &replay.Replay{
		Previous: 1, Version: 2, State: replay.Ready, Certificate: &replay.Certificate{Verdict: replay.Different, MadeAt: madeAt},
	})
}

func TestThePreviewListsAHundredProductsAndCountsAll(t *testing.T) {
	a, err := preview(t, map[uint32]side{1: {150, event.Completed, nil}, 2: {137, event.Failed, nil}})
	if err != nil || a.Reason != "" {
		t.Fatal(a, err)
	}
	if a.Changed != 150 || len(a.Products) != previewProducts { // thirteen have none on the new side
		t.Errorf("%d products are said to change, %d are listed", a.Changed, len(a.Products))
	}
	names := make([]string, len(a.Products))
	for i := range a.Products {
		names[i] = a.Products[i].ProductName
	}
	if !slices.IsSorted(names) || names[0] != "product-000" || names[99] != "product-099" {
		t.Errorf("listed: %v", names)
	}
	for _, f := range a.Overall {
		if f.Name == "deployment_frequency.count" && (*f.Old != 150 || *f.New != 0) {
			t.Errorf("overall: %v to %v", *f.Old, *f.New)
		}
	}
}

// The cells that would change are worth showing where the metrics are too dear,
// on whichever side; nothing else is passed over.
func TestThePreviewSaysThatMetricsAreTooDear(t *testing.T) {
	dear := fault.New(fault.Unavailable, "QUERY_TOO_EXPENSIVE", "this question takes more time or memory than one question may")
	fine := side{3, event.Completed, nil}
	for which, of := range map[string]map[uint32]side{"old": {1: {2, event.Completed, dear}, 2: fine}, "new": {1: fine, 2: {2, event.Completed, dear}}} {
		a, err := preview(t, of)
		if err != nil || a.Reason == "" || a.AsOf != nil || len(a.Overall)+len(a.Products)+a.Changed != 0 {
			t.Errorf("%s side: %+v, %v", which, a, err)
		}
	}
	away := fault.New(fault.Unavailable, "READ_MODEL_UNAVAILABLE", "the read model does not answer right now")
	if _, err := preview(t, map[uint32]side{1: fine, 2: {0, event.Completed, away}}); !errors.Is(err, away) {
		t.Errorf("a read model that is away: %v", err)
	}
}
