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

	"github.com/shipledger/shipledger/pkg/closedruns"
	"github.com/shipledger/shipledger/pkg/tally"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// When a snapshot is written: a start then folds 200,000 events, or a minute of them.
// Writing less often costs a start, writing more often the disk: a snapshot grows with
// the versions that were ever made, so that the larger it is the more events are
// between two.
const (
	snapshotEvents = 200_000          // since the last one began, at least
	snapshotShare  = 20               // and one in so many of the things that it holds
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
// begin with the newest that is there. Closed runs it keeps in dir, and in store for
// processes that have another dir; where dir takes no file they stay in memory. It
// must be called before Run.
func (c *Committer) Keep(store Snapshots, dir string) {
	c.keep(keeper{store: store, every: snapshotEvents, apart: snapshotApart, atStop: snapshotAtStop, partRuns: partRuns}, dir)
}

func (c *Committer) keep(k keeper, dir string) {
	c.snapshots = k
	if dir == "" {
		return
	}
	parts, err := closedruns.New(dir, partPrefix(c.stream))
	if err != nil {
		c.logger.Warn("closed runs stay in memory, about 30 bytes each; let the process write to the directory", "stream", c.stream, "dir", dir, "err", err)
		return
	}
	c.snapshots.parts, c.sealed = parts, parts
}

// keeper is the committer's part in snapshots and in what is kept of closed runs. It
// belongs to the goroutine of Run, which waits for those that write.
type keeper struct {
	store    Snapshots // nil: nothing is kept
	every    int       // snapshotEvents, and so on; tests have other numbers
	apart    time.Duration
	atStop   int
	partRuns int
	parts    *closedruns.Parts  // nil: closed runs stay in memory
	events   int                // since the last snapshot began
	began    time.Time          // when it did
	ctx      context.Context    //nolint:containedctx // of all that is written
	stop     context.CancelFunc // ends it
	last     chan struct{}      // closed when what was begun last is done; nil: nothing was begun
	hurry    chan struct{}      // closed when somebody waits for what is written
}

// due tells whether a snapshot that holds so many things is worth it.
func (k *keeper) due(held int, now time.Time) bool {
	return k.events >= max(k.every, held/snapshotShare) && now.Sub(k.began) >= k.apart
}

func (k *keeper) busy() bool {
	if k.last == nil {
		return false
	}
	select {
	case <-k.last:
		return false
	default:
		return true
	}
}

// open begins: until calm nobody waits for the log, and what is written need not rest.
func (k *keeper) open(ctx context.Context) {
	k.ctx, k.stop = context.WithCancel(ctx)
	k.hurry = make(chan struct{})
	close(k.hurry)
}

// calm lets what is written from now on rest.
func (k *keeper) calm() { k.hurry = make(chan struct{}) }

// begin does something beside the committer, behind what was begun before.
func (k *keeper) begin(write func(ctx context.Context, hurry <-chan struct{})) {
	ctx, hurry, before, done := k.ctx, k.hurry, k.last, make(chan struct{})
	k.last = done
	go func() { // close waits for it
		defer close(done)
		if before != nil {
			<-before
		}
		write(ctx, hurry)
	}()
}

// wait waits until everything is written that was begun, or for ctx.
func (k *keeper) wait(ctx context.Context) {
	if k.last == nil {
		return
	}
	select {
	case <-k.last:
	case <-ctx.Done():
	}
}

// close ends what is still being written.
func (k *keeper) close() {
	k.stop()
	if k.last != nil {
		<-k.last
	}
	if k.parts != nil {
		k.parts.Close()
	}
}

// about is what a snapshot says of itself.
type about struct {
	Stream   string      `json:"stream"`
	Sequence uint64      `json:"sequence"`
	Frame    string      `json:"frame"` // the id of the frame there: another log has another
	Book     *tally.Book `json:"book"`
	Parts    []string    `json:"parts"` // of the index of closed runs, oldest first
}

func snapshotName(stream string, version int, seq uint64) string {
	return fmt.Sprintf("%s.v%d.%020d", stream, version, seq)
}

// partPrefix begins the names of the parts of the index of closed runs.
func partPrefix(stream string) string {
	return fmt.Sprintf("%s.v%d.runs", stream, tracking.SnapshotVersion)
}

// parseName reads whose a name in the store is, and what it says behind that.
func parseName(name string) (stream string, version int, rest string, ok bool) {
	stream, rest, _ = strings.Cut(name, ".")
	number, rest, _ := strings.Cut(rest, ".")
	number, isVersion := strings.CutPrefix(number, "v")
	version, err := strconv.Atoi(number)
	return stream, version, rest, isVersion && err == nil && rest != ""
}

// parseSnapshotName reads what snapshotName wrote.
func parseSnapshotName(name string) (stream string, version int, seq uint64, ok bool) {
	stream, version, rest, ok := parseName(name)
	seq, err := strconv.ParseUint(rest, 10, 64)
	return stream, version, seq, ok && err == nil
}

// restore begins with the newest snapshot that can be used. Where there is none,
// or none can be read, the log is folded from its first frame: a snapshot only
// ever saves time.
func (c *Committer) restore(ctx context.Context) {
	if c.snapshots.store == nil {
		return
	}
	if !c.restoreNewest(ctx) && c.snapshots.parts != nil {
		if err := c.snapshots.parts.Load(0, nil, nil); err != nil {
			c.logger.WarnContext(ctx, "files of closed runs are left over", "stream", c.stream, "err", err)
		}
	}
}

// restoreNewest is false where there is no snapshot that can be used.
func (c *Committer) restoreNewest(ctx context.Context) bool {
	names, err := c.snapshots.store.List(ctx)
	if err != nil {
		c.logger.WarnContext(ctx, "snapshots of the state cannot be listed, folding the whole log", "stream", c.stream, "err", err)
		return false
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
		return true
	}
	return false
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
	if err := c.loadParts(ctx, state, a.Parts); err != nil {
		return err
	}
	_, defaults := c.state.Settings()
	state.SetDefaults(defaults)
	c.state, c.book, c.last, c.lastID = state, *a.Book, seq, r.ID
	return nil
}

// snapshot begins to write one where it is due. Only freezing the state is on the
// way of requests.
func (c *Committer) snapshot() {
	k := &c.snapshots
	if k.store == nil || !k.due(c.state.Held(), c.clock()) || k.busy() {
		return
	}
	c.beginSnapshot()
}

func (c *Committer) beginSnapshot() {
	k := &c.snapshots
	k.events, k.began = 0, c.clock()
	book, err := c.book.MarshalText()
	if err != nil {
		c.logger.Error("no snapshot of the state", "err", err)
		return
	}
	a := about{Stream: c.stream, Sequence: c.last, Frame: c.lastID, Book: &tally.Book{}}
	if err := a.Book.UnmarshalText(book); err != nil { // a copy of its own
		c.logger.Error("no snapshot of the state", "err", err)
		return
	}
	state, logger, kept := c.state.Freeze(), c.logger, *k
	k.begin(func(ctx context.Context, hurry <-chan struct{}) {
		if err := kept.write(ctx, state, a, hurry); err != nil {
			logger.WarnContext(ctx, "a snapshot of the state was not written; the next start takes longer", "stream", a.Stream, "sequence", a.Sequence, "err", err)
		}
	})
}

// write stores a snapshot, and before it the parts that it names.
func (k *keeper) write(ctx context.Context, state *tracking.State, a about, hurry <-chan struct{}) (err error) {
	if a.Parts, err = k.storeParts(ctx, state.Parts(), hurry); err != nil {
		return err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	name := snapshotName(a.Stream, tracking.SnapshotVersion, a.Sequence)
	if err := k.put(ctx, name, hurry, func(to io.Writer) error { return state.WriteSnapshot(to, text) }); err != nil {
		return err
	}
	return pruneSnapshots(ctx, k.store, a.Stream, k.parts)
}

// put stores what content writes, without hurry.
func (k *keeper) put(ctx context.Context, name string, hurry <-chan struct{}, content func(io.Writer) error) error {
	from, to := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		to.CloseWithError(content(pace(ctx, hurry)(to))) // nil is an end as it should be
	}()
	err := k.store.Put(ctx, name, from)
	_ = from.Close() // lets the writer go where not all was read
	<-written
	return err
}

// A snapshot shares the disk with the log, whose frames wait until what was written
// before them is on it: one of 150 MB, written as fast as it goes, kept requests waiting
// for half a second. So there are rests, so many times as long as the writing.
const (
	snapshotRests = 9
	unrested      = 1 << 20 // bytes
)

// unhurried is a writer that rests until somebody waits for it, and ends with ctx.
type unhurried struct {
	ctx   context.Context //nolint:containedctx // of one writing, as the writer is
	to    io.Writer
	hurry <-chan struct{}
	n     int       // bytes since the last rest,
	began time.Time // which ended then
}

// pace makes writers that are unhurried. What of a file is written between two rests
// is on the disk before the next one, so that no large rest of it is at the end.
func pace(ctx context.Context, hurry <-chan struct{}) closedruns.Pace {
	return func(to io.Writer) io.Writer {
		return &unhurried{ctx: ctx, to: to, hurry: hurry, began: time.Now()}
	}
}

func (u *unhurried) Write(p []byte) (n int, err error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	n, err = u.to.Write(p)
	if u.n += n; u.n < unrested || err != nil {
		return n, err
	}
	if file, ok := u.to.(interface{ Sync() error }); ok {
		err = file.Sync()
	}
	select {
	case <-time.After(snapshotRests * time.Since(u.began)):
	case <-u.hurry:
	}
	u.n, u.began = 0, time.Now()
	return n, err
}

// pruneSnapshots removes what nobody will read: all snapshots of a stream but the
// newest two, those of earlier versions, and the parts that neither names. A part of
// events behind the newest snapshot may be of one that another process is writing.
func pruneSnapshots(ctx context.Context, store Snapshots, stream string, parts *closedruns.Parts) error {
	names, err := store.List(ctx)
	if err != nil {
		return err
	}
	slices.Sort(names)
	var faults []error
	var newest []string // snapshots
	stored := map[string]int{}
	for _, name := range slices.Backward(names) {
		of, version, _, ok := parseName(name)
		switch _, _, _, whole := parseSnapshotName(name); {
		case !ok || of != stream || version > tracking.SnapshotVersion:
			continue
		case version == tracking.SnapshotVersion && whole && len(newest) < snapshotsKept:
			newest = append(newest, name)
			continue
		case version == tracking.SnapshotVersion && !whole:
			if parts != nil {
				if end, isPart := parts.End(name); isPart {
					stored[name] = end
				}
			}
			continue
		}
		faults = append(faults, store.Remove(ctx, name))
	}
	return errors.Join(append(faults, pruneParts(ctx, store, newest, stored, parts))...)
}

// lastSnapshot writes one before the process ends, if that saves the next start
// anything, and waits for what is being written.
func (c *Committer) lastSnapshot() {
	k := &c.snapshots
	if k.store == nil {
		return
	}
	defer time.AfterFunc(snapshotBudget, k.stop).Stop()
	close(k.hurry)
	k.wait(k.ctx)
	if c.synced && k.events >= k.atStop {
		c.beginSnapshot()
		k.wait(k.ctx)
	}
}
