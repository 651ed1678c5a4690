// Package schemas embeds the system's contracts. It imports nothing of ours,
// and nothing of others: outsiders may depend on it alone.
package schemas

import "embed"

// OpenAPI is the OpenAPI 3.1 document of the HTTP interface. It is served as it
// stands and executed.
//
//go:embed openapi/openapi.json
var OpenAPI []byte

// Events holds the JSON Schemas of what the log stores: events/<type>-<version>.schema.json,
// and events/envelope.schema.json of a whole frame.
//
//go:embed events/*.schema.json
var Events embed.FS
