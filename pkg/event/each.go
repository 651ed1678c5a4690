package event

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/oklog/ulid/v2"
)

// DecodeEach reads the events of a frame like DecodeFrame, but one that cannot
// be read fails nobody else. Faults says by index which cannot be read and why,
// nil where all can; of such an event only what is known is set. An error says
// that the frame as a whole holds no events.
//
// It returns also where the code that reads panics. What it gives may be a part of
// body, which must not be changed afterwards, and holds all of it: who keeps an event
// for long takes DecodeFrame. The memory of into, the events of a frame that nobody
// needs any more, payloads and all, may be used for these; nil: there are none.
func DecodeEach(into []Recorded, stream string, seq uint64, body []byte) (events []Recorded, faults map[int]error, err error) {
	return shipped.decodeEach(into, stream, seq, body)
}

func (u Upcasters) decodeEach(into []Recorded, stream string, seq uint64, body []byte) (events []Recorded, faults map[int]error, err error) {
	err = recovered(func() (err error) {
		events, err = u.decodeFrame(into, stream, seq, body, shared)
		return err
	})
	if err == nil && len(events) > 0 && len(events) <= 1<<indexBits {
		return events, nil, nil
	}
	single := len(body) > 0 && body[0] == '{'
	batch := []jsontext.Value{body}
	if !single {
		batch = nil
		if err := json.Unmarshal(body, &batch, decodeOptions); err != nil {
			return nil, nil, fmt.Errorf("decode frame %s.%d: %w", stream, seq, err)
		}
	}
	switch {
	case single && !batch[0].IsValid(decodeOptions):
		return nil, nil, fmt.Errorf("decode frame %s.%d: %w", stream, seq, err)
	case len(batch) == 0:
		return nil, nil, fmt.Errorf("frame %s.%d holds no events", stream, seq)
	case len(batch) > 1<<indexBits:
		return nil, nil, fmt.Errorf("frame %s.%d holds %d events, more than places are for", stream, seq, len(batch))
	}
	events, faults = make([]Recorded, len(batch)), map[int]error{}
	for i, text := range batch {
		r := &events[i]
		r.Position = Position{stream, At(seq, i)}
		err := recovered(func() error {
			var e envelope
			if err := json.Unmarshal(text, &e, decodeOptions); err != nil {
				known(r, text)
				return err
			}
			return e.decode(r, u)
		})
		if err != nil {
			faults[i] = fmt.Errorf("decode event %s (%s): %w", r.Position, r.Type, err)
		}
	}
	return events, faults, nil
}

// recovered makes a panic an error.
func recovered(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return do()
}

// known sets what can be read of an envelope one member of which cannot.
func known(r *Recorded, text jsontext.Value) {
	var members map[string]jsontext.Value
	if json.Unmarshal(text, &members, decodeOptions) != nil {
		return
	}
	member := func(name string) (s string) {
		if json.Unmarshal(members[name], &s, decodeOptions) != nil {
			return ""
		}
		return s
	}
	if account, ok := strings.CutPrefix(member("source"), "/accounts/"); ok {
		r.Account = account
	}
	r.Type, r.Subject = Type(member("type")), member("subject")
	r.ID, _ = ulid.ParseStrict(member("id"))
	r.Time, _ = time.Parse(time.RFC3339, member("time"))
}
