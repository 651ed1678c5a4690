package readmodel

import (
	"context"

	"github.com/shipledger/shipledger/pkg/event"
)

// Freshness tells whether an answer that was given before would be given again.
//
// Every answer about an account is a function of its events in one edition of
// the model. So an answer drawn at a position holds as long as the edition is
// the same, nothing Newer than that position is there, and nothing that had been
// set aside before it was Mended since (Progress).
type Freshness interface {
	// Newer tells whether an account has an event of a stream behind an offset.
	Newer(ctx context.Context, account, stream string, after event.Offset) (bool, error)
	// Edition tells apart the tables that answers are drawn from: two that were
	// made each on their own from the same events may differ.
	Edition() uint32
}

type askedAsOf struct{}

// AfterAsOf says to the questions behind ctx that their caller has asked AsOf: an
// answer need not hold more than that one said. A model that keeps what it read
// before is spared to ask anew how far it is.
func AfterAsOf(ctx context.Context) context.Context {
	if AskedAsOf(ctx) {
		return ctx
	}
	return context.WithValue(ctx, askedAsOf{}, true)
}

// AskedAsOf tells whether the caller of a question has asked AsOf.
func AskedAsOf(ctx context.Context) bool { return ctx.Value(askedAsOf{}) != nil }
