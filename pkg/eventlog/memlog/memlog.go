// Package memlog keeps a log in memory. It is a real implementation, held to
// the same contract as natslog; tests use it as the log.
package memlog

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

var _ eventlog.Log = (*Log)(nil)

// Log is an eventlog.Log in memory. It recognises a repeated frame for ever,
// which natslog cannot.
type Log struct {
	mu       sync.Mutex
	frames   []eventlog.Recorded
	byID     map[string]uint64
	subjects map[string]uint64
	grown    chan struct{} // closed and replaced whenever a frame is stored
}

// New returns an empty log.
func New() *Log {
	return &Log{byID: map[string]uint64{}, subjects: map[string]uint64{}, grown: make(chan struct{})}
}

// AppendFrame implements eventlog.Appender.
func (l *Log) AppendFrame(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.append(ctx, f, uint64(len(l.frames)), after)
}

// AppendToSubject implements eventlog.Appender.
func (l *Log) AppendToSubject(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.append(ctx, f, l.subjects[f.Subject], after)
}

func (l *Log) append(ctx context.Context, f eventlog.Frame, last, after uint64) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", eventlog.ErrRefused, err)
	}
	if seq, ok := l.byID[f.ID]; ok {
		return seq, nil
	}
	if last != after {
		return 0, fmt.Errorf("%w: it ends at %d, not at %d", eventlog.ErrConflict, last, after)
	}
	f.Body = bytes.Clone(f.Body)
	seq := uint64(len(l.frames)) + 1
	l.frames = append(l.frames, eventlog.Recorded{Frame: f, Seq: seq})
	l.byID[f.ID] = seq
	l.subjects[f.Subject] = seq
	close(l.grown)
	l.grown = make(chan struct{})
	return seq, nil
}

// Last implements eventlog.Reader.
func (l *Log) Last(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.frames)), nil
}

// Read implements eventlog.Reader.
func (l *Log) Read(_ context.Context, after uint64) iter.Seq2[eventlog.Recorded, error] {
	frames, _ := l.since(after)
	return func(yield func(eventlog.Recorded, error) bool) {
		for _, f := range frames {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// Follow implements eventlog.Reader.
func (l *Log) Follow(ctx context.Context, after uint64) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		for {
			frames, grown := l.since(after)
			for _, f := range frames {
				if ctx.Err() != nil || !yield(f, nil) {
					return
				}
				after = f.Seq
			}
			select {
			case <-ctx.Done():
				return
			case <-grown:
			}
		}
	}
}

// At implements eventlog.Reader.
func (l *Log) At(_ context.Context, seq uint64) (eventlog.Recorded, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq == 0 || seq > uint64(len(l.frames)) {
		return eventlog.Recorded{}, fmt.Errorf("frame %d: %w", seq, eventlog.ErrNoFrame)
	}
	return l.frames[seq-1], nil
}

func (l *Log) since(after uint64) ([]eventlog.Recorded, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after >= uint64(len(l.frames)) {
		return nil, l.grown
	}
	return l.frames[after:len(l.frames):len(l.frames)], l.grown
}

// ReadSubject implements eventlog.SubjectReader.
func (l *Log) ReadSubject(_ context.Context, subject string) iter.Seq2[eventlog.Recorded, error] {
	frames, _ := l.since(0)
	return func(yield func(eventlog.Recorded, error) bool) {
		for _, f := range frames {
			if f.Subject == subject && !yield(f, nil) {
				return
			}
		}
	}
}
