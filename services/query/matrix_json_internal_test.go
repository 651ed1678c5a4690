package query

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// A row of the matrix is written by hand as it would be by the library.
func TestMatrixItemIsWrittenAsTheLibraryDoes(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "1.2.3", "<a>&\u2028\"\\\x00\x7f", "a\xffb", "é😀"}))
	moment := rapid.SampledFrom([]time.Time{{}, time.UnixMilli(0), time.UnixMilli(1_790_000_000_123), time.UnixMilli(-60_000_000_000_000), time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))})
	id := rapid.Custom(func(t *rapid.T) (id [16]byte) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), len(id), len(id)).Draw(t, "bytes"))
		return id
	})
	status := rapid.SampledFrom([]event.Status{event.Started, event.Completed, event.Failed, event.Aborted})
	rapid.Check(t, func(t *rapid.T) {
		var columns []readmodel.EnvironmentRow
		names := map[event.EnvironmentID]string{}
		row := readmodel.MatrixItem{Drift: rapid.Bool().Draw(t, "drift")}
		row.Product.ID, row.Product.Name = event.ProductID(id.Draw(t, "id")), text.Draw(t, "name")
		for range rapid.IntRange(0, 3).Draw(t, "cells") {
			e := event.Environment{ID: event.EnvironmentID(id.Draw(t, "environment id")), Name: text.Draw(t, "environment")}
			columns, names[e.ID] = append(columns, readmodel.EnvironmentRow{Environment: e}), e.Name
			c := readmodel.MatrixCell{Environment: e.ID}
			if rapid.IntRange(0, 4).Draw(t, "live") > 0 {
				c.Live = &readmodel.Success{
					ID: id.Draw(t, "deployment"), Version: text.Draw(t, "version"), VersionID: event.VersionID(id.Draw(t, "version id")),
					Status: status.Draw(t, "status"), At: moment.Draw(t, "at"),
				}
				for _, a := range []*string{&c.Live.By, &c.Live.SHA, &c.Live.BuildNumber, &c.Live.URL} {
					*a = text.Draw(t, "attribute")
				}
			}
			if rapid.Bool().Draw(t, "attempted") {
				c.LastAttempt = &readmodel.LastAttempt{ID: ulid.ULID(id.Draw(t, "deployment")), Version: text.Draw(t, "version"), Status: status.Draw(t, "status"), At: moment.Draw(t, "at")}
			}
			row.Cells = append(row.Cells, c)
		}
		want, err := marshal(matrixItemOf(&row, names))
		if err != nil {
			t.Fatal(err)
		}
		if got := newMatrixWriter(columns).append(nil, &row); string(got) != string(want) {
			t.Fatalf("it is written\n%s\nwant\n%s", got, want)
		}
	})
}

// Rows are written as each of them is on its own, however many, with memos or without.
func TestRowsOfTheMatrixAreWrittenInOrder(t *testing.T) {
	environment := event.EnvironmentID{1}
	m := newMatrixWriter([]readmodel.EnvironmentRow{{Environment: event.Environment{ID: environment, Name: "production"}}})
	for _, n := range []int{0, 1, 2, rowsAlone, rowsAlone + 1, 5*rowsAlone + 3} {
		for _, memos := range []bool{false, true} {
			rows := make([]readmodel.MatrixItem, n)
			var want [][]byte
			for i := range rows {
				version := strings.Repeat("9", i%7) // "" where nothing is live
				rows[i].Product.Name = fmt.Sprint("product ", i)
				if version != "" {
					rows[i].Cells = []readmodel.MatrixCell{{Environment: environment, Live: &readmodel.Success{Version: version}}}
				}
				want = append(want, m.append(nil, &rows[i]))
				if memos {
					rows[i].Memo = readmodel.NewMemo(func(int) {})
				}
			}
			for range 2 { // and again, from memos and into what was used before
				if got := m.rows([]byte("["), rows); string(got) != "["+string(bytes.Join(want, []byte(","))) {
					t.Errorf("%d rows, memos %t, are written\n%.1000s", n, memos, got)
				}
			}
		}
	}
}

// matrixItemOf is what a row shows: the cells that ever had a success (contract 15).
func matrixItemOf(row *readmodel.MatrixItem, names map[event.EnvironmentID]string) matrixItem {
	item := matrixItem{ProductID: row.Product.ID.String(), ProductName: row.Product.Name, Drift: row.Drift, Cells: []matrixCell{}}
	for i := range row.Cells {
		c := &row.Cells[i]
		if c.Live == nil {
			continue
		}
		item.Cells = append(item.Cells, matrixCellOf(c, names[c.Environment]))
	}
	return item
}
