package projection

import (
	"context"
	"errors"
	"fmt"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// Redrive does what was decided about what is set aside of a stream in dst: it
// reads the events again and projects them with the code of today, in the order
// of the log. A decision about one event is about all of its subject, which only
// go in order. What was discarded is closed; what still fails stays, with the
// reason of today, and so does what waits behind it.
//
// It gives what is set aside then. Doing it again changes nothing. Once all is
// stored, dst is told up to which decision it is: answers that were drawn before
// no longer hold.
func Redrive(ctx context.Context, stream string, log eventlog.Reader, dst readmodel.Sink, cfg Config) (*Shelf, error) {
	cfg = cfg.withDefaults()
	shelf, err := redrive(ctx, stream, log, dst, cfg)
	if err != nil {
		return shelf, err
	}
	if last := cfg.Decisions.Last(); last > shelf.upTo.Mended {
		if err := dst.Store(ctx, &readmodel.Rows{}, readmodel.Progress{Stream: stream, Mended: last}); err != nil {
			return nil, fmt.Errorf("store that decisions about %s are done: %w", stream, err)
		}
	}
	return shelf, nil
}

func redrive(ctx context.Context, stream string, log eventlog.Reader, dst readmodel.Sink, cfg Config) (*Shelf, error) {
	shelf, err := LoadShelf(ctx, dst, stream)
	if err != nil || shelf.Open() == 0 || cfg.Decisions.Last() == 0 {
		return shelf, err
	}
	rows, err := due(ctx, stream, dst, cfg.Decisions, shelf.upTo.Offset)
	if err != nil || len(rows) == 0 {
		return shelf, err
	}
	for _, r := range rows { // they are offered anew, in order
		delete(shelf.blocked, subject{r.Account, r.Subject})
		shelf.release(&r)
	}
	p := portion{stream: stream, cfg: cfg, shelf: shelf}
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].Position.Offset.Seq() == rows[0].Position.Offset.Seq() {
			n++
		}
		if err := p.again(ctx, log, rows[:n]); err != nil {
			return nil, err
		}
		rows = rows[n:]
		if len(rows) > 0 && p.rows.Len() < shelfPage {
			continue
		}
		p.upTo = readmodel.Progress{} // it says nothing of the stream
		if err := p.store(ctx, dst); err != nil {
			return nil, fmt.Errorf("store what was set aside of %s: %w", stream, err)
		}
		p.reset()
	}
	return shelf, nil
}

// due gives what a decision is about that was not done yet, and what waits with it.
func due(ctx context.Context, stream string, dst readmodel.Sink, decisions Decisions, upTo event.Offset) ([]readmodel.QuarantineRow, error) {
	var all []readmodel.QuarantineRow
	subjects := map[subject]bool{}
	asked := func(r *readmodel.QuarantineRow) bool {
		_, discarded := decisions.Discarded(r.Position)
		return discarded || decisions.Asked(r) > r.Decision
	}
	err := shelved(ctx, dst, readmodel.QuarantineFilter{Stream: stream, State: readmodel.Quarantined}, func(r *readmodel.QuarantineRow) {
		if r.Position.Offset > upTo { // it will be offered by the stream
			return
		}
		all = append(all, *r)
		if asked(r) {
			subjects[subject{r.Account, r.Subject}] = true
		}
	})
	var out []readmodel.QuarantineRow
	for _, r := range all {
		if asked(&r) || r.Subject != "" && subjects[subject{r.Account, r.Subject}] {
			out = append(out, r)
		}
	}
	return out, err
}

// again tries what is set aside of one frame.
func (p *portion) again(ctx context.Context, log eventlog.Reader, rows []readmodel.QuarantineRow) error {
	seq := rows[0].Position.Offset.Seq()
	r, err := log.At(ctx, seq)
	if errors.Is(err, eventlog.ErrNoFrame) {
		err = fmt.Errorf("the log has lost what was set aside: %w", err)
	}
	if err != nil {
		return fmt.Errorf("read %s.%d again: %w", p.stream, seq, err)
	}
	f := decodeOne(nil, p.stream, r)
	if f.err != nil {
		return f.err
	}
	if rows[0].Frame && f.unread == nil { // all of its events are news
		for _, row := range rows {
			p.aside(row, readmodel.Redriven, "", 0)
		}
		for i := range f.events {
			p.offer(&f.events[i], f.faults[i], readmodel.QuarantineRow{})
		}
		return nil
	}
	for _, row := range rows {
		reason, discarded := p.cfg.Decisions.Discarded(row.Position)
		i := row.Position.Offset.Index()
		switch {
		case discarded:
			p.aside(row, readmodel.Discarded, reason, 0)
		case f.unread != nil:
			p.aside(row, readmodel.Quarantined, f.unread.Error(), 0)
		case i >= len(f.events):
			p.aside(row, readmodel.Quarantined, "its frame has no such event", 0)
		default:
			p.offer(&f.events[i], f.faults[i], row)
		}
	}
	return nil
}
