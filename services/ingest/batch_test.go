package ingest_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

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

// What is too much is counted and not kept: the list of a body of 8 MiB would be
// many times as long as the body.
func TestItemsBeyondTheLimitAreCountedAndNotKept(t *testing.T) {
	many := 1_000_000
	for _, lines := range []bool{true, false} {
		body := strings.Repeat("1\n", many)
		if !lines {
			body = "[" + strings.Repeat("1,", many-1) + "1]"
		}
		items, n, err := ingest.Items([]byte(body), lines)
		if err != nil || n != many || len(items) != 1000 {
			t.Errorf("%d items of %d, %v", len(items), n, err)
		}
	}
}

func FuzzItems(f *testing.F) {
	for _, seed := range []string{"", "{}\n{}\n", "\r\n\n {\"a\":1}\r\n", "[{},[],1]", "[", "[1,]", "[1] x", "null", "[\"\xff\"]", `[{"a":1,"a":2}]`} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, lines bool) {
		items, n, err := ingest.Items(body, lines)
		if err == nil && (n < len(items) || n <= 1000 && n != len(items)) {
			t.Fatalf("%q: %d items of %d", body, len(items), n)
		}
		lenient := []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}
		if !lines && (err == nil) != (jsontext.Value(body).IsValid(lenient...) && jsontext.Value(body).Kind() == '[') {
			t.Fatalf("%q is judged in another way than as JSON: %v", body, err)
		}
	})
}
