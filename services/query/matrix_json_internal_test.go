package query

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

// A row of the matrix is written by hand as it would be by the library.
func TestMatrixItemIsWrittenAsTheLibraryDoes(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "1.2.3", "<a>&\u2028\"\\\x00\x7f", "a\xffb", "é😀"}))
	moment := rapid.Custom(func(t *rapid.T) *time.Time {
		times := []time.Time{{}, time.UnixMilli(0), time.UnixMilli(1_790_000_000_123), time.UnixMilli(-60_000_000_000_000), time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))}
		return httpapi.Moment(rapid.SampledFrom(times).Draw(t, "time"))
	})
	some := func(t *rapid.T, label string) httpapi.Text { return httpapi.Text(text.Draw(t, label)) }
	rapid.Check(t, func(t *rapid.T) {
		item := matrixItem{ProductID: text.Draw(t, "id"), ProductName: text.Draw(t, "name"), Drift: rapid.Bool().Draw(t, "drift"), Cells: []matrixCell{}}
		for range rapid.IntRange(0, 3).Draw(t, "cells") {
			c := matrixCell{
				EnvironmentID: text.Draw(t, "environment id"), EnvironmentName: text.Draw(t, "environment"), Version: text.Draw(t, "version"),
				VersionID: text.Draw(t, "version id"), DeploymentID: text.Draw(t, "deployment"), DeployedAt: moment.Draw(t, "at"), DeployedBy: some(t, "by"),
				Status: text.Draw(t, "status"), SCMSHA: some(t, "sha"), BuildNumber: some(t, "number"), DeployURL: some(t, "url"),
			}
			if rapid.Bool().Draw(t, "attempted") {
				c.LastAttempt = &lastAttempt{text.Draw(t, "deployment"), text.Draw(t, "version"), text.Draw(t, "status"), moment.Draw(t, "at")}
			}
			item.Cells = append(item.Cells, c)
		}
		want, err := marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		if got := item.append(nil); string(got) != string(want) {
			t.Fatalf("it is written\n%s\nwant\n%s", got, want)
		}
	})
}
