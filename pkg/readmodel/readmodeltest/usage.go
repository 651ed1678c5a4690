package readmodeltest

import (
	"context"
	"fmt"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// usageQuestions counts the events of credentials, over all days, over some, and
// over none.
func (a *account) usageQuestions(ctx context.Context) []question {
	day := epoch.Truncate(24 * time.Hour)
	var out []question
	for _, mode := range []event.Mode{event.Live, event.Test} {
		for _, span := range [][2]time.Time{
			{day.AddDate(-1, 0, 0), day.AddDate(1, 0, 0)}, {day, day.AddDate(0, 0, 1)}, {epoch.Add(500 * time.Millisecond), epoch.Add(1500 * time.Millisecond)}, {day, day},
		} {
			out = append(out, question{fmt.Sprintf("events of %s by day, mode %s, in %v", a.name, mode, span), func(r readmodel.Reader) (any, error) {
				return r.EventsByDay(ctx, a.name, mode, span[0], span[1])
			}})
		}
	}
	return out
}
