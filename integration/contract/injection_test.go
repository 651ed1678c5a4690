package contract_test

import (
	"bytes"
	"encoding/csv"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// harmful are texts that mean something to SQL, to a log, to a spreadsheet, to a
// page or to a template. They may stand in names, which have no control characters.
var harmful = []string{
	`' OR '1'='1`, `'; DROP TABLE deployments; --`, `\'; SELECT 1; --`, `\`, `\\'`, "`x`", `"`, `{account:String}`, `{p0:UInt64}`, `$1 ? :name @p0 %s %d`, `/* */ --`,
	`=cmd|' /C calc'!A0`, `+1+1`, `-2+3`, `@SUM(A1)`, `<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `{{7*7}}`, `${jndi:ldap://x}`, `<%= 7*7 %>`, `$(id)`,
	`../../etc/passwd`, `%2e%2e%2f`, `production*`, `a%b_c`, `[a-z]`, `null`, "\u202egnp.exe", "e\u0301", "é", "\u2028", "日本 👩‍👩‍👧‍👧",
}

// controls may stand where the document allows any text.
var controls = []string{"a\nlevel=ERROR msg=forged", "a\r\nX-Forged: yes", "\t=1", "\r=1", "\x1b[31mred", "a\x00b", "\x7f", "\u0085", "\ufeff", "\ufffd"}

// What is stored comes back byte for byte, whatever it would mean to the engine,
// and a filter with it finds it and nothing else.
//
// Rows: VR-11
func TestHarmfulTextsAreTextEverywhere(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		var lines []any
		extra := func(i int) body {
			return body{"text": harmful[i], "nested": body{harmful[i]: []any{harmful[i], controls[i%len(controls)]}}}
		}
		for i, text := range harmful {
			lines = append(lines, body{
				"kind": "deployment", "product_name": l.product + text, "version": text, "environment_name": text, "status": "success", "invoke_id": text,
				"deployed_by": text, "source_system": text, "build_number": text, "scm_branch": controls[i%len(controls)] + text,
				"deploy_url": text, "error_message": controls[i%len(controls)], "extra_metadata": extra(i),
			})
		}
		for i, status := range l.lines(lines).is(http.StatusOK).list("results") {
			if at(status, "status") != float64(http.StatusOK) {
				t.Fatalf("%q: %v", harmful[i], status)
			}
		}
		for i, text := range harmful {
			want := body{
				"product_name": l.product + text, "version": text, "environment_name": text, "deployed_by": text, "source_system": text,
				"invoke_id": text, "build_number": text, "scm_branch": controls[i%len(controls)] + text, "deploy_url": text,
			}
			for _, filter := range [][]string{
				{"product", l.product + text},
				{"product", l.product + text, "environment", text, "version", text, "deployed_by", text, "source_system", text, "invoke_id", text, "meta.text", text},
			} {
				found := l.read(where("/deployments/", filter...))
				if n := len(found.list("items")); n != 1 {
					t.Fatalf("%q finds %d deployments with %d filters", text, n, len(filter)/2)
				}
				item := body{}
				for name, value := range want {
					item["items.0."+name] = value
				}
				found.shows(item)
				if got := at(found.parsed(), "items.0.extra_metadata"); !same(got, extra(i)) {
					t.Errorf("%q: extra_metadata came back as %v", text, got)
				}
			}
			id := l.read(where("/deployments/", "product", l.product+text)).text("items.0.id")
			l.read("/deployments/" + id).shows(want)
			differ(t, "matrix "+text, []string{l.product + text}, l.read(where("/matrix", "product", l.product+text)).each("items", "product_name"))
			row := l.read(where("/exports/deployments", "product", l.product+text)).rows()[0]
			differ(t, "export "+text, any(controls[i%len(controls)]+text), row["scm_branch"])
		}
		everything := l.read(where("/matrix", "search", l.product, "limit", "500")).each("items", "product_name")
		if len(everything) != len(harmful) {
			t.Errorf("a search finds %d products of %d", len(everything), len(harmful))
		}
	})
}

// same compares what was sent with what came back.
func same(got any, want body) bool {
	return strings.TrimSpace(body{"v": got}.String()) == strings.TrimSpace(body{"v": want}.String())
}

// A spreadsheet takes no cell for a formula, and numbers and times stay as they are.
func TestNoCellOfAnExportIsAFormula(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, text := range slices.Concat(harmful, controls) {
			l.deployed(l.deployment("success", body{"deployed_by": text, "invoke_id": text}))
		}
		a := l.read(where("/exports/deployments", "product", l.product, "format", "csv"))
		table, err := csv.NewReader(bytes.NewReader(a.raw)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		by := slices.Index(table[0], "deployed_by")
		seen := map[string]bool{}
		for _, row := range table[1:] {
			for _, cell := range row {
				if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) {
					t.Errorf("a spreadsheet runs %q", cell)
				}
			}
			seen[strings.ReplaceAll(strings.TrimPrefix(row[by], "'"), "\r\n", "\n")] = true
		}
		for _, text := range slices.Concat(harmful, controls) {
			if !seen[strings.ReplaceAll(strings.TrimPrefix(text, "'"), "\r\n", "\n")] {
				t.Errorf("%q is not in the export", text)
			}
		}
	})
}
