package query

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func (s *Service) listReleases(_ http.ResponseWriter, r *httpapi.Request) error {
	at, err := s.fresh(r)
	if err != nil {
		return err
	}
	rows, err := s.model.Releases(r.Context(), r.Identity.Account, page(r))
	if err != nil {
		return err
	}
	return list(r, at, rows, (*readmodel.ReleaseRow).Key, func(r *readmodel.ReleaseRow) httpapi.Release { return httpapi.ReleaseOf(&r.Release) })
}

func (s *Service) getRelease(_ http.ResponseWriter, r *httpapi.Request) error {
	row, _, err := s.release(r)
	if err != nil {
		return err
	}
	return r.JSON(http.StatusOK, httpapi.ReleaseOf(&row.Release))
}

// release waits for the position and gives the release that the path names.
func (s *Service) release(r *httpapi.Request) (readmodel.ReleaseRow, httpapi.AsOf, error) {
	at, err := s.fresh(r)
	if err != nil {
		return readmodel.ReleaseRow{}, at, err
	}
	id, err := runID(r, readmodel.ReleaseObject)
	if err != nil {
		return readmodel.ReleaseRow{}, at, err
	}
	row, err := s.model.Release(r.Context(), r.Identity.Account, id)
	if err != nil {
		err = s.missing(r, readmodel.ReleaseObject, id.String(), err)
	}
	return row, at, err
}

// releasePage gives a page of a release's versions, in the order in which they
// were added. A version that was taken out since begins the list again after
// what is left of those before it.
func releasePage(r *httpapi.Request, versions []event.ReleaseVersion) ([]event.ReleaseVersion, string) {
	if after := r.After(); after != "" {
		i := slices.IndexFunc(versions, func(v event.ReleaseVersion) bool { return v.ID.String() == after })
		versions = versions[i+1:]
	}
	return cut(versions, r.Limit(), func(v *event.ReleaseVersion) string { return v.ID.String() })
}

func (s *Service) listReleaseVersions(_ http.ResponseWriter, r *httpapi.Request) error {
	row, at, err := s.release(r)
	if err != nil {
		return err
	}
	versions, after := releasePage(r, row.Versions)
	return r.JSON(http.StatusOK, httpapi.NewList(r, show(versions, httpapi.ReleaseVersionOf), after, at))
}

// progress is where a version of a release has come to.
type progress struct {
	httpapi.ReleaseVersion `json:",inline"`
	Environments           []progressCell `json:"environments"`
}

type progressCell struct {
	EnvironmentID   string     `json:"environment_id"`
	EnvironmentName string     `json:"environment_name"`
	State           string     `json:"state"` // deployed, failed or in_progress
	DeploymentID    string     `json:"deployment_id"`
	At              *time.Time `json:"at"`
}

// progressRuns is how many of a version's newest deployments are looked at.
const progressRuns = 200

// listReleaseDeployments answers the grid of contract 19: each version's newest
// deployment in each environment. Where it is not listed it was never deployed.
func (s *Service) listReleaseDeployments(_ http.ResponseWriter, r *httpapi.Request) error {
	row, at, err := s.release(r)
	if err != nil {
		return err
	}
	versions, after := releasePage(r, row.Versions)
	items := make([]progress, len(versions))
	for i := range versions {
		v := &versions[i]
		runs, err := s.model.Deployments(r.Context(), r.Identity.Account,
			readmodel.RunFilter{Product: v.ProductID, Version: v.Version}, readmodel.Page{Limit: progressRuns})
		if err != nil {
			return err
		}
		items[i] = progress{httpapi.ReleaseVersionOf(v), progressOf(runs)}
	}
	return r.JSON(http.StatusOK, httpapi.NewList(r, items, after, at))
}

// progressOf gives a cell per environment, by name. Runs come newest first.
func progressOf(runs []readmodel.RunRow) []progressCell {
	states := map[event.Status]string{
		event.Completed: "deployed", event.Failed: "failed", event.Aborted: "failed", event.Started: "in_progress", event.Pending: "in_progress",
	}
	cells := map[string]progressCell{}
	for i := range runs {
		rec := &runs[i].Record
		state := states[rec.Status]
		if _, had := cells[rec.EnvironmentName]; had || state == "" { // what preflight refused is no deployment
			continue
		}
		cells[rec.EnvironmentName] = progressCell{rec.EnvironmentID.String(), rec.EnvironmentName, state, rec.ID.String(), httpapi.Moment(runs[i].At())}
	}
	out := []progressCell{}
	for _, name := range slices.Sorted(maps.Keys(cells)) {
		out = append(out, cells[name])
	}
	return out
}
