package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/tally"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// When a snapshot is written: a log of ten million events is then folded from one
// that is at most half a million events old, which takes 4 s. Writing less often
// costs a start, writing more often the disk: a snapshot grows with the runs that
// were ever closed, so that the larger it is the more events are between two.
const (
	snapshotEvents = 200_000          // since the last one began, at least
	snapshotShare  = 20               // and one in so many of the runs that it holds
	snapshotApart  = time.Minute      // between two, at least
	snapshotAtStop = 10_000           // events that make one worth it when the process stops
	snapshotBudget = 10 * time.Second // for that last one
	snapshotsKept  = 2                // the newest, and one in case it is damaged
)

// Snapshots keep states of the committer under names.
//
// Implementations must store a snapshot whole or not at all.
type Snapshots interface {
	List(ctx context.Context) ([]string, error)
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	Put(ctx context.Context, name string, content io.Reader) error
	Remove(ctx context.Context, name string) error
}

// Keep makes the committer write its state into store from time to time, and
// begin with the newest that is there. It must be called before Run.
func (c *Committer) Keep(store Snapshots) {
	c.snapshots = keeper{store: store, every: snapshotEvents, apart: snapshotApart, atStop: snapshotAtStop}
}

// keeper is the committer's part in snapshots. It belongs to the goroutine of
// Run, which waits for the one that writes.
type keeper struct {
	store   Snapshots // nil: nothing is kept
	every   int       // snapshotEvents, and so on; tests have other numbers
	apart   time.Duration
	atStop  int
	events  int           // since the last snapshot began
	began   time.Time     // when it did
	writing chan struct{} // closed when the one that is being written is; nil: none was begun
	hurry   chan struct{} // closed when somebody waits for it
}

// due tells whether a snapshot that holds so many closed runs is worth it.
func (k *keeper) due(closed int, now time.Time) bool {
	return k.events >= max(k.every, closed/snapshotShare) && now.Sub(k.began) >= k.apart
}

func (k *keeper) busy() bool {
	if k.writing == nil {
		return false
	}
	select {
	case <-k.writing:
		return false
	default:
		return true
	}
}

// about is what a snapshot says of itself.
type about struct {
	Stream   string      `json:"stream"`
	Sequence uint64      `json:"sequence"`
	Frame    string      `json:"frame"` // the id of the frame there: another log has another
	Book     *tally.Book `json:"book"`
}

func snapshotName(stream string, version int, seq uint64) string {
	return fmt.Sprintf("%s.v%d.%020d", stream, version, seq)
}

// parseSnapshotName reads what snapshotName wrote.
func parseSnapshotName(name string) (stream string, version int, seq uint64, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 {
		return "", 0, 0, false
	}
	number, isVersion := strings.CutPrefix(parts[1], "v")
	version, err := strconv.Atoi(number)
	seq, seqErr := strconv.ParseUint(parts[2], 10, 64)
	return parts[0], version, seq, isVersion && err == nil && seqErr == nil
}

// restore begins with the newest snapshot that can be used. Where there is none,
// or none can be read, the log is folded from its first frame: a snapshot only
// ever saves time.
func (c *Committer) restore(ctx context.Context) {
	if c.snapshots.store == nil {
		return
	}
	names, err := c.snapshots.store.List(ctx)
	if err != nil {
		c.logger.WarnContext(ctx, "snapshots of the state cannot be listed, folding the whole log", "stream", c.stream, "err", err)
		return
	}
	slices.Sort(names)
	for _, name := range slices.Backward(names) {
		stream, version, seq, ok := parseSnapshotName(name)
		if !ok || stream != c.stream || version != tracking.SnapshotVersion {
			continue
		}
		if err := c.restoreFrom(ctx, name, seq); err != nil {
			c.logger.WarnContext(ctx, "a snapshot of the state is ignored", "snapshot", name, "err", err)
			continue
		}
		c.logger.InfoContext(ctx, "state restored", "snapshot", name)
		return
	}
}

var errForeign = errors.New("it is of another log")

func (c *Committer) restoreFrom(ctx context.Context, name string, seq uint64) error {
	r, err := c.log.At(ctx, seq)
	if err != nil {
		return err
	}
	content, err := c.snapshots.store.Open(ctx, name)
	if err != nil {
		return err
	}
	defer content.Close()
	state, text, err := tracking.ReadSnapshot(content)
	if err != nil {
		return err
	}
	var a about
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("%w: %w", tracking.ErrSnapshot, err)
	}
	if a.Stream != c.stream || a.Sequence != seq || a.Frame != r.ID || a.Book == nil {
		return errForeign
	}
	_, defaults := c.state.Settings()
	state.SetDefaults(defaults)
	c.state, c.book, c.last, c.lastID = state, *a.Book, seq, r.ID
	return nil
}

// snapshot begins to write one where it is due. Only freezing the state is on the
// way of requests.
func (c *Committer) snapshot(ctx context.Context) {
	k := &c.snapshots
	if k.store == nil || !k.due(c.state.Closed(), c.clock()) || k.busy() {
		return
	}
	c.beginSnapshot(ctx)
}

func (c *Committer) beginSnapshot(ctx context.Context) {
	k := &c.snapshots
	k.events, k.began = 0, c.clock()
	book, err := c.book.MarshalText()
	if err != nil {
		c.logger.ErrorContext(ctx, "no snapshot of the state", "err", err)
		return
	}
	a := about{Stream: c.stream, Sequence: c.last, Frame: c.lastID, Book: &tally.Book{}}
	if err := a.Book.UnmarshalText(book); err != nil { // a copy of its own
		c.logger.ErrorContext(ctx, "no snapshot of the state", "err", err)
		return
	}
	state, done, hurry := c.state.Freeze(), make(chan struct{}), make(chan struct{})
	k.writing, k.hurry = done, hurry
	go func() { // Run waits for it
		defer close(done)
		if err := writeSnapshot(ctx, k.store, state, a, hurry); err != nil {
			c.logger.WarnContext(ctx, "a snapshot of the state was not written; the next start takes longer", "stream", a.Stream, "sequence", a.Sequence, "err", err)
		}
	}()
}

func writeSnapshot(ctx context.Context, store Snapshots, state *tracking.State, a about, hurry <-chan struct{}) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	content, to := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		to.CloseWithError(state.WriteSnapshot(&unhurried{to: to, hurry: hurry, began: time.Now()}, text)) // nil is an end as it should be
	}()
	err = store.Put(ctx, snapshotName(a.Stream, tracking.SnapshotVersion, a.Sequence), content)
	_ = content.Close() // lets the writer go where not all was read
	<-written
	if err != nil {
		return err
	}
	return pruneSnapshots(ctx, store, a.Stream)
}

// A snapshot shares the disk with the log, whose frames wait until what was written
// before them is on it: one of 150 MB, written as fast as it goes, kept requests waiting
// for half a second. So there are rests, so many times as long as the writing.
const (
	snapshotRests = 9
	unrested      = 1 << 20 // bytes
)

// unhurried is a writer that rests until somebody waits for it.
type unhurried struct {
	to    io.Writer
	hurry <-chan struct{}
	n     int       // bytes since the last rest,
	began time.Time // which ended then
}

func (u *unhurried) Write(p []byte) (n int, err error) {
	n, err = u.to.Write(p)
	if u.n += n; u.n >= unrested && err == nil {
		select {
		case <-time.After(snapshotRests * time.Since(u.began)):
		case <-u.hurry:
		}
		u.n, u.began = 0, time.Now()
	}
	return n, err
}

// pruneSnapshots removes those of a stream that nobody will read: all but the
// newest two, and those of earlier versions.
func pruneSnapshots(ctx context.Context, store Snapshots, stream string) error {
	names, err := store.List(ctx)
	if err != nil {
		return err
	}
	slices.Sort(names)
	var faults []error
	kept := 0
	for _, name := range slices.Backward(names) {
		of, version, _, ok := parseSnapshotName(name)
		switch {
		case !ok || of != stream || version > tracking.SnapshotVersion:
			continue
		case version == tracking.SnapshotVersion && kept < snapshotsKept:
			kept++
			continue
		}
		faults = append(faults, store.Remove(ctx, name))
	}
	return errors.Join(faults...)
}

// lastSnapshot writes one before the process ends, if that saves the next start
// anything, and waits for one that is being written.
func (c *Committer) lastSnapshot(ctx context.Context) {
	k := &c.snapshots
	ctx, cancel := context.WithTimeout(ctx, snapshotBudget)
	defer cancel()
	if k.writing != nil {
		close(k.hurry)
		<-k.writing
	}
	if k.store != nil && c.synced && k.events >= k.atStop {
		c.beginSnapshot(ctx)
		close(k.hurry)
		<-k.writing
	}
}
