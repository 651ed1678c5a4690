package query

import (
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// product gives what the query parameter product names, by its name of now or
// an earlier one; zero where nothing is named. It must be asked behind fresh.
func (s *Service) product(r *httpapi.Request) (event.ProductID, error) {
	name := r.QueryString("product")
	if name == "" {
		return event.ProductID{}, nil
	}
	return s.model.ProductNamed(r.Context(), r.Identity.Account, name)
}

// environment gives what name means, as product does.
func (s *Service) environment(r *httpapi.Request, name string) (event.EnvironmentID, error) {
	if name == "" {
		return event.EnvironmentID{}, nil
	}
	return s.model.EnvironmentNamed(r.Context(), r.Identity.Account, name)
}
