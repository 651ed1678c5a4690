package query

import (
	"net/http"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func (s *Service) getMatrix(_ http.ResponseWriter, r *httpapi.Request) error {
	at, err := s.fresh(r)
	if err != nil {
		return err
	}
	f := readmodel.MatrixFilter{Search: r.QueryString("search"), DriftOnly: r.QueryBool("drift")}
	if name := r.QueryString("product"); name != "" {
		f.Product = event.ProductIDOf(r.Identity.Account, name)
	}
	if name := r.QueryString("environment"); name != "" {
		f.Environment = event.EnvironmentIDOf(r.Identity.Account, name)
	}
	m, err := s.model.Matrix(r.Context(), r.Identity.Account, f, page(r))
	if err != nil {
		return err
	}
	rows, after := cut(m.Items, r.Limit(), (*readmodel.MatrixItem).Key)
	names := make(map[event.EnvironmentID]string, len(m.Environments))
	for i := range m.Environments {
		names[m.Environments[i].ID] = m.Environments[i].Name
	}
	items := show(rows, func(row *readmodel.MatrixItem) matrixItem { return matrixItemOf(row, names) })
	return r.JSON(http.StatusOK, matrix{
		Environments: show(m.Environments, matrixColumnOf),
		List:         httpapi.NewList(r, items, after, at),
	})
}
