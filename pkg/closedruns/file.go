// Package closedruns keeps the parts that tracking.State.Seal takes out of the
// index of closed runs in files, so that what every run ever closed takes is
// disk and not memory.
//
// A part is written once, in the order of its hashes, and merged with its
// neighbours later. In memory stay 12 bits an entry, which tell of nearly every
// run that is new that no part holds it, and one hash of every 255 entries, which
// tells where in the file the others stand.
package closedruns

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/parquet-go/parquet-go/bloom"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// A file is blocks of 255 entries (hash and offset, 8 bytes each) with their
// number and a checksum, then the first hash of each block, then the filter, then
// a footer with the lengths of these and the checksum of both. All numbers are
// little endian.
const (
	entryBytes   = 16
	blockEntries = 255
	blockBytes   = 4096
	footerBytes  = 8 * 4
	writeBytes   = 64 << 10
	filterBits   = 12           // an entry: one look-up in 250 of what is not there reads a block for nothing
	magic        = 0x31534e5552 // "RUNS1"
)

// ErrDamaged says that a file is not as it was written.
var ErrDamaged = errors.New("a part of the index of closed runs is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// file is a part in a file that is open.
type file struct {
	name   name
	path   string
	f      *os.File
	n      uint64   // entries
	bytes  int64    // of the whole file
	firsts []uint64 // the first hash of each block
	filter bloom.SplitBlockFilter
	reads  int // blocks that were looked into
}

// name tells what a file holds: parts [number*8^level, (number+1)*8^level), and
// the digest of its bytes, so that parts of two logs are never taken for each
// other.
type name struct {
	level, number int
	digest        string
}

func (n name) String() string { return fmt.Sprintf("%d.%d.%s", n.level, n.number, n.digest) }

func parseName(text string) (n name, err error) {
	if _, err := fmt.Sscanf(text, "%d.%d.%s", &n.level, &n.number, &n.digest); err != nil || n.String() != text ||
		n.level < 0 || n.level > maxLevel || n.number < 0 || len(n.digest) != 2*digestBytes {
		return name{}, fmt.Errorf("%q is no name of a part", text)
	}
	return n, nil
}

const digestBytes = 16

// end is the number of the part behind those that it holds.
func (n name) end() int { return (n.number + 1) * width(n.level) }

func width(level int) int {
	w := 1
	for range level {
		w *= fanIn
	}
	return w
}

// writer writes a file.
type writer struct {
	to     *bufio.Writer
	digest hash.Hash
	block  [blockBytes]byte
	n      int // entries in block
	total  uint64
	firsts []uint64
	filter bloom.SplitBlockFilter
}

// write makes the file of at most most entries, which are in the order of
// tracking.ClosedRun.Compare.
func write(dir, prefix string, level, number, most int, entries iter.Seq2[tracking.ClosedRun, error], pace Pace) (_ *file, err error) {
	f, err := os.CreateTemp(dir, prefix+".*.tmp")
	if err != nil {
		return nil, fmt.Errorf("write a part of the index of closed runs: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write a part of the index of closed runs: %w", err), f.Close(), os.Remove(f.Name()))
		}
	}()
	w := &writer{digest: sha256.New(), filter: make(bloom.SplitBlockFilter, max(1, bloom.NumSplitBlocksOf(int64(most), filterBits)))}
	w.to = bufio.NewWriterSize(pace(f), writeBytes)
	for e, err := range entries {
		if err != nil {
			return nil, err
		}
		if err := w.add(e); err != nil {
			return nil, err
		}
	}
	if err := w.end(); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	n := name{level, number, hex.EncodeToString(w.digest.Sum(nil)[:digestBytes])}
	return settle(f, dir, prefix, n)
}

// settle gives a file that is written its name, and opens it.
func settle(f *os.File, dir, prefix string, n name) (*file, error) {
	path := filepath.Join(dir, prefix+"."+n.String())
	out, err := read(f, path, n)
	if err != nil {
		return nil, err
	}
	return out, os.Rename(f.Name(), path)
}

func (w *writer) add(e tracking.ClosedRun) error {
	if w.n == 0 {
		w.firsts = append(w.firsts, e.Hash)
	}
	binary.LittleEndian.PutUint64(w.block[w.n*entryBytes:], e.Hash)
	binary.LittleEndian.PutUint64(w.block[w.n*entryBytes+8:], uint64(e.At))
	w.filter.Insert(e.Hash)
	w.total++
	if w.n++; w.n == blockEntries {
		return w.flush()
	}
	return nil
}

func (w *writer) flush() error {
	if w.n == 0 {
		return nil
	}
	clear(w.block[w.n*entryBytes : blockEntries*entryBytes])
	binary.LittleEndian.PutUint64(w.block[blockBytes-16:], uint64(w.n)) //nolint:gosec // a count
	binary.LittleEndian.PutUint64(w.block[blockBytes-8:], uint64(crc32.Checksum(w.block[:blockBytes-8], castagnoli)))
	w.n = 0
	return w.put(w.block[:])
}

func (w *writer) put(b []byte) error {
	_, _ = w.digest.Write(b) // never fails
	_, err := w.to.Write(b)
	return err
}

func (w *writer) end() error {
	if err := w.flush(); err != nil {
		return err
	}
	tail := make([]byte, 0, 8*len(w.firsts)+len(w.filter.Bytes())+footerBytes)
	for _, h := range w.firsts {
		tail = binary.LittleEndian.AppendUint64(tail, h)
	}
	tail = append(tail, w.filter.Bytes()...)
	for _, n := range []uint64{magic, w.total, uint64(len(w.filter.Bytes()))} {
		tail = binary.LittleEndian.AppendUint64(tail, n)
	}
	tail = binary.LittleEndian.AppendUint64(tail, uint64(crc32.Checksum(tail, castagnoli)))
	if err := w.put(tail); err != nil {
		return err
	}
	return w.to.Flush()
}

// read reads what of a file stays in memory. It closes f only if it fails.
func read(f *os.File, path string, n name) (_ *file, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%w: %s: %w", ErrDamaged, path, err), f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var footer [footerBytes]byte
	if _, err := f.ReadAt(footer[:], max(0, info.Size()-footerBytes)); err != nil {
		return nil, err
	}
	total, filterBytes := binary.LittleEndian.Uint64(footer[8:]), binary.LittleEndian.Uint64(footer[16:])
	blocks := (total + blockEntries - 1) / blockEntries
	size := uint64(info.Size()) //nolint:gosec // a size
	if binary.LittleEndian.Uint64(footer[:]) != magic || total > size || filterBytes > size || filterBytes%bloom.BlockSize != 0 || filterBytes == 0 ||
		blocks*(blockBytes+8)+filterBytes+footerBytes != size {
		return nil, errors.New("its footer does not fit it")
	}
	tail := make([]byte, blocks*8+filterBytes+footerBytes)
	if _, err := f.ReadAt(tail, int64(blocks)*blockBytes); err != nil { //nolint:gosec // within the file
		return nil, err
	}
	if uint64(crc32.Checksum(tail[:len(tail)-8], castagnoli)) != binary.LittleEndian.Uint64(tail[len(tail)-8:]) {
		return nil, errors.New("its end has another checksum")
	}
	out := &file{name: n, path: path, f: f, n: total, bytes: info.Size(), firsts: make([]uint64, blocks)}
	for i := range out.firsts {
		out.firsts[i] = binary.LittleEndian.Uint64(tail[8*i:])
	}
	out.filter = make(bloom.SplitBlockFilter, filterBytes/bloom.BlockSize)
	copy(out.filter.Bytes(), tail[blocks*8:])
	return out, nil
}

// open opens a file that an earlier process left.
func open(dir, prefix string, n name) (*file, error) {
	path := filepath.Join(dir, prefix+"."+n.String())
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return read(f, path, n)
}

// receive writes a file that somebody else has kept.
func receive(dir, prefix string, n name, content io.Reader) (_ *file, err error) {
	f, err := os.CreateTemp(dir, prefix+".*.tmp")
	if err != nil {
		return nil, fmt.Errorf("fetch a part of the index of closed runs: %w", err)
	}
	digest := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, digest), content)
	if err == nil && hex.EncodeToString(digest.Sum(nil)[:digestBytes]) != n.digest {
		err = fmt.Errorf("%w: %s is another", ErrDamaged, n)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fetch a part of the index of closed runs: %w", err), f.Close(), os.Remove(f.Name()))
	}
	return settle(f, dir, prefix, n)
}

// lookup appends the entries under a hash.
func (p *file) lookup(hash uint64, scratch []byte, out []event.Offset) ([]event.Offset, error) {
	if !p.filter.Check(hash) {
		return out, nil
	}
	i, _ := slices.BinarySearch(p.firsts, hash)
	for i = max(0, i-1); i < len(p.firsts) && p.firsts[i] <= hash; i++ {
		p.reads++
		block, err := p.block(i, scratch)
		if err != nil {
			return nil, err
		}
		n := len(block) / entryBytes
		at := sort.Search(n, func(j int) bool { return entry(block[j*entryBytes:]).Hash >= hash })
		for ; at < n && entry(block[at*entryBytes:]).Hash == hash; at++ {
			out = append(out, entry(block[at*entryBytes:]).At)
		}
	}
	return out, nil
}

// block reads the entries of a block into scratch, which holds a block.
func (p *file) block(i int, scratch []byte) ([]byte, error) {
	if _, err := p.f.ReadAt(scratch, int64(i)*blockBytes); err != nil {
		return nil, fmt.Errorf("read a part of the index of closed runs: %w", err)
	}
	n := binary.LittleEndian.Uint64(scratch[blockBytes-16:])
	if n > blockEntries || uint64(crc32.Checksum(scratch[:blockBytes-8], castagnoli)) != binary.LittleEndian.Uint64(scratch[blockBytes-8:]) {
		return nil, fmt.Errorf("%w: block %d of %s", ErrDamaged, i, p.path)
	}
	return scratch[:n*entryBytes], nil
}

// all yields the entries in their order.
func (p *file) all() iter.Seq2[tracking.ClosedRun, error] {
	return func(yield func(tracking.ClosedRun, error) bool) {
		scratch := make([]byte, blockBytes)
		for i := range p.firsts {
			block, err := p.block(i, scratch)
			if err != nil {
				yield(tracking.ClosedRun{}, err)
				return
			}
			for ; len(block) > 0; block = block[entryBytes:] {
				if !yield(entry(block), nil) {
					return
				}
			}
		}
	}
}

func entry(b []byte) tracking.ClosedRun {
	return tracking.ClosedRun{Hash: binary.LittleEndian.Uint64(b), At: event.Offset(binary.LittleEndian.Uint64(b[8:]))}
}

// remove takes the file from the disk, and lets go of it.
func (p *file) remove() error { return errors.Join(ignoreMissing(os.Remove(p.path)), p.f.Close()) }
