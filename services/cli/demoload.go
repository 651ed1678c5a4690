package cli

import (
	"context"
	"io"
	"net/http"
	"slices"
	"time"
)

// LoadDemo loads the demo history of seed that ends at end, and shows how far it
// is on progress, as an import does. The transport carries it; nil: the usual one.
func LoadDemo(ctx context.Context, progress io.Writer, transport http.RoundTripper, base, token string, seed uint64, end time.Time) (Summary, error) {
	items := slices.Collect(DemoHistory(seed, end))
	size := 0
	for i := range items {
		size += len(items[i].Body)
	}
	sent := &meter{}
	out := newReport(io.Discard, progress, false, sent, int64(size))
	sum, err := Load(ctx, newClient(transport), base, token, func(yield func(Item) bool) {
		for _, item := range items {
			sent.bytes.Add(int64(len(item.Body)))
			if !yield(item) {
				return
			}
		}
	}, Options{Progress: out.progress, Waiting: out.waiting, Refused: out.refused})
	if finishErr := out.finish(sum, err); err == nil {
		err = finishErr
	}
	return sum, err
}
