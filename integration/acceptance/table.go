package acceptance

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Table is the answer: every row with what its tests say.
type Table struct {
	Rows   []TableRow `json:"rows"`
	Totals Totals     `json:"totals"`
	Faults []string   `json:"faults"` // comments that hold nothing
}

// TableRow is one row of the answer.
type TableRow struct {
	Row
	Status Status      `json:"status"`
	Tests  []TableTest `json:"tests"`
}

// TableTest is a test that names the row.
type TableTest struct {
	Package string `json:"package"`
	Name    string `json:"name"`
	Status  Status `json:"status"`
	Reason  string `json:"reason,omitempty"`
	output  string
}

// Totals counts rows.
type Totals struct {
	Rows int `json:"rows"`
	Pass int `json:"pass"`
	Fail int `json:"fail"`
	Open int `json:"open"`
}

// Tabulate puts tests and their results beside the rows. A row passes if all
// tests that name it pass.
func Tabulate(rows []Row, tests []Test, results Results, faults []string) Table {
	table := Table{Faults: slices.Clone(faults)}
	known := map[string]bool{}
	for _, row := range rows {
		known[row.ID] = true
		out := TableRow{Row: row, Status: Open}
		for _, t := range tests {
			if !slices.Contains(t.Rows, row.ID) {
				continue
			}
			r := results[[2]string{t.Package, t.Name}]
			out.Tests = append(out.Tests, TableTest{t.Package, t.Name, r.Status, r.Reason, r.Output})
		}
		has := func(s Status) bool {
			return slices.ContainsFunc(out.Tests, func(t TableTest) bool { return t.Status == s })
		}
		switch {
		case has(Fail):
			out.Status = Fail
			table.Totals.Fail++
		case len(out.Tests) == 0 || has(Open):
			table.Totals.Open++
		default:
			out.Status = Pass
			table.Totals.Pass++
		}
		table.Totals.Rows++
		table.Rows = append(table.Rows, out)
	}
	for _, t := range tests {
		for _, id := range t.Rows {
			if !known[id] {
				table.Faults = append(table.Faults, fmt.Sprintf("%s %s: %s names row %q, which does not exist", t.Package, t.Where, t.Name, id))
			}
		}
	}
	return table
}

// OK says that no row fails and that every comment holds something.
func (t *Table) OK() bool { return t.Totals.Fail == 0 && len(t.Faults) == 0 }

// Print writes the table for people; prefix is left out of the names of packages.
func (t *Table) Print(w io.Writer, prefix string) error {
	var text strings.Builder
	section := ""
	for _, row := range t.Rows {
		if row.Section != section {
			section = row.Section
			fmt.Fprintf(&text, "\n%s\n", section)
		}
		fmt.Fprintf(&text, "  %-6s %-4s", row.ID, row.Status)
		for i, test := range row.Tests {
			separator := "  "
			if i > 0 {
				separator = ", "
			}
			fmt.Fprintf(&text, "%s%s.%s", separator, strings.TrimPrefix(test.Package, prefix), test.Name)
			if test.Status != Pass {
				fmt.Fprintf(&text, " [%s]", strings.Trim(string(test.Status)+": "+test.Reason, ": "))
			}
		}
		text.WriteByte('\n')
	}
	for test := range t.failed() {
		fmt.Fprintf(&text, "\nFAIL %s.%s\n%s", strings.TrimPrefix(test.Package, prefix), test.Name, test.output)
	}
	for i, fault := range t.Faults {
		if i == 0 {
			text.WriteByte('\n')
		}
		fmt.Fprintf(&text, "%s\n", strings.TrimPrefix(fault, prefix))
	}
	fmt.Fprintf(&text, "\n%d rows: %d pass, %d fail, %d open\n", t.Totals.Rows, t.Totals.Pass, t.Totals.Fail, t.Totals.Open)
	_, err := io.WriteString(w, text.String())
	return err
}

// failed gives each failed test once, however many rows it holds.
func (t *Table) failed() func(yield func(TableTest) bool) {
	return func(yield func(TableTest) bool) {
		seen := map[[2]string]bool{}
		for _, row := range t.Rows {
			for _, test := range row.Tests {
				key := [2]string{test.Package, test.Name}
				if test.Status != Fail || seen[key] {
					continue
				}
				seen[key] = true
				if !yield(test) {
					return
				}
			}
		}
	}
}
