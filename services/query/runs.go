package query

import (
	"net/http"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func (s *Service) listDeployments(_ http.ResponseWriter, r *httpapi.Request) error {
	at, err := s.fresh(r)
	if err != nil {
		return err
	}
	f := filter(r)
	if name := r.QueryString("environment"); name != "" {
		f.Environment = event.EnvironmentIDOf(r.Identity.Account, name)
	}
	f.Since, f.Until = r.QueryTime("since"), r.QueryTime("until")
	rows, err := s.model.Deployments(r.Context(), r.Identity.Account, f, page(r))
	if err != nil {
		return err
	}
	return list(r, at, rows, (*readmodel.RunRow).Key, deploymentItem)
}

func (s *Service) listBuilds(_ http.ResponseWriter, r *httpapi.Request) error {
	at, err := s.fresh(r)
	if err != nil {
		return err
	}
	f := filter(r)
	f.Version = r.QueryString("version")
	rows, err := s.model.Builds(r.Context(), r.Identity.Account, f, page(r))
	if err != nil {
		return err
	}
	return list(r, at, rows, (*readmodel.RunRow).Key, buildItem)
}

// filter reads what deployments and builds are narrowed by alike. Names become
// ids by derivation, without a look-up.
func filter(r *httpapi.Request) readmodel.RunFilter {
	f := readmodel.RunFilter{Status: r.QueryStatus("status")}
	if name := r.QueryString("product"); name != "" {
		f.Product = event.ProductIDOf(r.Identity.Account, name)
	}
	return f
}

func (s *Service) getDeployment(_ http.ResponseWriter, r *httpapi.Request) error {
	if _, err := s.fresh(r); err != nil {
		return err
	}
	id, err := runID(r, readmodel.DeploymentObject)
	if err != nil {
		return err
	}
	row, err := s.model.Deployment(r.Context(), r.Identity.Account, id)
	if err != nil {
		return s.missing(r.Context(), readmodel.DeploymentObject, id.String(), err)
	}
	history, err := s.model.History(r.Context(), r.Identity.Account, id)
	if err != nil {
		return err
	}
	return r.JSON(http.StatusOK, deploymentDetail{deploymentItem(&row), show(history, eventItem)})
}

func (s *Service) getBuild(_ http.ResponseWriter, r *httpapi.Request) error {
	if _, err := s.fresh(r); err != nil {
		return err
	}
	id, err := runID(r, readmodel.BuildObject)
	if err != nil {
		return err
	}
	row, err := s.model.Build(r.Context(), r.Identity.Account, id)
	if err != nil {
		return s.missing(r.Context(), readmodel.BuildObject, id.String(), err)
	}
	history, err := s.model.History(r.Context(), r.Identity.Account, id)
	if err != nil {
		return err
	}
	return r.JSON(http.StatusOK, buildDetail{buildItem(&row), show(history, eventItem)})
}

func show[R, T any](rows []R, as func(*R) T) []T {
	out := make([]T, len(rows))
	for i := range rows {
		out[i] = as(&rows[i])
	}
	return out
}
