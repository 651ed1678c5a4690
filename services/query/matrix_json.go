package query

import (
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// matrixWriter writes rows of the matrix as marshal does with a matrixItem, which a
// test holds it to. A matrix is thousands of cells: by reflection one takes 2.2 µs,
// by way of a matrixCell with its dozen texts 1.7, and so half of that.
type matrixWriter struct {
	heads map[event.EnvironmentID][]byte // how the cells of an environment begin
}

func newMatrixWriter(columns []readmodel.EnvironmentRow) matrixWriter {
	heads := make(map[event.EnvironmentID][]byte, len(columns))
	for i := range columns {
		e := &columns[i]
		head := appendUUID([]byte(`{"environment_id":`), e.ID)
		heads[e.ID] = appendText(append(head, `,"environment_name":`...), e.Name)
	}
	return matrixWriter{heads}
}

// rowRoom and cellRoom are about how long a row of the matrix and a cell of it are written.
const rowRoom, cellRoom = 128, 512

func roomOf(rows []readmodel.MatrixItem) (bytes int) {
	for i := range rows {
		bytes += rowRoom + len(rows[i].Cells)*cellRoom
	}
	return bytes
}

// rowsAlone is how many rows are written on one processor. A page of 500 rows of a past
// moment, of which nothing is kept, takes 3 ms so, when all else is done.
const rowsAlone = 100

// halves are where the second half of a page is written meanwhile.
var halves = sync.Pool{New: func() any { return new([]byte) }}

// rows writes rows, with commas between them.
func (m matrixWriter) rows(b []byte, rows []readmodel.MatrixItem) []byte {
	if len(rows) <= rowsAlone || rows[0].Memo != nil {
		return m.inOrder(b, rows)
	}
	first, second := rows[:len(rows)/2], rows[len(rows)/2:]
	half := halves.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
	defer halves.Put(half)
	var meanwhile sync.WaitGroup
	meanwhile.Go(func() { *half = m.inOrder(slices.Grow((*half)[:0], roomOf(second)), second) })
	b = m.inOrder(b, first)
	meanwhile.Wait()
	return append(append(b, ','), *half...)
}

func (m matrixWriter) inOrder(b []byte, rows []readmodel.MatrixItem) []byte {
	for i := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		row := &rows[i]
		if row.Memo == nil {
			b = m.append(b, row)
			continue
		}
		made, _ := row.Memo.Made(func() ([]byte, error) { return m.append(nil, row), nil }) // there is no error
		b = append(b, made...)
	}
	return b
}

// append writes the cells that ever had a success (contract 15).
func (m matrixWriter) append(b []byte, row *readmodel.MatrixItem) []byte {
	b = appendUUID(append(b, `{"product_id":`...), row.Product.ID)
	b = appendText(append(b, `,"product_name":`...), row.Product.Name)
	b = append(b, `,"drift":`...)
	if row.Drift {
		b = append(b, "true"...)
	} else {
		b = append(b, "false"...)
	}
	b = append(b, `,"cells":[`...)
	first := true
	for i := range row.Cells {
		if row.Cells[i].Live == nil {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = m.appendCell(b, &row.Cells[i])
	}
	return append(b, "]}"...)
}

func (m matrixWriter) appendCell(b []byte, c *readmodel.MatrixCell) []byte {
	r := c.Live
	b = append(b, m.heads[c.Environment]...)
	b = appendText(append(b, `,"version":`...), r.Version)
	b = appendUUID(append(b, `,"version_id":`...), r.VersionID)
	b = appendULID(append(b, `,"deployment_id":`...), r.ID)
	b = appendMoment(append(b, `,"deployed_at":`...), r.At)
	b = appendSome(append(b, `,"deployed_by":`...), r.By)
	b = appendText(append(b, `,"status":`...), r.Status.String())
	b = appendSome(append(b, `,"scm_sha":`...), r.SHA)
	b = appendSome(append(b, `,"build_number":`...), r.BuildNumber)
	b = appendSome(append(b, `,"deploy_url":`...), r.URL)
	b = append(b, `,"last_attempt":`...)
	t := c.LastAttempt
	if t == nil {
		return append(b, "null}"...)
	}
	b = appendULID(append(b, `{"deployment_id":`...), t.ID)
	b = appendText(append(b, `,"version":`...), t.Version)
	b = appendText(append(b, `,"status":`...), t.Status.String())
	b = appendMoment(append(b, `,"at":`...), t.At)
	return append(b, "}}"...)
}

func appendText(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // it replaces what is no UTF-8, and says so
	return b
}

// appendSome writes null for "".
func appendSome(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendText(b, s)
}

func appendUUID[ID ~[16]byte](b []byte, id ID) []byte {
	b = hex.AppendEncode(append(b, '"'), id[:4])
	for i := 4; i < 10; i += 2 {
		b = hex.AppendEncode(append(b, '-'), id[i:i+2])
	}
	return append(hex.AppendEncode(append(b, '-'), id[10:]), '"')
}

func appendULID(b []byte, id ulid.ULID) []byte {
	var text [ulid.EncodedSize]byte
	_ = id.MarshalTextTo(text[:]) // there is room
	return append(append(append(b, '"'), text[:]...), '"')
}

// appendMoment writes null for none.
func appendMoment(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, "null"...)
	}
	return append(t.UTC().AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}
