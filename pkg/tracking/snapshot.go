package tracking

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// SnapshotVersion names what WriteSnapshot writes and what Apply makes of events.
// Whoever changes either must raise it: a snapshot of another version is
// ignored, and the log is folded from its first frame. A golden test notices
// both for what stands in it.
const SnapshotVersion = 2

// ErrSnapshot says that a snapshot cannot be read: it is cut off or damaged.
var ErrSnapshot = errors.New("the snapshot of the state is damaged")

// Freeze gives a copy of the state as it is at this moment, to be written while
// the state goes on. It must not be called between Begin and Commit, and the
// copy must not be applied to.
//
// Closed runs are not copied but shared by shard, and a shard is copied when it
// next changes. What was sealed is no part of it.
func (s *State) Freeze() *State {
	f := *s
	f.products, f.environments = s.products.clone(), s.environments.clone()
	f.versions, f.open, f.byRun = s.versions.clone(), maps.Clone(s.open), maps.Clone(s.byRun)
	f.byTriple, f.byCell = cloneLists(s.byTriple), cloneLists(s.byCell)
	f.releases, f.settings = maps.Clone(s.releases), maps.Clone(s.settings)
	f.refused, f.keys = maps.Clone(s.refused), maps.Clone(s.keys)
	f.refusedQueue, f.keyQueue = slices.Clone(s.refusedQueue), slices.Clone(s.keyQueue)
	f.journal = nil
	for i := range s.closed.shards {
		s.closed.shards[i].shared = true
	}
	f.closed = s.closed
	return &f
}

func (d *directory) clone() directory { return directory{maps.Clone(d.byID), maps.Clone(d.byName)} }

func cloneLists[K comparable](m map[K][]ulid.ULID) map[K][]ulid.ULID {
	out := make(map[K][]ulid.ULID, len(m))
	for k, list := range m {
		out[k] = slices.Clone(list)
	}
	return out
}

// WriteSnapshot writes the state, and what the caller says about it, for
// ReadSnapshot.
func (s *State) WriteSnapshot(to io.Writer, about []byte) error {
	w := newSnapshotWriter(to)
	w.number(SnapshotVersion)
	w.number(uint64(len(about)))
	w.bytes(about)
	w.time(s.lastTime)
	w.number(uint64(s.incarnations))
	w.directory(&s.products)
	w.directory(&s.environments)
	w.number(uint64(s.versions.len())) //nolint:gosec // a count
	for k, v := range s.versions.all() {
		w.bytes(k.id[:])
		w.number(uint64(k.incarnation))
		w.text(v.sha)
		w.flag(v.fixed)
		w.number(uint64(v.created)) //nolint:gosec // comes back as it was
		w.number(uint64(v.offset))
	}
	w.number(uint64(len(s.releases)))
	for id, r := range s.releases {
		w.bytes(id[:])
		w.text(r.account)
		w.number(uint64(r.offset))
	}
	w.number(uint64(len(s.settings)))
	for account, held := range s.settings {
		w.text(account)
		w.bytes(held.event[:])
		w.number(uint64(held.offset))
		for _, name := range held.Names() {
			w.flag(*held.Named(name))
		}
	}
	w.openRuns(s)
	w.refusals(s)
	w.number(uint64(len(s.keyQueue)))
	for _, k := range s.keyQueue {
		use, known := s.keys[k]
		w.text(k.account)
		w.text(k.key)
		w.flag(known)
		w.time(use.at)
		w.number(use.body)
		w.number(uint64(use.offset))
	}
	w.number(uint64(s.parts))  //nolint:gosec // a count
	w.number(uint64(s.sealed)) //nolint:gosec // a count
	w.index(&s.closed)
	return w.end()
}

// ReadSnapshot reads what WriteSnapshot wrote. Whatever it is given, it ends; the
// error is ErrSnapshot, or that of from.
func ReadSnapshot(from io.Reader) (s *State, about []byte, err error) {
	s = NewState()
	r := newSnapshotReader(from)
	about = r.about()
	s.lastTime = r.time()
	s.incarnations = uint16(r.number()) //nolint:gosec // as it was written
	r.directory(&s.products)
	r.directory(&s.environments)
	for range r.count() {
		var k versionKey
		r.bytes(k.id[:])
		k.incarnation = uint16(r.number()) //nolint:gosec // likewise
		s.putVersion(k, version{r.text(), r.flag(), int64(r.number()), event.Offset(r.number())})
	}
	for range r.count() {
		var id ulid.ULID
		r.bytes(id[:])
		s.releases[id] = release{r.text(), event.Offset(r.number())}
	}
	for range r.count() {
		account, held := r.text(), setting{}
		r.bytes(held.event[:])
		held.offset = event.Offset(r.number())
		for _, name := range held.Names() {
			*held.Named(name) = r.flag()
		}
		s.settings[account] = held
	}
	r.openRuns(s)
	r.refusals(s)
	for range r.count() {
		k := idempotencyKey{r.text(), r.text()}
		known := r.flag()
		use := keyUse{r.time(), r.number(), event.Offset(r.number())}
		s.keyQueue = append(s.keyQueue, k)
		if known {
			s.keys[k] = use
		}
	}
	s.parts, s.sealed = int(r.number()), int(r.number()) //nolint:gosec // as they were written
	r.index(&s.closed)
	return s, about, r.end()
}

// ReadAbout reads what the caller said about a snapshot, and none of the rest.
func ReadAbout(from io.Reader) ([]byte, error) {
	r := newSnapshotReader(from)
	about := r.about()
	return about, r.err
}

func (r *snapshotReader) about() []byte {
	if version := r.number(); version != SnapshotVersion {
		r.fail(fmt.Errorf("%w: it is of version %d, not %d", ErrSnapshot, version, SnapshotVersion))
	}
	return r.block(r.number())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotWriter remembers the first error, and a checksum of all it wrote.
type snapshotWriter struct {
	out  *bufio.Writer
	sum  hash.Hash32
	err  error
	word [binary.MaxVarintLen64]byte
}

func newSnapshotWriter(to io.Writer) *snapshotWriter {
	return &snapshotWriter{out: bufio.NewWriterSize(to, 64<<10), sum: crc32.New(castagnoli)}
}

func (w *snapshotWriter) bytes(b []byte) {
	if w.err != nil {
		return
	}
	_, _ = w.sum.Write(b) // never fails
	_, w.err = w.out.Write(b)
}

func (w *snapshotWriter) number(n uint64) { w.bytes(w.word[:binary.PutUvarint(w.word[:], n)]) }

func (w *snapshotWriter) text(s string) {
	w.number(uint64(len(s)))
	w.bytes([]byte(s))
}

func (w *snapshotWriter) flag(on bool) {
	w.word[0] = 0
	if on {
		w.word[0] = 1
	}
	w.bytes(w.word[:1])
}

// time writes whole milliseconds, which is all that the ledger keeps; 0 for the
// zero time.
func (w *snapshotWriter) time(t time.Time) {
	if t.IsZero() {
		w.number(0)
		return
	}
	w.number(uint64(t.UnixMilli()) + 1) //nolint:gosec // the ledger keeps no time before 1970
}

func (w *snapshotWriter) directory(d *directory) {
	w.number(uint64(len(d.byID)))
	for id, o := range d.byID {
		w.bytes(id[:])
		w.text(o.account)
		w.text(o.name)
		w.number(uint64(o.offset))
		w.number(uint64(o.incarnation))
		w.flag(o.deleted)
		w.number(uint64(o.class))
		w.number(uint64(o.limit))
		w.number(uint64(o.staleMinutes))
	}
	w.number(uint64(len(d.byName)))
	for k, id := range d.byName {
		w.text(k.account)
		w.text(k.name)
		w.bytes(id[:])
	}
}

// savedRun is an open run, or a refused start, as it is written. There are few.
type savedRun struct {
	Hash   uint64
	Record *event.Record
	Event  ulid.ULID
	Offset event.Offset
	At     time.Time
	Code   string
}

// openRuns writes open runs and, by their places in that list, the orders in
// which those of a triple and of a cell were opened.
func (w *snapshotWriter) openRuns(s *State) {
	ids := slices.SortedFunc(maps.Keys(s.open), ulid.ULID.Compare)
	runs, place := make([]savedRun, len(ids)), make(map[ulid.ULID]int, len(ids))
	for i, id := range ids {
		r := s.open[id]
		runs[i] = savedRun{Record: r.record, Event: r.event, Offset: r.offset}
		place[id] = i
	}
	w.gob(runs)
	writeOrders(w, s.byTriple, place)
	writeOrders(w, s.byCell, place)
}

func writeOrders[K comparable](w *snapshotWriter, m map[K][]ulid.ULID, place map[ulid.ULID]int) {
	w.number(uint64(len(m)))
	for _, list := range m {
		w.number(uint64(len(list)))
		for _, id := range list {
			w.number(uint64(place[id])) //nolint:gosec // it is a place
		}
	}
}

func (w *snapshotWriter) refusals(s *State) {
	runs := make([]savedRun, len(s.refusedQueue))
	for i, h := range s.refusedQueue {
		runs[i].Hash = h
		if r, known := s.refused[h]; known {
			runs[i] = savedRun{Hash: h, Record: r.record, Event: r.event, Offset: r.offset, At: r.at, Code: r.code}
		}
	}
	w.gob(runs)
}

func (w *snapshotWriter) gob(runs []savedRun) {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(runs); err != nil && w.err == nil {
		w.err = fmt.Errorf("write a snapshot of the state: %w", err)
	}
	w.number(uint64(b.Len())) //nolint:gosec // a length
	w.bytes(b.Bytes())
}

// index writes shard by shard what stands in its slots, in the order of the
// slots, so that reading it needs no more probing than the shard did.
func (w *snapshotWriter) index(x *runIndex) {
	for i := range x.shards {
		shard := &x.shards[i]
		w.number(uint64(shard.n)) //nolint:gosec // a count
		block := make([]byte, 0, 16*shard.n)
		for j, o := range shard.offsets {
			if o != 0 {
				block = binary.LittleEndian.AppendUint64(block, shard.hashes[j])
				block = binary.LittleEndian.AppendUint64(block, uint64(o))
			}
		}
		w.bytes(block)
	}
}

func (w *snapshotWriter) end() error {
	sum := w.sum.Sum32()
	w.bytes(binary.LittleEndian.AppendUint32(nil, sum))
	if w.err == nil {
		w.err = w.out.Flush()
	}
	return w.err
}

// snapshotReader remembers the first error and reads nothing but zeros from then on.
type snapshotReader struct {
	in  *bufio.Reader
	sum hash.Hash32
	err error
	one [1]byte
}

func newSnapshotReader(from io.Reader) *snapshotReader {
	return &snapshotReader{in: bufio.NewReaderSize(from, 64<<10), sum: crc32.New(castagnoli)}
}

// ReadByte is for binary.ReadUvarint.
func (r *snapshotReader) ReadByte() (byte, error) {
	if r.err != nil {
		return 0, r.err
	}
	b, err := r.in.ReadByte()
	if err != nil {
		r.fail(err)
		return 0, err
	}
	r.one[0] = b
	_, _ = r.sum.Write(r.one[:]) // never fails
	return b, nil
}

func (r *snapshotReader) fail(err error) {
	if r.err != nil {
		return
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: it ends too soon", ErrSnapshot)
	}
	r.err = err
}

func (r *snapshotReader) bytes(b []byte) {
	if r.err != nil {
		clear(b)
		return
	}
	if _, err := io.ReadFull(r.in, b); err != nil {
		r.fail(err)
		return
	}
	_, _ = r.sum.Write(b) // never fails
}

func (r *snapshotReader) number() uint64 {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		r.fail(fmt.Errorf("%w: %w", ErrSnapshot, err))
		return 0
	}
	return n
}

// Bounds of what is read, far above what can be written: a damaged length must
// not take all memory.
const (
	mostCounted = 1 << 32
	mostBytes   = 1 << 30
	readAtOnce  = 1 << 20
)

// count reads how many things follow, one at a time, so that a damaged count
// ends with the snapshot.
func (r *snapshotReader) count() func(yield func() bool) {
	n := r.number()
	if n > mostCounted {
		r.fail(fmt.Errorf("%w: it counts %d", ErrSnapshot, n))
	}
	return func(yield func() bool) {
		for i := uint64(0); i < n && r.err == nil; i++ {
			if !yield() {
				return
			}
		}
	}
}

func (r *snapshotReader) block(n uint64) []byte {
	if n > mostBytes {
		r.fail(fmt.Errorf("%w: %d bytes in one piece", ErrSnapshot, n))
	}
	var b []byte
	for uint64(len(b)) < n && r.err == nil { // piece by piece: a damaged length ends with the snapshot
		have := len(b)
		b = append(b, make([]byte, min(n-uint64(have), readAtOnce))...)
		r.bytes(b[have:])
	}
	return b
}

func (r *snapshotReader) text() string { return string(r.block(r.number())) }

func (r *snapshotReader) flag() bool {
	r.bytes(r.one[:])
	return r.one[0] == 1
}

func (r *snapshotReader) time() time.Time {
	n := r.number()
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n - 1)).UTC() //nolint:gosec // as it was written
}

func (r *snapshotReader) directory(d *directory) {
	for range r.count() {
		var id uuid.UUID
		r.bytes(id[:])
		//nolint:gosec // as it was written
		d.byID[id] = &object{
			account: r.text(), name: r.text(), offset: event.Offset(r.number()), incarnation: uint16(r.number()), deleted: r.flag(),
			class: event.Class(r.number()), limit: uint16(r.number()), staleMinutes: uint32(r.number()),
		}
	}
	for range r.count() {
		k := naturalKey{r.text(), r.text()}
		var id uuid.UUID
		r.bytes(id[:])
		d.byName[k] = id
	}
}

func (r *snapshotReader) gob() (runs []savedRun) {
	b := r.block(r.number())
	if r.err != nil {
		return nil
	}
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&runs); err != nil {
		r.fail(fmt.Errorf("%w: %w", ErrSnapshot, err))
		return nil
	}
	return runs
}

func (r *snapshotReader) openRuns(s *State) {
	runs := r.gob()
	for _, saved := range runs {
		if saved.Record == nil {
			r.fail(fmt.Errorf("%w: an open run without a record", ErrSnapshot))
			return
		}
		s.open[saved.Record.ID] = &run{saved.Record, saved.Event, saved.Offset}
		if k := runKeyOf(saved.Record); k.invoke != "" {
			s.byRun[k] = saved.Record.ID
		}
	}
	readOrders(r, s.byTriple, runs, tripleOf)
	readOrders(r, s.byCell, runs, func(rec *event.Record) cellKey { return tripleOf(rec).cell })
}

func readOrders[K comparable](r *snapshotReader, m map[K][]ulid.ULID, runs []savedRun, keyOf func(*event.Record) K) {
	for range r.count() {
		var list []ulid.ULID
		var k K
		for range r.count() {
			at := r.number()
			if at >= uint64(len(runs)) {
				r.fail(fmt.Errorf("%w: it names an open run that it does not hold", ErrSnapshot))
				return
			}
			k = keyOf(runs[at].Record)
			list = append(list, runs[at].Record.ID)
		}
		if len(list) > 0 {
			m[k] = list
		}
	}
}

func (r *snapshotReader) refusals(s *State) {
	for _, saved := range r.gob() {
		s.refusedQueue = append(s.refusedQueue, saved.Hash)
		if saved.Record != nil {
			s.refused[saved.Hash] = refused{saved.At, saved.Code, saved.Record, saved.Event, saved.Offset}
		}
	}
}

func (r *snapshotReader) index(x *runIndex) {
	for i := range x.shards {
		n := r.number()
		if n > mostBytes/16 {
			r.fail(fmt.Errorf("%w: a shard of %d closed runs", ErrSnapshot, n))
			return
		}
		block := r.block(16 * n)
		if r.err != nil {
			return
		}
		shard := &x.shards[i]
		if n > 0 {
			shard.resize(max(shardStart, int(n)*4/3)) //nolint:gosec // bounded above
		}
		for ; len(block) >= 16; block = block[16:] {
			hash, o := binary.LittleEndian.Uint64(block), event.Offset(binary.LittleEndian.Uint64(block[8:]))
			if o == 0 || hash>>56 != uint64(i) { //nolint:gosec // a place
				r.fail(fmt.Errorf("%w: a closed run in the wrong place", ErrSnapshot))
				return
			}
			shard.put(hash, o)
			x.n++
		}
	}
}

func (r *snapshotReader) end() error {
	want := r.sum.Sum32()
	var sum [4]byte
	r.bytes(sum[:])
	if r.err == nil && binary.LittleEndian.Uint32(sum[:]) != want {
		r.err = fmt.Errorf("%w: its checksum is another", ErrSnapshot)
	}
	return r.err
}
