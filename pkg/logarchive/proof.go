package logarchive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

// ProofFormat is what a proof says it is.
const ProofFormat = "shipledger-proof/1"

// A Proof shows that an event stands in a log that was signed: its frame, the
// hashes from there to the root, and the signed root. It needs no archive.
type Proof struct {
	Format     string         `json:"format"`
	Event      string         `json:"event"` // its position
	ID         string         `json:"id"`
	Frame      jsontext.Value `json:"frame"` // the line of the archive
	Hashes     []string       `json:"hashes"`
	Checkpoint string         `json:"checkpoint"`
}

// ErrNotInArchive says that an archive has no such event.
var ErrNotInArchive = errors.New("the archive has no such event")

// Prove makes the proof of an event, named by its id or by its position, such as
// t0.812.3. It reads the archive twice, by open, and refuses one with a fault.
func Prove(open func() (io.ReadCloser, error), event string, expect Expect) (Proof, error) {
	p := Proof{Format: ProofFormat}
	var stream string
	var seq uint64
	result, err := scanOpened(open, expect, func(s string, r *eventlog.Recorded, leaf tlog.Hash) error {
		index, id := find(s, r, event)
		if index < 0 || stream != "" {
			return nil
		}
		stream, seq = s, r.Seq
		p.Event, p.ID = fmt.Sprintf("%s.%d.%d", s, r.Seq, index), id
		p.Frame = appendFrame(nil, s, r, isLine(r.Body), leaf)
		return nil
	})
	switch {
	case err != nil:
		return p, err
	case !result.OK():
		return p, fmt.Errorf("the archive is not sound: %s", result.Faults[0])
	case stream == "":
		return p, fmt.Errorf("%w: %s", ErrNotInArchive, event)
	}
	var size uint64
	for _, e := range result.Streams {
		if e.Stream == stream {
			size, p.Checkpoint = e.Frames, e.Checkpoint
		}
	}
	if p.Checkpoint == "" {
		return p, fmt.Errorf("the end of %s is not signed: export with the key of the ledger", stream)
	}
	// Which hashes a proof needs follows from its place alone: the library is
	// asked once to learn them, and again with their values.
	need := map[int64]tlog.Hash{}
	t, n := int64(size), int64(seq-1) //nolint:gosec // frames
	_, err = tlog.ProveRecord(t, n, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		for _, i := range indexes {
			need[i] = tlog.Hash{}
		}
		return make([]tlog.Hash, len(indexes)), nil
	}))
	if err != nil {
		return p, fmt.Errorf("prove %s: %w", p.Event, err)
	}
	var tree Tree
	if _, err = scanOpened(open, expect, func(s string, _ *eventlog.Recorded, leaf tlog.Hash) error {
		if s == stream {
			tree.Add(leaf, func(i int64, h tlog.Hash) {
				if _, ok := need[i]; ok {
					need[i] = h
				}
			})
		}
		return nil
	}); err != nil {
		return p, err
	}
	hashes, err := tlog.ProveRecord(t, n, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for k, i := range indexes {
			out[k] = need[i]
		}
		return out, nil
	}))
	if err != nil {
		return p, fmt.Errorf("prove %s: %w", p.Event, err)
	}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, base64Encoding.EncodeToString(h[:]))
	}
	return p, nil
}

func scanOpened(open func() (io.ReadCloser, error), expect Expect, visit func(string, *eventlog.Recorded, tlog.Hash) error) (Result, error) {
	src, err := open()
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = src.Close() }() // it is only read
	return Scan(src, expect, visit)
}

// find gives the place in a frame of the event with that id or position, -1 if
// it is not there, and its id.
func find(stream string, r *eventlog.Recorded, event string) (int, string) {
	index := -1
	if rest, ok := strings.CutPrefix(event, stream+"."+strconv.FormatUint(r.Seq, 10)+"."); ok {
		n, err := strconv.ParseUint(rest, 10, 10)
		if err != nil {
			return -1, ""
		}
		index = int(n)
	} else if !bytes.Contains(r.Body, []byte(`"`+event+`"`)) {
		return -1, ""
	}
	type named struct {
		ID string `json:"id"`
	}
	lenient := json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var batch []named
	if json.Unmarshal(r.Body, &batch, lenient) != nil {
		batch = make([]named, 1)
		if json.Unmarshal(r.Body, &batch[0], lenient) != nil {
			return -1, ""
		}
	}
	for i, e := range batch {
		if i == index || index < 0 && e.ID == event {
			return i, e.ID
		}
	}
	return -1, ""
}

// Verify checks the proof against a key, and gives the frame that it is about
// and the checkpoint that it stands under.
func (p *Proof) Verify(key PublicKey) (eventlog.Recorded, Checkpoint, error) {
	fail := func(format string, args ...any) (eventlog.Recorded, Checkpoint, error) {
		return eventlog.Recorded{}, Checkpoint{}, fmt.Errorf("the proof of %s does not hold: "+format, append([]any{p.Event}, args...)...)
	}
	if p.Format != ProofFormat {
		return fail("its format is %q, not %q", p.Format, ProofFormat)
	}
	c, err := key.Open(p.Checkpoint)
	if err != nil {
		return fail("%w", err)
	}
	var l line
	if err := json.Unmarshal(p.Frame, &l, strict); err != nil {
		return fail("its frame cannot be read")
	}
	r, _, stated, err := l.frame()
	if err != nil {
		return fail("%w", err)
	}
	leaf := Leaf(l.Stream, &r)
	if leaf != stated || l.Stream != c.Stream || r.Seq == 0 || r.Seq > c.Size {
		return fail("its frame contradicts its checksum or the checkpoint")
	}
	if index, id := find(l.Stream, &r, p.Event); index < 0 || id != p.ID {
		return fail("the frame does not hold the event")
	}
	hashes := make(tlog.RecordProof, len(p.Hashes))
	for i, text := range p.Hashes {
		if hashes[i], err = parseHash(text); err != nil {
			return fail("%w", err)
		}
	}
	if err := tlog.CheckRecord(hashes, int64(c.Size), c.Root, int64(r.Seq-1), leaf); err != nil { //nolint:gosec // frames
		return fail("the hashes do not lead to the signed root")
	}
	return r, c, nil
}
