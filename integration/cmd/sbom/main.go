// Command sbom lists the modules that the shipped program is built from, with
// their licences, as CycloneDX JSON on the standard output. It fails where a
// licence is none of those that allowed names.
//
// It reads what the build reads, the module cache, and asks nobody.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// program is what is shipped.
const program = "github.com/shipledger/shipledger/services/all/cmd/shipledger"

const ours = "github.com/shipledger/shipledger/"

// allowed are the licences, by their SPDX names, that a program under Apache-2.0
// may be shipped with. Most ask for nothing but that their text goes along;
// MPL-2.0 asks for the source of its own files, which are used as they are.
var allowed = []string{"Apache-2.0", "MIT", "MIT-0", "MPL-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "0BSD", "CC0-1.0", "Unlicense"}

// marks are sentences by which the text of a licence is known, the narrower ones
// first. Every sentence of a row must be there.
var marks = []struct {
	spdx      string
	sentences []string
}{
	{"MPL-2.0", []string{"mozilla public license"}}, // it names the next ones
	{"AGPL-3.0", []string{"gnu affero general public license"}},
	{"LGPL-3.0", []string{"gnu lesser general public license"}},
	{"GPL-3.0", []string{"gnu general public license"}},
	{"EPL-2.0", []string{"eclipse public license"}},
	{"BUSL-1.1", []string{"business source license"}},
	{"SSPL-1.0", []string{"server side public license"}},
	{"Apache-2.0", []string{"apache license", "version 2.0"}},
	{"Apache-2.0", []string{"licensed under the apache license"}},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "neither the name"}},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "may not be used to endorse"}},
	{"BSD-2-Clause", []string{"redistribution and use in source and binary forms", "redistributions in binary form must reproduce"}},
	{"MIT", []string{"permission is hereby granted, free of charge", "the above copyright notice and this permission notice shall be included"}},
	{"MIT", []string{"permission is hereby granted, free of charge", "the above copyright notice and this permission notice (including the next paragraph) shall be included"}},
	{"MIT-0", []string{"permission is hereby granted, free of charge", "to deal in the software without restriction"}},
	{"ISC", []string{"permission to use, copy, modify, and", "for any purpose with or without fee is hereby granted, provided that the above copyright notice"}},
	{"0BSD", []string{"permission to use, copy, modify, and", "for any purpose with or without fee is hereby granted"}},
	{"CC0-1.0", []string{"cc0 1.0 universal"}},
	{"Unlicense", []string{"this is free and unencumbered software released into the public domain"}},
}

// A module is one that the program is built from.
type module struct {
	Path, Version, Dir, Sum string
	Main                    bool
	licence                 string
}

func main() {
	modules, err := modulesOf(program)
	if err == nil {
		err = licensed(modules)
	}
	if err == nil {
		err = write(os.Stdout, modules)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// modulesOf gives the modules of others whose packages a program contains.
func modulesOf(of string) ([]module, error) {
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-deps", "-json=Module", of)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list what %s is built from: %w\n%s", of, err, stderr.Bytes())
	}
	seen := map[string]module{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Module *struct {
				module
				Replace *module
			}
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read the list: %w", err)
		}
		if p.Module == nil || p.Module.Main || strings.HasPrefix(p.Module.Path+"/", ours) {
			continue
		}
		m := p.Module.module
		if r := p.Module.Replace; r != nil {
			m = *r
		}
		seen[m.Path] = m
	}
	var all []module
	for _, m := range seen {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// licensed finds the licence of each module, and gives all that may not be.
func licensed(modules []module) error {
	var faults []error
	for i := range modules {
		m := &modules[i]
		found, err := licenceIn(m.Dir)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("%s: %w", m.Path, err))
		case !slices.Contains(allowed, found):
			faults = append(faults, fmt.Errorf("%s is under %s, which is not allowed", m.Path, found))
		}
		m.licence = found
	}
	return errors.Join(faults...)
}

// licenceIn gives the licence that stands in the folder of a module.
func licenceIn(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		name := strings.ToLower(e.Name())
		if e.IsDir() || !strings.HasPrefix(name, "licen") && !strings.HasPrefix(name, "copying") && !strings.HasPrefix(name, "unlicense") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		if found := licenceOf(text); found != "" {
			return found, nil
		}
	}
	return "", errors.New("no licence that is known by its text")
}

// licenceOf knows a licence by its text; "" if it does not.
func licenceOf(text []byte) string {
	plain := strings.Join(strings.Fields(strings.ToLower(string(text))), " ")
	for _, m := range marks {
		if !slices.ContainsFunc(m.sentences, func(s string) bool { return !strings.Contains(plain, s) }) {
			return m.spdx
		}
	}
	return ""
}

// write writes CycloneDX 1.6. It says neither when nor where it was made, so that
// equal builds have equal lists.
func write(w io.Writer, modules []module) error {
	type licence struct {
		License struct {
			ID string `json:"id"`
		} `json:"license"`
	}
	type hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	type component struct {
		Type     string    `json:"type"`
		Ref      string    `json:"bom-ref,omitempty"`
		Name     string    `json:"name"`
		Version  string    `json:"version,omitempty"`
		PURL     string    `json:"purl,omitempty"`
		Hashes   []hash    `json:"hashes,omitempty"`
		Licenses []licence `json:"licenses"`
	}
	of := func(spdx string) []licence {
		var l licence
		l.License.ID = spdx
		return []licence{l}
	}
	components := []component{}
	serial := sha256.New()
	for _, m := range modules {
		purl := "pkg:golang/" + m.Path + "@" + m.Version
		c := component{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl, Licenses: of(m.licence)}
		if sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(sum) == sha256.Size {
			c.Hashes = []hash{{"SHA-256", hex.EncodeToString(sum)}}
		}
		fmt.Fprintln(serial, purl, m.Sum)
		components = append(components, c)
	}
	id := hex.EncodeToString(serial.Sum(nil))
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"serialNumber": fmt.Sprintf("urn:uuid:%s-%s-5%s-a%s-%s", id[:8], id[8:12], id[13:16], id[17:20], id[20:32]),
		"metadata":     map[string]any{"component": component{Type: "application", Name: "shipledger", Licenses: of("Apache-2.0")}},
		"components":   components,
	})
}
