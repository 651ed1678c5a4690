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
	// MaxBytes ends it as well: when its frames have as many bytes in the log. It bounds
	// the memory of events that are large, of which MaxRows would be too much; 0: none.
	MaxBytes int
	// Pause is the least time between the beginnings of two stores, so that a
	// steady trickle makes few, larger blocks. The first event after a quiet
	// time is stored at once.
	Pause time.Duration
	// LongestPause is to what Pause grows where stores take long: they shall take a
	// third of the time at most, or the store has no time for anything else. Zero:
	// Pause stays as it is.
	LongestPause time.Duration
	// Decoders is how many frames are decoded at a time; 0: one. Their order stays.
	Decoders int
	// Ahead is how many decoded frames wait to be gathered. What is gathered is no
	// more where stores are slow, unless the log is known to hold more.
	Ahead int
	// Backlog is a sequence up to which the log is known to hold frames: before it a
	// portion waits until it is full, instead of taking what is decoded already.
	Backlog uint64
	// Batch, if set, makes what portions are gathered in and stored from, one while
	// the other is stored. What the store refuses for what it holds then ends the
	// pump with readmodel.ErrRefused: the rows are no longer there to be searched.
	Batch func() readmodel.Batch
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

// DefaultConfig is for live projection: rows are readable about a quarter of a
// second after their event, and ClickHouse sees at most four
// inserts a second and table. Every insert costs it, however small, and with it
// the write side on the same machine: on two busy cores ingest got three times
// as much done beside two inserts a second as beside ten.
//
// While a store takes long it is asked less often, up to LongestPause, and given
// larger blocks: batches came in 1.2 to 1.5 times as fast beside blocks of 0.7 s as
// beside those of 0.25 s, and ClickHouse spent 23 µs instead of 37 µs on an event
// posted alone.
var DefaultConfig = Config{MaxRows: 50_000, MaxBytes: MaxBytes, Pause: 250 * time.Millisecond, LongestPause: 600 * time.Millisecond, Ahead: 64}

// storesShare is how much longer the time from one store to the next is, at the least,
// than the store takes.
const storesShare = 3

// pause is the least time between the beginning of a store that took so long and
// that of the next.
func (c *Config) pause(took time.Duration) time.Duration {
	return max(c.Pause, min(storesShare*took, c.LongestPause))
}

// MaxBytes is for portions of usual events, of which 50,000 have less.
const MaxBytes = 64 << 20

// Observer is told what Pump does, for metrics.
type Observer interface {
	Projected(stream string, upTo readmodel.Progress, events, unknown int)
}

// A Source yields the frames of a stream, from where its maker chose, until
// their end or until ctx is done.
type Source func(ctx context.Context) iter.Seq2[eventlog.Recorded, error]

// Pump projects the frames of a stream into dst until src ends, and returns the
// last progress stored. Frames are never split between two stores, and progress
// is stored with the rows of the frames it covers, never before them.
//
// It holds one portion, two where they are batches, and a bounded number of
// frames that are decoded ahead.
func Pump(ctx context.Context, stream string, src Source, dst readmodel.Sink, cfg Config, obs Observer) (readmodel.Progress, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	frames := make(chan decoded, cfg.Ahead)
	used := make(chan []event.Recorded, cfg.Ahead+max(cfg.Decoders, 1))
	go decode(ctx, stream, src, max(cfg.Decoders, 1), frames, used)
	defer func() {
		cancel() // also of the source, which may be waiting for a frame
		for range frames {
		}
	}()

	s := storing{done: readmodel.Progress{Stream: stream}, result: make(chan error, 1), obs: obs}
	defer func() {
		cancel()
		s.abandon()
	}()
	cfg = cfg.withDefaults()
	if cfg.Shelf == nil {
		var err error
		if cfg.Shelf, err = LoadShelf(ctx, dst, stream); err != nil {
			return s.done, err
		}
	}
	p, spare := newPortion(stream, cfg, used), newPortion(stream, cfg, used)
	var last time.Time
	for more := true; more; {
		var f decoded
		select {
		case f, more = <-frames:
		case err := <-s.result: // told at once, though no frame may come for long
			if err := s.finish(err); err != nil {
				return s.done, err
			}
			continue
		}
		if more {
			p.add(f)
			p.gather(frames, cfg, last.Add(cfg.pause(s.took)))
		}
		if err := s.wait(); err != nil {
			return s.done, err
		}
		if p.events > 0 {
			last = time.Now()
			s.begin(ctx, p, dst)
		}
		if cfg.Batch != nil && p.err == nil {
			spare.follow(p)
			p, spare = spare, p
			continue
		}
		if err := s.wait(); err != nil {
			return s.done, err
		}
		if p.err != nil {
			return s.done, p.err
		}
		p.follow(p)
	}
	return s.done, s.wait()
}

// storing is the store that goes on, one at a time, and what came of those before.
type storing struct {
	portion *portion // nil: none goes on
	result  chan error
	began   time.Time
	took    time.Duration // the last one, until it was noticed
	done    readmodel.Progress
	obs     Observer
}

func (s *storing) begin(ctx context.Context, p *portion, dst readmodel.Sink) {
	s.portion, s.began = p, time.Now()
	go func() { s.result <- p.store(ctx, dst) }()
}

// wait returns when nothing is being stored.
func (s *storing) wait() error {
	if s.portion == nil {
		return nil
	}
	return s.finish(<-s.result)
}

func (s *storing) finish(err error) error {
	p := s.portion
	s.portion, s.took = nil, time.Since(s.began)
	if err != nil {
		return fmt.Errorf("store up to %s.%d: %w", p.stream, p.upTo.Offset.Seq(), err)
	}
	s.done = p.upTo
	s.obs.Projected(p.stream, s.done, p.events, p.unknown)
	return nil
}

// abandon waits for a store whose result nobody wants.
func (s *storing) abandon() {
	if s.portion != nil {
		<-s.result //nolint:errcheck // nobody wants it
	}
}

// decoded is a frame's events, or why there are none.
type decoded struct {
	events []event.Recorded
	faults map[int]error // why an event cannot be read, by index
	unread error         // why the frame cannot
	counts tally.Counts  // what a frame holds that cannot be read
	seq    uint64
	bytes  int   // of the frame in the log
	err    error // of the source
}

// decode reads ahead, so that storing and decoding use a core each. It returns
// when the source has ended as well. Events are put where used ones were.
func decode(ctx context.Context, stream string, src Source, decoders int, out chan<- decoded, used <-chan []event.Recorded) {
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
			go func() {
				var into []event.Recorded
				select {
				case into = <-used:
				default:
				}
				turn <- decodeOne(into, stream, r)
			}()
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

func decodeOne(into []event.Recorded, stream string, r eventlog.Recorded) decoded {
	d := decoded{seq: r.Seq, bytes: len(r.Body)}
	if d.events, d.faults, d.unread = event.DecodeEach(into, stream, r.Seq, r.Body); d.unread != nil {
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
	batch           readmodel.Batch         // what takes the rows of each frame; nil: they stay
	used            chan<- []event.Recorded // takes the events of each frame that a batch has the rows of
	batched         int                     // rows in it
	bytes           int                     // of its frames in the log
	upTo            readmodel.Progress
	events, unknown int
	err             error // ends the pump once the portion is stored
}

func newPortion(stream string, cfg Config, used chan<- []event.Recorded) *portion {
	p := &portion{stream: stream, cfg: cfg, shelf: cfg.Shelf, used: used, upTo: readmodel.Progress{Stream: stream, Time: cfg.Shelf.upTo.Time}}
	if cfg.Batch != nil {
		p.batch = cfg.Batch()
	}
	return p
}

// follow empties p, which then goes on after the portion before.
func (p *portion) follow(before *portion) {
	p.upTo = before.upTo
	p.reset()
}

func (p *portion) reset() {
	p.rows.Reset()
	p.events, p.unknown, p.batched, p.bytes = 0, 0, 0, 0
}

func (p *portion) full() bool {
	return p.batched+p.rows.Len() >= p.cfg.MaxRows || p.cfg.MaxBytes > 0 && p.bytes >= p.cfg.MaxBytes
}

func (p *portion) add(f decoded) {
	p.bytes += f.bytes
	if p.batch != nil {
		defer func() {
			p.batched += p.rows.Len()
			p.batch.Add(&p.rows)
			p.rows.Reset()
			// Without that a rebuild left 5.4 KB of garbage an event, and leaves 1.1.
			select {
			case p.used <- f.events:
			default:
			}
		}()
	}
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
	for p.err == nil && !p.full() {
		if pause == nil && p.upTo.Offset.Seq() >= cfg.Backlog {
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
