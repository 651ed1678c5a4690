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
