// Package logarchive keeps logs in files, and shows that nobody changed them.
//
// An archive is NDJSON, so that it can be read with any tool in any decade:
//
//	{"format":"shipledger-log/1","streams":["c","t0"],"key":"shipledger/5c0e…+…"}
//	{"stream":"t0","seq":1,"id":"01J…","subject":"track.00","type":"application/…","headers":{…},"body":[…],"leaf":"…"}
//	{"stream":"t0","checkpoint":"shipledger/5c0e…/t0\n4096\nCsUY…\n\n— …\n"}
//	…
//	{"end":[{"stream":"t0","frames":8123,"events":60000,"root":"…","checkpoint":"…"}],"lines":8124,"sum":"…"}
//
// Every frame stands there as it is stored, whole and in order: its sequence,
// its headers, its body byte for byte. When a server received a frame is not
// kept: an import could not give it back, and the receipt of events stands in
// the events. A body that is not one line of JSON stands as "body64".
//
// # What shows a change
//
// The leaf of a frame is a hash over its stream, sequence, id, subject, headers
// and body. The leaves of a stream are a Merkle tree (RFC 6962), and a
// checkpoint is the root over its first frames, signed (C2SP tlog-checkpoint: a
// signed note). Lines have one form only, so that no byte can change unseen:
//
//   - a changed frame contradicts its own leaf, and is named;
//   - a frame that is missing, twice or elsewhere breaks the sequence, and is named;
//   - a file that was cut off lacks its last line;
//   - whoever makes all of that fit again has another root than was signed, and
//     cannot sign: the frames between the last checkpoint that fits and the
//     first that does not are named.
//
// A newer archive whose tree, at the size of an older checkpoint, has another
// root is no continuation of it. As the archive holds all leaves, that is
// checked on the leaves themselves and needs no consistency proof.
//
// The tree and the notes are those of golang.org/x/mod/sumdb, which secures the
// Go module database: small, maintained with Go, without dependencies, and of
// the same formats that other transparency logs speak.
package logarchive

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

// Format is what an archive says it is.
const Format = "shipledger-log/1"

// header is the first line.
type header struct {
	Format  string   `json:"format"`
	Streams []string `json:"streams"`
	Key     string   `json:"key,omitzero"` // public; what it is worth is for the reader to know
}

// line is what else a line can be.
type line struct {
	Stream     string            `json:"stream,omitzero"`
	Seq        uint64            `json:"seq,omitzero"`
	ID         string            `json:"id,omitzero"`
	Subject    string            `json:"subject,omitzero"`
	Type       string            `json:"type,omitzero"`
	Headers    map[string]string `json:"headers,omitzero"`
	Body       jsontext.Value    `json:"body,omitzero"`
	Body64     *string           `json:"body64,omitzero"`
	Leaf       string            `json:"leaf,omitzero"`
	Checkpoint string            `json:"checkpoint,omitzero"`
	End        []End             `json:"end,omitzero"`
	Lines      uint64            `json:"lines,omitzero"`
	Sum        string            `json:"sum,omitzero"`
}

// End says what an archive holds of a stream.
type End struct {
	Stream     string `json:"stream"`
	Frames     uint64 `json:"frames"`
	Events     uint64 `json:"events"`
	Root       string `json:"root"`
	Checkpoint string `json:"checkpoint,omitzero"` // signed; empty where nobody had the key
}

var (
	strict         = json.JoinOptions(json.RejectUnknownMembers(true), json.Deterministic(true))
	base64Encoding = base64.StdEncoding
)

// appendFrame writes the line of a frame, without the newline.
func appendFrame(dst []byte, stream string, r *eventlog.Recorded, raw bool, leaf tlog.Hash) []byte {
	dst = append(dst, `{"stream":`...)
	dst = appendText(dst, stream)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, r.Seq, 10)
	for _, m := range [...]struct{ name, value string }{{"id", r.ID}, {"subject", r.Subject}, {"type", r.ContentType}} {
		if m.value != "" {
			dst = append(append(append(dst, ',', '"'), m.name...), '"', ':')
			dst = appendText(dst, m.value)
		}
	}
	for i, name := range slices.Sorted(maps.Keys(r.Headers)) {
		if i == 0 {
			dst = append(dst, `,"headers":{`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendText(dst, name)
		dst = append(dst, ':')
		dst = appendText(dst, r.Headers[name])
	}
	if len(r.Headers) > 0 {
		dst = append(dst, '}')
	}
	if raw {
		dst = append(append(dst, `,"body":`...), r.Body...)
	} else {
		dst = append(dst, `,"body64":"`...)
		dst = append(base64Encoding.AppendEncode(dst, r.Body), '"')
	}
	dst = append(dst, `,"leaf":"`...)
	dst = base64Encoding.AppendEncode(dst, leaf[:])
	return append(dst, '"', '}')
}

// appendText writes a JSON string. Headers and names of a log are UTF-8; what is
// not could not be told apart after it was replaced, and changes the leaf.
func appendText(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

// isLine tells whether a body can stand in a line as it is: JSON that any
// reader reads alike, without a newline and nothing around it.
func isLine(body []byte) bool {
	if len(body) == 0 || body[0] <= ' ' || body[len(body)-1] <= ' ' || bytes.IndexByte(body, '\n') >= 0 {
		return false
	}
	return jsontext.Value(body).IsValid() && string(body) != "null"
}

// parseFrame reads the line of a frame.
func (l *line) frame() (r eventlog.Recorded, raw bool, leaf tlog.Hash, err error) {
	r = eventlog.Recorded{Seq: l.Seq, Frame: eventlog.Frame{
		ID: l.ID, Subject: l.Subject, ContentType: l.Type, Headers: l.Headers, Body: l.Body,
	}}
	raw = l.Body64 == nil
	if !raw {
		if r.Body, err = base64Encoding.DecodeString(*l.Body64); err != nil {
			return r, raw, leaf, fmt.Errorf("body64: %w", err)
		}
	}
	if leaf, err = parseHash(l.Leaf); err != nil {
		return r, raw, leaf, fmt.Errorf("leaf: %w", err)
	}
	return r, raw, leaf, nil
}

func parseHash(text string) (h tlog.Hash, err error) {
	b, err := base64Encoding.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return h, fmt.Errorf("%q is no hash", text)
	}
	return tlog.Hash(b), nil
}

// Leaf gives the hash of a frame in the tree of its stream: RFC 6962 over every
// part of it, each with its length before it.
func Leaf(stream string, r *eventlog.Recorded) tlog.Hash {
	return tlog.RecordHash(appendLeaf(make([]byte, 0, len(r.Body)+256), stream, r))
}

func appendLeaf(dst []byte, stream string, r *eventlog.Recorded) []byte {
	part := func(s string) {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	part(stream)
	dst = binary.BigEndian.AppendUint64(dst, r.Seq)
	part(r.ID)
	part(r.Subject)
	part(r.ContentType)
	dst = binary.AppendUvarint(dst, uint64(len(r.Headers)))
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		part(name)
		part(r.Headers[name])
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Body)))
	return append(dst, r.Body...)
}

// events counts those of a body: the elements of a batch, or one.
func events(body []byte) (n uint64) {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if d.PeekKind() != '[' {
		return 1
	}
	if _, err := d.ReadToken(); err != nil {
		return 0
	}
	for d.PeekKind() != ']' {
		if d.SkipValue() != nil {
			return n
		}
		n++
	}
	return n
}
