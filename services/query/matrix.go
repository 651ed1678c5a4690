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
	room := 0
	for i := range m.Items {
		room += rowRoom + len(m.Items[i].Cells)*cellRoom
	}
	out, err := fill(frame, len(m.Items), room, func(dst []byte, i int) ([]byte, error) {
		row := &m.Items[i]
		if row.Memo == nil {
			return in.append(dst, row), nil
		}
		made, err := row.Memo.Made(func() ([]byte, error) { return in.append(nil, row), nil })
		return append(dst, made...), err
	})
	if err != nil {
		return err
	}
	return read.answer(w, out)
}

// rowRoom and cellRoom are about how long a row of the matrix and a cell of it are written.
const rowRoom, cellRoom = 128, 512

// noItems is where the items of a list belong. No text holds it: its quotes would be
// escaped.
var noItems = []byte(`"items":[]`)

// fill puts so many items, which add writes, into a list without any. They take about
// as many bytes as room.
func fill(frame written, items, room int, add func(dst []byte, i int) ([]byte, error)) (out written, err error) {
	head, tail, _ := bytes.Cut(frame, noItems)
	out = make(written, 0, len(frame)+room)
	out = append(append(out, head...), noItems[:len(noItems)-1]...)
	for i := range items {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = add(out, i); err != nil {
			return nil, err
		}
	}
	return append(append(out, ']'), tail...), nil
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
