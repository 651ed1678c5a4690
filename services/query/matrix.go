package query

import (
	"bytes"
	"net/http"
	"strings"

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
	in := newMatrixWriter(m.Environments)
	frame, err := marshal(matrix{
		Environments: show(m.Environments, matrixColumnOf),
		List:         httpapi.NewList[matrixItem](r, nil, after, httpapi.AsOf{}),
	})
	if err != nil {
		return err
	}
	return read.answer(w, in.fill(frame, m.Items))
}

// noItems is where the items of a list belong. No text holds it: its quotes would be
// escaped.
var noItems = []byte(`"items":[]`)

// fill puts rows into a list without any.
func (m matrixWriter) fill(frame written, rows []readmodel.MatrixItem) written {
	head, tail, _ := bytes.Cut(frame, noItems)
	out := make(written, 0, len(frame)+roomOf(rows))
	out = append(append(out, head...), noItems[:len(noItems)-1]...)
	return append(append(m.rows(out, rows), ']'), tail...)
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
