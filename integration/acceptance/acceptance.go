// Package acceptance answers which promises of the product are held by a test.
// rows.tsv has one promise a row; a test names the rows that it holds in its
// comment:
//
//	// TestRevokedKeyIsRefused …
//	// Rows: VR-23, VO-14
//	func TestRevokedKeyIsRefused(t *testing.T) {
//
// A row that no test names is open, not passed: the table tells what is missing
// as plainly as what fails.
package acceptance

import (
	_ "embed"
	"strings"
)

//go:embed rows.tsv
var rowsTSV string

// Row is one promise.
type Row struct {
	ID        string `json:"id"`
	Section   string `json:"section"`
	Assertion string `json:"assertion"`
}

// Rows gives all promises in the order of the document.
func Rows() []Row {
	var rows []Row
	_, body, _ := strings.Cut(rowsTSV, "\n") // the first line names the columns
	for line := range strings.Lines(body) {
		id, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		section, assertion, _ := strings.Cut(rest, "\t")
		rows = append(rows, Row{id, section, assertion})
	}
	return rows
}
