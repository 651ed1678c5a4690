package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"testing"
)

// Everything that is shipped is under a licence that lets it be shipped so.
func TestEveryModuleHasAnAllowedLicence(t *testing.T) {
	modules, err := modulesOf(program)
	if err != nil {
		t.Fatal(err)
	}
	if len(modules) < 20 {
		t.Errorf("only %d modules were found", len(modules))
	}
	if err := licensed(modules); err != nil {
		t.Error(err)
	}
	var list bytes.Buffer
	if err := write(&list, modules); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Serial     string `json:"serialNumber"`
		Components []struct {
			PURL   string              `json:"purl"`
			Hashes []map[string]string `json:"hashes"`
		} `json:"components"`
	}
	if err := json.Unmarshal(list.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(read.Serial) {
		t.Errorf("the serial number is %s", read.Serial)
	}
	for _, c := range read.Components {
		if len(c.Hashes) != 1 {
			t.Errorf("%s has no hash", c.PURL)
		}
	}
}

func TestALicenceIsKnownByItsText(t *testing.T) {
	for text, want := range map[string]string{
		"Mozilla Public License Version 2.0":              "MPL-2.0",
		"GNU AFFERO GENERAL PUBLIC LICENSE\n Version 3":   "AGPL-3.0",
		"   Apache License\n   Version 2.0, January 2004": "Apache-2.0",
		"Permission is hereby granted, free of charge, to any\nperson. The above copyright notice and this\npermission notice shall be included": "MIT",
		"All rights reserved.": "",
	} {
		if got := licenceOf([]byte(text)); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
