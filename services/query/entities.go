package query

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func (s *Service) listProducts(w http.ResponseWriter, r *httpapi.Request) error {
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	rows, err := s.model.Products(r.Context(), r.Identity.Account, page(r))
	if err != nil {
		return err
	}
	return listed(w, &read, rows, (*readmodel.ProductRow).Key, productItem)
}

func (s *Service) listEnvironments(w http.ResponseWriter, r *httpapi.Request) error {
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	var class *event.Class
	if word := r.QueryString("type"); word != "" {
		c, _ := event.ParseClass(word) // the document names the words
		class = &c
	}
	rows, err := s.model.Environments(r.Context(), r.Identity.Account, class, page(r))
	if err != nil {
		return err
	}
	return listed(w, &read, rows, (*readmodel.EnvironmentRow).Key, environmentItem)
}

func (s *Service) listVersions(w http.ResponseWriter, r *httpapi.Request) error {
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	f := readmodel.VersionFilter{SHA: r.QueryString("scm_sha")}
	if f.Product, err = s.product(r); err != nil {
		return err
	}
	rows, err := s.model.Versions(r.Context(), r.Identity.Account, f, page(r))
	if err != nil {
		return err
	}
	return listed(w, &read, rows, (*readmodel.VersionRow).Key, versionItem)
}

func (s *Service) getProduct(w http.ResponseWriter, r *httpapi.Request) error {
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	id, err := entity(r, readmodel.ProductObject)
	if err != nil {
		return err
	}
	row, err := s.model.Product(r.Context(), r.Identity.Account, event.ProductID(id))
	if err != nil {
		return s.missing(r, readmodel.ProductObject, id.String(), err)
	}
	return s.productDetail(w, r, &read, &row)
}

func (s *Service) getEnvironment(w http.ResponseWriter, r *httpapi.Request) error {
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	id, err := entity(r, readmodel.EnvironmentObject)
	if err != nil {
		return err
	}
	row, err := s.model.Environment(r.Context(), r.Identity.Account, event.EnvironmentID(id))
	if err != nil {
		return s.missing(r, readmodel.EnvironmentObject, id.String(), err)
	}
	return s.environmentDetail(w, r, &read, &row)
}

func (s *Service) getVersion(w http.ResponseWriter, r *httpapi.Request) error {
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	id, err := entity(r, readmodel.VersionObject)
	if err != nil {
		return err
	}
	row, err := s.model.Version(r.Context(), r.Identity.Account, event.VersionID(id))
	if err != nil {
		return s.missing(r, readmodel.VersionObject, id.String(), err)
	}
	return s.versionDetail(w, r, &read, &row)
}

// entity reads the id in the path; no object has an id of another form.
func entity(r *httpapi.Request, object readmodel.Object) (uuid.UUID, error) {
	text := r.PathValue("id")
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len(uuid.Nil.String()) {
		return uuid.Nil, httpapi.NotFound(string(object))
	}
	return id, nil
}
