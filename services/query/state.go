package query

import (
	"net/http"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// occupant is one side of a change.
type occupant struct {
	EnvironmentID string     `json:"environment_id"`
	Version       string     `json:"version"`
	DeploymentID  string     `json:"deployment_id"`
	At            *time.Time `json:"at"`
}

type change struct {
	ProductID       string       `json:"product_id"`
	ProductName     string       `json:"product_name"`
	EnvironmentID   httpapi.Text `json:"environment_id"`
	EnvironmentName httpapi.Text `json:"environment_name"`
	From            *occupant    `json:"from"`
	To              *occupant    `json:"to"`
}

func occupantOf(o *readmodel.Occupant) *occupant {
	if o == nil {
		return nil
	}
	return &occupant{o.Environment.String(), o.Version, o.Deployment.String(), httpapi.Moment(o.At)}
}

func changeItem(c *readmodel.Change) change {
	out := change{ProductID: c.Product.ID.String(), ProductName: c.Product.Name, From: occupantOf(c.From), To: occupantOf(c.To)}
	if c.Environment.Name != "" { // it is of one environment
		out.EnvironmentID, out.EnvironmentName = httpapi.Text(c.Environment.ID.String()), httpapi.Text(c.Environment.Name)
	}
	return out
}

// getMatrixDiff compares two moments, or two environments (contract 5).
func (s *Service) getMatrixDiff(w http.ResponseWriter, r *httpapi.Request) error {
	f, err := changeFilter(r)
	if err != nil {
		return err
	}
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	if err := s.nameSides(r, &f); err != nil {
		return err
	}
	changes, err := s.model.Changes(r.Context(), r.Identity.Account, f, page(r))
	if err != nil {
		return err
	}
	return listed(w, &read, changes, (*readmodel.Change).Key, changeItem)
}

// nameSides puts in what the parameters name.
func (s *Service) nameSides(r *httpapi.Request, f *readmodel.ChangeFilter) (err error) {
	if f.Product, err = s.product(r); err != nil {
		return err
	}
	if f.Environment, f.Environments, err = s.columnFilter(r); err != nil {
		return err
	}
	if f.Left, err = s.environment(r, r.QueryString("left")); err != nil {
		return err
	}
	f.Right, err = s.environment(r, r.QueryString("right"))
	return err
}

// changeFilter reads one of the two forms; they cannot be mixed. Names are left out.
func changeFilter(r *httpapi.Request) (readmodel.ChangeFilter, error) {
	f := readmodel.ChangeFilter{
		Search: r.QueryString("search"), From: r.QueryTime("from"), To: r.QueryTime("to"),
		At: r.QueryTime("at"), KnownAt: r.QueryTime("known_at"),
	}
	left, right := r.QueryString("left"), r.QueryString("right")
	var faults []httpapi.FieldFault
	need := func(wrong bool, name, msg string) {
		if wrong {
			faults = append(faults, httpapi.FieldFault{Loc: []string{"query", name}, Msg: msg, Type: "value_error"})
		}
	}
	if left != "" || right != "" {
		need(left == "", "left", "name both environments")
		need(right == "", "right", "name both environments")
		need(!f.From.IsZero(), "from", "compare either two moments or two environments")
		need(!f.To.IsZero(), "to", "compare either two moments or two environments")
		need(len(r.QueryList("environment")) > 0, "environment", "left and right are the environments")
	} else {
		need(f.From.IsZero(), "from", "say from which moment, or compare environments by left and right")
		need(!f.At.IsZero(), "at", "from and to are the moments")
	}
	if len(faults) > 0 {
		return f, &httpapi.ValidationError{Faults: faults}
	}
	return f, nil
}

// columnFilter reads which environments are columns: one by name, so that a
// look-up is spared, or several names and patterns.
func (s *Service) columnFilter(r *httpapi.Request) (event.EnvironmentID, []string, error) {
	names := r.QueryList("environment")
	if len(names) == 1 && !isPattern(names[0]) {
		id, err := s.environment(r, names[0])
		return id, nil, err
	}
	return event.EnvironmentID{}, names, nil
}

type stay struct {
	Version        string       `json:"version"`
	VersionID      string       `json:"version_id"`
	DeploymentID   string       `json:"deployment_id"`
	From           *time.Time   `json:"from"`
	Until          *time.Time   `json:"until"`
	DeployedBy     httpapi.Text `json:"deployed_by"`
	DeployedByName httpapi.Text `json:"deployed_by_name"`
	SCMSHA         httpapi.Text `json:"scm_sha"`
	BuildNumber    httpapi.Text `json:"build_number"`
	DeployURL      httpapi.Text `json:"deploy_url"`
}

func stayItem(s *readmodel.Stay) stay {
	rec := &s.Live.Record
	a := &rec.Attributes
	return stay{
		Version: rec.Version, VersionID: rec.VersionID.String(), DeploymentID: rec.ID.String(),
		From: httpapi.Moment(s.From), Until: httpapi.Moment(s.Until),
		DeployedBy: httpapi.Text(a[event.By]), DeployedByName: httpapi.Text(a[event.ByName]), SCMSHA: httpapi.Text(a[event.SCMSHA]),
		BuildNumber: httpapi.Text(a[event.BuildNumber]), DeployURL: httpapi.Text(a[event.URL]),
	}
}

// getCellHistory lists what was live in one cell of the matrix.
func (s *Service) getCellHistory(w http.ResponseWriter, r *httpapi.Request) error {
	var faults []httpapi.FieldFault
	for _, name := range []string{"product", "environment"} {
		if r.QueryString(name) == "" {
			faults = append(faults, httpapi.FieldFault{Loc: []string{"query", name}, Msg: "field required", Type: "value_error.missing"})
		}
	}
	if len(faults) > 0 {
		return &httpapi.ValidationError{Faults: faults}
	}
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	f := readmodel.StayFilter{KnownAt: r.QueryTime("known_at")}
	if f.Product, err = s.product(r); err != nil {
		return err
	}
	if f.Environment, err = s.environment(r, r.QueryString("environment")); err != nil {
		return err
	}
	stays, err := s.model.Stays(r.Context(), r.Identity.Account, f, page(r))
	if err != nil {
		return err
	}
	return listed(w, &read, stays, (*readmodel.Stay).Key, stayItem)
}
