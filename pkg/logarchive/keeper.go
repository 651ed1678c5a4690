package logarchive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

// Keeper signs checkpoints of growing logs and keeps them, in a log of their
// own, which like every log never forgets. It implements lifecycle.Service.
//
// With each checkpoint it keeps the roots of the subtrees, so that it goes on
// where it was and reads every frame once, whenever it starts. It reads a little
// every few seconds, and rests meanwhile: all that ten minutes at 5,000 events a
// second leave, read at once, kept those who write waiting for 13 s.
type Keeper struct {
	logs   map[string]eventlog.Reader // by short name
	kept   eventlog.Log
	signer *Signer
	every  time.Duration
	logger *slog.Logger

	made atomic.Uint64 // checkpoints kept since it was made

	mu     sync.Mutex // one checkpoint is made at a time
	loaded bool
	last   uint64 // sequence in kept
	trees  map[string]*Tree
	notes  map[string][]string
	signed map[string]uint64 // frames under the last checkpoint
}

// record is what is kept of a checkpoint.
type record struct {
	Stream   string   `json:"stream"`
	Note     string   `json:"note"`
	Subtrees []string `json:"subtrees"`
}

// defaultEvery is for a keeper that is not told how often.
const defaultEvery = 10 * time.Minute

// How the log is read between checkpoints.
const (
	followEvery  = 5 * time.Second
	portion      = 256 // frames
	restPerWhile = 3   // a rest is so many times as long as the reading before
)

// NewKeeper returns a keeper of the checkpoints of logs, made at most once in
// every while a log grows; 0 means every ten minutes.
func NewKeeper(logs map[string]eventlog.Reader, kept eventlog.Log, signer *Signer, every time.Duration, logger *slog.Logger) *Keeper {
	if every <= 0 {
		every = defaultEvery
	}
	return &Keeper{logs: logs, kept: kept, signer: signer, every: every, logger: logger}
}

// Signer gives what signs.
func (k *Keeper) Signer() *Signer { return k.signer }

// Made gives how many checkpoints it has signed and kept since this process began, of all
// logs. Those that another process was first to make are not its own.
func (k *Keeper) Made() uint64 { return k.made.Load() }

// Run makes checkpoints until ctx is done. It is ready at once.
func (k *Keeper) Run(ctx context.Context, ready func()) error {
	ready()
	for due := time.Now().Add(k.every); ctx.Err() == nil; {
		rest(ctx, min(followEvery, time.Until(due)))
		err := k.follow(ctx, due)
		if err == nil && !time.Now().Before(due) {
			due = time.Now().Add(k.every)
			err = k.each(func(stream string, _ eventlog.Reader) error { return k.sign(ctx, stream) })
		}
		if err != nil && ctx.Err() == nil {
			k.logger.WarnContext(ctx, "no checkpoint of the log", "err", err)
			rest(ctx, followEvery)
		}
	}
	return nil
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// follow reads what the logs have grown by, bit by bit, until a checkpoint is due.
func (k *Keeper) follow(ctx context.Context, due time.Time) error {
	for more := true; more && ctx.Err() == nil; {
		began := time.Now()
		more = false
		err := k.each(func(stream string, log eventlog.Reader) error {
			read, err := k.grow(ctx, stream, log, portion)
			more = more || read == portion
			return err
		})
		if err != nil {
			return err
		}
		if more && !time.Now().Before(due) {
			break // what was read so far is signed
		}
		rest(ctx, restPerWhile*time.Since(began))
	}
	return ctx.Err()
}

// Checkpoint signs how far the logs are now.
func (k *Keeper) Checkpoint(ctx context.Context) error {
	return k.each(func(stream string, log eventlog.Reader) error {
		if _, err := k.grow(ctx, stream, log, math.MaxInt); err != nil {
			return err
		}
		return k.sign(ctx, stream)
	})
}

// each does something with every log, one at a time.
func (k *Keeper) each(do func(stream string, log eventlog.Reader) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for stream, log := range k.logs {
		if err := do(stream, log); err != nil {
			return fmt.Errorf("checkpoint of %s: %w", stream, err)
		}
	}
	return nil
}

// grow adds frames to a tree, so many at most, and tells how many.
func (k *Keeper) grow(ctx context.Context, stream string, log eventlog.Reader, most int) (read int, err error) {
	if err := k.load(ctx); err != nil {
		return 0, err
	}
	tree := k.trees[stream]
	if tree == nil {
		tree = &Tree{}
		k.trees[stream] = tree
	}
	if last, err := log.Last(ctx); err != nil || last <= tree.Size() {
		return 0, err
	}
	for r, err := range log.Read(ctx, tree.Size()) {
		if err != nil {
			return read, err
		}
		tree.Add(Leaf(stream, &r), nil)
		if read++; read == most {
			break
		}
	}
	return read, ctx.Err()
}

// sign keeps a checkpoint of how far a tree is.
func (k *Keeper) sign(ctx context.Context, stream string) error {
	if err := k.load(ctx); err != nil {
		return err
	}
	tree := k.trees[stream]
	if tree == nil || tree.Size() <= k.signed[stream] {
		return ctx.Err()
	}
	note, err := k.signer.Sign(Checkpoint{stream, tree.Size(), tree.Root()})
	if err != nil {
		return err
	}
	rec := record{Stream: stream, Note: note}
	for _, h := range tree.subtree {
		rec.Subtrees = append(rec.Subtrees, base64Encoding.EncodeToString(h[:]))
	}
	body, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	seq, err := k.kept.AppendFrame(ctx, eventlog.Frame{
		ID: fmt.Sprintf("%s.%d", stream, tree.Size()), Subject: "checkpoint." + stream, ContentType: "application/json", Body: body,
	}, k.last)
	if errors.Is(err, eventlog.ErrConflict) {
		k.loaded = false // another process was first; its checkpoint is as good
		return nil
	}
	if err != nil {
		k.loaded = false // it may stand there all the same
		return err
	}
	k.last = seq
	k.notes[stream] = append(k.notes[stream], note)
	k.signed[stream] = tree.Size()
	k.made.Add(1)
	return nil
}

// load reads what is kept: the notes, and the trees under the last of them. A
// checkpoint of another key, or whose subtrees do not fit it, is not gone on
// from: the tree is made again from the first frame.
func (k *Keeper) load(ctx context.Context) error {
	if k.loaded {
		return nil
	}
	k.last, k.trees, k.notes, k.signed = 0, map[string]*Tree{}, map[string][]string{}, map[string]uint64{}
	for r, err := range k.kept.Read(ctx, 0) {
		if err != nil {
			return fmt.Errorf("read the kept checkpoints: %w", err)
		}
		k.last = r.Seq
		var rec record
		if err := json.Unmarshal(r.Body, &rec); err != nil {
			return fmt.Errorf("read the kept checkpoint %d: %w", r.Seq, err)
		}
		c, err := k.signer.PublicKey().Open(rec.Note)
		if err != nil || c.Stream != rec.Stream {
			k.logger.WarnContext(ctx, "a kept checkpoint is not signed by this ledger", "stream", rec.Stream, "kept", r.Seq, "err", err)
			continue
		}
		k.notes[rec.Stream] = append(k.notes[rec.Stream], rec.Note)
		if tree, ok := grown(c, rec.Subtrees); ok {
			k.trees[rec.Stream], k.signed[rec.Stream] = tree, tree.Size()
		}
	}
	k.loaded = true
	return ctx.Err()
}

// grown gives the tree of a checkpoint out of its subtrees, if they fit it.
func grown(c Checkpoint, subtrees []string) (*Tree, bool) {
	t := &Tree{size: c.Size, subtree: make([]tlog.Hash, len(subtrees))}
	for i, text := range subtrees {
		var err error
		if t.subtree[i], err = parseHash(text); err != nil {
			return nil, false
		}
	}
	return t, t.Root() == c.Root
}

// Sources gives the logs for an archive, in the order of names, after a
// checkpoint of now.
func (k *Keeper) Sources(ctx context.Context, streams ...string) ([]Source, error) {
	if err := k.Checkpoint(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Source
	for _, s := range streams {
		out = append(out, Source{Stream: s, Log: k.logs[s], Kept: append([]string(nil), k.notes[s]...)})
	}
	return out, nil
}
