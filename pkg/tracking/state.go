package tracking

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// State is what decisions are made on: the fold of one partition. The zero
// value is not usable; see NewState. It is not safe for concurrent use.
//
// It grows with runs and versions, not with events: open runs are held whole,
// closed ones in a runIndex, from which parts may be sealed and kept elsewhere.
type State struct {
	products     directory
	environments directory
	versions     versions

	open     map[ulid.ULID]*run
	byRun    map[runKey]ulid.ULID      // open runs that have a run id of their own
	byTriple map[tripleKey][]ulid.ULID // open runs, oldest first
	byCell   map[cellKey][]ulid.ULID   // open deployments, oldest first
	closed   runIndex
	parts    int // how many were sealed,
	sealed   int // and what they hold

	releases     map[ulid.ULID]release
	incarnations uint16             // the highest of any product
	settings     map[string]setting // by account
	defaults     event.Settings

	refused      map[uint64]refused // by hash of credential, endpoint and body
	refusedQueue []uint64
	keys         map[idempotencyKey]keyUse
	keyQueue     []idempotencyKey

	lastTime time.Time

	journaling bool
	journal    []func() // undoes the changes since the last Commit, latest last
}

type (
	naturalKey struct{ account, name string }
	versionKey struct {
		id          event.VersionID
		incarnation uint16
	}
	version struct {
		sha     string
		fixed   bool
		created int64        // Unix milliseconds
		offset  event.Offset // of its last event
	}
	tripleKey struct {
		kind    event.Kind
		cell    cellKey
		version string
	}
	cellKey struct {
		product                event.ProductID
		productIncarnation     uint16
		environment            event.EnvironmentID
		environmentIncarnation uint16
	}
	// runKey is the identity of contract 11.1. The account is part of the ids.
	runKey struct {
		triple          tripleKey
		invoke, attempt string
	}
	// run is a run and the place of its last event. It is never changed, only
	// replaced, so that a journal may keep the old one.
	run struct {
		record *event.Record
		event  ulid.ULID
		offset event.Offset
	}
	refused struct {
		at     time.Time
		code   string
		record *event.Record
		event  ulid.ULID
		offset event.Offset
	}
	idempotencyKey struct{ account, key string }
	keyUse         struct {
		at     time.Time
		body   uint64
		offset event.Offset
	}
)

// NewState returns the state of an empty log.
func NewState() *State {
	return &State{
		products: newDirectory(), environments: newDirectory(), versions: newVersions(),
		open: map[ulid.ULID]*run{}, byRun: map[runKey]ulid.ULID{},
		byTriple: map[tripleKey][]ulid.ULID{}, byCell: map[cellKey][]ulid.ULID{},
		releases: map[ulid.ULID]release{}, settings: map[string]setting{}, defaults: event.DefaultSettings(),
		refused: map[uint64]refused{}, keys: map[idempotencyKey]keyUse{},
	}
}

// LastTime gives the receipt time of the last event applied.
func (s *State) LastTime() time.Time { return s.lastTime }

// A Mark is a moment in the journal.
type Mark int

// Begin starts to write down how to undo what is applied from now on, until
// Commit. Without Begin nothing is written down.
func (s *State) Begin() { s.journaling = true }

// Mark gives the moment for a later RollbackTo.
func (s *State) Mark() Mark { return Mark(len(s.journal)) }

// RollbackTo undoes everything applied since the mark was taken.
func (s *State) RollbackTo(m Mark) {
	for i := len(s.journal) - 1; i >= int(m); i-- {
		s.journal[i]()
	}
	clear(s.journal[m:])
	s.journal = s.journal[:m]
}

// Commit makes what was applied final.
func (s *State) Commit() {
	clear(s.journal)
	s.journal, s.journaling = s.journal[:0], false
}

func (s *State) undo(f func()) {
	if s.journaling {
		s.journal = append(s.journal, f)
	}
}

func put[K comparable, V any](s *State, m map[K]V, k K, v V) {
	if s.journaling {
		if old, had := m[k]; had {
			s.undo(func() { m[k] = old })
		} else {
			s.undo(func() { delete(m, k) })
		}
	}
	m[k] = v
}

func remove[K comparable, V any](s *State, m map[K]V, k K) {
	if old, had := m[k]; had {
		s.undo(func() { m[k] = old })
		delete(m, k)
	}
}

// Apply folds an event. Events must come in the order of the log.
func (s *State) Apply(r event.Recorded) {
	if old := s.lastTime; !old.Equal(r.Time) { // the events of a frame have one
		s.undo(func() { s.lastTime = old })
	}
	s.lastTime = r.Time
	switch p := r.Payload.(type) {
	case *event.Product:
		s.applyProduct(r, p)
		s.rememberKey(r)
	case *event.Environment:
		s.applyEnvironment(r, p)
		s.rememberKey(r)
	case *event.Version:
		s.putVersion(versionKey{p.ID, p.Incarnation}, version{p.SHA, p.SHAFixed, p.CreatedAt.UnixMilli(), r.Position.Offset})
	case *event.Release:
		s.applyRelease(r, p)
		s.rememberKey(r)
	case *event.Settings:
		s.applySettings(r, p)
		s.rememberKey(r)
	case *event.Run:
		s.applyRun(r, p)
	}
}

func (s *State) applyRun(r event.Recorded, p *event.Run) {
	next := &run{&p.Record, r.ID, r.Position.Offset}
	id := p.Record.ID
	_, wasOpen := s.open[id]
	if next.record.Status == event.PreflightFailed {
		if wasOpen {
			s.close(next)
		}
		s.rememberRefusal(r, p) // and not the key: only what was accepted uses it up
		return
	}
	s.rememberKey(r)
	switch {
	case next.record.Open():
		kept := p.Record // alone: the payload holds the request too
		next.record = &kept
		put(s, s.open, id, next)
		if !wasOpen {
			s.openUp(next)
		}
	case wasOpen:
		s.close(next)
		s.rememberClosed(next, 0)
	default:
		var before event.Offset // of a run that was closed, by its last event
		if n := len(next.record.Receipts); n > 1 {
			before = next.record.Receipts[n-2].Offset
		}
		s.rememberClosed(next, before)
	}
}

func (s *State) openUp(r *run) {
	t := tripleOf(r.record)
	put(s, s.byTriple, t, append(s.byTriple[t], r.record.ID))
	if r.record.Kind == event.Deployment {
		put(s, s.byCell, t.cell, append(s.byCell[t.cell], r.record.ID))
	}
	if k := runKeyOf(r.record); k.invoke != "" {
		put(s, s.byRun, k, r.record.ID)
	}
}

func (s *State) close(r *run) {
	id := r.record.ID
	t := tripleOf(r.record)
	remove(s, s.open, id)
	takeOut(s, s.byTriple, t, id)
	if r.record.Kind == event.Deployment {
		takeOut(s, s.byCell, t.cell, id)
	}
	if k := runKeyOf(r.record); k.invoke != "" {
		remove(s, s.byRun, k)
	}
}

// takeOut leaves the old slice as it is: the journal may hold it.
func takeOut[K comparable](s *State, m map[K][]ulid.ULID, k K, id ulid.ULID) {
	left := slices.DeleteFunc(slices.Clone(m[k]), func(x ulid.ULID) bool { return x == id })
	if len(left) == 0 {
		remove(s, m, k)
		return
	}
	put(s, m, k, left)
}

func (s *State) rememberRefusal(r event.Recorded, p *event.Run) {
	if p.Hash == 0 || p.Refusal == nil {
		return
	}
	record := p.Record
	put(s, s.refused, p.Hash, refused{r.Time, p.Refusal.Code, &record, r.ID, r.Position.Offset})
	n := len(s.refusedQueue)
	s.undo(func() { s.refusedQueue = s.refusedQueue[:n] })
	s.refusedQueue = append(s.refusedQueue, p.Hash)
}

func (s *State) rememberKey(r event.Recorded) {
	if r.IdempotencyKey == "" {
		return
	}
	k := idempotencyKey{r.Account, r.IdempotencyKey}
	put(s, s.keys, k, keyUse{r.Time, r.BodyHash, r.Position.Offset})
	n := len(s.keyQueue)
	s.undo(func() { s.keyQueue = s.keyQueue[:n] })
	s.keyQueue = append(s.keyQueue, k)
}

// Expire forgets what need not be known any more at now. It must not be called
// between Begin and Commit. Decisions do not depend on when it is called.
func (s *State) Expire(now time.Time) {
	for len(s.refusedQueue) > 0 {
		h := s.refusedQueue[0]
		if r, ok := s.refused[h]; ok {
			if now.Sub(r.at) <= refusalMemory {
				break
			}
			delete(s.refused, h)
		}
		s.refusedQueue = s.refusedQueue[1:]
	}
	for len(s.keyQueue) > 0 {
		k := s.keyQueue[0]
		if u, ok := s.keys[k]; ok {
			age := now.Sub(u.at)
			if age <= keyMemoryLeast || age <= keyMemory && len(s.keys) < maxKeys {
				break
			}
			delete(s.keys, k)
		}
		s.keyQueue = s.keyQueue[1:]
	}
}

func tripleOf(r *event.Record) tripleKey {
	return tripleKey{r.Kind, cellKey{r.ProductID, r.ProductIncarnation, r.EnvironmentID, r.EnvironmentIncarnation}, r.Version}
}

func runKeyOf(r *event.Record) runKey {
	return runKey{tripleOf(r), r.Attributes[event.InvokeID], string(r.Extra[runAttemptMetadata].Value)}
}

// hash is stable: it is the same in every process and for ever.
func (k runKey) hash() uint64 {
	var stack [256]byte
	b := append(stack[:0], byte(k.triple.kind))
	b = append(b, k.triple.cell.product[:]...)
	b = binary.BigEndian.AppendUint16(b, k.triple.cell.productIncarnation)
	b = append(b, k.triple.cell.environment[:]...)
	b = binary.BigEndian.AppendUint16(b, k.triple.cell.environmentIncarnation)
	for _, part := range [...]string{k.triple.version, k.invoke, k.attempt} {
		b = append(append(b, part...), 0)
	}
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:8])
}
