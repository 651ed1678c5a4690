package logarchive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

const (
	// maxLine bounds a line: the largest message a server takes, quoted in the
	// worst way, is below it.
	maxLine = 16 << 20
	// maxFaults ends a scan: a file with so many is no archive.
	maxFaults = 100
)

// A Fault is something in an archive that is not as it was written.
type Fault struct {
	Line   uint64 `json:"line"` // 1 is the first; 0 where it is about no line
	Stream string `json:"stream,omitzero"`
	Seq    uint64 `json:"seq,omitzero"` // of the frame; 0 where it is about none
	What   string `json:"what"`
}

// String names the frame and says what is wrong with it.
func (f Fault) String() string {
	at := ""
	if f.Line > 0 {
		at = fmt.Sprintf(" (line %d)", f.Line)
	}
	switch {
	case f.Seq > 0:
		return fmt.Sprintf("frame %s.%d%s: %s", f.Stream, f.Seq, at, f.What)
	case f.Stream != "":
		return fmt.Sprintf("stream %s%s: %s", f.Stream, at, f.What)
	}
	return fmt.Sprintf("archive%s: %s", at, f.What)
}

// Expect says what an archive is held against beyond itself.
type Expect struct {
	// Key checks signatures. Without it the archive's own key does, which shows
	// damage, but not a whole archive made anew by somebody else.
	Key PublicKey
	// Checkpoints are earlier ones that the archive must continue.
	Checkpoints []string
}

// Result is what a scan found.
type Result struct {
	Streams []End    `json:"streams"`
	Signed  []string `json:"signed"` // streams whose end is signed by a key that Expect named, or by the archive's own
	Key     string   `json:"key"`    // that key
	Trusted bool     `json:"trusted"`
	Checked int      `json:"checkpoints"` // checkpoints that fitted, inside the archive and given
	Faults  []Fault  `json:"faults"`
}

// OK tells whether nothing was wrong.
func (r *Result) OK() bool { return len(r.Faults) == 0 }

// Scan reads an archive to its end, checks everything about it, and hands every
// sound frame to visit, unless that is nil. What is wrong with the archive
// stands in the result; an error is visit's. It holds one line at a time.
func Scan(src io.Reader, expect Expect, visit func(stream string, r *eventlog.Recorded, leaf tlog.Hash) error) (Result, error) {
	s := scanner{
		in: bufio.NewReaderSize(src, 1<<20), sum: sha256.New(), visit: visit, key: expect.Key,
		streams: map[string]*streamState{},
	}
	s.result.Trusted = !expect.Key.IsZero()
	err := s.run(expect)
	s.result.Key = s.key.String()
	return s.result, err
}

// streamState is what is known of a stream while it is read.
type streamState struct {
	tree   Tree
	next   uint64 // sequence of the next frame
	lost   uint64 // lines since the last sound frame that may have been frames
	broken bool   // a frame was missing or changed: the tree says nothing
	events uint64
	fitted uint64 // size of the last checkpoint that fitted
	given  []Checkpoint
}

type scanner struct {
	in      *bufio.Reader
	sum     hash.Hash
	visit   func(string, *eventlog.Recorded, tlog.Hash) error
	key     PublicKey
	lineNo  uint64
	again   []byte // a line written again
	order   []string
	streams map[string]*streamState
	current string
	unsure  []int // faults of lines since the last sound frame that could not be read
	sealed  bool
	result  Result
}

var errEnough = errors.New("enough")

func (s *scanner) fault(f Fault) error {
	s.result.Faults = append(s.result.Faults, f)
	if len(s.result.Faults) >= maxFaults {
		return errEnough
	}
	return nil
}

func (s *scanner) run(expect Expect) error {
	err := s.lines(expect)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (s *scanner) lines(expect Expect) error {
	text, err := s.line()
	if err != nil {
		return s.cut(err)
	}
	ok, err := s.head(text, expect)
	if err != nil || !ok {
		return err
	}
	for !s.sealed {
		before := s.sum.Sum(nil)
		if text, err = s.line(); err != nil {
			return s.cut(err)
		}
		if err := s.body(text, before); err != nil {
			return err
		}
	}
	if rest, err := s.line(); err == nil || len(rest) > 0 {
		return s.fault(Fault{Line: s.lineNo, What: "something stands behind the last line"})
	} else if !errors.Is(err, io.EOF) {
		return s.fault(Fault{Line: s.lineNo, What: err.Error()})
	}
	return nil
}

// line reads a line without its end. A line without one is not whole.
func (s *scanner) line() ([]byte, error) {
	var long []byte
	for {
		part, err := s.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if long = append(long, part...); len(long) > maxLine {
				return nil, fmt.Errorf("a line has more than %d bytes", maxLine)
			}
			continue
		}
		if len(long) > 0 {
			part = append(long, part...)
		}
		if err != nil {
			return part, err
		}
		s.lineNo++
		_, _ = s.sum.Write(part) // never fails
		return part[:len(part)-1], nil
	}
}

// cut names where a file ends that should go on.
func (s *scanner) cut(err error) error {
	what := "the file ends here, without its last line: it was cut off"
	if !errors.Is(err, io.EOF) {
		what = fmt.Sprintf("the file cannot be read on from here: %v", err)
	}
	f := s.expected()
	f.Line, f.What = s.lineNo+1, what
	return s.fault(f)
}

// expected names the frame that should come next, if one may.
func (s *scanner) expected() Fault {
	if st := s.streams[s.current]; st != nil {
		return Fault{Line: s.lineNo, Stream: s.current, Seq: st.next}
	}
	return Fault{Line: s.lineNo}
}

// head reads the first line. False means that the rest is not worth reading.
func (s *scanner) head(text []byte, expect Expect) (bool, error) {
	var h header
	if err := json.Unmarshal(text, &h, strict); err != nil || !s.same(text, h) {
		return true, s.fault(Fault{Line: 1, What: "the first line is not as it was written"})
	}
	if h.Format != Format {
		return false, s.fault(Fault{Line: 1, What: fmt.Sprintf("its format is %q, not %q", h.Format, Format)})
	}
	s.order = h.Streams
	if len(s.order) > 0 {
		s.current = s.order[0]
	}
	for _, name := range s.order {
		s.streams[name] = &streamState{next: 1}
	}
	if s.key.IsZero() && h.Key != "" {
		key, err := ParsePublicKey(h.Key)
		if err != nil {
			return true, s.fault(Fault{Line: 1, What: err.Error()})
		}
		s.key = key
	} else if h.Key != "" && h.Key != s.key.String() {
		if err := s.fault(Fault{Line: 1, What: "the archive was signed by another key: " + h.Key}); err != nil {
			return false, err
		}
	}
	for _, text := range expect.Checkpoints {
		c, err := s.open(text)
		if err != nil {
			return true, s.fault(Fault{Stream: c.Stream, What: "the checkpoint that was given: " + err.Error()})
		}
		st := s.streams[c.Stream]
		if st == nil {
			return true, s.fault(Fault{Stream: c.Stream, What: "the archive lacks this stream, of which a checkpoint was given"})
		}
		st.given = append(st.given, c)
	}
	return true, nil
}

// open reads a checkpoint, and checks its signature as far as there is a key.
func (s *scanner) open(text string) (Checkpoint, error) {
	if s.key.IsZero() {
		c, _, err := parseCheckpoint(text)
		return c, err
	}
	return s.key.Open(text)
}

// same tells whether v is written as text is: lines have one form.
func (s *scanner) same(text []byte, v any) bool {
	again, err := json.Marshal(v, strict)
	return err == nil && bytes.Equal(again, text)
}

// body reads any line but the first; before is the sum of all lines before it.
func (s *scanner) body(text, before []byte) error {
	var l line
	if err := json.Unmarshal(text, &l, strict); err != nil {
		return s.unreadable("this line cannot be read as what it was written as")
	}
	switch {
	case l.End != nil:
		return s.end(text, &l, before)
	case l.Checkpoint != "":
		if !s.same(text, line{Stream: l.Stream, Checkpoint: l.Checkpoint}) {
			return s.unreadable("a checkpoint's line is not as it was written")
		}
		return s.checkpoint(l.Stream, l.Checkpoint)
	}
	r, raw, leaf, err := l.frame()
	if err != nil {
		return s.unreadable(err.Error())
	}
	if Leaf(l.Stream, &r) != leaf {
		return s.changed(l.Stream, l.Seq)
	}
	st := s.streams[l.Stream]
	if st == nil { // the frame is sound, so that it is the first line that is not
		err := s.fault(Fault{Line: 1, What: "the first line of the archive does not name the stream " + l.Stream + ", of which there are frames"})
		if err != nil {
			return err
		}
		st = &streamState{next: 1}
		s.streams[l.Stream], s.order, s.current = st, append(s.order, l.Stream), l.Stream
	}
	if s.again = appendFrame(s.again[:0], l.Stream, &r, raw, leaf); !bytes.Equal(s.again, text) {
		return s.changed(l.Stream, l.Seq)
	}
	return s.frame(l.Stream, st, &r, leaf)
}

// unreadable names the place of a line that may have been a frame.
func (s *scanner) unreadable(what string) error {
	f := s.expected()
	if st := s.streams[s.current]; st != nil {
		f.Seq = st.next + st.lost
		st.lost++
		s.unsure = append(s.unsure, len(s.result.Faults))
	}
	f.What = what
	return s.fault(f)
}

// changed names a frame that contradicts its leaf. What it says of itself may be
// what was changed, so that its place tells which it is.
func (s *scanner) changed(stream string, seq uint64) error {
	f := s.expected()
	st := s.streams[s.current]
	if st == nil {
		f.What = "a frame of a stream that the first line does not name"
		return s.fault(f)
	}
	f.Seq = st.next + st.lost
	f.What = "it is not what was written: its content contradicts its checksum"
	if other := s.streams[stream]; other != nil && stream != s.current && seq == other.next {
		f.Stream, f.Seq = stream, seq // the first of the next stream
		s.current, st = stream, other
	} else if stream != s.current || seq != f.Seq {
		f.What += fmt.Sprintf(" (its line says %s.%d)", stream, seq)
		s.unsure = append(s.unsure, len(s.result.Faults))
	}
	st.lost++
	return s.fault(f)
}

// frame takes a frame that is sound in itself, and looks at its place.
func (s *scanner) frame(stream string, st *streamState, r *eventlog.Recorded, leaf tlog.Hash) error {
	if stream != s.current {
		if slices.Index(s.order, stream) < slices.Index(s.order, s.current) {
			st.broken = true
			return s.fault(Fault{Line: s.lineNo, Stream: stream, Seq: r.Seq, What: "it stands behind another stream: it was moved"})
		}
	}
	s.rename(stream, st, r.Seq)
	s.current, s.unsure = stream, s.unsure[:0]
	switch {
	case r.Seq < st.next:
		st.broken = true
		return s.fault(Fault{Line: s.lineNo, Stream: stream, Seq: r.Seq, What: fmt.Sprintf("it stands behind frame %d: it is there twice, or was moved", st.next-1)})
	case r.Seq > st.next+st.lost:
		st.broken = true
		for missing := st.next + st.lost; missing < r.Seq; missing++ {
			err := s.fault(Fault{Line: s.lineNo, Stream: stream, Seq: missing, What: fmt.Sprintf("it is not here: frame %d stands in its place", r.Seq)})
			if err != nil {
				return err
			}
		}
	case r.Seq > st.next:
		st.broken = true // a line between could not be read, and is named
	}
	st.next, st.lost = r.Seq+1, 0
	if st.broken {
		return nil
	}
	st.tree.Add(leaf, nil)
	st.events += events(r.Body)
	for _, c := range st.given {
		if c.Size == st.tree.Size() {
			if err := s.held(st, c, "the checkpoint that was given"); err != nil {
				return err
			}
		}
	}
	if s.visit == nil {
		return nil
	}
	return s.visit(stream, r, leaf)
}

// rename gives lines that could not be read, since the last sound frame, to the
// frames that are missing before the one that follows: those of a stream that
// begins there were taken for the end of the stream before, and one line may
// have become two.
func (s *scanner) rename(stream string, st *streamState, seq uint64) {
	if seq <= st.next || uint64(len(s.unsure)) < seq-st.next {
		return
	}
	for i, at := range s.unsure {
		s.result.Faults[at].Stream, s.result.Faults[at].Seq = stream, min(st.next+uint64(i), seq-1)
	}
	if before := s.streams[s.current]; before != st && before != nil {
		st.lost, before.lost = seq-st.next, 0
	}
}

// checkpoint takes one that stands in the archive.
func (s *scanner) checkpoint(stream, text string) error {
	c, err := s.open(text)
	st := s.streams[stream]
	switch {
	case err != nil:
		return s.fault(Fault{Line: s.lineNo, Stream: s.current, What: err.Error()})
	case st == nil || c.Stream != stream || c.Size != st.next-1:
		return s.fault(Fault{Line: s.lineNo, Stream: s.current, What: "a checkpoint stands here that does not belong here"})
	}
	return s.held(st, c, "the checkpoint that was kept")
}

// held compares the tree with a checkpoint of the same size.
func (s *scanner) held(st *streamState, c Checkpoint, which string) error {
	if st.broken {
		return nil // already named
	}
	if st.tree.Root() != c.Root {
		return s.fault(Fault{Line: s.lineNo, Stream: c.Stream, What: fmt.Sprintf(
			"frames %d to %d are not those that were signed: %s at %d has another root", st.fitted+1, c.Size, which, c.Size)})
	}
	st.fitted = c.Size
	s.result.Checked++
	return nil
}

// end reads the last line.
func (s *scanner) end(text []byte, l *line, before []byte) error {
	s.sealed = true
	if !s.same(text, line{End: l.End, Lines: l.Lines, Sum: l.Sum}) {
		return s.fault(Fault{Line: s.lineNo, What: "the last line is not as it was written"})
	}
	sound := len(s.result.Faults) == 0
	s.result.Streams = l.End
	for i := range l.End {
		e := &l.End[i]
		st := s.streams[e.Stream]
		if st == nil || i >= len(s.order) || s.order[i] != e.Stream {
			if err := s.fault(Fault{Line: s.lineNo, Stream: e.Stream, What: "the last line names it, and the first does not"}); err != nil {
				return err
			}
			continue
		}
		if err := s.ends(st, e); err != nil {
			return err
		}
	}
	if len(l.End) != len(s.order) {
		return s.fault(Fault{Line: s.lineNo, What: "the last line does not name every stream"})
	}
	if sound && len(s.result.Faults) == 0 && (l.Lines != s.lineNo-1 || l.Sum != hex.EncodeToString(before)) {
		return s.fault(Fault{Line: s.lineNo, What: "the lines are not all that were written: their sum is another"})
	}
	return nil
}

// ends holds a stream against what the last line says of it.
func (s *scanner) ends(st *streamState, e *End) error {
	for missing := st.next + st.lost; missing <= e.Frames; missing++ {
		st.broken = true
		if err := s.fault(Fault{Line: s.lineNo, Stream: e.Stream, Seq: missing, What: "it is not here: the stream ends before it"}); err != nil {
			return err
		}
	}
	st.broken = st.broken || st.lost > 0
	if st.broken {
		return nil
	}
	root := st.tree.Root()
	if e.Frames != st.tree.Size() || e.Root != base64Encoding.EncodeToString(root[:]) || e.Events != st.events {
		return s.fault(Fault{Line: s.lineNo, Stream: e.Stream, What: "what the last line says of it is not what is here"})
	}
	for _, c := range st.given {
		if c.Size > e.Frames {
			err := s.fault(Fault{Stream: e.Stream, What: fmt.Sprintf(
				"it ends at frame %d, and the checkpoint that was given is of %d frames: the end is missing", e.Frames, c.Size)})
			if err != nil {
				return err
			}
		}
	}
	if e.Checkpoint == "" {
		return nil
	}
	c, err := s.open(e.Checkpoint)
	switch {
	case err != nil:
		return s.fault(Fault{Line: s.lineNo, Stream: e.Stream, What: err.Error()})
	case c.Stream != e.Stream || c.Size != e.Frames:
		return s.fault(Fault{Line: s.lineNo, Stream: e.Stream, What: "its checkpoint is of something else"})
	}
	if err := s.held(st, c, "the checkpoint of its end"); err != nil {
		return err
	}
	if st.fitted == c.Size {
		s.result.Signed = append(s.result.Signed, e.Stream)
	}
	return nil
}
