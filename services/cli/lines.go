package cli

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"

	"github.com/shipledger/shipledger/pkg/event"
)

// maxLineBytes bounds what is held of one line; the server takes no body over
// 256 KB anyway, and says so itself.
const maxLineBytes = 1 << 20

// Lines reads a history file: one JSON object a line, plain or gzip, told apart
// by the first bytes. Empty lines are skipped. A line is a backfill body
// (contract 4.4) with three liberties:
//
//   - time is read as completed_at; where the status says that the run has not
//     ended, also as started_at, since such an event has no other moment;
//   - an absent status is success;
//   - an absent invoke_id is made from the line, see InvokeID.
//
// As everywhere, null and "" count as absent.
//
// Reading takes about 20 bytes of memory for each line without an invoke_id, to
// number the equal ones.
type Lines struct {
	src  io.Reader
	err  error
	seen map[uint64]int // how often a line came; see key
}

// NewLines returns the lines of r, which is read only once.
func NewLines(r io.Reader) *Lines {
	return &Lines{src: r, seen: map[uint64]int{}}
}

// Err gives what ended the reading early. Lines before it are good.
func (l *Lines) Err() error { return l.err }

// All gives one item for each line that is not empty.
func (l *Lines) All() iter.Seq[Item] {
	return func(yield func(Item) bool) {
		in, err := decompress(l.src)
		if err != nil {
			l.err = err
			return
		}
		for n := 1; ; n++ {
			line, whole, err := readLine(in)
			if n == 1 {
				line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")) // byte order mark
			}
			if line = trim(line); len(line) > 0 || !whole {
				if !yield(l.item(n, line, whole)) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				l.err = fmt.Errorf("read line %d of the history: %w", n, err)
				return
			}
		}
	}
}

func decompress(r io.Reader) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) { // a read error comes back with the first line
		return in, nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("read the gzip header of the history: %w", err)
	}
	return bufio.NewReaderSize(z, 64<<10), nil
}

// readLine gives the next line in memory of its own. One that is too long is
// passed over and comes back not whole. A line that an error cuts off is
// dropped: only an end of file ends a line.
func readLine(in *bufio.Reader) (line []byte, whole bool, err error) {
	whole = true
	for {
		part, err := in.ReadSlice('\n')
		if whole = whole && len(line)+len(part) <= maxLineBytes; whole {
			line = append(line, part...)
		} else {
			line = nil
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == nil || errors.Is(err, io.EOF):
			return line, whole, err
		default:
			return nil, true, err
		}
	}
}

// trim takes off what JSON calls white space, the end of the line included.
func trim(line []byte) []byte { return bytes.Trim(line, " \t\r\n") }

func (l *Lines) item(n int, line []byte, whole bool) Item {
	if !whole {
		return Item{Line: n, Fault: fmt.Sprintf("longer than %d bytes", maxLineBytes)}
	}
	var body map[string]jsontext.Value
	if err := json.Unmarshal(line, &body, readable); err != nil || body == nil {
		return Item{Line: n, Fault: "not a JSON object" + whyNot(err)}
	}
	if absent(body["invoke_id"]) {
		k := key(line)
		body["invoke_id"] = quote(InvokeID(line, l.seen[k]))
		l.seen[k]++
	}
	if absent(body["status"]) {
		body["status"] = quote("success")
	}
	if moment := body["time"]; !absent(moment) {
		if absent(body["completed_at"]) {
			body["completed_at"] = moment
		}
		if absent(body["started_at"]) && open(body["status"]) {
			body["started_at"] = moment
		}
	}
	delete(body, "time")
	out, err := json.Marshal(body, readable, json.Deterministic(true))
	if err != nil {
		return Item{Line: n, Fault: err.Error()}
	}
	return Item{Line: n, Body: out}
}

// readable: the server reads a repeated member with its last value and replaces
// invalid UTF-8, and an import refuses nothing that the server would take.
var readable = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

func whyNot(err error) string {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return ": " + strings.TrimPrefix(syntax.Error(), "jsontext: ")
	}
	return ""
}

func absent(v jsontext.Value) bool {
	return len(v) == 0 || v.Kind() == 'n' || string(v) == `""`
}

func quote(s string) jsontext.Value {
	v, _ := jsontext.AppendQuote(nil, s) // fails on invalid UTF-8 only
	return v
}

// open tells whether a status word says that the run goes on. A word that is
// unknown does not: the server refuses it.
func open(status jsontext.Value) bool {
	var word string
	if json.Unmarshal(status, &word) != nil {
		return false
	}
	s, known := event.ParseStatus(word)
	return known && !s.Terminal()
}

// InvokeID gives the run id of a line that has none: "import-" and the first 26
// characters, in the lower-case RFC 4648 base32 alphabet, of the SHA-256 of
// these bytes: the line as it stands in the file, without its end and without
// the white space around it; one NUL; the number of equal lines before it that
// have no run id either, in decimal digits.
//
// So the same file gives the same ids whenever it is read, a file that grew
// gives the old ids to the old lines, and equal lines stay different runs.
// Equal lines in two files are one run.
func InvokeID(line []byte, before int) string {
	h := sha256.New()
	h.Write(trim(line))
	h.Write([]byte{0})
	h.Write(strconv.AppendInt(nil, int64(before), 10))
	return "import-" + strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil))[:26])
}

// key stands for a line where equal ones are counted. Should two different
// lines ever share one, the second merely counts from a higher number.
func key(line []byte) uint64 {
	sum := sha256.Sum256(line)
	return binary.BigEndian.Uint64(sum[:8])
}
