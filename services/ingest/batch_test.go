package ingest_test

import (
	"sync/atomic"
	"testing"

	"github.com/shipledger/shipledger/services/ingest"
)

func TestEveryItemOfABatchIsReadOnce(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 128, 999, 1000} {
		read := make([]atomic.Int32, n)
		if err := ingest.InParallel(n, func(i int) { read[i].Add(1) }); err != nil {
			t.Fatal(err)
		}
		for i := range read {
			if times := read[i].Load(); times != 1 {
				t.Errorf("of %d, item %d was read %d times", n, i, times)
			}
		}
	}
}

func TestAPanicWhileReadingABatchIsAnErrorOfThatRequest(t *testing.T) {
	if err := ingest.InParallel(1000, func(i int) {
		if i == 700 {
			panic("a fault of ours")
		}
	}); err == nil {
		t.Error("it was swallowed")
	}
}
