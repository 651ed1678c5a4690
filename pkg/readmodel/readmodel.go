// Package readmodel is the port to the tables that answer questions: the rows
// that a projection stores and the questions that analysts and agents ask.
//
// Rows are keyed by identity and carry the place of the event that made them,
// so that storing them again, in another order or in other portions changes no
// answer. Adapters (memmodel, chmodel) are held by one suite, readmodeltest.
//
// # Past moments
//
// The matrix answers for two moments, which are independent: At, when something
// was so, and KnownAt, when the ledger had heard of it. An event carries the
// whole record that it leaves behind, so every state that a cell ever showed is
// a row of Cells or Attempts. Those two are therefore keyed by the place of
// their event and keep all of them: a table that kept one row per deployment
// would forget what was believed before the last report of it. The current
// matrix needs none of that; an adapter may keep the newest rows apart.
package readmodel

import (
	"context"
	"errors"
	"sort"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// Rows is what events contribute to the tables. The zero value is empty.
type Rows struct {
	Events       []EventRow
	Deployments  []RunRow
	Builds       []RunRow
	Cells        []Cell    // successes: the history of cells, whose newest one is what is live
	Attempts     []Attempt // what ran, failed or was aborted in a cell, after each of its events
	Products     []ProductRow
	Environments []EnvironmentRow
	Versions     []VersionRow
	Names        []NameRow
	Releases     []ReleaseRow
	Quarantine   []QuarantineRow // what is not among the others
}

// Len gives the number of rows of all tables.
func (r *Rows) Len() int {
	return len(r.Events) + len(r.Deployments) + len(r.Builds) + len(r.Cells) + len(r.Attempts) +
		len(r.Products) + len(r.Environments) + len(r.Versions) + len(r.Names) + len(r.Releases) + len(r.Quarantine)
}

// Reset empties r and keeps its memory.
func (r *Rows) Reset() {
	r.Events, r.Deployments, r.Builds = r.Events[:0], r.Deployments[:0], r.Builds[:0]
	r.Cells, r.Attempts = r.Cells[:0], r.Attempts[:0]
	r.Products, r.Environments, r.Versions = r.Products[:0], r.Environments[:0], r.Versions[:0]
	r.Names, r.Releases, r.Quarantine = r.Names[:0], r.Releases[:0], r.Quarantine[:0]
}

// Between gives those rows of events from one offset until before another, but
// none of Quarantine. The rows must be in the order of the log; they are shared.
func (r *Rows) Between(from, until event.Offset) Rows {
	run := func(r *RunRow) event.Offset { return r.Position.Offset }
	return Rows{
		Events:       between(r.Events, from, until, func(r *EventRow) event.Offset { return r.Position.Offset }),
		Deployments:  between(r.Deployments, from, until, run),
		Builds:       between(r.Builds, from, until, run),
		Cells:        between(r.Cells, from, until, func(r *Cell) event.Offset { return r.Position.Offset }),
		Attempts:     between(r.Attempts, from, until, func(r *Attempt) event.Offset { return r.Position.Offset }),
		Products:     between(r.Products, from, until, func(r *ProductRow) event.Offset { return r.Position.Offset }),
		Environments: between(r.Environments, from, until, func(r *EnvironmentRow) event.Offset { return r.Position.Offset }),
		Versions:     between(r.Versions, from, until, func(r *VersionRow) event.Offset { return r.Position.Offset }),
		Names:        between(r.Names, from, until, func(r *NameRow) event.Offset { return r.Position.Offset }),
		Releases:     between(r.Releases, from, until, func(r *ReleaseRow) event.Offset { return r.Position.Offset }),
	}
}

func between[R any](rows []R, from, until event.Offset, at func(*R) event.Offset) []R {
	first := sort.Search(len(rows), func(i int) bool { return at(&rows[i]) >= from })
	end := sort.Search(len(rows), func(i int) bool { return at(&rows[i]) >= until })
	return rows[first:end:end]
}

// EventRow is one event of the log. Key: account and position.
type EventRow struct {
	Account     string
	Position    event.Position
	ID          ulid.ULID
	Type        event.Type
	Subject     string // the deployment or build it belongs to, or the id of what it created
	ReceivedAt  time.Time
	EffectiveAt time.Time
	Author      event.Author
	Backfilled  bool
	Flag        string
	Request     string // what people may read of its data: of a run the body as received; "" where there is nothing
	Status      string // the status that the event reported, "" for other events
}

// RunRow is a deployment or a build as it stands after the event at Position.
// Key: account and id; the row with the highest offset counts.
type RunRow struct {
	Record     event.Record // without AttributeStamps and Receipts, which serve the write side only
	Author     event.Author // of the event at Position
	Backfilled bool
	Position   event.Position
}

// A Cell is a success of a product in an environment. Key: account and
// position. What is live is the cell with the latest EffectiveAt, then the
// highest offset (contract 15).
type Cell struct {
	Record      event.Record
	EffectiveAt time.Time
	ReceivedAt  time.Time // when the event at Position was
	Position    event.Position
}

// Shown gives what the matrix tells of a cell.
func (c *Cell) Shown() Success {
	r := &c.Record
	a := &r.Attributes
	return Success{
		ID: r.ID, VersionID: r.VersionID, Version: r.Version, Status: r.Status, At: c.EffectiveAt, Position: c.Position,
		SHA: a[event.SCMSHA], BuildNumber: a[event.BuildNumber], URL: a[event.URL], By: a[event.By],
	}
}

// An Attempt is a run that has not succeeded: started, failed or aborted. Key:
// account and position; of a cell's attempts the latest At, then the highest
// offset counts. It shows beside a cell only while it is newer than the cell's
// success, and the run is not that success.
type Attempt struct {
	Record     event.Record
	At         time.Time
	ReceivedAt time.Time // when the event at Position was
	Position   event.Position
}

// ProductRow is a product. Key: account and id; the highest offset counts. A
// deleted one is in no answer, and neither is anything of it.
type ProductRow struct {
	event.Product
	Account  string
	Position event.Position
}

// EnvironmentRow is an environment. Key: account and id; the highest offset
// counts. A deleted one is in no answer, and neither is anything of it.
type EnvironmentRow struct {
	event.Environment
	Account  string
	Position event.Position
}

// VersionRow is a version. Key: account and id; the highest offset counts.
// Builds and LatestBuild are filled by reads, from the builds table.
type VersionRow struct {
	event.Version
	Account  string
	Position event.Position

	Builds      int          // how many builds it has
	BuildStatus event.Status // of the build with the highest id; 0 without a build
}

// Progress is how far a projection has come.
type Progress struct {
	Stream string
	Offset event.Offset // of the last event stored
	Time   time.Time    // its receipt
	// Mended is the last decision about events that were set aside that is done:
	// rows of offsets that were passed before may have come with it.
	Mended uint64
}

// Reached says how new an answer is that is drawn from several streams: their
// positions, joined by commas, and when the newest event of all was received. Empty
// and the zero time where there is nothing.
func Reached(progress []Progress) (positions string, newest time.Time) {
	names := make([]string, 0, len(progress))
	for _, p := range progress {
		names = append(names, event.Position{Stream: p.Stream, Offset: p.Offset}.String())
		if p.Time.After(newest) {
			newest = p.Time
		}
	}
	return strings.Join(names, ","), newest
}

// A Sink stores what a projection makes.
//
// Implementations must store all rows before the progress, so that after a
// crash at any moment the same rows are offered again and change nothing; those
// of Quarantine after the others, for they may say that others are there.
// An error that fault.KindOf calls Unavailable may be tried again. ErrRefused,
// wrapped or not, says that what some rows hold will never be taken.
type Sink interface {
	// Store stores rows, and how far the stream is; Stream "" is no progress. Of a
	// progress that names a decision and no offset the offset stays. Neither falls.
	Store(ctx context.Context, rows *Rows, upTo Progress) error
	// Quarantine lists what was set aside, by stream and offset.
	Quarantine(ctx context.Context, f QuarantineFilter, p Page) ([]QuarantineRow, error)
	// Progress gives what was last stored of a stream; the zero Offset for none.
	Progress(ctx context.Context, stream string) (Progress, error)
}

// A Batcher is a Sink that also takes rows bit by bit: what is gathered for a
// large store is then kept in the form that it is sent in, which is a fraction of
// the rows, and gathered while another batch is being stored.
type Batcher interface {
	Sink
	Batch() Batch
}

// A Batch is what one store takes. It belongs to one goroutine at a time.
type Batch interface {
	// Add adds rows, which the caller may overwrite then, and what they refer to.
	Add(rows *Rows)
	// Store stores what was added, in the order that Sink promises, and empties
	// the batch, also where it fails.
	Store(ctx context.Context, upTo Progress) error
}

// ErrNotFound says that the account has no such object.
var ErrNotFound = errors.New("not found")

// Page asks for up to Limit rows after the one whose Key was After; "" asks
// for the first.
type Page struct {
	After string
	Limit int
}

// RunFilter narrows lists of runs, and says their order. Zero members do not
// narrow. Since (inclusive) and Until (exclusive) compare CompletedAt of
// finished records, else DeployedAt (contract 5).
type RunFilter struct {
	Product     event.ProductID
	Environment event.EnvironmentID
	Class       *event.Class // of the environment; only deployments have one
	Version     string
	Statuses    []event.Status // one of them
	By          string         // who: as given, by e-mail or by name
	Source      string         // the source system
	Run         string         // the invoke_id
	Runs        []string       // one of these invoke_ids
	SHA         string         // by the rule of SameCommit
	Mode        event.Mode
	Meta        []MetaFilter // all of them
	Since       time.Time
	Until       time.Time
	Oldest      bool // first, instead of the newest
	// Changed narrows to runs whose latest event stands behind this offset of the
	// account's stream.
	Changed event.Offset
}

// VersionFilter narrows the list of versions. SHA matches a version's commit by
// the rule of contract 10: equal, or 7 or more leading characters of it.
type VersionFilter struct {
	Product event.ProductID
	SHA     string
}

// MatrixFilter narrows the matrix. Search is part of a product's name, in any case.
//
// At and KnownAt take it to past moments; a zero one does not. With them a
// matrix is made of fewer rows by the same rule, and nothing else changes:
//
//   - At leaves out the cells whose EffectiveAt and the attempts whose At is
//     later. So a run that ended after At shows as the attempt it then was, and
//     a success that was reported later shows from its EffectiveAt on.
//     Products and environments that were created after At show only where they
//     hold a cell: one that was loaded later may have been live before.
//   - KnownAt leaves out the cells and attempts of events received later, and
//     the products and environments created later.
//   - Of what is left, what is live is the cell with the latest EffectiveAt,
//     then the highest offset. The last attempt is that with the latest At, then
//     the highest offset, and shows if it is newer than what is live and not of
//     the same run. Drift is asked of what is then live.
//
// Names, columns and incarnations are those of now (contract 2). Moments are
// compared in milliseconds. An At and a KnownAt that no row lies after give the
// current matrix.
type MatrixFilter struct {
	Product      event.ProductID
	Environment  event.EnvironmentID
	Environments []string // patterns of names, one of which must match; none: all. * stands for any text.
	Search       string
	DriftOnly    bool
	At           time.Time
	KnownAt      time.Time
}

// Past tells whether f asks for anything but the current matrix.
func (f *MatrixFilter) Past() bool { return !f.At.IsZero() || !f.KnownAt.IsZero() }

// A Matrix says what is live where (contract 15), a page of products at a time.
// Its products and environments are without Description and Extra. What it points
// to may be shared with other answers: nobody may change it.
type Matrix struct {
	Environments []EnvironmentRow // by class order, then name; those that hold a cell of Items or that the filter names
	Items        []MatrixItem     // by product name
	More         bool             // products follow; a page may be short of its limit by MatrixCells
}

// MatrixItem is the row of one product.
type MatrixItem struct {
	Product ProductRow
	Drift   bool         // its visible cells hold different versions
	Cells   []MatrixCell // in the order of Environments; only those that ever had a success or have an attempt
	Memo    *Memo        // the same as long as the item and the names of its environments are; nil where the model keeps none
}

// MatrixCell is what is live of a product in an environment.
type MatrixCell struct {
	Environment event.EnvironmentID
	Live        *Success     // nil where nothing ever succeeded
	LastAttempt *LastAttempt // newer than Live and not a success, else nil
}

// Success is what the matrix tells of a success: a fifth of the memory of its Cell.
type Success struct {
	ID                        ulid.ULID // of the deployment
	VersionID                 event.VersionID
	Version                   string
	Status                    event.Status
	At                        time.Time // when it took effect
	SHA, BuildNumber, URL, By string
	Position                  event.Position
}

// LastAttempt is what the matrix tells of an attempt.
type LastAttempt struct {
	ID       ulid.ULID // of the deployment
	Version  string
	Status   event.Status
	At       time.Time
	Position event.Position
}

// A Reader answers questions of one account. Every answer holds at least what
// was stored before the call.
//
// Lists are ordered: runs newest first by id unless their filter says otherwise, versions newest first by creation
// and then by id, products and environments by name. Key of the last row is the
// next Page.After.
//
// Implementations must return ErrNotFound where the account has no such object,
// and a fault of kind Unavailable when the store does not answer.
type Reader interface {
	Names
	Releases
	States
	Deliveries
	Ledger
	Usage
	Freshness

	// AsOf gives how far each stream is projected, by stream name.
	AsOf(ctx context.Context) ([]Progress, error)

	Deployments(ctx context.Context, account string, f RunFilter, p Page) ([]RunRow, error)
	Deployment(ctx context.Context, account string, id ulid.ULID) (RunRow, error)
	Builds(ctx context.Context, account string, f RunFilter, p Page) ([]RunRow, error)
	Build(ctx context.Context, account string, id ulid.ULID) (RunRow, error)
	// History gives the events of one run, in the order of the log.
	History(ctx context.Context, account string, id ulid.ULID) ([]EventRow, error)

	Products(ctx context.Context, account string, p Page) ([]ProductRow, error)
	Product(ctx context.Context, account string, id event.ProductID) (ProductRow, error)
	Environments(ctx context.Context, account string, class *event.Class, p Page) ([]EnvironmentRow, error)
	Environment(ctx context.Context, account string, id event.EnvironmentID) (EnvironmentRow, error)
	Versions(ctx context.Context, account string, f VersionFilter, p Page) ([]VersionRow, error)
	Version(ctx context.Context, account string, id event.VersionID) (VersionRow, error)

	Matrix(ctx context.Context, account string, f MatrixFilter, p Page) (Matrix, error)

	Audit

	// Owner names an account that has an object with this id, be it the asking
	// one; ErrNotFound where it exists nowhere (contract 6).
	Owner(ctx context.Context, object Object, id string) (account string, err error)
}

// Object names a kind of object that has an id.
type Object string

// The objects.
const (
	DeploymentObject  Object = "deployment"
	BuildObject       Object = "build"
	ProductObject     Object = "product"
	EnvironmentObject Object = "environment"
	VersionObject     Object = "version"
	EventObject       Object = "event"
)

// Key orders runs newest first.
func (r *RunRow) Key() string { return r.Record.ID.String() }

// Key orders products by name.
func (r *ProductRow) Key() string { return r.Name }

// Key orders environments by name.
func (r *EnvironmentRow) Key() string { return r.Name }

// Key orders versions by creation, newest first, then by id.
func (r *VersionRow) Key() string {
	return r.CreatedAt.UTC().Format("20060102T150405.000") + "/" + r.ID.String()
}

// Key orders the rows of the matrix by product name.
func (i *MatrixItem) Key() string { return i.Product.Name }
