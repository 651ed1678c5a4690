package readmodeltest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// releases holds that the newest event of a release counts, and that what was
// deleted is in none.
func releases(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	f := newFixture(t, sink)
	gone := event.ProductIDOf(f.account, "gone")
	f.store(readmodel.Rows{Products: []readmodel.ProductRow{
		{Product: event.Product{ID: gone, Name: "gone", Deleted: true, CreatedAt: epoch}, Account: f.account, Position: f.next()},
	}})
	var want []readmodel.ReleaseRow
	for i := range 5 {
		r := readmodel.ReleaseRow{Account: f.account, Release: event.Release{
			ID: f.deployment(epoch.Add(time.Duration(i)*time.Second), "1", event.Completed).Record.ID, Name: "it's ü", Status: "draft", CreatedAt: epoch,
		}, Position: f.next()}
		later := r
		later.Position = f.next()
		later.Description, later.Extra, later.Status = `"d"\`, []byte(`{"a":[1]}`), "completed"
		version := func(product event.ProductID, incarnation uint16) event.ReleaseVersion {
			return event.ReleaseVersion{
				ID: event.VersionIDOf(f.account, product, "1"), ProductID: product, Incarnation: incarnation, ProductName: "svc", Version: "1", AddedAt: epoch,
			}
		}
		later.Versions = []event.ReleaseVersion{version(gone, 0), version(f.product(), 0), version(f.product(), 1)}
		f.store(readmodel.Rows{Releases: []readmodel.ReleaseRow{later, r}})
		later.Versions = later.Versions[1:2]
		want = append([]readmodel.ReleaseRow{later}, want...)
	}
	for _, limit := range []int{2, 100} {
		got, err := all(readmodel.Page{Limit: limit}, func(p readmodel.Page) ([]readmodel.ReleaseRow, error) {
			return reader.Releases(t.Context(), f.account, p)
		}, (*readmodel.ReleaseRow).Key)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("by %d: %v %s", limit, err, diff)
		}
	}
	one, err := reader.Release(t.Context(), f.account, want[0].ID)
	if diff := cmp.Diff(want[0], one, cmpopts.EquateEmpty()); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := reader.Release(t.Context(), f.account+"-other", want[0].ID); !errors.Is(err, readmodel.ErrNotFound) {
		t.Errorf("another account reads it: %v", err)
	}
	if owner, err := reader.Owner(t.Context(), readmodel.ReleaseObject, want[0].ID.String()); owner != f.account || err != nil {
		t.Errorf("it belongs to %q, %v", owner, err)
	}
}
