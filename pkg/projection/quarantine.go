package projection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/tally"
)

// Func projects an event. An error, or a panic, says that it cannot.
type Func func(r event.Recorded, rows *readmodel.Rows) (known bool, err error)

func infallible(r event.Recorded, rows *readmodel.Rows) (bool, error) { return Project(r, rows), nil }

// try projects an event, or leaves rows as they were.
func try(project Func, r *event.Recorded, rows *readmodel.Rows) (known bool, err error) {
	before := *rows
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the projection panics: %v", p)
		}
		if err != nil {
			*rows = before
		}
	}()
	return project(*r, rows)
}

// Decisions are what people decided about events that were set aside.
type Decisions interface {
	// Last numbers the last decision that is known.
	Last() uint64
	// Discarded tells whether an event is never to be applied, and why.
	Discarded(p event.Position) (reason string, discarded bool)
	// Asked numbers the last decision to try an event again, 0 for none.
	Asked(r *readmodel.QuarantineRow) uint64
}

type undecided struct{}

// Last implements Decisions.
func (undecided) Last() uint64 { return 0 }

// Discarded implements Decisions.
func (undecided) Discarded(event.Position) (string, bool) { return "", false }

// Asked implements Decisions.
func (undecided) Asked(*readmodel.QuarantineRow) uint64 { return 0 }

// subject is what events belong to that have to be applied in order.
type subject struct{ account, name string }

// A Shelf knows what of a stream is set aside in one version of the tables: an
// event that could not be applied, and the later ones of the same subject, a
// deployment say, which wait behind it.
//
// It stands in a table of that version and not in a stream of its own, because a
// version of the tables is what an event could not be applied to: a rebuild with
// mended code has its own, empty one. The row is stored before the progress that
// passes the event, by the same store, so that no crash comes between the two.
//
// It belongs to one goroutine; Open and Oldest may be asked by any.
type Shelf struct {
	blocked map[subject]event.Offset // the first that is set aside
	turns   map[event.Offset]uint64  // of rows that may be written again
	stale   map[event.Offset]bool    // set aside before a crash, beyond the progress
	open    atomic.Int64
	upTo    readmodel.Progress // before what the stream offers next

	mu    sync.Mutex
	since map[event.Offset]time.Time // when what is open was set aside
}

// shelfPage is how many rows are read at a time.
const shelfPage = 1000

// LoadShelf reads what of a stream is set aside.
func LoadShelf(ctx context.Context, sink readmodel.Sink, stream string) (*Shelf, error) {
	upTo, err := sink.Progress(ctx, stream)
	if err != nil {
		return nil, err
	}
	s := &Shelf{blocked: map[subject]event.Offset{}, turns: map[event.Offset]uint64{}, stale: map[event.Offset]bool{}, since: map[event.Offset]time.Time{}, upTo: upTo}
	err = shelved(ctx, sink, readmodel.QuarantineFilter{Stream: stream, Pending: &upTo.Offset}, func(r *readmodel.QuarantineRow) {
		at := r.Position.Offset
		s.turns[at] = r.Turn
		if at > upTo.Offset { // it will be offered again
			s.stale[at] = r.State == readmodel.Quarantined
			return
		}
		s.block(subject{r.Account, r.Subject}, at)
		s.hold(r)
	})
	return s, err
}

// hold counts what stays set aside, and release what is offered anew.
func (s *Shelf) hold(r *readmodel.QuarantineRow) {
	s.open.Add(int64(r.Events)) //nolint:gosec // a number of events
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since[r.Position.Offset] = r.SetAsideAt
}

func (s *Shelf) release(r *readmodel.QuarantineRow) {
	s.open.Add(-int64(r.Events)) //nolint:gosec // a number of events
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.since, r.Position.Offset)
}

func shelved(ctx context.Context, sink readmodel.Sink, f readmodel.QuarantineFilter, each func(*readmodel.QuarantineRow)) error {
	for page := (readmodel.Page{Limit: shelfPage}); ; {
		rows, err := sink.Quarantine(ctx, f, page)
		if err != nil {
			return err
		}
		for i := range rows {
			each(&rows[i])
		}
		if len(rows) < page.Limit {
			return nil
		}
		page.After = rows[len(rows)-1].Key()
	}
}

// Open gives how many events are set aside and neither applied nor discarded.
func (s *Shelf) Open() int { return int(s.open.Load()) }

// Oldest gives when the one of them was set aside that was so first; the zero time
// where there is none.
func (s *Shelf) Oldest() (at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, since := range s.since {
		if at.IsZero() || since.Before(at) {
			at = since
		}
	}
	return at
}

func (s *Shelf) block(of subject, at event.Offset) {
	if of.name == "" {
		return
	}
	if first, ok := s.blocked[of]; !ok || at < first {
		s.blocked[of] = at
	}
}

// ahead gives what an event waits behind.
func (s *Shelf) ahead(of subject, at event.Offset) (event.Offset, bool) {
	if len(s.blocked) == 0 || of.name == "" {
		return 0, false
	}
	first, ok := s.blocked[of]
	return first, ok && first < at
}

// turn gives the number of what is said next of a place.
func (s *Shelf) turn(at event.Offset) uint64 {
	s.turns[at]++
	return s.turns[at]
}

// offer projects an event, or sets it aside; was is what it stands as, if it is
// set aside already.
func (p *portion) offer(r *event.Recorded, fault error, was readmodel.QuarantineRow) {
	at := r.Position.Offset
	row := func() readmodel.QuarantineRow {
		row := rowOf(r)
		row.Attempts, row.SetAsideAt = was.Attempts, was.SetAsideAt
		return row
	}
	if reason, discarded := p.cfg.Decisions.Discarded(r.Position); discarded {
		p.aside(row(), readmodel.Discarded, reason, 0)
		return
	}
	if first, waits := p.shelf.ahead(subject{r.Account, r.Subject}, at); waits {
		p.wait(row(), first)
		return
	}
	err := fault
	var known bool
	if err == nil {
		known, err = try(p.cfg.Project, r, &p.rows)
	}
	if err != nil {
		p.aside(row(), readmodel.Quarantined, err.Error(), 0)
		return
	}
	if !known {
		p.unknown++
	}
	if was.Turn > 0 || p.shelf.stale[at] { // a crash came before its progress, and it is mended since
		p.aside(row(), readmodel.Redriven, "", 0)
	}
}

func (p *portion) wait(row readmodel.QuarantineRow, first event.Offset) {
	ahead := event.Position{Stream: row.Position.Stream, Offset: first}
	p.aside(row, readmodel.Quarantined, "waits behind "+ahead.String(), first)
}

// aside says what became of an event that is not projected.
func (p *portion) aside(row readmodel.QuarantineRow, state readmodel.QuarantineState, reason string, behind event.Offset) {
	at := row.Position.Offset
	row.State, row.Reason, row.CodeVersion, row.Turn = state, short(reason), p.cfg.CodeVersion, p.shelf.turn(at)
	row.Behind = event.Position{}
	if behind > 0 {
		row.Behind = event.Position{Stream: row.Position.Stream, Offset: behind}
	}
	row.Decision = p.cfg.Decisions.Last()
	if row.SetAsideAt.IsZero() {
		row.SetAsideAt = p.cfg.Now().UTC().Truncate(time.Millisecond)
	}
	if behind == 0 && state != readmodel.Discarded {
		row.Attempts++
	}
	if state == readmodel.Quarantined {
		p.shelf.block(subject{row.Account, row.Subject}, at)
		p.shelf.hold(&row)
	}
	p.rows.Quarantine = append(p.rows.Quarantine, row)
}

// setFrameAside sets a frame aside that holds no events, as far as can be told.
func (p *portion) setFrameAside(f decoded) {
	for i, k := range keys(f.counts) {
		row := readmodel.QuarantineRow{
			Account: k.Account, Type: k.Type, Position: event.Position{Stream: p.stream, Offset: event.At(f.seq, i)},
			Frame: true, Events: f.counts[k],
		}
		if reason, discarded := p.cfg.Decisions.Discarded(row.Position); discarded {
			p.aside(row, readmodel.Discarded, reason, 0)
		} else {
			p.aside(row, readmodel.Quarantined, f.unread.Error(), 0)
		}
		p.passed(row.Position, time.Time{})
	}
}

func keys(counts tally.Counts) []tally.Key {
	return slices.SortedFunc(maps.Keys(counts), func(a, b tally.Key) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Type, b.Type))
	})
}

// rowOf says of an event what is known of it.
func rowOf(r *event.Recorded) readmodel.QuarantineRow {
	row := readmodel.QuarantineRow{Account: r.Account, Position: r.Position, Type: r.Type, Subject: r.Subject, ReceivedAt: r.Time, Events: 1}
	if [16]byte(r.ID) != [16]byte{} {
		row.ID = r.ID.String()
	}
	return row
}

// maxReason bounds the bytes of a reason: errors may quote what they are about.
const maxReason = 1000

func short(reason string) string {
	return strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
}

// store stores the portion. What the store refuses for what it holds is searched
// for by halves and set aside.
func (p *portion) store(ctx context.Context, dst readmodel.Sink) error {
	if p.batch != nil {
		return p.batch.Store(ctx, p.upTo)
	}
	err := dst.Store(ctx, &p.rows, p.upTo)
	if !errors.Is(err, readmodel.ErrRefused) {
		return err
	}
	if err := p.storePart(ctx, dst, 0, len(p.rows.Events)); err != nil {
		return err
	}
	return dst.Store(ctx, &readmodel.Rows{Quarantine: p.rows.Quarantine}, p.upTo)
}

// storePart stores what the events from lo until before hi contribute.
func (p *portion) storePart(ctx context.Context, dst readmodel.Sink, lo, hi int) error {
	if lo == hi {
		return nil
	}
	waiting := false
	for i := lo; i < hi && !waiting; i++ {
		_, waiting = p.ahead(i)
	}
	if !waiting {
		from, until := event.Offset(0), ^event.Offset(0)
		if lo > 0 {
			from = p.rows.Events[lo].Position.Offset
		}
		if hi < len(p.rows.Events) {
			until = p.rows.Events[hi].Position.Offset
		}
		rows := p.rows.Between(from, until)
		err := dst.Store(ctx, &rows, readmodel.Progress{})
		if !errors.Is(err, readmodel.ErrRefused) {
			return err
		}
		if hi-lo == 1 {
			p.aside(p.rowAt(lo), readmodel.Quarantined, err.Error(), 0)
			return nil
		}
	}
	if hi-lo == 1 {
		first, _ := p.ahead(lo)
		p.wait(p.rowAt(lo), first)
		return nil
	}
	mid := (lo + hi) / 2
	if err := p.storePart(ctx, dst, lo, mid); err != nil {
		return err
	}
	return p.storePart(ctx, dst, mid, hi)
}

func (p *portion) ahead(i int) (event.Offset, bool) {
	e := &p.rows.Events[i]
	return p.shelf.ahead(subject{e.Account, e.Subject}, e.Position.Offset)
}

// rowAt says what is known of a projected event.
func (p *portion) rowAt(i int) readmodel.QuarantineRow {
	e := &p.rows.Events[i]
	row := readmodel.QuarantineRow{
		Account: e.Account, Position: e.Position, ID: e.ID.String(), Type: e.Type, Subject: e.Subject, ReceivedAt: e.ReceivedAt, Events: 1,
	}
	for _, was := range p.rows.Quarantine { // it was said to be redriven
		if was.Position == e.Position {
			row.Attempts, row.SetAsideAt = was.Attempts-1, was.SetAsideAt
		}
	}
	return row
}
