package chmodel

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// insertSettings: batches and latency are ours, not the server's.
//
// No insert_deduplication_token: without one the server recognises a repeated
// block by its content. A token is believed whatever the block holds, so a batch
// that was cut or projected differently under the same boundaries would vanish
// without a word. Content needs no such promise of the caller.
var insertSettings = []ch.Setting{
	{Key: "async_insert", Value: "0", Important: true},
	{Key: "insert_deduplicate", Value: "1", Important: true},
}

// Writer stores rows in one version of the tables. It is a readmodel.Batcher.
//
// Store sends each non-empty table as one block, several at a time where they are of many
// events, what was set aside after the others, and the progress after all of them. It may be called by several goroutines, which
// then wait for each other; what several of them wait with is stored as one, for
// the server has most work with a block that it has to merge, whatever its size.
type Writer struct {
	model   *Model
	version uint32
	conns   *pool

	mu      sync.Mutex // of the columns
	columns *columns
	queue   queue
}

// maxTogether is how many rows are stored as one, unless one store alone has more.
const maxTogether = 100_000

// asked is what one Store is to store.
type asked struct {
	rows   *readmodel.Rows
	upTo   readmodel.Progress
	stored bool // with another one
}

// queue holds the stores that wait for their turn.
type queue struct {
	mu      sync.Mutex
	waiting []*asked
}

func (q *queue) join(a *asked) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, a)
}

// leave takes a out, and those that may be stored with it: they are no longer in the queue.
func (q *queue) leave(a *asked) (with []*asked) {
	q.mu.Lock()
	defer q.mu.Unlock()
	rows := a.rows.Len()
	var left []*asked
	for _, b := range q.waiting {
		switch n := b.rows.Len(); {
		case b == a:
		case rows+n <= maxTogether:
			rows += n
			with = append(with, b)
		default:
			left = append(left, b)
		}
	}
	q.waiting = left
	return with
}

var _ readmodel.Batcher = (*Writer)(nil)

// columns are those of all tables.
type columns struct {
	blocks     []block
	quarantine *quarantineColumns
	aside      int // rows in quarantine
}

type block struct {
	table string
	input proto.Input
	fill  func(rows *readmodel.Rows)
}

// Writer returns a Writer of a version of the tables, which EnsureVersion made.
func (m *Model) Writer(version uint32) *Writer {
	dial := func(ctx context.Context) (*ch.Client, error) { return m.dial(ctx, m.cfg.Database) }
	return &Writer{model: m, version: version, conns: newPool(m.cfg.Writers, dial), columns: newColumns()}
}

func newColumns() *columns {
	events, deployments, builds := newEventColumns(), newRunColumns(false), newRunColumns(true)
	byEnv := newByEnvironmentColumns(deployments)
	cells, current, pastAttempts, attempts := newCellColumns(everyCell), newCellColumns(newestCells), newCellColumns(everyCell), newCellColumns(newestCells)
	periods := newCellColumns(cellPeriods)
	products, environments := newNameColumns(), newEnvironmentColumns()
	versions, names, releases, quarantine := newVersionColumns(), newMeaningColumns(), newReleaseColumns(), newQuarantineColumns()
	c := &columns{quarantine: quarantine}
	// In about the order of their cost, so that the dearest starts first; dep_by_env behind
	// deployments, whose columns it sends as well.
	c.blocks = []block{
		{"deployments", deployments.input(), func(rows *readmodel.Rows) { each(rows.Deployments, deployments.append) }},
		{"events", events.input(), func(rows *readmodel.Rows) { each(rows.Events, events.append) }},
		{"builds", builds.input(), func(rows *readmodel.Rows) { each(rows.Builds, builds.append) }},
		{"cells", cells.input(), func(rows *readmodel.Rows) { each(rows.Cells, cells.appendCell) }},
		{"current", current.input(), func(rows *readmodel.Rows) { each(rows.Cells, current.appendCell) }},
		{"past_attempts", pastAttempts.input(), func(rows *readmodel.Rows) { each(rows.Attempts, pastAttempts.appendAttempt) }},
		{"attempts", attempts.input(), func(rows *readmodel.Rows) { each(rows.Attempts, attempts.appendAttempt) }},
		{"cell_periods", periods.input(), func(rows *readmodel.Rows) {
			each(rows.Cells, periods.appendCell)
			each(rows.Attempts, periods.appendAttempt)
		}},
		{"dep_by_env", byEnv.input(), func(rows *readmodel.Rows) { each(rows.Deployments, byEnv.append) }},
		{"versions", versions.input(), func(rows *readmodel.Rows) { each(rows.Versions, versions.append) }},
		{"products", products.input(), func(rows *readmodel.Rows) {
			each(rows.Products, func(r *readmodel.ProductRow) { products.append(r.Account, &r.Product, r.Position) })
		}},
		{"environments", environments.input(), func(rows *readmodel.Rows) {
			each(rows.Environments, func(r *readmodel.EnvironmentRow) { environments.append(r.Account, &r.Environment, r.Position) })
		}},
		{"names", names.input(), func(rows *readmodel.Rows) { each(rows.Names, names.append) }},
		{"releases", releases.input(), func(rows *readmodel.Rows) { each(rows.Releases, releases.append) }},
	}
	return c
}

func (c *columns) reset() {
	for _, b := range c.blocks {
		b.input.Reset()
	}
	c.quarantine.input().Reset()
	c.aside = 0
}

func (c *columns) setAside(rows []readmodel.QuarantineRow) {
	each(rows, c.quarantine.append)
	c.aside += len(rows)
}

// Version is the version of the tables that w writes.
func (w *Writer) Version() uint32 { return w.version }

// Close closes the connections of w, once no Store runs.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns.close() // nothing is lost: every insert was answered
	return nil
}

// Store implements readmodel.Sink.
func (w *Writer) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	a := &asked{rows: rows, upTo: upTo}
	w.queue.join(a)
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.stored {
		return nil
	}
	if with := w.queue.leave(a); len(with) > 0 && w.store(ctx, append(with, a)...) == nil {
		for _, b := range with {
			b.stored = true
		}
		return nil
	}
	// Where it failed, for what another one holds or while this one was to end, each
	// stores for itself, and is told what is its own.
	return w.store(ctx, a)
}

func (w *Writer) store(ctx context.Context, all ...*asked) error {
	w.columns.reset()
	upTo := make([]readmodel.Progress, len(all))
	events := 0
	for i, a := range all {
		w.columns.setAside(a.rows.Quarantine)
		upTo[i] = a.upTo
		events += len(a.rows.Events)
	}
	return w.send(ctx, w.columns, events, upTo, func(b *block) {
		for _, a := range all {
			b.fill(a.rows)
		}
	})
}

// Batch implements readmodel.Batcher.
func (w *Writer) Batch() readmodel.Batch { return &batch{writer: w, columns: newColumns()} }

// batch is a readmodel.Batch. Several are stored on the same connections.
type batch struct {
	writer  *Writer
	columns *columns
	events  int
}

// Add implements readmodel.Batch.
func (b *batch) Add(rows *readmodel.Rows) {
	for i := range b.columns.blocks {
		b.columns.blocks[i].fill(rows)
	}
	b.columns.setAside(rows.Quarantine)
	b.events += len(rows.Events)
}

// Store implements readmodel.Batch.
func (b *batch) Store(ctx context.Context, upTo readmodel.Progress) error {
	defer func() {
		b.columns.reset()
		b.events = 0
	}()
	return b.writer.send(ctx, b.columns, b.events, []readmodel.Progress{upTo}, func(*block) {})
}

// fewEvents is up to how many events are stored one table after the other. What has just
// been accepted and what waits for an answer have the same processors: several inserts at
// a time took both of two, four times a second, and answers stood still meanwhile. One
// after the other takes longer, so the next store comes later and is larger
// (projection.Config), for which the server has less work: at 6,000 to 8,000 events a
// second 45 to 55 µs of its processor time an event, merges among it, in place of 65 to 90.
const fewEvents = 20_000

// send stores what the columns hold, of so many events, each block once fill has filled it.
func (w *Writer) send(ctx context.Context, c *columns, events int, upTo []readmodel.Progress, fill func(*block)) error {
	group, groupCtx := errgroup.WithContext(ctx) // as many at a time as there are connections
	if events < fewEvents {
		group.SetLimit(1)
	}
	for i := range c.blocks {
		b := &c.blocks[i]
		fill(b) // while others are sent already
		if b.input[0].Data.Rows() > 0 {
			group.Go(func() error { return w.insert(groupCtx, b.table+suffix(w.version), b.input) })
		}
	}
	if err := group.Wait(); err != nil {
		return refusal(classify(ctx, "store rows", err))
	}
	if c.aside > 0 {
		if err := w.insert(ctx, quarantineTable+suffix(w.version), c.quarantine.input()); err != nil {
			return classify(ctx, "store what is set aside", err)
		}
	}
	upTo = slices.DeleteFunc(upTo, func(p readmodel.Progress) bool { return p.Stream == "" })
	if len(upTo) == 0 {
		return nil
	}
	if err := w.insert(ctx, "checkpoint", w.checkpoint(upTo)); err != nil {
		w.model.known.failed()
		return classify(ctx, "store progress", err)
	}
	for _, p := range upTo {
		w.model.known.stored(w.version, p)
	}
	return nil
}

// mended is what is added to the name of a stream in the row that tells which
// decision about what was set aside is done.
const mended = " mended"

func each[T any](rows []T, do func(*T)) {
	for i := range rows {
		do(&rows[i])
	}
}

func (w *Writer) checkpoint(all []readmodel.Progress) proto.Input {
	var attempt proto.ColUInt32
	var pos proto.ColUInt64
	var at proto.ColInt64
	name, stream := newLowCardinality(), newLowCardinality()
	add := func(of string, n uint64, t time.Time) {
		name.Append(projection)
		attempt.Append(w.version)
		stream.Append(of)
		pos.Append(n)
		at.Append(t.UnixMilli())
	}
	for _, p := range all {
		if p.Offset > 0 || p.Mended == 0 {
			add(p.Stream, uint64(p.Offset), p.Time)
		}
		if p.Mended > 0 {
			add(p.Stream+mended, p.Mended, p.Time)
		}
	}
	return proto.Input{
		{Name: "name", Data: name},
		{Name: "attempt", Data: attempt},
		{Name: "stream", Data: stream},
		{Name: "pos", Data: pos},
		{Name: "time_ms", Data: at},
	}
}

// insert sends one block, on a second connection where one that was idle is broken:
// storing twice is harmless.
func (w *Writer) insert(ctx context.Context, table string, input proto.Input) error {
	query := ch.Query{Body: input.Into(table), Input: input, Settings: insertSettings}
	c, err := w.conns.take(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, w.model.cfg.StoreTimeout)
	defer cancel()
	if err := w.conns.use(ctx, c, query, func() bool { return true }); err != nil {
		return fmt.Errorf("insert into %s: %w", table, err)
	}
	return nil
}

// Progress implements readmodel.Sink.
func (w *Writer) Progress(ctx context.Context, stream string) (readmodel.Progress, error) {
	all, err := w.model.progress(ctx, w.version)
	if err != nil {
		return readmodel.Progress{}, err
	}
	for _, p := range all {
		if p.Stream == stream {
			return p, nil
		}
	}
	return readmodel.Progress{Stream: stream}, nil
}

// progress reads how far a version has come, by stream. It is asked for every
// read, so it is a plain look at the few rows there are, of all versions: a
// condition alone costs the server as much again as the rest of the statement,
// and so does finding the last of each stream.
func (m *Model) progress(ctx context.Context, version uint32) ([]readmodel.Progress, error) {
	of := map[string]*readmodel.Progress{}
	err := m.ask(ctx, "read progress", "SELECT name, attempt, stream, pos, time_ms FROM checkpoint", nil, func(rows scanner) error {
		var name, stream string
		var attempt uint32
		var pos uint64
		var ms int64
		if err := rows.Scan(&name, &attempt, &stream, &pos, &ms); err != nil || name != projection || attempt != version {
			return err
		}
		stream, decision := strings.CutSuffix(stream, mended)
		p := of[stream]
		if p == nil {
			p = &readmodel.Progress{Stream: stream}
			of[stream] = p
		}
		switch {
		case decision:
			p.Mended = max(p.Mended, pos)
		case event.Offset(pos) >= p.Offset:
			p.Offset, p.Time = event.Offset(pos), moment(ms)
		}
		return nil
	})
	out := make([]readmodel.Progress, 0, len(of))
	for _, stream := range slices.Sorted(maps.Keys(of)) {
		out = append(out, *of[stream])
	}
	return out, err
}
