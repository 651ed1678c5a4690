package query

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func (s *Service) getMatrix(w http.ResponseWriter, r *httpapi.Request) error {
	at, err := s.fresh(r)
	if err != nil {
		return err
	}
	f := readmodel.MatrixFilter{
		Search: r.QueryString("search"), DriftOnly: r.QueryBool("drift"),
		At: r.QueryTime("at"), KnownAt: r.QueryTime("known_at"),
	}
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
	answer := matrix{
		Environments: show(m.Environments, matrixColumnOf),
		List:         httpapi.NewList(r, items, after, at),
	}
	tag, err := matrixTag(answer)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", tag)
	if httpapi.MatchesETag(r.Header.Get("If-None-Match"), tag) {
		if err := r.Reverify(); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return r.JSON(http.StatusOK, answer)
}

// matrixTag names what an answer shows. How new it is does not count, so that
// the tag lasts while others write; it is weak for that reason.
func matrixTag(m matrix) (string, error) {
	m.AsOf = httpapi.AsOf{}
	h := sha256.New()
	if err := json.MarshalWrite(h, m, jsontext.AllowInvalidUTF8(true)); err != nil {
		return "", fmt.Errorf("tag the matrix: %w", err)
	}
	return `W/"` + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12]) + `"`, nil
}
