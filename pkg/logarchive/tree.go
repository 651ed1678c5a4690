package logarchive

import (
	"golang.org/x/mod/sumdb/tlog"
)

// A Tree is the Merkle tree over the frames of a stream, as far as it is needed
// to go on: the roots of its whole subtrees, largest first, at most one for each
// bit of its size. The zero value is the empty tree.
type Tree struct {
	size    uint64
	subtree []tlog.Hash
}

// Add adds the leaf of the next frame. Each hash that becomes final, of the leaf
// and of whole subtrees, is handed to stored with its place (tlog.StoredHashIndex),
// unless that is nil.
func (t *Tree) Add(leaf tlog.Hash, stored func(index int64, h tlog.Hash)) {
	h, n, level := leaf, int64(t.size), 0 //nolint:gosec // frames
	for {
		if stored != nil {
			stored(tlog.StoredHashIndex(level, n), h)
		}
		if n&1 == 0 {
			break
		}
		last := len(t.subtree) - 1
		h = tlog.NodeHash(t.subtree[last], h)
		t.subtree = t.subtree[:last]
		n >>= 1
		level++
	}
	t.subtree = append(t.subtree, h)
	t.size++
}

// Size gives the number of frames.
func (t *Tree) Size() uint64 { return t.size }

// Root gives the hash over all frames.
func (t *Tree) Root() tlog.Hash {
	if len(t.subtree) == 0 {
		h, _ := tlog.TreeHash(0, nil) // of nothing; asks nobody
		return h
	}
	h := t.subtree[len(t.subtree)-1]
	for i := len(t.subtree) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.subtree[i], h)
	}
	return h
}
