package chmodel

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"text/template"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/pressly/goose/v3"

	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/schemas"
)

// projection is the name of our rows in the fixed tables. There is one
// projection, the ledger; its tables are always rebuilt together.
const projection = "ledger"

const quarantineTable = "quarantine"

// tables are those of one version.
var tables = []string{
	"names", "releases", "events", "deployments", "dep_by_env", "builds", "cells", "current", "past_attempts", "attempts", "cell_periods",
	"products", "environments", "versions", quarantineTable,
}

// DDL gives every statement that makes the tables of a version and takes them away: for
// one server, or for the servers of a cluster.
func DDL(cluster string, version uint32) ([]string, error) {
	m := &Model{cfg: Config{Cluster: cluster}.withDefaults()}
	if err := m.cfg.Validate(); err != nil {
		return nil, err
	}
	files, err := fs.Glob(schemas.ClickHouse, "clickhouse/fixed/*.sql")
	if err != nil {
		return nil, err
	}
	statements := []string{m.createDatabase()}
	for _, t := range tables {
		files = append(files, "clickhouse/versioned/"+t+".sql")
	}
	for _, file := range files {
		statement, err := m.render(file, suffix(version))
		if err != nil {
			return nil, err
		}
		statements = append(statements, statement)
	}
	for _, t := range tables {
		statements = append(statements, m.dropTable(t+suffix(version)))
	}
	return statements, nil
}

func (m *Model) createDatabase() string {
	return "CREATE DATABASE IF NOT EXISTS `" + m.cfg.Database + "`" + m.onCluster() + " ENGINE = Atomic"
}

func (m *Model) dropTable(name string) string {
	return "DROP TABLE IF EXISTS " + name + m.onCluster() + " SYNC"
}

// Migrate makes the database, the fixed tables and those of the active version,
// whatever of it is missing. It may run in several processes at once.
func (m *Model) Migrate(ctx context.Context) error {
	c, err := m.dial(ctx, "")
	if err != nil {
		return classify(ctx, "connect", err)
	}
	err = c.Do(ctx, ch.Query{Body: m.createDatabase()})
	_ = c.Close()
	if err != nil {
		return classify(ctx, "make the database", err)
	}
	if err := m.migrateFixed(ctx); err != nil {
		return classify(ctx, "make the fixed tables", err)
	}
	if err := m.Refresh(ctx); err != nil {
		return err
	}
	return m.EnsureVersion(ctx, m.Active())
}

// migrateFixed applies schemas/clickhouse/fixed in order, each file once.
func (m *Model) migrateFixed(ctx context.Context) error {
	files, err := fs.Glob(schemas.ClickHouse, "clickhouse/fixed/*.sql")
	if err != nil {
		return err
	}
	var migrations []*goose.Migration
	for _, file := range files {
		number, _, _ := strings.Cut(path.Base(file), "_")
		serial, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return fmt.Errorf("migration %s has no number: %w", file, err)
		}
		statement, err := m.render(file, "")
		if err != nil {
			return err
		}
		// Code, not plain SQL files: goose does not fill in templates.
		migrations = append(migrations, goose.NewGoMigration(serial, &goose.GoFunc{
			RunDB: func(ctx context.Context, db *sql.DB) error {
				_, err := db.ExecContext(ctx, statement)
				return err
			},
		}, nil))
	}
	db := clickhouse.OpenDB(m.options())
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectClickHouse, db, nil,
		goose.WithGoMigrations(migrations...), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	applied, err := provider.Up(ctx)
	for _, a := range applied {
		m.logger.InfoContext(ctx, "clickhouse migration applied", "version", a.Source.Version, "took", a.Duration)
	}
	return err
}

// EnsureVersion makes the tables of a version, those that are missing.
func (m *Model) EnsureVersion(ctx context.Context, version uint32) error {
	c, err := m.dial(ctx, m.cfg.Database)
	if err != nil {
		return classify(ctx, "connect", err)
	}
	defer c.Close()
	for _, t := range tables {
		statement, err := m.render("clickhouse/versioned/"+t+".sql", suffix(version))
		if err != nil {
			return err
		}
		if err := c.Do(ctx, ch.Query{Body: statement}); err != nil {
			return classify(ctx, "make table "+t+suffix(version), err)
		}
	}
	return nil
}

// DropVersion removes the tables of a version, which must not be live, and which
// no query may still use. Its checkpoints stay: a number is never used again.
func (m *Model) DropVersion(ctx context.Context, version uint32) error {
	live, err := m.pointer(ctx)
	if err != nil {
		return err
	}
	if live == version {
		return fault.New(fault.Conflict, "VERSION_IS_LIVE", "version %d of the read model is live", version)
	}
	c, err := m.dial(ctx, m.cfg.Database)
	if err != nil {
		return classify(ctx, "connect", err)
	}
	defer c.Close()
	for _, t := range tables {
		if err := c.Do(ctx, ch.Query{Body: m.dropTable(t + suffix(version))}); err != nil {
			return classify(ctx, "drop table "+t+suffix(version), err)
		}
	}
	return nil
}

// Activate makes reads of every process use a version, within FollowInterval.
// Going back to an earlier version is the same. Of several calls, in whatever order
// they arrive, the one with the highest decision counts.
func (m *Model) Activate(ctx context.Context, version uint32, decision uint64) error {
	c, err := m.dial(ctx, m.cfg.Database)
	if err != nil {
		return classify(ctx, "connect", err)
	}
	defer c.Close()
	name := new(proto.ColStr).LowCardinality()
	name.Append(projection)
	input := proto.Input{
		{Name: "name", Data: name},
		{Name: "serial", Data: proto.ColUInt64{decision}},
		{Name: "version", Data: proto.ColUInt32{version}},
	}
	if err := c.Do(ctx, ch.Query{Body: input.Into("active_version"), Input: input, Settings: insertSettings}); err != nil {
		return classify(ctx, "switch the active version", err)
	}
	return m.Refresh(ctx)
}

// pointer reads which version is live.
func (m *Model) pointer(ctx context.Context) (version uint32, err error) {
	err = m.ask(ctx, "read the active version", `
		SELECT argMax(version, serial) FROM active_version WHERE name = {name:String}`,
		params{"name": projection}, func(rows scanner) error { return rows.Scan(&version) })
	if version == 0 {
		version = firstVersion
	}
	return version, err
}

func suffix(version uint32) string { return "_v" + strconv.FormatUint(uint64(version), 10) }

func (m *Model) onCluster() string {
	if m.cfg.Cluster == "" {
		return ""
	}
	return " ON CLUSTER `" + m.cfg.Cluster + "`"
}

// scattered is for tables of which a page is rows that lie apart. A block is
// decompressed from its beginning to get at one granule: of those of 64 KiB that
// the server makes by itself a page of one cell's deployments took 15 ms of its
// processor time, of these 6 ms, and the tables are 2 % larger.
const scattered = "min_compress_block_size = 8192"

// apart is for the table of which each row of a page may lie in a granule of its own:
// of 50 rows 2.9 MB are decompressed instead of 6.3, which takes 2 to 3 ms less of the
// server's processor time of 27, and the table is 6 % larger. Where granules beside each
// other are read whole, as of a past moment, small blocks cost more than they spare.
const apart = "min_compress_block_size = 2048"

// oneStream has a text and its length beside each other, as long as that can be said of
// a table. The server writes lengths to a file of their own by itself, and a row that
// lies apart costs a block of it: a page of 50 took 21 ms of its processor time, and so 19.
const oneStream = "string_serialization_version = 'single_stream'"

// merges lets twice as many parts stand beside each other as the server does by
// itself. At 6,000 events a second, stored every 0.4 s, merging took 68 to 97 µs of
// processor time an event and wrote each row five times; so it takes 42 µs, writes each
// row twice, and tables have 80 to 110 parts in all instead of 70 to 85.
const merges = "merge_selector_base = 10"

// render fills in a template of schemas/clickhouse for this family of engines.
func (m *Model) render(file, suffix string) (string, error) {
	window := "non_replicated_deduplication_window = 1000"
	family := "ReplacingMergeTree("
	if m.cfg.Cluster != "" {
		window = "replicated_deduplication_window = 1000"
		family = "ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}'"
	}
	t, err := template.New(path.Base(file)).Funcs(template.FuncMap{
		"replacing": func(column string) string {
			if column != "" && m.cfg.Cluster != "" {
				column = ", " + column
			}
			return family + column + ")"
		},
	}).ParseFS(schemas.ClickHouse, file, "clickhouse/versioned/columns.tmpl")
	if err != nil {
		return "", fmt.Errorf("read DDL %s: %w", file, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, map[string]string{"Suffix": suffix, "OnCluster": m.onCluster(), "Window": window, "Scattered": scattered, "Apart": apart, "OneStream": oneStream, "Merges": merges}); err != nil {
		return "", fmt.Errorf("fill in DDL %s: %w", file, err)
	}
	return b.String(), nil
}
