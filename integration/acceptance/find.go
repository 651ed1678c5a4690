package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Test is a test function that names rows.
type Test struct {
	Package string // import path
	Name    string
	Rows    []string
	Where   string // file:line of the comment
}

const marker = "Rows:"

// Find gives the tests of every module of the workspace that name rows. Faults
// are comments that name rows and belong to no test: they would hold nothing.
func Find(ctx context.Context) (tests []Test, faults []string, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles", "work").Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, nil, fmt.Errorf("list the packages: %w", err)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); err != nil {
			return nil, nil, fmt.Errorf("list the packages: %w", err)
		}
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			found, wrong, err := Parse(p.ImportPath, filepath.Join(p.Dir, name), nil)
			if err != nil {
				return nil, nil, err
			}
			tests, faults = append(tests, found...), append(faults, wrong...)
		}
	}
	return tests, faults, nil
}

// Parse reads one test file; src is as in parser.ParseFile.
func Parse(pkg, file string, src any) (tests []Test, faults []string, err error) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, fmt.Errorf("read the tests: %w", err)
	}
	where := func(c *ast.Comment) string {
		return fmt.Sprintf("%s:%d", filepath.Base(file), files.Position(c.Pos()).Line)
	}
	held := map[*ast.Comment]bool{}
	for _, decl := range parsed.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Doc == nil || fn.Recv != nil || !isTest(fn.Name.Name) {
			continue
		}
		test := Test{Package: pkg, Name: fn.Name.Name}
		for _, c := range fn.Doc.List {
			ids, ok := rowsOf(c)
			if !ok {
				continue
			}
			held[c] = true
			test.Rows, test.Where = append(test.Rows, ids...), where(c)
		}
		if len(test.Rows) > 0 {
			tests = append(tests, test)
		}
	}
	for _, group := range parsed.Comments {
		for _, c := range group.List {
			if _, ok := rowsOf(c); ok && !held[c] {
				faults = append(faults, fmt.Sprintf("%s %s: %q is not directly above a test", pkg, where(c), c.Text))
			}
		}
	}
	return tests, faults, nil
}

// isTest says whether go test -run finds a function of that name.
func isTest(name string) bool {
	return strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz")
}

func rowsOf(c *ast.Comment) (ids []string, ok bool) {
	text, ok := strings.CutPrefix(c.Text, "// "+marker)
	if !ok {
		return nil, false
	}
	for id := range strings.SplitSeq(text, ",") {
		ids = append(ids, strings.TrimSpace(id))
	}
	return ids, true
}
