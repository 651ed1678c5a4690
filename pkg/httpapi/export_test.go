package httpapi

import "github.com/shipledger/shipledger/pkg/event"

// Acceptable is the hand-written check of an event body. decoded is false where
// it does not get to judge.
func Acceptable(as EventBody, body []byte) (decoded, ok bool) {
	r, err := event.DecodeRequest(body)
	if err != nil {
		return false, false
	}
	return true, acceptable(as, &r)
}
