package projection

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/tally"
)

// Config says in what portions Pump stores.
type Config struct {
	// MaxRows ends a portion: it is stored when it holds as many rows.
	MaxRows int
	// Pause is the least time between the beginnings of two stores, so that a
	// steady trickle makes few, larger blocks. The first event after a quiet
	// time is stored at once.
	Pause time.Duration
	// Decoders is how many frames are decoded at a time; 0: one. Their order stays.
	Decoders int
	// Project is what projects an event; nil: the function of that name.
	Project Func
	// Shelf is what was set aside of the stream; nil: it is read from the sink.
	Shelf *Shelf
	// Decisions are those about what was set aside; nil: there are none.
	Decisions Decisions
	// CodeVersion and Now, the time of day, are noted of what is set aside; nil: time.Now.
	CodeVersion string
	Now         func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Project == nil {
		c.Project = infallible
	}
	if c.Decisions == nil {
		c.Decisions = undecided{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// DefaultConfig is for live projection: under load rows are readable about a
// quarter of a second after their event, and ClickHouse sees at most four
// inserts a second and table. Every insert costs it, however small, and with it
// the write side on the same machine: on two busy cores ingest got three times
// as much done beside two inserts a second as beside ten.
var DefaultConfig = Config{MaxRows: 50_000, Pause: 250 * time.Millisecond}

// Observer is told what Pump does, for metrics.
type Observer interface {
	Projected(stream string, upTo readmodel.Progress, events, unknown int)
}

// ahead is how many decoded frames wait to be gathered.
const ahead = 16

// A Source yields the frames of a stream, from where its maker chose, until
// their end or until ctx is done.
type Source func(ctx context.Context) iter.Seq2[eventlog.Recorded, error]

// Pump projects the frames of a stream into dst until src ends, and returns the
// last progress stored. Frames are never split between two stores, and progress
// is stored with the rows of the frames it covers, never before them.
//
// It holds one portion, and a bounded number of frames that are decoded ahead.
func Pump(ctx context.Context, stream string, src Source, dst readmodel.Sink, cfg Config, obs Observer) (readmodel.Progress, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	frames := make(chan decoded, ahead)
	go decode(ctx, stream, src, max(cfg.Decoders, 1), frames)
	defer func() {
		cancel() // also of the source, which may be waiting for a frame
		for range frames {
		}
	}()

	done := readmodel.Progress{Stream: stream}
	cfg = cfg.withDefaults()
	if cfg.Shelf == nil {
		var err error
		if cfg.Shelf, err = LoadShelf(ctx, dst, stream); err != nil {
			return done, err
		}
	}
	p := portion{stream: stream, cfg: cfg, shelf: cfg.Shelf, upTo: readmodel.Progress{Stream: stream, Time: cfg.Shelf.upTo.Time}}
	var last time.Time
	for {
		f, ok := <-frames
		if !ok {
			return done, nil
		}
		p.add(f)
		p.gather(frames, cfg, last.Add(cfg.Pause))
		last = time.Now()
		if p.events > 0 {
			if err := p.store(ctx, dst); err != nil {
				return done, fmt.Errorf("store up to %s.%d: %w", stream, p.upTo.Offset.Seq(), err)
			}
			done = p.upTo
			obs.Projected(stream, done, p.events, p.unknown)
		}
		if p.err != nil {
			return done, p.err
		}
		p.reset()
	}
}

// decoded is a frame's events, or why there are none.
type decoded struct {
	events []event.Recorded
	faults map[int]error // why an event cannot be read, by index
	unread error         // why the frame cannot
	counts tally.Counts  // what a frame holds that cannot be read
	seq    uint64
	err    error // of the source
}

// decode reads ahead, so that storing and decoding use a core each. It returns
// when the source has ended as well.
func decode(ctx context.Context, stream string, src Source, decoders int, out chan<- decoded) {
	defer close(out)
	ctx, cancel := context.WithCancel(ctx)
	turns := make(chan chan decoded, decoders-1) // in the order of the frames
	go func() {
		defer close(turns)
		for r, err := range src(ctx) {
			turn := make(chan decoded, 1)
			select {
			case turns <- turn:
			case <-ctx.Done():
				return
			}
			if err != nil {
				turn <- decoded{err: err, seq: r.Seq}
				return
			}
			go func() { turn <- decodeOne(stream, r) }()
		}
	}()
	defer func() {
		cancel()
		for range turns {
		}
	}()
	for turn := range turns {
		d := <-turn
		select {
		case out <- d:
		case <-ctx.Done():
			return
		}
		if d.err != nil {
			return
		}
	}
}

func decodeOne(stream string, r eventlog.Recorded) decoded {
	d := decoded{seq: r.Seq}
	if d.events, d.faults, d.unread = event.DecodeEach(stream, r.Seq, r.Body); d.unread != nil {
		d.counts, d.err = tally.InFrame(stream, r)
	}
	return d
}

// portion is what one store takes.
type portion struct {
	stream          string
	cfg             Config
	shelf           *Shelf
	rows            readmodel.Rows
	upTo            readmodel.Progress
	events, unknown int
	err             error // ends the pump once the portion is stored
}

func (p *portion) reset() {
	p.rows.Reset()
	p.events, p.unknown = 0, 0
}

func (p *portion) add(f decoded) {
	if f.err != nil {
		p.err = f.err
		return
	}
	if f.unread != nil {
		p.setFrameAside(f)
		return
	}
	for i := range f.events {
		r := &f.events[i]
		p.offer(r, f.faults[i], readmodel.QuarantineRow{})
		p.passed(r.Position, r.Time)
	}
}

func (p *portion) passed(at event.Position, received time.Time) {
	p.upTo.Stream, p.upTo.Offset = at.Stream, at.Offset
	if received.After(p.upTo.Time) {
		p.upTo.Time = received
	}
	p.events++
}

// gather adds what is there already, and what comes until the moment at which
// the next store may begin.
func (p *portion) gather(frames <-chan decoded, cfg Config, notBefore time.Time) {
	var pause <-chan time.Time
	if wait := time.Until(notBefore); wait > 0 {
		pause = time.After(wait)
	}
	for p.err == nil && p.rows.Len() < cfg.MaxRows {
		if pause == nil {
			select {
			case f, ok := <-frames:
				if !ok {
					return
				}
				p.add(f)
			default:
				return
			}
			continue
		}
		select {
		case f, ok := <-frames:
			if !ok {
				return
			}
			p.add(f)
		case <-pause:
			pause = nil
		}
	}
}
