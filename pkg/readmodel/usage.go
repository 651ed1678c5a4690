package readmodel

import (
	"context"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
)

// A UsageCount says how many events of a day a credential reported. Preflights
// that were refused are none, nor is what an event created on the fly.
type UsageCount struct {
	Credential string // its public id
	Mode       event.Mode
	Day        time.Time // when they were received: the day's first moment in UTC
	Events     uint64
}

// Usage answers how much credentials report.
type Usage interface {
	// EventsByDay counts the events that credentials of a mode reported from
	// since until before until, in order of day and credential. It reads what was
	// received then, so whoever asks bounds the days.
	EventsByDay(ctx context.Context, account string, mode event.Mode, since, until time.Time) ([]UsageCount, error)
}
