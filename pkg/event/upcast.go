package event

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// An Upcaster gives the data of one version of a schema the form of the next.
// It is a pure function of the data: the same old event reads alike for ever.
type Upcaster func(data jsontext.Value) (jsontext.Value, error)

// Upcasters stand under the schema that they start from, such as deployment/1.
//
// Old events never change. A new field is optional; anything else is a new
// version of the schema, a file beside the old one, and an upcaster from the old
// one to it. Decoding takes every event to its newest version first, so that
// deciding and projecting know one form only. The golden set
// (schemas/events/testdata/golden) holds an event of every type and version that
// ever shipped, and what is projected of it.
type Upcasters map[string]Upcaster

// shipped are those of this version: every schema is still in its first.
var shipped = Upcasters{}

// upcast takes data to the newest version that there is a way to.
func (u Upcasters) upcast(schema string, data jsontext.Value) (string, jsontext.Value, error) {
	for u[schema] != nil {
		family, version, _ := strings.Cut(schema, "/")
		n, err := strconv.ParseUint(version, 10, 16)
		if err != nil {
			return schema, data, fmt.Errorf("the schema %q has no version", schema)
		}
		if data, err = u[schema](data); err != nil {
			return schema, data, fmt.Errorf("bring %s to its next version: %w", schema, err)
		}
		schema = family + "/" + strconv.FormatUint(n+1, 10)
	}
	return schema, data, nil
}
