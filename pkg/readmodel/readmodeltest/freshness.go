package readmodeltest

import (
	"context"
	"fmt"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// freshnessQuestions ask of each event whether its account has a later one.
func (h *history) freshnessQuestions(ctx context.Context) []question {
	after := []event.Offset{0}
	for i := range h.events {
		after = append(after, h.events[i].Events[0].Position.Offset)
	}
	var out []question
	for _, account := range []string{h.accounts[0].name, h.accounts[1].name, "nobody"} {
		for _, stream := range []string{h.stream, "t999"} {
			for _, offset := range []event.Offset{after[0], after[len(after)/2], after[len(after)-1] - 1, after[len(after)-1]} {
				out = append(out, question{fmt.Sprintf("newer events of %s in %s than %d", account, stream, offset), func(r readmodel.Reader) (any, error) {
					return r.Newer(ctx, account, stream, offset)
				}})
			}
		}
	}
	return out
}
