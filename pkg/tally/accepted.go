package tally

import (
	"context"
	"errors"
	"fmt"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
)

// ErrInconsistent says that the tallies of a stream contradict each other.
var ErrInconsistent = errors.New("the tallies of the log contradict each other")

// Accepted tells how many events of which account and type a stream has up to
// and with the frame at seq, as the write side counted them. It reads the
// headers of that frame, of the last frame with totals, and of those between.
//
// A frame without a tally, of another producer, is counted by its body.
func Accepted(ctx context.Context, log eventlog.Reader, stream string, seq uint64) (Counts, error) {
	if seq == 0 {
		return Counts{}, nil
	}
	base, total, err := lastTally(ctx, log, stream, seq)
	if err != nil {
		return nil, err
	}
	counts := Counts{}
	if base > 0 {
		r, err := log.At(ctx, base)
		if err != nil {
			return nil, fmt.Errorf("read the totals at %s.%d: %w", stream, base, err)
		}
		if counts, err = parseCounts(r.Headers[TotalsHeader]); err != nil {
			return nil, fmt.Errorf("read the totals at %s.%d: %w", stream, base, err)
		}
	}
	if base < seq {
		for r, err := range log.Read(ctx, base) {
			if err != nil {
				return nil, fmt.Errorf("read tallies of %s: %w", stream, err)
			}
			own, _, err := lineOf(stream, r)
			if err != nil {
				return nil, err
			}
			counts.Add(own.Counts)
			if r.Seq == seq {
				break
			}
		}
	}
	if got := counts.Sum(); got != total {
		return nil, fmt.Errorf("%w: %s.%d says %d events, the frames up to it say %d", ErrInconsistent, stream, seq, total, got)
	}
	return counts, nil
}

// lastTally finds where the last totals before seq stand, and how many events
// the stream has up to seq.
func lastTally(ctx context.Context, log eventlog.Reader, stream string, seq uint64) (base, total uint64, err error) {
	for untallied := uint64(0); seq > 0; seq-- {
		r, err := log.At(ctx, seq)
		if err != nil {
			return 0, 0, fmt.Errorf("read the tally of %s.%d: %w", stream, seq, err)
		}
		l, tallied, err := lineOf(stream, r)
		if err != nil {
			return 0, 0, err
		}
		if tallied {
			if l.At > seq {
				return 0, 0, fmt.Errorf("%w: %s.%d speaks of totals at %d", ErrInconsistent, stream, seq, l.At)
			}
			return l.At, l.Total + untallied, nil
		}
		untallied += l.Counts.Sum()
		total = untallied
	}
	return 0, total, nil
}

// lineOf gives a frame's tally, or false and the count of its events.
func lineOf(stream string, r eventlog.Recorded) (l Line, tallied bool, err error) {
	text, ok := r.Headers[Header]
	if ok {
		if l, err = ParseLine(text); err != nil {
			return l, true, fmt.Errorf("frame %s.%d: %w", stream, r.Seq, err)
		}
		return l, true, nil
	}
	// What cannot be read was accepted all the same; of nobody and of no type, if
	// not even that can be read.
	events, _, err := event.DecodeEach(nil, stream, r.Seq, r.Body)
	if err != nil {
		return Line{Counts: Counts{Key{}: 1}}, false, nil //nolint:nilerr // that it cannot be read is what is counted
	}
	return Line{Counts: Of(events)}, false, nil
}

// InFrame tells how many events of which account and type a frame holds, whether
// they can be read or not: as the write side counted them, else by its body.
func InFrame(stream string, r eventlog.Recorded) (Counts, error) {
	l, _, err := lineOf(stream, r)
	return l.Counts, err
}
