package query

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

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
	answer := matrix{
		Environments: show(m.Environments, matrixColumnOf),
		List:         httpapi.NewList(r, items, after, at),
	}
	tagged := answer
	tagged.AsOf = httpapi.AsOf{}
	return tag(w, r, tagged, answer)
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

// tag answers with a read of state, or with 304 where the caller has it. The
// ETag names what the answer shows. How new that is does not count, so tagged is
// the answer without it, and the tag lasts while others write; it is weak for
// that reason.
func tag(w http.ResponseWriter, r *httpapi.Request, tagged, answer any) error {
	h := sha256.New()
	if err := json.MarshalWrite(h, tagged, jsontext.AllowInvalidUTF8(true), json.Deterministic(true)); err != nil {
		return fmt.Errorf("tag an answer: %w", err)
	}
	text := `W/"` + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12]) + `"`
	w.Header().Set("ETag", text)
	if httpapi.MatchesETag(r.Header.Get("If-None-Match"), text) {
		if err := r.Reverify(); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return r.JSON(http.StatusOK, answer)
}

// isPattern tells a pattern from a name.
func isPattern(name string) bool { return strings.Contains(name, "*") }
