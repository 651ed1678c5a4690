package tracking

import (
	"math/bits"
	"slices"

	"github.com/shipledger/shipledger/pkg/event"
)

// runIndex remembers closed runs: the 64-bit hash of a run's key and the offset
// of its last event, in at most 32 bytes each (architecture 4). The event itself
// is read from the log when a command names the run, so that a collision of
// hashes is noticed; runs with one hash stand beside each other.
//
// It is a hash table with linear probing, in shards that grow one by one, so
// that growing never stops the committer for long. A Go map of the same content
// takes up to 39 bytes an entry.
type runIndex struct {
	shards [256]indexShard
	n      int
}

type indexShard struct {
	hashes  []uint64
	offsets []event.Offset // 0 marks a free slot: no event stands at offset 0
	n       int
	shared  bool // with a frozen copy: it is copied before it changes
}

const (
	shardStart = 8
	growNum    = 3 // a full shard grows to 3/2, so that it is never less than 56 % full
	growDen    = 2
)

func (x *runIndex) shard(hash uint64) *indexShard { return &x.shards[hash>>56] }

// lookup gives the offsets that stand under hash.
func (x *runIndex) lookup(hash uint64) []event.Offset {
	var out []event.Offset
	s := x.shard(hash)
	if s.n == 0 {
		return nil
	}
	for i := s.home(hash); s.offsets[i] != 0; i = s.next(i) {
		if s.hashes[i] == hash {
			out = append(out, s.offsets[i])
		}
	}
	return out
}

func (x *runIndex) insert(hash uint64, o event.Offset) {
	s := x.shard(hash)
	s.own()
	if (s.n+1)*20 > len(s.hashes)*17 { // over 85 % full
		s.grow()
	}
	s.put(hash, o)
	x.n++
}

// move replaces an offset under hash and reports whether it was there.
func (x *runIndex) move(hash uint64, from, to event.Offset) bool {
	s := x.shard(hash)
	if s.n == 0 {
		return false
	}
	for i := s.home(hash); s.offsets[i] != 0; i = s.next(i) {
		if s.hashes[i] == hash && s.offsets[i] == from {
			s.own()
			s.offsets[i] = to
			return true
		}
	}
	return false
}

// remove takes an entry out and closes the gap, so that probing still finds
// what was pushed behind it.
func (x *runIndex) remove(hash uint64, o event.Offset) {
	s := x.shard(hash)
	if s.n == 0 {
		return
	}
	i := s.home(hash)
	for s.offsets[i] != 0 && (s.hashes[i] != hash || s.offsets[i] != o) {
		i = s.next(i)
	}
	if s.offsets[i] == 0 {
		return
	}
	s.own()
	for j := s.next(i); s.offsets[j] != 0; j = s.next(j) {
		if s.between(s.home(s.hashes[j]), i, j) {
			s.hashes[i], s.offsets[i] = s.hashes[j], s.offsets[j]
			i = j
		}
	}
	s.hashes[i], s.offsets[i] = 0, 0
	s.n--
	x.n--
}

// bytes gives the memory that the entries take.
func (x *runIndex) bytes() int {
	total := 0
	for i := range x.shards {
		total += 16 * len(x.shards[i].hashes)
	}
	return total
}

// home spreads the hash's lower bits over the slots without a division.
func (s *indexShard) home(hash uint64) int {
	hi, _ := bits.Mul64(hash<<8, uint64(len(s.hashes)))
	return int(hi)
}

func (s *indexShard) next(i int) int {
	if i++; i == len(s.hashes) {
		return 0
	}
	return i
}

// between tells whether home lies at or before gap on the way that leads to at.
func (s *indexShard) between(home, gap, at int) bool {
	if gap <= at {
		return home <= gap || home > at
	}
	return home <= gap && home > at
}

func (s *indexShard) put(hash uint64, o event.Offset) {
	i := s.home(hash)
	for s.offsets[i] != 0 {
		i = s.next(i)
	}
	s.hashes[i], s.offsets[i] = hash, o
	s.n++
}

// own makes the shard's memory its own.
func (s *indexShard) own() {
	if s.shared {
		s.hashes, s.offsets, s.shared = slices.Clone(s.hashes), slices.Clone(s.offsets), false
	}
}

// resize empties the shard and gives it room.
func (s *indexShard) resize(size int) {
	*s = indexShard{hashes: make([]uint64, size), offsets: make([]event.Offset, size)}
}

func (s *indexShard) grow() {
	old := *s
	s.resize(max(shardStart, len(s.hashes)*growNum/growDen))
	for i, o := range old.offsets {
		if o != 0 {
			s.put(old.hashes[i], o)
		}
	}
}
