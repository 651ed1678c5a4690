package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// Status is what is known of a test or a row.
type Status string

// A row is Open where nobody has asked: no test names it, or the test was skipped.
const (
	Pass Status = "pass"
	Fail Status = "fail"
	Open Status = "open"
)

// Result is what became of a test.
type Result struct {
	Status Status
	Reason string // why it is open
	Output string // what it printed, where it failed
}

// Results are found by package and name of the test.
type Results map[[2]string]Result

// Run runs these tests and no others, one package at a time; before is told of each.
func Run(ctx context.Context, tests []Test, before func(pkg string, tests int)) (Results, error) {
	byPackage := map[string][]string{}
	var order []string
	for _, t := range tests {
		if byPackage[t.Package] == nil {
			order = append(order, t.Package)
		}
		byPackage[t.Package] = append(byPackage[t.Package], t.Name)
	}
	results := Results{}
	for _, pkg := range order {
		names := byPackage[pkg]
		before(pkg, len(names))
		// Tests that run the real binary depend on more than the go command can see, hence -count.
		cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout=30m", "-run", "^("+strings.Join(names, "|")+")$", pkg) //nolint:gosec // names are identifiers, found by the parser
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
			return nil, fmt.Errorf("run the tests of %s: %w", pkg, err)
		}
		if err := ReadResults(bytes.NewReader(out), results); err != nil {
			return nil, fmt.Errorf("run the tests of %s: %w", pkg, err)
		}
		for _, name := range names {
			if _, ok := results[[2]string{pkg, name}]; !ok {
				results[[2]string{pkg, name}] = Result{Status: Fail, Reason: "did not finish", Output: plain(out)}
			}
		}
	}
	return results, nil
}

// testEvent is a line of go test -json.
type testEvent struct {
	Action, Package, Test, Output string
}

// ReadResults adds to results what go test -json says. A test with a skipped
// subtest is open as well: a part of its promise was not asked.
func ReadResults(r io.Reader, results Results) error {
	printed := map[[2]string]string{}
	skipped := map[[2]string]string{}
	for dec := json.NewDecoder(r); ; {
		var e testEvent
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read what go test says: %w", err)
		}
		if e.Test == "" {
			continue
		}
		top, _, isSub := strings.Cut(e.Test, "/")
		key, full := [2]string{e.Package, top}, [2]string{e.Package, e.Test}
		switch e.Action {
		case "output":
			printed[full] += e.Output
			if isSub {
				printed[key] += e.Output
			}
		case "skip":
			skipped[key] = reason(printed[full])
			if !isSub {
				results[key] = Result{Status: Open, Reason: skipped[key]}
			}
		case "pass":
			if isSub {
				continue
			}
			result := Result{Status: Pass}
			if why, ok := skipped[key]; ok {
				result = Result{Status: Open, Reason: why}
			}
			results[key] = result
		case "fail":
			if !isSub {
				results[key] = Result{Status: Fail, Output: printed[key]}
			}
		}
	}
}

var position = regexp.MustCompile(`^\S+\.go:\d+: `)

// reason is what a skipped test said, without the frame that go test puts around it.
func reason(output string) string {
	said := slices.DeleteFunc(strings.Split(output, "\n"), func(line string) bool {
		line = strings.TrimSpace(line)
		return line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ")
	})
	for i, line := range said {
		said[i] = position.ReplaceAllString(strings.TrimSpace(line), "")
	}
	if len(said) == 0 {
		return "skipped without a reason"
	}
	return strings.Join(said, " ")
}

// plain is the text in the lines of go test -json, build errors included.
func plain(lines []byte) string {
	var text strings.Builder
	for dec := json.NewDecoder(bytes.NewReader(lines)); ; {
		var e testEvent
		if dec.Decode(&e) != nil {
			return text.String()
		}
		text.WriteString(e.Output)
	}
}
