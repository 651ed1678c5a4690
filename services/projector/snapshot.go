package projector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/logarchive"
)

// snapshotFile gives the path of a snapshot that an operator put into the folder
// for them. A name is the name of a file in it and nothing else: no path leads
// out of the folder, nor does a link in it.
func (s *Service) snapshotFile(name string) (string, error) {
	if s.cfg.Snapshots == "" {
		return "", fault.New(fault.Precondition, "SNAPSHOTS_OFF", "This server replays from no files: nobody has told it a folder for them (SHIPLEDGER_SNAPSHOT_DIR).")
	}
	unknown := fault.New(fault.Precondition, "SNAPSHOT_UNKNOWN", "There is no snapshot of that name in the folder for snapshots.")
	if name == "." || name == ".." || filepath.Base(name) != name || !filepath.IsLocal(name) {
		return "", unknown
	}
	path := filepath.Join(s.cfg.Snapshots, name)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return "", unknown
	}
	return path, nil
}

// snapshot is a stream as an archive has it, and as the log has it behind the end
// of the archive. Nothing is read from it before all of it was verified, in
// itself and against the log, frame by frame.
type snapshot struct {
	eventlog.Reader // the log

	stream string
	open   func() (io.ReadCloser, error)

	verified atomic.Bool

	mu      sync.Mutex
	refused error // for good
	end     uint64
}

var errEnough = errors.New("no more is wanted")

// Follow implements eventlog.Reader.
func (s *snapshot) Follow(ctx context.Context, after uint64) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		if err := s.verify(ctx); err != nil {
			yield(eventlog.Recorded{}, err)
			return
		}
		if after < s.end {
			err := s.scan(ctx, func(r *eventlog.Recorded, _ tlog.Hash) error {
				if r.Seq > after && !yield(*r, nil) {
					return errEnough
				}
				return nil
			})
			switch {
			case errors.Is(err, errEnough) || ctx.Err() != nil:
				return
			case err != nil:
				yield(eventlog.Recorded{}, err)
				return
			}
			after = s.end
		}
		for r, err := range s.Reader.Follow(ctx, after) {
			if !yield(r, err) {
				return
			}
		}
	}
}

// scan hands over the frames of the stream.
func (s *snapshot) scan(ctx context.Context, visit func(r *eventlog.Recorded, leaf tlog.Hash) error) error {
	file, err := s.open()
	if err != nil {
		return refusedSnapshot("cannot be opened").Because(err)
	}
	defer file.Close()
	found, err := logarchive.Scan(file, logarchive.Expect{}, func(stream string, r *eventlog.Recorded, leaf tlog.Hash) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if stream != s.stream {
			return nil
		}
		return visit(r, leaf)
	})
	if err == nil && !found.OK() {
		return refusedSnapshot("is not sound: %s", found.Faults[0])
	}
	return err
}

func refusedSnapshot(format string, args ...any) *fault.Error {
	return fault.New(fault.Precondition, "SNAPSHOT_REFUSED", "The snapshot %s.", fmt.Sprintf(format, args...))
}

// verify reads the whole archive beside the log, once.
func (s *snapshot) verify(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verified.Load() || s.refused != nil {
		return s.refused
	}
	next, stop := iter.Pull2(s.Read(ctx, 0))
	defer stop()
	end := uint64(0)
	err := s.scan(ctx, func(r *eventlog.Recorded, leaf tlog.Hash) error {
		live, err, more := next()
		switch {
		case !more:
			return refusedSnapshot("goes on where the log ends, at %s.%d", s.stream, end)
		case err != nil:
			return fault.New(fault.Unavailable, "", "the log does not answer").Because(err)
		case live.Seq != r.Seq || logarchive.Leaf(s.stream, &live) != leaf:
			return refusedSnapshot("is not of this log: they differ at %s.%d", s.stream, r.Seq)
		}
		end = r.Seq
		return nil
	})
	if fault.KindOf(err) == fault.Precondition {
		s.refused = err
	}
	s.end = end
	s.verified.Store(err == nil)
	return err
}
