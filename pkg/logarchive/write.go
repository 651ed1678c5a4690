package logarchive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

// A Source is a stream to be archived.
type Source struct {
	Stream string // short name
	Log    eventlog.Reader
	// Kept are earlier checkpoints, smallest first.
	Kept []string
}

// Options of an archive.
type Options struct {
	// Signer, if there, signs the end of each stream.
	Signer *Signer
	// Progress, if set, is told of every frame: how many there were, of how many.
	Progress func(done, total uint64)
}

// Write archives streams, each up to the end that it has when Write begins,
// whatever is appended meanwhile. It holds one frame at a time.
func Write(ctx context.Context, w io.Writer, sources []Source, o Options) ([]End, error) {
	out := &summed{w: w, sum: sha256.New()}
	h := header{Format: Format}
	ends := make([]End, len(sources))
	var done, total uint64
	for i, s := range sources {
		last, err := s.Log.Last(ctx)
		if err != nil {
			return nil, fmt.Errorf("archive %s: %w", s.Stream, err)
		}
		ends[i] = End{Stream: s.Stream, Frames: last}
		h.Streams = append(h.Streams, s.Stream)
		total += last
	}
	if o.Signer != nil {
		h.Key = o.Signer.PublicKey().String()
	}
	if err := out.line(json.Marshal(h, strict)); err != nil {
		return nil, err
	}
	for i, s := range sources {
		err := out.stream(ctx, s, &ends[i], o.Signer, func() {
			if done++; o.Progress != nil {
				o.Progress(done, total)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("archive %s: %w", s.Stream, err)
		}
	}
	last := line{End: ends, Lines: out.lines, Sum: hex.EncodeToString(out.sum.Sum(nil))}
	return ends, out.line(json.Marshal(last, strict))
}

// summed counts and sums what is written.
type summed struct {
	w     io.Writer
	sum   hash.Hash
	lines uint64
	buf   []byte
}

func (s *summed) line(b []byte, err error) error {
	if err != nil {
		return err
	}
	b = append(b, '\n')
	_, _ = s.sum.Write(b) // never fails
	s.lines++
	_, err = s.w.Write(b)
	return err
}

func (s *summed) stream(ctx context.Context, src Source, end *End, signer *Signer, step func()) error {
	var tree Tree
	kept := src.Kept
	for r, err := range src.Log.Read(ctx, 0) {
		if err != nil {
			return err
		}
		if r.Seq > end.Frames {
			break
		}
		leaf := Leaf(src.Stream, &r)
		s.buf = appendFrame(s.buf[:0], src.Stream, &r, isLine(r.Body), leaf)
		if err := s.line(s.buf, nil); err != nil {
			return err
		}
		tree.Add(leaf, nil)
		end.Events += events(r.Body)
		for len(kept) > 0 {
			c, _, err := parseCheckpoint(kept[0])
			if err != nil {
				return fmt.Errorf("read a kept checkpoint: %w", err)
			}
			if c.Size > tree.Size() {
				break
			}
			if c.Size == tree.Size() {
				if err := s.line(json.Marshal(line{Stream: src.Stream, Checkpoint: kept[0]}, strict)); err != nil {
					return err
				}
			}
			kept = kept[1:]
		}
		step()
	}
	if tree.Size() != end.Frames {
		return errors.Join(ctx.Err(), fmt.Errorf("its end was %d, but it was read to %d", end.Frames, tree.Size()))
	}
	root := tree.Root()
	end.Root = base64Encoding.EncodeToString(root[:])
	if signer != nil && end.Frames > 0 {
		var err error
		if end.Checkpoint, err = signer.Sign(Checkpoint{src.Stream, end.Frames, root}); err != nil {
			return err
		}
	}
	return nil
}
