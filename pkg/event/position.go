package event

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxFrameEvents is the most events one frame holds. It is below 1024, so that
// an event's index always fits in the low ten bits of its offset.
const MaxFrameEvents = 1000

const indexBits = 10

// An Offset is a place within one stream: sequence*1024 + index. Offsets are
// ordered and unique within one stream only; beside a stream's name they make a
// Position. Zero is before the first event.
type Offset uint64

// At gives the offset of the index-th event of the frame at seq.
func At(seq uint64, index int) Offset { return Offset(seq<<indexBits | uint64(index)) }

// Seq gives the sequence of the frame.
func (o Offset) Seq() uint64 { return uint64(o) >> indexBits }

// Index gives the place within the frame.
func (o Offset) Index() int { return int(o & (1<<indexBits - 1)) }

// A Position is the place of an event: the short name of its stream (t0 for
// the first partition, c for credentials, o for operations) and its offset.
type Position struct {
	Stream string
	Offset Offset
}

// String gives the form of contract 5.2: t0.8123.17.
func (p Position) String() string {
	return p.Stream + "." + strconv.FormatUint(p.Offset.Seq(), 10) + "." + strconv.Itoa(p.Offset.Index())
}

// TrackStream gives the short name of a partition's stream.
func TrackStream(partition int) string { return "t" + strconv.Itoa(partition) }

// CredentialStream is the short name of the stream of credentials.
const CredentialStream = "c"

// ParsePosition reads the form of String.
func ParsePosition(s string) (Position, error) {
	bad := func() (Position, error) {
		return Position{}, fmt.Errorf("%q is not a position; pass back an X-Shipledger-Position as it was received", s)
	}
	stream, rest, ok := strings.Cut(s, ".")
	seqText, indexText, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || !isStream(stream) {
		return bad()
	}
	seq, err := strconv.ParseUint(seqText, 10, 64-indexBits)
	if err != nil || seqText[0] == '+' {
		return bad()
	}
	index, err := strconv.ParseUint(indexText, 10, indexBits)
	if err != nil || indexText[0] == '+' {
		return bad()
	}
	return Position{Stream: stream, Offset: At(seq, int(index))}, nil
}

// ParsePositions reads one or several positions joined by commas. The later of
// two positions in one stream counts.
func ParsePositions(s string) (map[string]Offset, error) {
	out := map[string]Offset{}
	for part := range strings.SplitSeq(s, ",") {
		p, err := ParsePosition(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		out[p.Stream] = max(out[p.Stream], p.Offset)
	}
	return out, nil
}

func isStream(s string) bool {
	if s == CredentialStream || s == "o" {
		return true
	}
	n, ok := strings.CutPrefix(s, "t")
	if !ok || len(n) == 0 || len(n) > 4 {
		return false
	}
	for i := range len(n) {
		if n[i] < '0' || n[i] > '9' {
			return false
		}
	}
	return true
}
