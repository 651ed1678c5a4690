package chserver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// appUser is the one user with rights. The engine's own login, default, cannot
// be given a password or removed, so it is stripped of everything instead.
const appUser = "app"

// readUser may read our tables. Whoever takes over what answers questions can change
// nothing.
const readUser = "reader"

// The files in Config.Dir that are ours; the engine adds its own beside them.
const (
	configFile = "config.xml"
	usersFile  = "users.xml"
	startFile  = "start.sql"
	lockName   = "lock"
)

// startSQL makes the engine listen. It is all that user default may do.
const startSQL = "SYSTEM START LISTEN TCP;\n"

// writeFiles writes what the engine reads at its start. The caller holds the
// lock on the folder: the users file carries this process's password.
func writeFiles(cfg Config, password, readPassword string) error {
	for _, dir := range []string{cfg.Dir, filepath.Join(cfg.Dir, "tmp"), filepath.Join(cfg.Dir, "user_files")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the engine's folders: %w", err)
		}
	}
	for name, content := range map[string]string{
		configFile: configXML(cfg),
		usersFile:  usersXML(cfg, password, readPassword),
		startFile:  startSQL,
	} {
		if err := os.WriteFile(filepath.Join(cfg.Dir, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("write the engine's configuration: %w", err)
		}
	}
	return nil
}

// mergesAtOnce is how many merges may be under way, however few threads work at them:
// more than there are large tables. The threads turn to the shortest first, so that a
// large merge keeps no table of many small parts waiting. With two merges of one thread,
// taken in turns, tables that found no room waited ever longer before they tried again:
// of 10,000,000 events, stored as fast as they can be, 1,051 parts were left when no
// merge was seen any more, instead of 126.
const mergesAtOnce = 16

// configXML is the engine's configuration, cut to the size of a small service.
//
// It has no section for any system log table: even one that removes a log
// creates it here. The top-level log-level keeps the logger from tracing. The
// merge_tree limits go with the small pool, as a real server checks them
// against it. user_scripts_path names a folder that does not exist, so that
// executable() finds nothing to run.
func configXML(cfg Config) string {
	listen := netip.MustParseAddrPort(cfg.Listen) // Validate has checked it
	return strings.NewReplacer(
		"{DIR}", escape(cfg.Dir),
		"{HOST}", listen.Addr().String(),
		"{PORT}", strconv.Itoa(int(listen.Port())),
		"{MERGE_THREADS}", strconv.Itoa(cfg.MergeThreads),
		"{MERGES_A_THREAD}", strconv.Itoa(max(2, mergesAtOnce/cfg.MergeThreads)),
		"{MAX_SERVER_MEMORY}", strconv.FormatInt(cfg.MaxServerMemory, 10),
	).Replace(`<clickhouse>
  <path>{DIR}/</path>
  <tmp_path>{DIR}/tmp/</tmp_path>
  <user_files_path>{DIR}/user_files/</user_files_path>
  <user_scripts_path>{DIR}/no_user_scripts/</user_scripts_path>
  <format_schema_path>{DIR}/format_schemas/</format_schema_path>
  <listen_host>{HOST}</listen_host>
  <tcp_port>{PORT}</tcp_port>
  <users_config>{DIR}/users.xml</users_config>
  <log-level>warning</log-level>
  <logger>
    <level>warning</level>
    <log>{DIR}/engine.log</log>
    <errorlog>{DIR}/engine.err.log</errorlog>
    <size>20M</size>
    <count>2</count>
    <console>0</console>
  </logger>
  <max_server_memory_usage>{MAX_SERVER_MEMORY}</max_server_memory_usage>
  <mark_cache_size>67108864</mark_cache_size>
  <uncompressed_cache_size>33554432</uncompressed_cache_size>
  <background_pool_size>{MERGE_THREADS}</background_pool_size>
  <background_merges_mutations_concurrency_ratio>{MERGES_A_THREAD}</background_merges_mutations_concurrency_ratio>
  <background_merges_mutations_scheduling_policy>shortest_task_first</background_merges_mutations_scheduling_policy>
  <background_schedule_pool_size>8</background_schedule_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
  <background_buffer_flush_schedule_pool_size>1</background_buffer_flush_schedule_pool_size>
  <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
  <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
  <merge_tree>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
  </merge_tree>
</clickhouse>
`)
}

// usersXML lists who may log in and what they may do.
//
// default comes without a password from our own machine: profile boot leaves it
// with flat statements only, since even SELECT file(…), which needs no grant,
// would read any file this process can. reader asks and can change nothing: settings
// of its questions apart (readonly 2), which the driver sends. app has no rights on files, URLs, other
// servers, dictionaries (their source may be a command) or other table engines.
func usersXML(cfg Config, password, readPassword string) string {
	hash, readHash := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(readPassword))
	var engines strings.Builder
	// Engines of databases count as table engines, too.
	for _, e := range []string{"Atomic", "MergeTree", "ReplacingMergeTree", "AggregatingMergeTree", "SummingMergeTree", "Memory", "Null"} {
		fmt.Fprintf(&engines, "\n        <query>GRANT TABLE ENGINE ON %s</query>", e)
	}
	readable := ""
	if cfg.Readable != "" {
		readable = "\n        <query>GRANT SELECT, SHOW ON " + cfg.Readable + "*.*</query>"
	}
	from := "127.0.0.1"
	if !netip.MustParseAddrPort(cfg.Listen).Addr().IsLoopback() {
		from = "::/0"
	}
	return strings.NewReplacer(
		"{APP}", appUser,
		"{FROM}", from,
		"{READER}", readUser,
		"{DATABASE}", cfg.Database,
		"{READABLE}", readable,
		"{READ_HASH}", hex.EncodeToString(readHash[:]),
		"{HASH}", hex.EncodeToString(hash[:]),
		"{MAX_QUERY_MEMORY}", strconv.FormatInt(cfg.MaxQueryMemory, 10),
		"{MAX_THREADS}", strconv.Itoa(cfg.MaxThreads),
		"{ENGINE_GRANTS}", engines.String(),
	).Replace(`<clickhouse>
  <profiles>
    <default>
      <max_memory_usage>{MAX_QUERY_MEMORY}</max_memory_usage>
      <max_threads>{MAX_THREADS}</max_threads>
      <log_queries>0</log_queries>
      <query_profiler_real_time_period_ns>0</query_profiler_real_time_period_ns>
      <query_profiler_cpu_time_period_ns>0</query_profiler_cpu_time_period_ns>
    </default>
    <reads>
      <max_memory_usage>{MAX_QUERY_MEMORY}</max_memory_usage>
      <max_threads>{MAX_THREADS}</max_threads>
      <log_queries>0</log_queries>
      <query_profiler_real_time_period_ns>0</query_profiler_real_time_period_ns>
      <query_profiler_cpu_time_period_ns>0</query_profiler_cpu_time_period_ns>
      <readonly>2</readonly>
      <constraints><readonly><const/></readonly></constraints>
    </reads>
    <boot>
      <max_ast_depth>1</max_ast_depth>
      <constraints><max_ast_depth><const/></max_ast_depth></constraints>
    </boot>
  </profiles>
  <users>
    <default>
      <password></password>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>boot</profile>
      <quota>default</quota>
      <grants><query>GRANT SYSTEM LISTEN ON *.*</query></grants>
    </default>
    <{APP}>
      <password_sha256_hex>{HASH}</password_sha256_hex>
      <networks><ip>{FROM}</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP, TRUNCATE, OPTIMIZE, SHOW, KILL QUERY, SYSTEM VIEWS, SYSTEM FLUSH ON *.*</query>{ENGINE_GRANTS}
      </grants>
    </{APP}>
    <{READER}>
      <password_sha256_hex>{READ_HASH}</password_sha256_hex>
      <networks><ip>{FROM}</ip></networks>
      <profile>reads</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SELECT, SHOW ON {DATABASE}.*</query>{READABLE}
      </grants>
    </{READER}>
  </users>
  <quotas><default></default></quotas>
</clickhouse>
`)
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}
