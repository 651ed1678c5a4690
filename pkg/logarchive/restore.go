package logarchive

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

// ErrNotEmpty says that a log to restore into holds frames already.
var ErrNotEmpty = errors.New("the log is not empty")

// FaultyError says that an archive is not sound.
type FaultyError struct{ Result Result }

func (e *FaultyError) Error() string {
	return fmt.Sprintf("the archive is not sound (%d faults); the first: %s", len(e.Result.Faults), e.Result.Faults[0])
}

// Restore stores the frames of an archive, opened by open, in empty logs: the same
// sequences, ids, headers and bytes. The archive is read twice. Of one that is sound
// into gives the logs for its streams, by their short names; nothing is stored of one
// that is not (FaultyError), or of which a stream has no log, or one that is not empty
// (ErrNotEmpty).
//
// A restore that was interrupted leaves logs that are not empty: begin again
// with new ones.
func Restore(ctx context.Context, open func() (io.ReadCloser, error), into func(streams []string) (map[string]eventlog.Log, error), expect Expect, progress func(done, total uint64)) (Result, error) {
	result, err := scanOpened(open, expect, nil)
	if err != nil {
		return result, err
	}
	if !result.OK() {
		return result, &FaultyError{result}
	}
	var streams []string
	for _, e := range result.Streams {
		streams = append(streams, e.Stream)
	}
	logs, err := into(streams)
	if err != nil {
		return result, err
	}
	var done, total uint64
	for _, e := range result.Streams {
		log := logs[e.Stream]
		if log == nil {
			return result, fmt.Errorf("there is no log for the stream %s", e.Stream)
		}
		last, err := log.Last(ctx)
		if err != nil {
			return result, fmt.Errorf("restore %s: %w", e.Stream, err)
		}
		if last > 0 {
			return result, fmt.Errorf("restore %s: %w: it ends at %d", e.Stream, ErrNotEmpty, last)
		}
		total += e.Frames
	}
	_, err = scanOpened(open, expect, func(stream string, r *eventlog.Recorded, _ tlog.Hash) error {
		seq, err := logs[stream].AppendFrame(ctx, r.Frame, r.Seq-1)
		if err != nil {
			return fmt.Errorf("restore frame %s.%d: %w", stream, r.Seq, err)
		}
		if seq != r.Seq {
			return fmt.Errorf("restore frame %s.%d: the log put it at %d", stream, r.Seq, seq)
		}
		if done++; progress != nil {
			progress(done, total)
		}
		return nil
	})
	return result, err
}
