package readmodel

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"time"

	"github.com/shipledger/shipledger/pkg/delivery"
	"github.com/shipledger/shipledger/pkg/event"
)

// Deliveries hands over what metrics are made of.
type Deliveries interface {
	// CellRuns hands the deployments of cells to each, one cell at a time, in the
	// order of ComparePlaces; those of a cell in the order of delivery.Compare. It
	// holds those of one cell in memory. An error of each ends it and is returned.
	// Cells without a deployment are left out.
	CellRuns(ctx context.Context, account string, f CellFilter, each func(*Cells) error) error
	// FirstBuilds gives when versions were first built: the earliest DeployedAt
	// of their builds. Versions that never were are left out.
	FirstBuilds(ctx context.Context, account string, versions []event.VersionID) (map[event.VersionID]time.Time, error)
}

// CellFilter chooses cells. Zero members do not narrow.
type CellFilter struct {
	Product      event.ProductID
	Environment  event.EnvironmentID
	Products     []string // patterns of names, as in MatrixFilter
	Environments []string
	Team         string // of the product, as the text "team" of its metadata says
	From         Place  // skips the cells before
}

// Product and environment that the account has now tell whether f chooses them.
func (f *CellFilter) wants(patterns []string, name string) bool {
	return len(patterns) == 0 || MatchName(patterns, name)
}

// WantsProduct tells whether f chooses the cells of a product.
func (f *CellFilter) WantsProduct(p *ProductRow) bool {
	return (f.Product == event.ProductID{} || f.Product == p.ID) && f.wants(f.Products, p.Name) &&
		(f.Team == "" || f.Team == teamOf(p))
}

// teamOf gives the team that a product's metadata names, "" where it names none.
func teamOf(p *ProductRow) string {
	var meta struct {
		Team any `json:"team"`
	}
	if len(p.Extra) == 0 || json.Unmarshal(p.Extra, &meta) != nil {
		return ""
	}
	team, _ := meta.Team.(string)
	return team
}

// WantsEnvironment tells whether f chooses the cells of an environment.
func (f *CellFilter) WantsEnvironment(e *EnvironmentRow) bool {
	return (f.Environment == event.EnvironmentID{} || f.Environment == e.ID) && f.wants(f.Environments, e.Name)
}

// Cells is one cell and its deployments.
type Cells struct {
	Product     ProductRow
	Environment EnvironmentRow
	Runs        []delivery.Run
}

// A Place names a cell.
type Place struct {
	Environment event.EnvironmentID
	Product     event.ProductID
}

// ComparePlaces orders places by environment and then by product, each by the
// second half of its id and then the first. It is an order that a store can have
// its rows in, and means nothing else.
func ComparePlaces(a, b Place) int {
	return cmp.Or(
		bytes.Compare(a.Environment[8:], b.Environment[8:]), bytes.Compare(a.Environment[:8], b.Environment[:8]),
		bytes.Compare(a.Product[8:], b.Product[8:]), bytes.Compare(a.Product[:8], b.Product[:8]),
	)
}

// commitTimeKey is where clients say when the deployed commit was made.
const commitTimeKey = "commit_time"

// CommitTime gives when the deployed commit was made, as the metadata of a
// deployment says: an RFC 3339 text. Zero where it says nothing, or no moment.
func CommitTime(rec *event.Record) time.Time {
	x, ok := rec.Extra[commitTimeKey]
	if !ok {
		return time.Time{}
	}
	var text string
	if err := json.Unmarshal(x.Value, &text); err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return Moment(t)
}
