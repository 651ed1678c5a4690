package chmodel_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// A model that is alone tells how far its own writer is without asking the tables,
// and asks them where it cannot know.
func TestTheOnlyWriterKnowsHowFarTheTablesAre(t *testing.T) {
	srv := chservertest.Start(t)
	m, w := open(t, srv, func(c *chmodel.Config) { c.Alone = true })
	store := func(ctx context.Context, seq uint64) error {
		return w.Store(ctx, &readmodel.Rows{}, readmodel.Progress{Stream: "t0", Offset: event.At(seq, 0), Time: epoch})
	}
	tell := func(seq uint64) (asked bool) {
		t.Helper()
		ctx, count := countStatements(t.Context())
		got, err := m.AsOf(ctx)
		if diff := cmp.Diff([]readmodel.Progress{{Stream: "t0", Offset: event.At(seq, 0), Time: epoch}}, got); diff != "" || err != nil {
			t.Fatal(err, diff)
		}
		return count() > 0
	}
	if err := store(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if !tell(1) {
		t.Error("what the tables held before is not asked of them")
	}
	for seq := uint64(2); seq < 5; seq++ {
		if err := store(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
		for tries := 0; tell(seq); tries++ { // they are asked once a second, which may just have passed
			if tries == 100 {
				t.Fatal("the tables are asked each time")
			}
		}
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	if err := store(left, 9); err == nil {
		t.Fatal("a store whose caller had left went well")
	}
	if !tell(4) {
		t.Error("after a store that failed the tables are not asked")
	}
}
