package chmodel_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// An account with many more environments than a page has room for is read page
// by page: a page holds no more cells than it may, whatever its limit, and reads
// in proportion to its products and not to the account.
func TestAWideMatrixIsReadByPages(t *testing.T) {
	const products, environments, account = 100, 500, "wide"
	srv := chservertest.Start(t)
	m, w := open(t, srv)
	var rows readmodel.Rows
	at := epoch.Add(-time.Hour)
	for i := range environments {
		name := fmt.Sprintf("site-%04d", i)
		rows.Environments = append(rows.Environments, readmodel.EnvironmentRow{
			Environment: event.Environment{ID: event.EnvironmentIDOf(account, name), Name: name, CreatedAt: at}, Account: account,
		})
	}
	offset := event.Offset(0)
	for i := range products {
		name := fmt.Sprintf("service-%04d", i)
		product := event.Product{ID: event.ProductIDOf(account, name), Name: name, CreatedAt: at}
		rows.Products = append(rows.Products, readmodel.ProductRow{Product: product, Account: account})
		for j := range rows.Environments {
			e := &rows.Environments[j]
			offset++
			rec := event.Record{
				Kind: event.Deployment, Account: account, ProductID: product.ID, ProductName: name, EnvironmentID: e.ID, EnvironmentName: e.Name,
				Version: "1", Status: event.Completed, ID: ulid.MustNew(ulid.Timestamp(at)+uint64(offset), nil), CreatedAt: at, CompletedAt: at,
			}
			rows.Cells = append(rows.Cells, readmodel.Cell{
				Record: rec, EffectiveAt: at, ReceivedAt: at, Position: event.Position{Stream: "t0", Offset: offset},
			})
		}
	}
	if err := w.Store(t.Context(), &rows, readmodel.Progress{Stream: "t0", Offset: offset, Time: at}); err != nil {
		t.Fatal(err)
	}
	const whole = products * environments
	for name, f := range map[string]readmodel.MatrixFilter{"now": {}, "at a past moment": {At: epoch}} {
		cells, pages, seen := 0, 0, 0
		for after := ""; ; pages++ {
			page := matrixPage(t.Context(), t, m, account, f, after)
			held := 0
			for i := range page.Items {
				held += len(page.Items[i].Cells)
			}
			if held > readmodel.MatrixCells {
				t.Errorf("%s: page %d holds %d cells", name, pages, held)
			}
			cells, seen = cells+held, seen+len(page.Items)
			if !page.More {
				break
			}
			after = page.Items[len(page.Items)-1].Key()
		}
		if cells != whole || seen != products || pages+1 < whole/readmodel.MatrixCells {
			t.Errorf("%s: %d cells of %d products on %d pages", name, cells, seen, pages+1)
		}
		var cost chmodel.Cost
		page, err := m.Matrix(chmodel.WithCost(t.Context(), &cost), account, f, readmodel.Page{Limit: 5})
		if err != nil || len(page.Items) != 5 {
			t.Fatalf("%s: %d products, %v", name, len(page.Items), err)
		}
		t.Logf("%s: 5 products of %d cells read %d rows", name, whole, cost.Rows.Load())
		if n := cost.Rows.Load(); n > whole/2 {
			t.Errorf("%s: a page of 5 products read %d rows of an account of %d cells", name, n, whole)
		}
	}
}

func matrixPage(ctx context.Context, t *testing.T, m readmodel.Reader, account string, f readmodel.MatrixFilter, after string) readmodel.Matrix {
	t.Helper()
	page, err := m.Matrix(ctx, account, f, readmodel.Page{After: after, Limit: 500})
	if err != nil {
		t.Fatal(err)
	}
	return page
}
