package chmodel

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func TestWhatTheOnlyWriterKnowsIsNeverBehindItsStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(stream string, seq, mended uint64) readmodel.Progress {
			return readmodel.Progress{Stream: stream, Offset: event.At(seq, 0), Mended: mended}
		}
		var k told
		expect := func(want ...readmodel.Progress) {
			t.Helper()
			got, ok := k.of(1)
			if diff := cmp.Diff(want, got); ok != (want != nil) || ok && diff != "" {
				t.Error(ok, diff)
			}
		}
		expect()
		k.stored(1, at("t0", 3, 0)) // nothing is known of other streams
		expect()
		k.learn(1, k.asking(), []readmodel.Progress{at("t0", 3, 2), at("t1", 9, 0)})
		expect(at("t0", 3, 2), at("t1", 9, 0))
		k.stored(1, at("t1", 10, 0))
		k.stored(1, at("t2", 1, 0))
		k.stored(2, at("t0", 50, 0)) // of other tables
		expect(at("t0", 3, 2), at("t1", 10, 0), at("t2", 1, 0))
		k.stored(1, at("t0", 2, 4)) // a decision about old places
		expect(at("t0", 3, 4), at("t1", 10, 0), at("t2", 1, 0))

		k.stored(1, readmodel.Progress{Stream: "t3", Offset: event.At(1, 0), Time: time.UnixMilli(5).Add(time.Microsecond)})
		expect(at("t0", 3, 4), at("t1", 10, 0), at("t2", 1, 0), readmodel.Progress{Stream: "t3", Offset: event.At(1, 0), Time: time.UnixMilli(5).UTC()})

		began := k.asking() // an answer that a store overtakes is not believed
		k.stored(1, at("t0", 4, 0))
		k.learn(1, began, []readmodel.Progress{at("t0", 3, 4)})
		if got, ok := k.of(1); !ok || got[0] != at("t0", 4, 4) {
			t.Error(got, ok)
		}

		k.failed()
		expect()
		k.learn(1, began, []readmodel.Progress{at("t0", 3, 4)})
		expect()
		k.learn(1, k.asking(), []readmodel.Progress{at("t0", 4, 4)})
		expect(at("t0", 4, 4))
		if _, ok := k.of(2); ok {
			t.Error("what is known of one version is believed of another")
		}
		time.Sleep(toldFor)
		expect()
	})
}
