package acceptance_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/integration/acceptance"
)

func TestEveryRowHasItsOwnIDAndAnAssertion(t *testing.T) {
	id := regexp.MustCompile(`^(VR|VF|VO|VT|D|S)-X?[0-9]+$`)
	seen := map[string]bool{}
	for _, row := range acceptance.Rows() {
		if !id.MatchString(row.ID) || seen[row.ID] || row.Section == "" || row.Assertion == "" {
			t.Errorf("row %+v", row)
		}
		seen[row.ID] = true
	}
	if len(seen) != 138 {
		t.Errorf("%d rows, the document has 138", len(seen))
	}
}

// The marker is put together here, so that this file names no rows itself.
const comment = "// " + "Rows:"

func TestRowsAreReadFromTheCommentOfATest(t *testing.T) {
	source := `package x_test

// TestOne holds something.
` + comment + ` VR-01,VT-03
func TestOne(t *testing.T) {}

` + comment + ` S-07
` + comment + `  VO-X1 , D-02
func TestTwo(t *testing.T) {}

// TestThree names no rows.
func TestThree(t *testing.T) {}

` + comment + ` D-01
func FuzzFour(f *testing.F) {}
`
	tests, faults, err := acceptance.Parse("x", "dir/x_test.go", source)
	if err != nil || faults != nil {
		t.Fatal(err, faults)
	}
	want := []acceptance.Test{
		{Package: "x", Name: "TestOne", Rows: []string{"VR-01", "VT-03"}, Where: "x_test.go:4"},
		{Package: "x", Name: "TestTwo", Rows: []string{"S-07", "VO-X1", "D-02"}, Where: "x_test.go:8"},
		{Package: "x", Name: "FuzzFour", Rows: []string{"D-01"}, Where: "x_test.go:14"},
	}
	if diff := cmp.Diff(want, tests); diff != "" {
		t.Error(diff)
	}
}

func TestRowsThatNoTestHoldsAreFaults(t *testing.T) {
	for name, source := range map[string]string{
		"above a helper":        comment + " VR-01\nfunc helper() {}\n",
		"above a method":        comment + " VR-01\nfunc (suite) TestOne() {}\n",
		"apart from the test":   comment + " VR-01\n\nfunc TestOne(t *testing.T) {}\n",
		"inside the test":       "func TestOne(t *testing.T) {\n\t" + comment + " VR-01\n}\n",
		"above a table of rows": comment + " VR-01\nvar rows = 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			tests, faults, err := acceptance.Parse("x", "x_test.go", "package x_test\n\n"+source)
			if err != nil || len(tests) != 0 || len(faults) != 1 {
				t.Error(err, tests, faults)
			}
		})
	}
}

func TestResultsOfGoTest(t *testing.T) {
	events := `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestGood"}
{"Action":"output","Package":"p","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"pass","Package":"p","Test":"TestGood/sub"}
{"Action":"pass","Package":"p","Test":"TestGood"}
{"Action":"output","Package":"p","Test":"TestBad/sub","Output":"    x_test.go:9: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestBad/sub"}
{"Action":"fail","Package":"p","Test":"TestBad"}
{"Action":"output","Package":"p","Test":"TestSkipped","Output":"=== RUN   TestSkipped\n"}
{"Action":"output","Package":"p","Test":"TestSkipped","Output":"    x_test.go:12: no client here\n"}
{"Action":"output","Package":"p","Test":"TestSkipped","Output":"--- SKIP: TestSkipped (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestSkipped"}
{"Action":"output","Package":"p","Test":"TestPart/sub","Output":"    x_test.go:15: not on this system\n"}
{"Action":"skip","Package":"p","Test":"TestPart/sub"}
{"Action":"pass","Package":"p","Test":"TestPart"}
{"Action":"skip","Package":"p","Test":"TestSilent"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"fail","Package":"p"}
`
	results := acceptance.Results{}
	if err := acceptance.ReadResults(strings.NewReader(events), results); err != nil {
		t.Fatal(err)
	}
	want := acceptance.Results{
		{"p", "TestGood"}:    {Status: acceptance.Pass},
		{"p", "TestBad"}:     {Status: acceptance.Fail, Output: "    x_test.go:9: wrong\n"},
		{"p", "TestSkipped"}: {Status: acceptance.Open, Reason: "no client here"},
		{"p", "TestPart"}:    {Status: acceptance.Open, Reason: "not on this system"},
		{"p", "TestSilent"}:  {Status: acceptance.Open, Reason: "skipped without a reason"},
	}
	if diff := cmp.Diff(want, results); diff != "" {
		t.Error(diff)
	}
}

func TestARowPassesOnlyIfAllItsTestsPass(t *testing.T) {
	rows := []acceptance.Row{{ID: "A"}, {ID: "B"}, {ID: "C"}, {ID: "D"}}
	tests := []acceptance.Test{
		{Package: "p", Name: "TestGood", Rows: []string{"A", "B", "C"}},
		{Package: "p", Name: "TestBad", Rows: []string{"B"}},
		{Package: "p", Name: "TestSkipped", Rows: []string{"B", "C"}},
	}
	results := acceptance.Results{
		{"p", "TestGood"}:    {Status: acceptance.Pass},
		{"p", "TestBad"}:     {Status: acceptance.Fail},
		{"p", "TestSkipped"}: {Status: acceptance.Open, Reason: "no client"},
	}
	table := acceptance.Tabulate(rows, tests, results, nil)
	var got []acceptance.Status
	for _, row := range table.Rows {
		got = append(got, row.Status)
	}
	if diff := cmp.Diff([]acceptance.Status{acceptance.Pass, acceptance.Fail, acceptance.Open, acceptance.Open}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(acceptance.Totals{Rows: 4, Pass: 1, Fail: 1, Open: 2}, table.Totals); diff != "" || table.OK() {
		t.Error(diff, table.OK())
	}
}

func TestARowThatDoesNotExistIsAFault(t *testing.T) {
	tests := []acceptance.Test{{Package: "p", Name: "TestGood", Rows: []string{"A", "Z-99"}, Where: "x_test.go:3"}}
	results := acceptance.Results{{"p", "TestGood"}: {Status: acceptance.Pass}}
	table := acceptance.Tabulate([]acceptance.Row{{ID: "A"}}, tests, results, nil)
	want := []string{`p x_test.go:3: TestGood names row "Z-99", which does not exist`}
	if diff := cmp.Diff(want, table.Faults); diff != "" || table.OK() {
		t.Error(diff, table.OK())
	}
}
