package query

import (
	"net/http"
	"strings"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func (s *Service) getMatrix(w http.ResponseWriter, r *httpapi.Request) error {
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	f, err := s.matrixFilter(r)
	if err != nil {
		return err
	}
	m, err := s.model.Matrix(r.Context(), r.Identity.Account, f, readmodel.Page{After: r.After(), Limit: r.Limit()})
	if err != nil {
		return err
	}
	after := ""
	if m.More {
		after = m.Items[len(m.Items)-1].Key()
	}
	names := make(map[event.EnvironmentID]string, len(m.Environments))
	for i := range m.Environments {
		names[m.Environments[i].ID] = m.Environments[i].Name
	}
	items := show(m.Items, func(row *readmodel.MatrixItem) matrixItem { return matrixItemOf(row, names) })
	return read.answer(w, matrix{
		Environments: show(m.Environments, matrixColumnOf),
		List:         httpapi.NewList(r, items, after, httpapi.AsOf{}),
	})
}

// matrixFilter reads what the matrix is narrowed by. It must be asked behind fresh.
func (s *Service) matrixFilter(r *httpapi.Request) (f readmodel.MatrixFilter, err error) {
	f = readmodel.MatrixFilter{
		Search: r.QueryString("search"), DriftOnly: r.QueryBool("drift"),
		At: r.QueryTime("at"), KnownAt: r.QueryTime("known_at"),
	}
	if f.Product, err = s.product(r); err != nil {
		return f, err
	}
	f.Environment, f.Environments, err = s.columnFilter(r)
	return f, err
}

// isPattern tells a pattern from a name.
func isPattern(name string) bool { return strings.Contains(name, "*") }
