package logarchive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

// Keeper signs checkpoints of growing logs and keeps them, in a log of their
// own, which like every log never forgets. It implements lifecycle.Service.
//
// With each checkpoint it keeps the roots of the subtrees, so that it goes on
// where it was and reads every frame once, whenever it starts.
type Keeper struct {
	logs   map[string]eventlog.Reader // by short name
	kept   eventlog.Log
	signer *Signer
	every  time.Duration
	logger *slog.Logger

	mu     sync.Mutex // one checkpoint is made at a time
	loaded bool
	last   uint64 // sequence in kept
	trees  map[string]*Tree
	notes  map[string][]string
}

// record is what is kept of a checkpoint.
type record struct {
	Stream   string   `json:"stream"`
	Note     string   `json:"note"`
	Subtrees []string `json:"subtrees"`
}

// defaultEvery is for a keeper that is not told how often.
const defaultEvery = 10 * time.Minute

// NewKeeper returns a keeper of the checkpoints of logs, made at most once in
// every while a log grows; 0 means every ten minutes.
func NewKeeper(logs map[string]eventlog.Reader, kept eventlog.Log, signer *Signer, every time.Duration, logger *slog.Logger) *Keeper {
	if every <= 0 {
		every = defaultEvery
	}
	return &Keeper{logs: logs, kept: kept, signer: signer, every: every, logger: logger, trees: map[string]*Tree{}, notes: map[string][]string{}}
}

// Signer gives what signs.
func (k *Keeper) Signer() *Signer { return k.signer }

// Run makes checkpoints until ctx is done. It is ready at once.
func (k *Keeper) Run(ctx context.Context, ready func()) error {
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(k.every):
		}
		if err := k.Checkpoint(ctx); err != nil && ctx.Err() == nil {
			k.logger.WarnContext(ctx, "no checkpoint of the log", "err", err)
		}
	}
}

// Checkpoint signs how far the logs are now.
func (k *Keeper) Checkpoint(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for stream, log := range k.logs {
		if err := k.advance(ctx, stream, log); err != nil {
			k.loaded = false // what is kept is read anew
			return fmt.Errorf("checkpoint of %s: %w", stream, err)
		}
	}
	return nil
}

func (k *Keeper) advance(ctx context.Context, stream string, log eventlog.Reader) error {
	if err := k.load(ctx); err != nil {
		return err
	}
	tree := k.trees[stream]
	if tree == nil {
		tree = &Tree{}
		k.trees[stream] = tree
	}
	before := tree.Size()
	for r, err := range log.Read(ctx, before) {
		if err != nil {
			return err
		}
		tree.Add(Leaf(stream, &r), nil)
	}
	if tree.Size() == before {
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
		return err
	}
	k.last = seq
	k.notes[stream] = append(k.notes[stream], note)
	return nil
}

// load reads what is kept: the notes, and the trees under the last of them. A
// checkpoint of another key, or whose subtrees do not fit it, is not gone on
// from: the tree is made again from the first frame.
func (k *Keeper) load(ctx context.Context) error {
	if k.loaded {
		return nil
	}
	k.last, k.trees, k.notes = 0, map[string]*Tree{}, map[string][]string{}
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
			k.trees[rec.Stream] = tree
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
