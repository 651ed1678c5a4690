package readmodel

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
)

// MatrixCells bounds how many cells a page of the matrix holds: a page ends
// with the product that reaches it, and holds one product at least.
const MatrixCells = 20_000

// States answers what was live, and how that changed.
type States interface {
	// Changes gives the cells whose version differs between two moments or two
	// environments, by product name and then in the order of columns.
	Changes(ctx context.Context, account string, f ChangeFilter, p Page) ([]Change, error)
	// Stays gives how long each version was live in a cell, newest first. A
	// product or environment that the account does not have had none.
	Stays(ctx context.Context, account string, f StayFilter, p Page) ([]Stay, error)
	// CountRuns counts the deployments of a product, of an environment, or of
	// both; zero ids do not narrow.
	CountRuns(ctx context.Context, account string, product event.ProductID, environment event.EnvironmentID) (Counts, error)
}

// Counts are of deployments.
type Counts struct {
	ByStatus map[event.Status]int // those that there are
	Newest   ulid.ULID            // the one with the highest id; zero without any
}

// ChangeFilter says what Changes compares: the moments From and To, or, where
// they are set, the environments Left and Right. KnownAt, and At for
// environments, are those of MatrixFilter.
type ChangeFilter struct {
	Product      event.ProductID
	Environment  event.EnvironmentID
	Environments []string // patterns, as in MatrixFilter
	Search       string

	From, To    time.Time
	Left, Right event.EnvironmentID
	At, KnownAt time.Time
}

// BetweenEnvironments tells which of its two forms a filter has.
func (f *ChangeFilter) BetweenEnvironments() bool {
	return f.Left != event.EnvironmentID{} || f.Right != event.EnvironmentID{}
}

// Side gives the filter of the matrix on one side of the comparison.
func (f *ChangeFilter) Side(second bool) MatrixFilter {
	m := MatrixFilter{
		Product: f.Product, Environment: f.Environment, Environments: f.Environments, Search: f.Search,
		At: f.From, KnownAt: f.KnownAt,
	}
	if f.BetweenEnvironments() {
		m.Environment, m.At = f.Left, f.At
	}
	if second {
		m.At = f.To
		if f.BetweenEnvironments() {
			m.Environment, m.At = f.Right, f.At
		}
	}
	return m
}

// A Change is a cell, or a product in two environments, with different versions.
type Change struct {
	Product     ProductRow
	Environment EnvironmentRow // zero between environments
	From, To    *Occupant      // nil where nothing was live
}

// An Occupant is what is live in a cell, in short.
type Occupant struct {
	Environment event.EnvironmentID
	Deployment  ulid.ULID
	Version     string
	At          time.Time
}

// Key orders changes by product, then by column.
func (c *Change) Key() string {
	return c.Product.Name + "\x00" + strconv.Itoa(c.Environment.Class.Order()) + "\x00" + c.Environment.Name
}

// CompareChangeKeys orders the keys of changes.
func CompareChangeKeys(a, b string) int {
	return slices.Compare(strings.Split(a, "\x00"), strings.Split(b, "\x00"))
}

// ParseChangeKey gives the product's name out of what Change.Key gave.
func ParseChangeKey(after string) (product string, err error) {
	parts := strings.Split(after, "\x00")
	if len(parts) != 3 {
		return "", badCursor(after, errors.New("not three parts"))
	}
	return parts[0], nil
}

// StayFilter names a cell. KnownAt is that of MatrixFilter.
type StayFilter struct {
	Product     event.ProductID
	Environment event.EnvironmentID
	KnownAt     time.Time
}

// A Stay is the time that a deployment was live in a cell, as the matrix shows
// it through At. Of two successes of the same moment the earlier in the log was
// live for no time at all; it is listed with From equal to Until.
type Stay struct {
	Live  Cell      // the deployment as its newest event left it
	From  time.Time // inclusive
	Until time.Time // exclusive; zero while it is live

	first event.Offset // of its first event
}

// Key orders stays newest first.
func (s *Stay) Key() string {
	return strconv.FormatInt(s.From.UnixMilli(), 10) + "." + strconv.FormatUint(uint64(s.first), 10)
}

// ParseStayKey reads what Stay.Key gave.
func ParseStayKey(after string) (from time.Time, first event.Offset, err error) {
	ms, offset, ok := strings.Cut(after, ".")
	if !ok {
		return from, first, badCursor(after, errors.New("no dot"))
	}
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return from, first, badCursor(after, err)
	}
	o, err := strconv.ParseUint(offset, 10, 64)
	if err != nil {
		return from, first, badCursor(after, err)
	}
	return time.UnixMilli(n).UTC(), event.Offset(o), nil
}

// Staying makes stays of the successes of a cell, given newest first by
// EffectiveAt and then by offset. Until is when the newest one ended.
type Staying struct {
	Until time.Time
	open  *Stay
}

// Add gives the stay that ended with the one before c, if one did.
func (s *Staying) Add(c Cell) (Stay, bool) {
	if s.open != nil && s.open.Live.Record.ID == c.Record.ID {
		s.open.From, s.open.first = c.EffectiveAt, c.Position.Offset
		return Stay{}, false
	}
	done, ok := s.Last()
	s.open = &Stay{Live: c, From: c.EffectiveAt, Until: s.Until, first: c.Position.Offset}
	return done, ok
}

// Last gives the stay that no older success follows.
func (s *Staying) Last() (Stay, bool) {
	if s.open == nil {
		return Stay{}, false
	}
	done := *s.open
	s.open, s.Until = nil, done.From
	return done, true
}

// MatchName tells whether a name is one of patterns, in which * stands for any
// text. Letters count as they are.
func MatchName(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchName(p, name) })
}

func matchName(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, rest, found := strings.Cut(name, part)
		if !found {
			return false
		}
		name = rest
	}
	return strings.HasSuffix(name, parts[len(parts)-1])
}

// Narrowed tells whether f names columns.
func (f *MatrixFilter) Narrowed() bool {
	return f.Environment != event.EnvironmentID{} || len(f.Environments) > 0
}

// Column tells whether an environment may be a column.
func (f *MatrixFilter) Column(e *EnvironmentRow) bool {
	return (f.Environment == event.EnvironmentID{} || f.Environment == e.ID) &&
		(len(f.Environments) == 0 || MatchName(f.Environments, e.Name)) &&
		(f.KnownAt.IsZero() || e.CreatedAt.UnixMilli() <= f.KnownAt.UnixMilli())
}

// Existed tells whether something was there at f.At, as far as its creation
// says: what was loaded later may have cells of before.
func (f *MatrixFilter) Existed(created time.Time) bool {
	return f.At.IsZero() || created.UnixMilli() <= f.At.UnixMilli()
}

// Columns gives the environments that a page shows: those in which one of its
// cells is, and those that the filter names.
func (f *MatrixFilter) Columns(environments []EnvironmentRow, items []MatrixItem) []EnvironmentRow {
	held := map[event.EnvironmentID]bool{}
	for i := range items {
		for j := range items[i].Cells {
			held[items[i].Cells[j].Environment] = true
		}
	}
	var out []EnvironmentRow
	for i := range environments {
		if e := &environments[i]; held[e.ID] || f.Narrowed() && f.Existed(e.CreatedAt) {
			out = append(out, *e)
		}
	}
	return out
}
