package query

import (
	"errors"
	"net/http"

	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func (s *Service) listDeployments(w http.ResponseWriter, r *httpapi.Request) error {
	f, err := deploymentFilter(r)
	if err != nil {
		return err
	}
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	if err := s.nameDeployments(r, &f); err != nil {
		return err
	}
	rows, err := s.model.Deployments(r.Context(), r.Identity.Account, f, page(r))
	if err != nil {
		return err
	}
	return listed(w, &read, rows, (*readmodel.RunRow).Key, deploymentItem)
}

func (s *Service) listBuilds(w http.ResponseWriter, r *httpapi.Request) error {
	f, err := filter(r, "built_by")
	if err != nil {
		return err
	}
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	if f.Product, err = s.product(r); err != nil {
		return err
	}
	rows, err := s.model.Builds(r.Context(), r.Identity.Account, f, page(r))
	if err != nil {
		return err
	}
	return listed(w, &read, rows, (*readmodel.RunRow).Key, buildItem)
}

// deploymentFilter reads what deployments are narrowed by. What names mean is
// left out.
func deploymentFilter(r *httpapi.Request) (readmodel.RunFilter, error) {
	f, err := filter(r, "deployed_by")
	if word := r.QueryString("environment_type"); word != "" {
		class, _ := event.ParseClass(word) // the document names the words
		f.Class = &class
	}
	return f, err
}

// nameDeployments adds what names mean to a filter. It must be asked behind fresh.
func (s *Service) nameDeployments(r *httpapi.Request, f *readmodel.RunFilter) (err error) {
	if f.Product, err = s.product(r); err != nil {
		return err
	}
	f.Environment, err = s.environment(r, r.QueryString("environment"))
	return err
}

// metaPrefix is how parameters begin that ask for a value of extra_metadata.
const metaPrefix = "meta."

// filter reads what deployments and builds are narrowed by alike. What
// names mean is left out.
func filter(r *httpapi.Request, by string) (readmodel.RunFilter, error) {
	f := readmodel.RunFilter{
		Version: r.QueryString("version"), Statuses: r.QueryStatuses("status"), By: r.QueryString(by),
		Source: r.QueryString("source_system"), Run: r.QueryString("invoke_id"), SHA: r.QueryString("scm_sha"),
		Mode: event.Mode(r.QueryString("mode")), Since: r.QueryTime("since"), Until: r.QueryTime("until"),
		Oldest: r.QueryString("order") == "oldest",
	}
	var faults []httpapi.FieldFault
	r.QueryMembers(metaPrefix, func(name, text string) {
		path, err := readmodel.ParseMetaPath(name)
		if err != nil {
			faults = append(faults, httpapi.FieldFault{Loc: []string{"query", metaPrefix + name}, Msg: err.Error(), Type: "value_error"})
		}
		f.Meta = append(f.Meta, readmodel.MetaFilter{Path: path, Value: text})
	})
	if len(faults) > 0 {
		return f, &httpapi.ValidationError{Faults: faults}
	}
	return f, nil
}

func (s *Service) getDeployment(w http.ResponseWriter, r *httpapi.Request) error {
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	id, err := runID(r, readmodel.DeploymentObject)
	if err != nil {
		return err
	}
	// Its events are read beside the rest.
	account := r.Identity.Account
	var row readmodel.RunRow
	var around surroundings
	var history []readmodel.EventRow
	var noHistory error
	group, both := errgroup.WithContext(r.Context())
	group.Go(func() error {
		if history, noHistory = s.model.History(both, account, id); errors.Is(noHistory, readmodel.ErrNotFound) {
			return nil // and so may be the deployment, which is told first
		}
		return noHistory
	})
	group.Go(func() (err error) {
		if row, err = s.model.Deployment(both, account, id); err == nil {
			around, err = s.surroundings(both, account, &row.Record)
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return s.missing(r, readmodel.DeploymentObject, id.String(), err)
	}
	if noHistory != nil {
		return noHistory
	}
	around.Phases = phasesOf(&row.Record, history)
	out := deploymentDetail{deploymentItem(&row), show(history, eventItem), around}
	return read.answer(w, out)
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
		return s.missing(r, readmodel.BuildObject, id.String(), err)
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
