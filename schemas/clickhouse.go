package schemas

import "embed"

// ClickHouse holds the DDL of the read model as templates. Fixed are the tables
// that exist once, in the order of the numbers in their names; a file that was
// released never changes. Versioned are the tables of one version of the
// projection; a change of them is a new version, filled from the log.
//
// Templates see {{.Suffix}} (such as _v7), {{.OnCluster}}, {{.Window}}, the
// setting that bounds deduplication of inserts, {{.Scattered}}, that of tables read
// in many small places, {{.OneStream}}, that of those whose rows lie apart the most,
// {{.Merges}}, that of merging, and {{replacing "column"}}, the engine of a table whose
// row with the highest column counts.
//
//go:embed clickhouse/fixed/*.sql clickhouse/versioned/*.sql clickhouse/versioned/*.tmpl
var ClickHouse embed.FS
