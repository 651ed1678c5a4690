// Package projector keeps the read model in step with the log, and rebuilds it.
//
// It is the only writer of the read model. It keeps no state of its own: how far
// each version of the tables is stands in the read model, stored after the rows
// it covers, and which versions there are to be is a fold of the stream of
// operations (package replay).
//
//	TRACK_00 … ┬─► lane of the live version ────► tables _v1 ◄── readers, by the pointer
//	           ├─► lane of the version before ──► tables _v…      (kept for undo)
//	           └─► lane of a rebuild ───────────► tables _v2 ┐
//	OPS ──────► book ─► plan: which lanes, which pointer    ├► clones ─► comparison
//	     ◄───── certificate, switch ◄───────────────────────┘
//
// Every lane is the same loop with the same code. A lane can be made to stand
// between two frames (see gate); that is all that a comparison needs of it.
//
// One projector projects all partitions of the log, a lane for each, and not one
// projector each partition: a read model is rebuilt, compared and switched as a whole,
// at one place in every stream, which one process settles without asking others. What
// that costs is little: an event takes the store as much as it takes the projector, and
// lanes run side by side. A rebuild reads one partition after the other (Config.Tracks),
// so that it needs the memory, and the store gets the blocks, that one log would.
//
// Of several processes one leads (Config.Lease), and the others stand by. One that was
// held up may go on when another leads already: it finishes the block that it had
// begun, which changes nothing because every row is the same by its key, and stops. What it
// could do harm with is decided by the log: a pointer carries the sequence of its decision,
// and a certificate is recorded only by who still leads.
//
// A crash at any moment is mended by beginning anew with the plan: a rebuild goes
// on from its own checkpoint, clones that were left are dropped, a pointer that
// is not yet where the book says is moved there.
package projector

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/logarchive"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/replay"
)

// The back-off after a failure.
const (
	firstPause = 200 * time.Millisecond
	maxPause   = 5 * time.Second
	// maxFailures in a row, none of them the store's absence, end a rebuild.
	maxFailures = 6
)

// Tables are the versions of the read model's tables.
//
// An error that fault.KindOf calls Unavailable may be tried again.
type Tables interface {
	// Migrate makes what is missing of what does not depend on a version, and
	// the tables of the live one.
	Migrate(ctx context.Context) error
	// Active gives the version that reads use, once Migrate has succeeded.
	Active() uint32
	// Activate makes reads use a version, by the operators' decision at that
	// sequence. An earlier decision never takes the place of a later one, whenever
	// it comes: its projector may have been held up, and others gone on.
	Activate(ctx context.Context, version uint32, decision uint64) error
	EnsureVersion(ctx context.Context, version uint32) error
	DropVersion(ctx context.Context, version uint32) error
	// TableVersions lists the versions that have tables.
	TableVersions(ctx context.Context) ([]uint32, error)
	// Stored counts the events in a version, about.
	Stored(ctx context.Context, version uint32) (uint64, error)
	// DeferMerges lets a version be filled without merging its parts meanwhile;
	// AllowMerges ends it. Doing either again changes nothing.
	DeferMerges(ctx context.Context, version uint32) error
	AllowMerges(ctx context.Context, version uint32) error
	// Parts counts the parts of the table of a version that has the most.
	Parts(ctx context.Context, version uint32) (uint64, error)
	// OpenSink gives what stores in a version, and what closes it.
	OpenSink(ctx context.Context, version uint32) (readmodel.Sink, func() error, error)

	// Clone keeps the tables of a version as they stand. There must be no clones
	// of it, and nothing may be stored in it meanwhile.
	Clone(ctx context.Context, version uint32) error
	DropClones(ctx context.Context) error
	// Compare compares clones, and keeps which cells differ.
	Compare(ctx context.Context, c replay.Comparison) (replay.Findings, error)
	// ChangedCells lists what Compare kept, of one account, after a Seq.
	ChangedCells(ctx context.Context, account, replayID, to string, after uint64, limit int) ([]replay.CellChange, error)
	// DeliveriesOf asks what metrics are made of, of one version.
	DeliveriesOf(version uint32) readmodel.Deliveries
	// ProgressOf says how far a version is.
	ProgressOf(ctx context.Context, version uint32) ([]readmodel.Progress, error)
}

// Config is what an operator can say, and what tests replace.
type Config struct {
	// Streams are projected, each in its own order.
	Streams []Stream
	// Tracks is how many of them, from the first on, are partitions of the log; 0: one.
	Tracks int
	Keep   time.Duration // how long a switch can be undone; 0: 24 h
	// CodeVersion names this build in certificates.
	CodeVersion string
	// Snapshots is the folder of the archives of the log that a replay may be told to
	// run from; empty: there are none.
	Snapshots string
	// Project is what projects an event; nil: projection.Project.
	Project projection.Func
	// Operator names the account whose admins run the server: they see what was
	// set aside and belongs to nobody. nil: there is none.
	Operator func() (account string, ok bool)
	// Lease says which of several projectors projects; nil: there is one.
	Lease   Lease
	Now     func() time.Time // nil: time.Now
	Entropy io.Reader        // for ids; safe for concurrent use
}

// A Lease lets one of several processes lead (package lease).
type Lease interface {
	// Lead calls lead whenever this process comes to lead, with a context that ends
	// with it, and standby whenever another does.
	Lead(ctx context.Context, lead func(ctx context.Context), standby func())
	Held() bool
}

// always is the lease of a projector that is alone.
type always struct{}

func (always) Lead(ctx context.Context, lead func(context.Context), _ func()) { lead(ctx) }
func (always) Held() bool                                                     { return true }

// A Stream of the log, with its short name.
type Stream struct {
	Name string
	Log  eventlog.Reader
}

// Service projects streams. It implements lifecycle.Service.
type Service struct {
	cfg    Config
	ops    *operations
	tables Tables
	spec   *httpapi.Spec
	logger *slog.Logger

	mu       sync.Mutex
	versions map[uint32]*version
	attempt  *attempt // the replay that runs; nil: none
	settled  uint64   // sequence of the operations that the plan in force is made of
	active   uint32
	err      error         // why the plan is not in force
	progress chan struct{} // closed and replaced whenever settled or a lane moves on
	poke     chan struct{}

	projected, unknown *prometheus.CounterVec // by stream
	sequence, received *prometheus.GaugeVec
	replayEvents       prometheus.Gauge
	replayTotal        prometheus.Gauge
	replayRunning      prometheus.Gauge
	quarantined        prometheus.GaugeFunc
	oldest             prometheus.GaugeFunc
	leading            prometheus.Gauge
	late               *prometheus.CounterVec
}

// State is how far a projector is, for health and metrics.
type State struct {
	Progress readmodel.Progress
	Events   uint64 // projected since the start
	Unknown  uint64 // of them of a type that this version does not know
	Err      error  // why it does not go on; nil while it does
	// Quarantined is how many events are set aside and wait for a decision.
	Quarantined int
}

// New returns a projector into tables, which it makes. Decisions about replays
// stand in ops; spec says what its operations accept.
func New(cfg Config, ops eventlog.Log, tables Tables, spec *httpapi.Spec, logger *slog.Logger) *Service {
	cfg.Tracks = max(cfg.Tracks, 1)
	if cfg.Keep <= 0 {
		cfg.Keep = 24 * time.Hour
	}
	if cfg.Project == nil {
		cfg.Project = func(r event.Recorded, rows *readmodel.Rows) (bool, error) { return projection.Project(r, rows), nil }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Lease == nil {
		cfg.Lease = always{}
	}
	newID := func() (ulid.ULID, error) { return ulid.New(ulid.Timestamp(cfg.Now()), cfg.Entropy) }
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	gauges := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"stream"})
	}
	counters := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"stream"})
	}
	s := &Service{
		cfg: cfg, ops: newOperations(ops, cfg.Now, newID, logger), tables: tables, spec: spec, logger: logger,
		versions: map[uint32]*version{}, progress: make(chan struct{}), poke: make(chan struct{}, 1),
		projected:     counters("shipledger_events_projected_total", "Events stored in the live read model since the start."),
		unknown:       counters("shipledger_events_unknown_total", "Of them, events of a type that this version does not know."),
		sequence:      gauges("shipledger_projected_sequence", "Sequence of the last frame in the live read model."),
		received:      gauges("shipledger_projected_received_seconds", "Receipt of the last event in the live read model, Unix time."),
		replayRunning: gauge("shipledger_replay_running", "1 while a replay is made or compared, else 0."),
		replayEvents:  gauge("shipledger_replay_events", "Events that the replay has projected."),
		replayTotal:   gauge("shipledger_replay_events_total", "Events that it has to project, about."),
	}
	s.leading = gauge("shipledger_projector_leads", "1 while this process projects, 0 while it stands by.")
	s.late = counters("shipledger_events_projected_late_total", "Events that this process stored when another one may have led already; they change nothing.")
	s.quarantined = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shipledger_quarantined_events", Help: "Events that the live read model could not apply, or that wait behind one.",
	}, func() float64 { return float64(s.State().Quarantined) })
	s.oldest = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shipledger_quarantine_oldest_seconds", Help: "How long ago the oldest of them was set aside; 0 where there is none.",
	}, func() float64 { return s.longestAside().Seconds() })
	return s
}

// Collectors gives the projector's metrics, for registering.
func (s *Service) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.projected, s.unknown, s.sequence, s.received, s.replayRunning, s.replayEvents, s.replayTotal, s.quarantined, s.oldest, s.leading, s.late}
}

// Run projects until ctx is done, while it holds the lease. It is ready once the
// tables are there, or cannot be made: a read model that does not answer stops
// nobody but readers, and is caught up with when it does. One that stands by is
// ready, too.
func (s *Service) Run(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { s.ops.follow(ctx) })
	once := sync.OnceFunc(ready)
	s.cfg.Lease.Lead(ctx, func(ctx context.Context) { s.lead(ctx, once) }, once)
	return nil
}

// lead keeps to the plan until ctx is done.
func (s *Service) lead(ctx context.Context, ready func()) {
	s.leading.Set(1)
	defer s.leading.Set(0)
	defer s.stopAll()
	pause, migrated := firstPause, false
	for {
		wait, changed, err := s.keepToPlan(ctx, &migrated)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			level := slog.LevelError
			if fault.KindOf(err) == fault.Unavailable {
				level = slog.LevelWarn
			}
			s.logger.Log(ctx, level, "the read model is not as planned, trying again", "pause", pause, "err", err)
			wait, pause = pause, min(2*pause, maxPause)
		} else {
			pause = firstPause
		}
		ready()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-s.poke:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// longest is how long the plan is not looked at where nothing happens.
const longest = time.Hour

// keepToPlan makes pointer, lanes and tables what the plan says. It gives when to
// look again, and what is closed when the book changes.
func (s *Service) keepToPlan(ctx context.Context, migrated *bool) (wait time.Duration, changed <-chan struct{}, err error) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
		s.moved()
	}()
	never := make(chan struct{})
	if err := s.ops.caughtUp(ctx); err != nil {
		return 0, never, fault.New(fault.Unavailable, "", "the log of operations does not answer").Because(err)
	}
	if !*migrated {
		if err := s.tables.Migrate(ctx); err != nil {
			return 0, never, err
		}
		*migrated = true
	}
	var plan replay.Plan
	var open replay.Replay
	var running bool
	var seq uint64
	var heard uint32 // the highest number of a version
	now := s.cfg.Now()
	changed = s.ops.look(func(b *replay.Book) {
		plan = b.Plan(now)
		open, running = b.Open()
		running = running && open.State == replay.Running
		seq, _ = b.Applied()
		for _, r := range b.Replays() {
			heard = max(heard, r.Version)
		}
	})
	s.hear()
	s.stopUnplanned(plan, open, running)
	for _, v := range plan.Projected {
		var rebuilt *replay.Replay
		if running && v == open.Version {
			rebuilt = &open
		}
		err := s.startVersion(ctx, v, rebuilt)
		if err != nil && rebuilt != nil && fault.KindOf(err) == fault.Precondition {
			s.failed(ctx, open, err)
			continue
		}
		if err != nil {
			return 0, changed, err
		}
	}
	if s.tables.Active() != plan.Active {
		if err := s.tables.Activate(ctx, plan.Active, seq); err != nil {
			return 0, changed, err
		}
	}
	s.mu.Lock()
	s.active, s.settled = plan.Active, seq
	s.moved()
	s.mu.Unlock()
	if err := s.dropUnplanned(ctx, plan, heard); err != nil {
		return 0, changed, err
	}
	switch {
	case running && s.version(open.Version) != nil:
		s.startAttempt(ctx, open)
	case open.State == replay.Ready:
		s.resumeSwitch(ctx, open)
	}
	wait = longest
	if !plan.Change.IsZero() {
		wait = max(min(wait, plan.Change.Sub(now)), time.Millisecond)
	}
	return wait, changed, nil
}

// moved wakes whoever waits for progress. s.mu is held.
func (s *Service) moved() {
	close(s.progress)
	s.progress = make(chan struct{})
}

func (s *Service) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved()
}

// hear lets every lane do what was decided about events that are set aside.
func (s *Service) hear() {
	book := s.ops.decisions()
	s.mu.Lock()
	lanes := s.lanes()
	s.mu.Unlock()
	for _, l := range lanes {
		l.hear(book.Last())
	}
}

// lanes gives those of all versions. s.mu is held.
func (s *Service) lanes() []*lane {
	var out []*lane
	for _, v := range s.versions {
		out = append(out, v.lanes...)
	}
	return out
}

func (s *Service) version(number uint32) *version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versions[number]
}

// startVersion keeps a version up to date, the one that a replay makes if there
// is one.
func (s *Service) startVersion(ctx context.Context, number uint32, rebuilt *replay.Replay) error {
	if s.version(number) != nil {
		return nil
	}
	part, archive := replay.Part{}, ""
	if rebuilt != nil {
		part = rebuilt.Part
		if rebuilt.Snapshot != "" {
			var err error
			if archive, err = s.snapshotFile(rebuilt.Snapshot); err != nil {
				return err
			}
		}
	}
	if err := s.tables.EnsureVersion(ctx, number); err != nil {
		return err
	}
	if rebuilt != nil {
		if err := s.deferMerges(ctx, number); err != nil {
			return err
		}
	}
	v := &version{number: number, done: make(chan struct{})}
	var turn chan struct{} // of the partitions that a rebuild reads
	if s.cfg.Tracks > 1 {
		turn = make(chan struct{}, 1)
	}
	// One for all streams: what several of them wait to store is stored as one.
	sink, closeSink, err := s.tables.OpenSink(ctx, number)
	if err != nil {
		return err
	}
	for i, stream := range s.cfg.Streams {
		l := &lane{
			version: number, stream: stream.Name, log: stream.Log, sink: finishing{sink},
			config:    projection.Config{Project: narrowed(s.cfg.Project, part), CodeVersion: s.cfg.CodeVersion, Now: s.cfg.Now},
			decisions: s.ops.decisions, moved: s.wake, logger: s.logger,
		}
		if i < s.cfg.Tracks {
			l.turn, l.pause = turn, livePause(s.cfg.Tracks)
		}
		if part.From.Stream == stream.Name {
			l.first = part.From.Offset
		}
		l.rebuilding.Store(rebuilt != nil)
		if archive != "" {
			l.log = &snapshot{Reader: stream.Log, stream: stream.Name, open: func() (io.ReadCloser, error) { return logarchive.Open(archive) }}
		}
		l.wanted = s.arrivals()
		l.observe = func(upTo readmodel.Progress, events, unknown int) { s.observe(l, upTo, events, unknown) }
		v.lanes = append(v.lanes, l)
	}
	var running sync.WaitGroup
	for _, l := range v.lanes {
		runCtx, stop := context.WithCancel(ctx)
		l.stop = stop
		running.Go(func() { l.run(runCtx) })
	}
	go func() {
		running.Wait()
		if err := closeSink(); err != nil {
			s.logger.WarnContext(ctx, "closing the connections to the read model failed", "version", number, "err", err)
		}
		close(v.done)
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[number] = v
	return nil
}

// deferredParts is up to how many parts of a table merges are put off: far below
// the 1,000 from which ClickHouse slows inserts down.
const deferredParts = 400

// deferMerges puts merges off where there are not many parts already.
func (s *Service) deferMerges(ctx context.Context, version uint32) error {
	if n, err := s.tables.Parts(ctx, version); err != nil || n > deferredParts {
		return err
	}
	return s.tables.DeferMerges(ctx, version)
}

// arrivals gives what tells whether events were stored in the live version since
// it was asked last.
func (s *Service) arrivals() func() bool {
	known := s.State().Events
	return func() bool {
		before := known
		known = s.State().Events
		return known != before
	}
}

// narrowed projects a part of the events; the progress is that of all.
func narrowed(project projection.Func, part replay.Part) projection.Func {
	if !part.Check() {
		return project
	}
	return func(r event.Recorded, rows *readmodel.Rows) (bool, error) {
		from := part.From
		if part.Account != "" && r.Account != part.Account ||
			from.Stream != "" && (r.Position.Stream != from.Stream || r.Position.Offset < from.Offset) {
			return true, nil
		}
		return project(r, rows)
	}
}

func (s *Service) stopUnplanned(plan replay.Plan, open replay.Replay, running bool) {
	s.mu.Lock()
	var ended []*version
	for number, v := range s.versions {
		if !slices.Contains(plan.Projected, number) {
			ended = append(ended, v)
			delete(s.versions, number)
		}
	}
	a := s.attempt
	if a != nil && running && a.id == open.ID {
		a = nil
	} else {
		s.attempt = nil
	}
	s.mu.Unlock()
	if a != nil {
		a.end()
	}
	for _, v := range ended {
		v.stop()
	}
}

// stopAll ends everything, where the process stops or another one leads.
func (s *Service) stopAll() {
	s.stopUnplanned(replay.Plan{}, replay.Replay{}, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = nil
	s.moved()
}

func (s *Service) dropUnplanned(ctx context.Context, plan replay.Plan, heard uint32) error {
	versions, err := s.tables.TableVersions(ctx)
	if err != nil {
		return err
	}
	// Numbers rise. A version above all that this process has heard of was decided
	// since, and is filled by who leads now: this one was held up.
	newest := slices.Max(slices.Concat(plan.Projected, plan.Kept, []uint32{plan.Active, heard}))
	for _, v := range versions {
		if slices.Contains(plan.Projected, v) || slices.Contains(plan.Kept, v) || v > newest {
			continue
		}
		if err := s.tables.DropVersion(ctx, v); err != nil {
			return fmt.Errorf("drop version %d: %w", v, err)
		}
		s.logger.InfoContext(ctx, "a version of the read model was dropped", "version", v)
	}
	return nil
}

func (s *Service) observe(l *lane, upTo readmodel.Progress, events, unknown int) {
	if !s.cfg.Lease.Held() {
		s.late.WithLabelValues(l.stream).Add(float64(events))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved()
	if l.version != s.active {
		return
	}
	s.projected.WithLabelValues(l.stream).Add(float64(events))
	s.unknown.WithLabelValues(l.stream).Add(float64(unknown))
	s.sequence.WithLabelValues(l.stream).Set(float64(upTo.Offset.Seq()))
	s.received.WithLabelValues(l.stream).Set(float64(upTo.Time.UnixMilli()) / 1000)
}

// State gives how far the live version is; the progress is of the stream that has
// heard last.
func (s *Service) State() State {
	s.mu.Lock()
	v, err := s.versions[s.active], s.err
	s.mu.Unlock()
	if v == nil {
		return State{Err: err}
	}
	return v.state()
}

// longestAside gives how long the oldest event that is set aside has been so.
func (s *Service) longestAside() time.Duration {
	v, err := s.live()
	if err != nil {
		return 0
	}
	since := v.oldest()
	if since.IsZero() {
		return 0
	}
	return max(0, s.cfg.Now().Sub(since))
}

// Healthy tells why the live read model falls behind, nil while it does not. A
// replay that fails is no matter of health.
func (s *Service) Healthy() error { return s.State().Err }

// Quarantine tells that events are set aside, nil while none is.
func (s *Service) Quarantine() error {
	if n := s.State().Quarantined; n > 0 {
		return fmt.Errorf("%d events could not be applied, or wait behind one", n)
	}
	return nil
}

// when returns when cond holds, which is asked whenever something moves.
func (s *Service) when(ctx context.Context, cond func() bool) error {
	for {
		s.mu.Lock()
		moved := s.progress
		s.mu.Unlock()
		if cond() {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// inForce returns when the plan after an event of the stream of operations is in
// force: then reads of this process use the version that it made live.
func (s *Service) inForce(ctx context.Context, seq uint64) error {
	return s.when(ctx, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.settled >= seq
	})
}

// level returns when the version to is as far as the version from was when both were
// there, so that answers do not go back in time with a switch; or when that is no longer
// wanted, since somebody else has decided meanwhile.
func (s *Service) level(ctx context.Context, from, to uint32, wanted func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var at []event.Offset
	err := s.when(ctx, func() bool {
		if !wanted() {
			return true
		}
		f, t := s.version(from), s.version(to)
		if f == nil || t == nil { // they are being opened, as after a start
			return false
		}
		if at == nil {
			at = f.offsets()
		}
		return t.reached(at)
	})
	if err != nil {
		return fault.New(fault.Unavailable, "READ_MODEL_BEHIND", "The tables to switch to are behind the live ones. Try again in a moment.").Because(err)
	}
	return nil
}
