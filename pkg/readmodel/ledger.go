package readmodel

import (
	"context"

	"github.com/shipledger/shipledger/pkg/event"
)

// EventCount says what the model has of the events of one account and type.
type EventCount struct {
	Account     string
	Type        event.Type
	Stored      uint64 // rows of events that count as applied
	Quarantined uint64 // set aside because they could not be applied
	Discarded   uint64 // set aside, never to be applied
}

// A Ledger accounts for every event, so that what was accepted can be held
// against what is there (contract 5, /ledger/balance).
type Ledger interface {
	// EventCounts counts what the model has of a stream up to and with its
	// progress there, which it gives, by account and type in that order. Account
	// "" stands for all accounts and is for the ledger's own checks only.
	EventCounts(ctx context.Context, account, stream string) (Progress, []EventCount, error)
}
