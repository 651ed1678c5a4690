package query

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/delivery"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// phase is a part of the life of a deployment.
type phase struct {
	Name    string     `json:"name"` // pending or running
	From    *time.Time `json:"from"`
	Until   *time.Time `json:"until"`   // null while it lasts
	Seconds *float64   `json:"seconds"` // null while it lasts
}

func phaseOf(name string, from, until time.Time) phase {
	p := phase{Name: name, From: httpapi.Moment(from)}
	if !until.IsZero() {
		seconds := until.Sub(from).Seconds()
		p.Until, p.Seconds = httpapi.Moment(until), &seconds
	}
	return p
}

// phasesOf gives what is known of how a deployment went: how long it waited from
// the first word that it was pending, and how long it ran from its start.
func phasesOf(rec *event.Record, history []readmodel.EventRow) []phase {
	out := []phase{}
	at := slices.IndexFunc(history, func(e readmodel.EventRow) bool { return e.Status == event.Pending.String() })
	if at >= 0 {
		waited := history[at].EffectiveAt
		end := rec.StartedAt
		if end.IsZero() {
			end = rec.CompletedAt
		}
		if end.IsZero() || !end.Before(waited) {
			out = append(out, phaseOf("pending", waited, end))
		}
	}
	if !rec.StartedAt.IsZero() && rec.Status != event.PreflightFailed {
		out = append(out, phaseOf("running", rec.StartedAt, rec.CompletedAt))
	}
	return out
}

type neighbour struct {
	DeploymentID string     `json:"deployment_id"`
	Version      string     `json:"version"`
	At           *time.Time `json:"at"`
}

func neighbourOf(r *delivery.Run) *neighbour {
	if r == nil {
		return nil
	}
	return &neighbour{r.ID.String(), r.Version, httpapi.Moment(r.At)}
}

// rollback says what a deployment took back, and to which earlier one of its version.
type rollback struct {
	Of neighbour `json:"of"`
	To neighbour `json:"to"`
}

// surroundings is what a deployment is among the others of its cell.
type surroundings struct {
	Phases          []phase      `json:"phases"`
	Previous        *neighbour   `json:"previous"`
	Next            *neighbour   `json:"next"`
	ReplacedVersion httpapi.Text `json:"replaced_version"`
	Rollback        *rollback    `json:"rollback"`
	TakenBackBy     *neighbour   `json:"taken_back_by"`
}

// surroundings are told but for the phases.
func (s *Service) surroundings(ctx context.Context, account string, rec *event.Record) (surroundings, error) {
	var out surroundings
	err := s.model.CellRuns(ctx, account, readmodel.CellFilter{Product: rec.ProductID, Environment: rec.EnvironmentID}, func(c *readmodel.Cells) error {
		around, ok := delivery.Around(c.Runs, rec.ID)
		if !ok {
			return nil
		}
		out.Previous, out.Next, out.TakenBackBy = neighbourOf(around.Previous), neighbourOf(around.Next), neighbourOf(around.Takeback)
		if p := around.Previous; p != nil && rec.Status == event.Completed && p.Version != rec.Version {
			out.ReplacedVersion = httpapi.Text(p.Version)
		}
		if back := around.Rollback; back != nil {
			find := func(id ulid.ULID) neighbour {
				return *neighbourOf(&c.Runs[slices.IndexFunc(c.Runs, func(r delivery.Run) bool { return r.ID == id })])
			}
			out.Rollback = &rollback{Of: find(back.Of), To: find(back.To)}
		}
		return nil
	})
	return out, err
}

// place is an environment in which a version is or was live.
type place struct {
	EnvironmentID   string     `json:"environment_id"`
	EnvironmentName string     `json:"environment_name"`
	DeploymentID    string     `json:"deployment_id"`
	From            *time.Time `json:"from"`
	Until           *time.Time `json:"until"` // null while it is live
}

// promotion is the way of a version from one environment to the next, by its
// first success in each.
type promotion struct {
	From    string     `json:"from_environment"`
	To      string     `json:"to_environment"`
	At      *time.Time `json:"at"`
	Seconds float64    `json:"seconds"`
}

type companion struct {
	DeploymentID    string       `json:"deployment_id"`
	ProductName     string       `json:"product_name"`
	Version         string       `json:"version"`
	EnvironmentName string       `json:"environment_name"`
	Status          string       `json:"status"`
	At              *time.Time   `json:"at"`
	InvokeID        httpapi.Text `json:"invoke_id"`
}

// whereabouts are where a version is and was, and its way there.
type whereabouts struct {
	LiveIn     []place     `json:"live_in"`
	WasIn      []place     `json:"was_in"`
	Promotions []promotion `json:"promotions"`
}

type versionDetail struct {
	version     `json:",inline"`
	whereabouts `json:",inline"`
	BuildRuns   []build     `json:"build_runs"`
	ShippedWith []companion `json:"shipped_with"`
}

// What a version's answer shows at most.
const (
	maxStays      = 100
	maxBuildRuns  = 20
	maxCompanions = 50
	maxSharedRuns = 5
)

func (s *Service) versionDetail(w http.ResponseWriter, r *httpapi.Request, read *reading, row *readmodel.VersionRow) error {
	account := r.Identity.Account
	out := versionDetail{version: versionItem(row)}
	of := readmodel.RunFilter{Product: row.ProductID, Version: row.Version.Version}
	group, each := errgroup.WithContext(r.Context())
	group.Go(func() (err error) {
		out.whereabouts, err = s.whereabouts(each, account, of)
		return err
	})
	group.Go(func() error {
		builds, err := s.model.Builds(each, account, of, readmodel.Page{Limit: maxBuildRuns})
		out.BuildRuns = show(builds, buildItem)
		return err
	})
	group.Go(func() (err error) {
		out.ShippedWith, err = s.companions(each, account, of)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return read.answer(w, out)
}

// whereabouts gives where the version of a product is and was.
func (s *Service) whereabouts(ctx context.Context, account string, of readmodel.RunFilter) (whereabouts, error) {
	out := whereabouts{LiveIn: []place{}, WasIn: []place{}, Promotions: []promotion{}}
	type arrival struct {
		environment string
		at          time.Time
	}
	var arrivals []arrival
	err := s.model.CellRuns(ctx, account, readmodel.CellFilter{Product: of.Product}, func(c *readmodel.Cells) error {
		for i, stay := range delivery.Stays(c.Runs, of.Version) {
			p := place{c.Environment.ID.String(), c.Environment.Name, stay.Run.ID.String(), httpapi.Moment(stay.Run.At), httpapi.Moment(stay.Until)}
			if i == 0 {
				arrivals = append(arrivals, arrival{c.Environment.Name, stay.Run.At})
			}
			if stay.Until.IsZero() {
				out.LiveIn = append(out.LiveIn, p)
			} else {
				out.WasIn = append(out.WasIn, p)
			}
		}
		return nil
	})
	inOrder := func(a, b place) int { return a.From.Compare(*b.From) }
	slices.SortStableFunc(out.LiveIn, inOrder)
	slices.SortStableFunc(out.WasIn, func(a, b place) int { return inOrder(b, a) })
	out.WasIn = out.WasIn[:min(len(out.WasIn), maxStays)]
	slices.SortStableFunc(arrivals, func(a, b arrival) int { return a.at.Compare(b.at) })
	for i := 1; i < len(arrivals); i++ {
		from, to := arrivals[i-1], arrivals[i]
		out.Promotions = append(out.Promotions, promotion{from.environment, to.environment, httpapi.Moment(to.at), to.at.Sub(from.at).Seconds()})
	}
	return out, err
}

// companions gives what else went out in the runs that deployed a version.
func (s *Service) companions(ctx context.Context, account string, of readmodel.RunFilter) ([]companion, error) {
	own, err := s.model.Deployments(ctx, account, of, readmodel.Page{Limit: maxSharedRuns})
	if err != nil {
		return nil, err
	}
	var runs []string
	for i := range own {
		if run := own[i].Record.Attributes[event.InvokeID]; run != "" && !slices.Contains(runs, run) {
			runs = append(runs, run)
		}
	}
	out := []companion{}
	if len(runs) == 0 {
		return out, nil
	}
	// Those of the version itself are among them.
	rows, err := s.model.Deployments(ctx, account, readmodel.RunFilter{Runs: runs}, readmodel.Page{Limit: len(runs) * maxCompanions})
	if err != nil {
		return nil, err
	}
	for i := range rows {
		if rec := &rows[i].Record; rec.ProductID != of.Product && len(out) < maxCompanions {
			out = append(out, companionOf(&rows[i]))
		}
	}
	return out, nil
}
