package query

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// resident is a version that is live in a cell, seen from the product or from
// the environment.
type resident struct {
	ProductID       string       `json:"product_id"`
	ProductName     string       `json:"product_name"`
	EnvironmentID   string       `json:"environment_id"`
	EnvironmentName string       `json:"environment_name"`
	Version         string       `json:"version"`
	DeploymentID    string       `json:"deployment_id"`
	From            *time.Time   `json:"from"`
	DeployedBy      httpapi.Text `json:"deployed_by"`
}

// residentsOf gives what is live in the cells of a page of the matrix.
func residentsOf(m *readmodel.Matrix) []resident {
	names := make(map[event.EnvironmentID]string, len(m.Environments))
	for i := range m.Environments {
		names[m.Environments[i].ID] = m.Environments[i].Name
	}
	out := []resident{}
	for i := range m.Items {
		product := &m.Items[i].Product
		for j := range m.Items[i].Cells {
			cell := &m.Items[i].Cells[j]
			live := cell.Live
			if live == nil {
				continue
			}
			out = append(out, resident{
				product.ID.String(), product.Name, cell.Environment.String(), names[cell.Environment], live.Version, live.ID.String(),
				httpapi.Moment(live.At), httpapi.Text(live.By),
			})
		}
	}
	return out
}

// activity is what was deployed to a product's or an environment's cells.
type activity struct {
	Deployments    map[string]int `json:"deployments"` // by status
	LastDeployment *companion     `json:"last_deployment"`
}

func (s *Service) activity(ctx context.Context, account string, product event.ProductID, environment event.EnvironmentID) (activity, error) {
	counts, err := s.model.CountRuns(ctx, account, product, environment)
	if err != nil {
		return activity{}, err
	}
	out := activity{Deployments: map[string]int{}}
	total := 0
	for status, n := range counts.ByStatus {
		out.Deployments[status.String()] = n
		total += n
	}
	out.Deployments["total"] = total
	if total == 0 {
		return out, nil
	}
	last, err := s.model.Deployment(ctx, account, counts.Newest)
	if errors.Is(err, readmodel.ErrNotFound) { // deleted since
		return out, nil
	}
	if err != nil {
		return out, err
	}
	shown := companionOf(&last)
	out.LastDeployment = &shown
	return out, nil
}

func companionOf(r *readmodel.RunRow) companion {
	rec := &r.Record
	return companion{
		rec.ID.String(), rec.ProductName, rec.Version, rec.EnvironmentName, rec.Status.String(), httpapi.Moment(r.At()),
		httpapi.Text(rec.Attributes[event.InvokeID]),
	}
}

type productDetail struct {
	httpapi.Product `json:",inline"`
	Drift           bool       `json:"drift"`
	Live            []resident `json:"live"`
	activity        `json:",inline"`
}

// productDetail answers with a product and what is live of it.
func (s *Service) productDetail(w http.ResponseWriter, r *httpapi.Request, read *reading, row *readmodel.ProductRow) error {
	account := r.Identity.Account
	var m readmodel.Matrix
	var done activity
	group, each := errgroup.WithContext(r.Context())
	group.Go(func() (err error) {
		m, err = s.model.Matrix(each, account, readmodel.MatrixFilter{Product: row.ID}, readmodel.Page{Limit: 1})
		return err
	})
	group.Go(func() (err error) {
		done, err = s.activity(each, account, row.ID, event.EnvironmentID{})
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	drift := slices.ContainsFunc(m.Items, func(item readmodel.MatrixItem) bool { return item.Drift })
	return read.answer(w, productDetail{productItem(row), drift, residentsOf(&m), done})
}

type environmentDetail struct {
	httpapi.Environment `json:",inline"`
	Live                []resident  `json:"live"`
	LiveMore            bool        `json:"live_more"`
	Open                []companion `json:"open"`
	activity            `json:",inline"`
}

// What an environment's answer shows at most.
const (
	maxResidents = 500
	maxOpen      = 50
)

// environmentDetail answers with an environment, what is live and what runs in it.
func (s *Service) environmentDetail(w http.ResponseWriter, r *httpapi.Request, read *reading, row *readmodel.EnvironmentRow) error {
	account := r.Identity.Account
	var m readmodel.Matrix
	var done activity
	group, each := errgroup.WithContext(r.Context())
	group.Go(func() (err error) {
		m, err = s.model.Matrix(each, account, readmodel.MatrixFilter{Environment: row.ID}, readmodel.Page{Limit: maxResidents})
		return err
	})
	group.Go(func() (err error) {
		done, err = s.activity(each, account, event.ProductID{}, row.ID)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	open, err := s.open(r.Context(), account, row.ID, done)
	if err != nil {
		return err
	}
	return read.answer(w, environmentDetail{environmentItem(row), residentsOf(&m), m.More, show(open, companionOf), done})
}

// open gives what runs in an environment. It was counted before: to look for one more would be
// to look through all that ever ran there.
func (s *Service) open(ctx context.Context, account string, environment event.EnvironmentID, counted activity) ([]readmodel.RunRow, error) {
	statuses, n := []event.Status{event.Pending, event.Started}, 0
	for _, status := range statuses {
		n += counted.Deployments[status.String()]
	}
	if n == 0 {
		return nil, nil
	}
	return s.model.Deployments(ctx, account, readmodel.RunFilter{Environment: environment, Statuses: statuses}, readmodel.Page{Limit: min(n, maxOpen)})
}
