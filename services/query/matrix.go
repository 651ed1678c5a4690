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
	items := make([][]byte, len(m.Items))
	var scratch []byte
	for i := range m.Items {
		row := &m.Items[i]
		if items[i], err = row.Memo.Made(func() ([]byte, error) {
			scratch = in.append(scratch[:0], row)
			return scratch, nil // a memo clones it
		}); err != nil {
			return err
		}
		if row.Memo == nil {
			items[i] = bytes.Clone(items[i])
		}
	}
	return read.answer(w, fill(frame, items))
}

// noItems is where the items of a list belong. No text holds it: its quotes would be
// escaped.
var noItems = []byte(`"items":[]`)

// fill puts the items of a list, each written already, into one without any.
func fill(frame written, items [][]byte) written {
	head, tail, _ := bytes.Cut(frame, noItems)
	size := len(frame) + len(items)
	for _, item := range items {
		size += len(item)
	}
	out := make(written, 0, size)
	out = append(append(out, head...), noItems[:len(noItems)-1]...)
	for i, item := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, item...)
	}
	return append(append(out, ']'), tail...)
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
