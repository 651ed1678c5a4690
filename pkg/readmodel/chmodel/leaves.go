package chmodel

import (
	"bytes"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// The column leaves of a run holds a hash of the path and the value of each leaf of
// extra that a readmodel.MetaFilter may ask for, and of each hand. An index over it
// skips what does not have the leaf. Two leaves may have one hash, so what a run holds
// itself is looked at as well. Beside three columns of hands it took 2 ms of the
// server's processor time less to find a page of a rare one.

// leafHash is FNV-1a of 32 bits: 64 would be twice the disk, and of a granule's thousand
// leaves one in four million is met in vain.
type leafHash uint32

const (
	newLeafHash leafHash = 2166136261
	leafPrime   leafHash = 16777619
)

// with adds a text and what stands behind it.
func with[T string | []byte](h leafHash, text T, end byte) leafHash {
	for i := range len(text) {
		h = (h ^ leafHash(text[i])) * leafPrime
	}
	return (h ^ leafHash(end)) * leafPrime
}

const (
	behindName  = 0
	behindValue = 1
	behindHand  = 2
)

// handOf gives the hash of a hand.
func handOf(name string) uint32 { return uint32(with(newLeafHash, name, behindHand)) }

// leafOf gives the hash of what a filter asks for.
func leafOf(f readmodel.MetaFilter) uint32 {
	h := newLeafHash
	for _, name := range f.Path {
		h = with(h, name, behindName)
	}
	return uint32(with(h, f.Value, behindValue))
}

// leaves finds those of one run after the other.
type leaves struct {
	found []uint32
	dec   *jsontext.Decoder
	in    bytes.Reader
}

// As the metadata is read elsewhere: as much of it as can be.
var readsAll = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// of gives the leaves of a run, each once and in an order of their own, so that the
// same run is the same bytes. They are good until it is asked again.
func (l *leaves) of(rec *event.Record) []uint32 {
	l.found = l.found[:0]
	for _, hand := range [...]event.Attribute{event.By, event.ByEmail, event.ByName} {
		if name := rec.Attributes[hand]; name != "" {
			l.found = append(l.found, handOf(name))
		}
	}
	for name, x := range rec.Extra {
		h, v := with(newLeafHash, name, behindName), x.Value
		if len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' && bytes.IndexByte(v, '\\') < 0 && utf8.Valid(v) { // most are: a text as it is
			l.found = append(l.found, uint32(with(h, v[1:len(v)-1], behindValue)))
			continue
		}
		l.in.Reset(v)
		if l.dec == nil {
			l.dec = jsontext.NewDecoder(&l.in, readsAll...)
		} else {
			l.dec.Reset(&l.in, readsAll...)
		}
		_ = l.value(h) // what is no JSON matches nothing
	}
	slices.Sort(l.found)
	l.found = slices.Compact(l.found)
	return l.found
}

// value reads the next value, which stands at the path that h is of.
func (l *leaves) value(h leafHash) error {
	switch l.dec.PeekKind() {
	case '{':
		if _, err := l.dec.ReadToken(); err != nil {
			return err
		}
		for l.dec.PeekKind() == '"' {
			name, err := l.dec.ReadToken()
			if err != nil {
				return err
			}
			if err := l.value(with(h, name.String(), behindName)); err != nil {
				return err
			}
		}
		_, err := l.dec.ReadToken()
		return err
	case '"', '0', 't', 'f':
		leaf, err := l.dec.ReadToken()
		if err != nil {
			return err
		}
		text := leaf.String()
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && leaf.Kind() == '0' {
			text = strconv.FormatInt(n, 10) // -0 is 0
		}
		l.found = append(l.found, uint32(with(h, text, behindValue)))
		return nil
	default:
		return l.dec.SkipValue() // no filter looks into an array
	}
}
