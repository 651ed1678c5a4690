package chmodel

import (
	"context"
	"fmt"
	"sync"

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

// Writer stores rows in one version of the tables. It is a readmodel.Sink.
//
// Store sends each non-empty table as one block, several at a time, what was set
// aside after the others, and the progress after all of them. It may be called by several goroutines, which
// then wait for each other.
type Writer struct {
	model   *Model
	version uint32
	conns   chan *ch.Client // nil ones are not connected

	mu           sync.Mutex // of the columns
	events       *eventColumns
	deployments  *runColumns
	byEnv        *byEnvironmentColumns
	builds       *runColumns
	cells        *cellColumns
	current      *cellColumns
	pastAttempts *cellColumns
	attempts     *cellColumns
	months       *monthColumns
	products     *nameColumns
	environments *environmentColumns
	versions     *versionColumns
	names        *meaningColumns
	releases     *releaseColumns
	quarantine   *quarantineColumns
	blocks       []block
}

type block struct {
	table string
	input proto.Input
	fill  func(rows *readmodel.Rows)
}

// Writer returns a Writer of a version of the tables, which EnsureVersion made.
func (m *Model) Writer(version uint32) *Writer {
	w := &Writer{
		model: m, version: version, conns: make(chan *ch.Client, m.cfg.Writers),
		events: newEventColumns(), deployments: newRunColumns(false), byEnv: newByEnvironmentColumns(), builds: newRunColumns(true),
		cells: newCellColumns(true), current: newCellColumns(false), pastAttempts: newCellColumns(true), attempts: newCellColumns(false), months: newMonthColumns(),
		environments: newEnvironmentColumns(),
		versions:     newVersionColumns(), names: newMeaningColumns(), releases: newReleaseColumns(), quarantine: newQuarantineColumns(),
	}
	products := newNameColumns()
	w.products = &products
	for range m.cfg.Writers {
		w.conns <- nil
	}
	// In about the order of their cost, so that the dearest starts first.
	w.blocks = []block{
		{"deployments", w.deployments.input(), func(rows *readmodel.Rows) { each(rows.Deployments, w.deployments.append) }},
		{"events", w.events.input(), func(rows *readmodel.Rows) { each(rows.Events, w.events.append) }},
		{"builds", w.builds.input(), func(rows *readmodel.Rows) { each(rows.Builds, w.builds.append) }},
		{"cells", w.cells.input(), func(rows *readmodel.Rows) {
			each(rows.Cells, func(c *readmodel.Cell) {
				w.cells.append(&c.Record, c.EffectiveAt, c.ReceivedAt, c.Position, byOffset(c.Position))
			})
		}},
		{"current", w.current.input(), func(rows *readmodel.Rows) {
			each(rows.Cells, func(c *readmodel.Cell) {
				w.current.append(&c.Record, c.EffectiveAt, c.ReceivedAt, c.Position, byMoment(c.EffectiveAt, c.Position))
			})
		}},
		{"past_attempts", w.pastAttempts.input(), func(rows *readmodel.Rows) {
			each(rows.Attempts, func(a *readmodel.Attempt) {
				w.pastAttempts.append(&a.Record, a.At, a.ReceivedAt, a.Position, byOffset(a.Position))
			})
		}},
		{"attempts", w.attempts.input(), func(rows *readmodel.Rows) {
			each(rows.Attempts, func(a *readmodel.Attempt) {
				w.attempts.append(&a.Record, a.At, a.ReceivedAt, a.Position, byMoment(a.At, a.Position))
			})
		}},
		{"cell_months", w.months.input(), func(rows *readmodel.Rows) {
			each(rows.Cells, func(c *readmodel.Cell) { w.months.append(&c.Record, c.EffectiveAt, c.Position, true) })
			each(rows.Attempts, func(a *readmodel.Attempt) { w.months.append(&a.Record, a.At, a.Position, false) })
		}},
		{"dep_by_env", w.byEnv.input(), func(rows *readmodel.Rows) { each(rows.Deployments, w.byEnv.append) }},
		{"versions", w.versions.input(), func(rows *readmodel.Rows) { each(rows.Versions, w.versions.append) }},
		{"products", w.products.input(), func(rows *readmodel.Rows) {
			each(rows.Products, func(r *readmodel.ProductRow) { w.products.append(r.Account, &r.Product, r.Position) })
		}},
		{"environments", w.environments.input(), func(rows *readmodel.Rows) {
			each(rows.Environments, func(r *readmodel.EnvironmentRow) { w.environments.append(r.Account, &r.Environment, r.Position) })
		}},
		{"names", w.names.input(), func(rows *readmodel.Rows) { each(rows.Names, w.names.append) }},
		{"releases", w.releases.input(), func(rows *readmodel.Rows) { each(rows.Releases, w.releases.append) }},
		{quarantineTable, w.quarantine.input(), func(rows *readmodel.Rows) { each(rows.Quarantine, w.quarantine.append) }},
	}
	return w
}

// Version is the version of the tables that w writes.
func (w *Writer) Version() uint32 { return w.version }

// Close closes the connections of w, once no Store runs.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range cap(w.conns) {
		if c := <-w.conns; c != nil {
			_ = c.Close() // nothing is lost: every insert was answered
		}
		w.conns <- nil
	}
	return nil
}

// Store implements readmodel.Sink.
func (w *Writer) Store(ctx context.Context, rows *readmodel.Rows, upTo readmodel.Progress) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	group, groupCtx := errgroup.WithContext(ctx) // as many at a time as there are connections
	for _, b := range w.blocks {
		b.input.Reset()
		b.fill(rows) // while others are sent already
		if b.input[0].Data.Rows() > 0 && b.table != quarantineTable {
			group.Go(func() error { return w.insert(groupCtx, b.table+suffix(w.version), b.input) })
		}
	}
	if err := group.Wait(); err != nil {
		return refusal(classify(ctx, "store rows", err))
	}
	if len(rows.Quarantine) > 0 {
		if err := w.insert(ctx, quarantineTable+suffix(w.version), w.quarantine.input()); err != nil {
			return classify(ctx, "store what is set aside", err)
		}
	}
	if upTo.Stream == "" {
		return nil
	}
	return classify(ctx, "store progress", w.insert(ctx, "checkpoint", w.checkpoint(upTo)))
}

func each[T any](rows []T, do func(*T)) {
	for i := range rows {
		do(&rows[i])
	}
}

func (w *Writer) checkpoint(p readmodel.Progress) proto.Input {
	name, stream := newLowCardinality(), newLowCardinality()
	name.Append(projection)
	stream.Append(p.Stream)
	return proto.Input{
		{Name: "name", Data: name},
		{Name: "attempt", Data: proto.ColUInt32{w.version}},
		{Name: "stream", Data: stream},
		{Name: "pos", Data: proto.ColUInt64{uint64(p.Offset)}},
		{Name: "time_ms", Data: proto.ColInt64{p.Time.UnixMilli()}},
	}
}

// insert sends one block. A connection that was idle may have died with the
// server it led to, so there is a second try on a new one: storing twice is harmless.
func (w *Writer) insert(ctx context.Context, table string, input proto.Input) error {
	var c *ch.Client
	select {
	case c = <-w.conns:
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, w.model.cfg.StoreTimeout)
	defer cancel()
	idle := c != nil && !c.IsClosed()
	if !idle {
		c = nil
	}
	c, err := w.insertOn(ctx, c, table, input)
	if idle && broken(err) && ctx.Err() == nil {
		c, err = w.insertOn(ctx, nil, table, input)
	}
	w.conns <- c
	if err != nil {
		return fmt.Errorf("insert into %s: %w", table, err)
	}
	return nil
}

// insertOn gives back the connection to keep, nil for none.
func (w *Writer) insertOn(ctx context.Context, c *ch.Client, table string, input proto.Input) (*ch.Client, error) {
	if c == nil {
		var err error
		if c, err = w.model.dial(ctx, w.model.cfg.Database); err != nil {
			return nil, err
		}
	}
	err := c.Do(ctx, ch.Query{Body: input.Into(table), Input: input, Settings: insertSettings})
	if err != nil { // also after an answer: the protocol may be half-way through a block
		_ = c.Close()
		return nil, err
	}
	return c, nil
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

// progress reads how far a version has come, by stream.
func (m *Model) progress(ctx context.Context, version uint32) ([]readmodel.Progress, error) {
	var out []readmodel.Progress
	err := m.ask(ctx, "read progress", `
		SELECT stream, max(pos), argMax(time_ms, pos) FROM checkpoint
		WHERE name = {name:String} AND attempt = {attempt:UInt32}
		GROUP BY stream ORDER BY stream`,
		params{"name": projection, "attempt": version}, func(rows scanner) error {
			var stream string
			var pos uint64
			var ms int64
			err := rows.Scan(&stream, &pos, &ms)
			out = append(out, readmodel.Progress{Stream: stream, Offset: event.Offset(pos), Time: moment(ms)})
			return err
		})
	return out, err
}
