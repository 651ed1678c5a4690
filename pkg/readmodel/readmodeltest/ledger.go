package readmodeltest

import (
	"context"

	"github.com/shipledger/shipledger/pkg/readmodel"
)

// ledgerQuestions ask what the model has of the history's stream, of each
// account and of all.
func (h *history) ledgerQuestions(ctx context.Context) []question {
	type answer struct {
		UpTo   readmodel.Progress
		Counts []readmodel.EventCount
	}
	var out []question
	for _, account := range []string{h.accounts[0].name, h.accounts[1].name, "", "nobody"} {
		for _, stream := range []string{h.stream, "t999"} {
			out = append(out, question{"event counts of " + account + " in " + stream, func(r readmodel.Reader) (any, error) {
				upTo, counts, err := r.EventCounts(ctx, account, stream)
				return answer{upTo, counts}, err
			}})
		}
	}
	return out
}
