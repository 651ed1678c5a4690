//go:build linux

package chserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sys/unix"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/lifecycle"
)

var _ lifecycle.Service = (*chserver.Server)(nil)

// parentArg makes the test binary a program that runs a Server until it is killed.
const parentArg = "__chserver-test-parent"

func TestMain(m *testing.M) {
	chserver.MaybeRunChild()
	if len(os.Args) > 3 && os.Args[1] == parentArg {
		if err := runParent(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runParent(dir, library string) error {
	srv, err := chserver.New(chserver.Config{Dir: dir, Engine: chserver.Engine{Library: library}, StartTimeout: hang}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return srv.Run(context.Background(), func() { fmt.Println("ready") })
}

func open(t *testing.T, srv *chserver.Server) driver.Conn {
	t.Helper()
	a := srv.Auth()
	return openAs(t, srv, clickhouse.Auth{Username: a.User, Password: a.Password, Database: a.Database})
}

func openAs(t *testing.T, srv *chserver.Server, auth clickhouse.Auth) driver.Conn {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:        []string{"embedded"},
		Auth:        auth,
		DialContext: srv.DialContext,
		DialTimeout: hang,
		ReadTimeout: hang,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func exec1(t *testing.T, conn driver.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func number(t *testing.T, conn driver.Conn, query string) uint64 {
	t.Helper()
	var n uint64
	if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// refused fails unless the engine itself refused the statement with the code.
func refused(t *testing.T, conn driver.Conn, code int32, statement string) {
	t.Helper()
	err := conn.Exec(t.Context(), statement)
	var exception *clickhouse.Exception
	if !errors.As(err, &exception) || exception.Code != code {
		t.Errorf("%s: got %v, want it refused with code %d", statement, err, code)
	}
}

// hang is no expectation: only a run that hangs reaches it.
const hang = 2 * time.Minute

// eventually polls cond until it holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(hang)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %s", what, hang)
		case <-poll.C:
		}
	}
}

// enginePID finds the engine that works in dir, or returns 0.
func enginePID(t *testing.T, dir string) int {
	t.Helper()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if cwd, err := os.Readlink(link); err != nil || cwd != dir {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	return 0
}

func dialedPort(t *testing.T, srv *chserver.Server) string {
	t.Helper()
	conn, err := srv.DialContext(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.RemoteAddr().String()
}

// freeAddr gives an address on which nobody listens. Its port is none of those that the
// kernel hands out: such a one may be somebody else's before it is taken here.
func freeAddr(t *testing.T) string {
	t.Helper()
	const from, upTo = 10_000, 30_000
	for range 100 {
		address := "127.0.0.1:" + strconv.Itoa(from+rand.IntN(upTo-from))
		if ln, err := net.Listen("tcp4", address); err == nil { //nolint:noctx // returns at once
			ln.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

const (
	accessDenied         = 497
	authenticationFailed = 516
	tooDeepAST           = 167
)

func TestServerIsReadyOnlyWhenItAnswersQueries(t *testing.T) {
	t.Parallel()
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: t.TempDir(), HealthInterval: time.Hour}) // no later look tells otherwise
	if err := srv.Healthy(); err != nil {
		t.Error(err)
	}
	if got := number(t, open(t, srv), "SELECT toUInt64(1)"); got != 1 {
		t.Errorf("SELECT 1 = %d", got)
	}
}

func TestDialerServesBothClients(t *testing.T) {
	t.Parallel()
	srv := chservertest.Start(t)
	a := srv.Auth()
	client, err := ch.Dial(t.Context(), ch.Options{Dialer: srv.Dialer(), User: a.User, Password: a.Password, Database: a.Database})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNobodyElseGetsInAndTryingHarmsNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: dir})
	before := enginePID(t, dir)
	for _, auth := range []clickhouse.Auth{
		{Username: srv.Auth().User, Password: "wrong"},
		{Username: srv.Auth().User},
		{Username: "default", Password: "wrong"},
		{Username: "nobody"},
	} {
		err := openAs(t, srv, auth).Ping(t.Context())
		var exception *clickhouse.Exception
		if !errors.As(err, &exception) || exception.Code != authenticationFailed {
			t.Errorf("login as %q with %q: got %v, want it refused", auth.Username, auth.Password, err)
		}
	}
	if number(t, open(t, srv), "SELECT toUInt64(1)") != 1 || enginePID(t, dir) != before {
		t.Error("a refused login ended the engine")
	}
}

type lingerer interface{ SetLinger(seconds int) error }

func TestClientsThatMisbehaveDoNotEndTheEngine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: dir})
	before := enginePID(t, dir)
	for _, hello := range []string{"GET / HTTP/1.1\r\n\r\n", "\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x16\x03\x01\x02\x00", "\x00", ""} {
		conn, err := srv.DialContext(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(hello)); err != nil {
			t.Fatal(err)
		}
		if err := conn.(lingerer).SetLinger(0); err != nil { // a reset instead of an orderly end
			t.Fatal(err)
		}
		conn.Close()
	}
	// A reader that goes away in the middle of a result, twenty times.
	a := srv.Auth()
	for range 20 {
		var raw net.Conn
		conn, err := clickhouse.Open(&clickhouse.Options{
			Addr: []string{"embedded"},
			Auth: clickhouse.Auth{Username: a.User, Password: a.Password, Database: a.Database},
			DialContext: func(ctx context.Context, addr string) (net.Conn, error) {
				var err error
				raw, err = srv.DialContext(ctx, addr)
				return raw, err
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), "SELECT repeat('x', 100) FROM numbers(10000000) SETTINGS max_block_size = 1000")
		if err != nil {
			t.Fatal(err)
		}
		rows.Next()
		if err := raw.(lingerer).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		raw.Close()
		rows.Close()
		conn.Close()
	}
	if number(t, open(t, srv), "SELECT toUInt64(1)") != 1 || enginePID(t, dir) != before {
		t.Error("the engine did not survive")
	}
}

func TestUserWithoutPasswordCanReadNothing(t *testing.T) {
	t.Parallel()
	srv := chservertest.Start(t)
	exec1(t, open(t, srv), "CREATE TABLE t (x UInt64) ENGINE = MergeTree ORDER BY x", "INSERT INTO t VALUES (1)")
	conn := openAs(t, srv, clickhouse.Auth{Username: "default"})
	for _, statement := range []string{
		"SELECT 1",
		"SELECT file('/etc/passwd')",
		"SELECT * FROM " + srv.Auth().Database + ".t",
		"EXPLAIN SELECT 1",
		"VALUES (1)",
		"DESCRIBE (SELECT file('/etc/passwd') AS x)",
	} {
		refused(t, conn, tooDeepAST, statement)
	}
	for _, statement := range []string{
		"CREATE DATABASE mine",
		"DROP DATABASE " + srv.Auth().Database,
		"SYSTEM SHUTDOWN",
		"SHOW TABLES FROM system",
		"SELECT 1 SETTINGS max_ast_depth = 1000",
		"SET max_ast_depth = 1000",
	} {
		if err := conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("%s: was not refused", statement)
		}
	}
}

func TestApplicationCannotReachFilesServersOrCommands(t *testing.T) {
	t.Parallel()
	conn := open(t, chservertest.Start(t))
	for _, statement := range []string{
		"SELECT * FROM file('/etc/passwd', 'LineAsString')",
		"SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
		"SELECT * FROM remote('127.0.0.1:1', system.one)",
		"SELECT * FROM s3('http://127.0.0.1:1/bucket/key', 'LineAsString')",
		"SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
		"INSERT INTO FUNCTION file('out.tsv', 'TSV', 'x UInt8') VALUES (1)",
		"CREATE DICTIONARY d (k UInt64, v String) PRIMARY KEY k SOURCE(EXECUTABLE(COMMAND 'id' FORMAT 'TSV')) LAYOUT(FLAT()) LIFETIME(1)",
		"CREATE DICTIONARY d (k UInt64, v String) PRIMARY KEY k SOURCE(HTTP(URL 'http://127.0.0.1:1/' FORMAT 'TSV')) LAYOUT(FLAT()) LIFETIME(1)",
		"CREATE TABLE f (x UInt8) ENGINE = File(TSV)",
		"CREATE TABLE f (x String) ENGINE = URL('http://127.0.0.1:1/', 'TSV')",
		"CREATE TABLE f (x String) ENGINE = Executable('id', 'TSV')",
		"CREATE TABLE f (x String) ENGINE = Log",
		"CREATE FUNCTION f AS (x) -> x",
		"CREATE USER mallory",
		"SYSTEM SHUTDOWN",
	} {
		refused(t, conn, accessDenied, statement)
	}
	for _, script := range []string{"id", "../../../bin/sh", "/bin/sh"} {
		if err := conn.Exec(t.Context(), "SELECT * FROM executable('"+script+"', 'TSV', 'x String')"); err == nil {
			t.Errorf("executable(%q): was not refused", script)
		}
	}
}

// The scalar function file() needs no grant, so this is the kernel's doing.
func TestApplicationCannotReadFilesOutsideTheDataFolder(t *testing.T) {
	t.Parallel()
	if abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 || abi < 2 {
		t.Skipf("SKIPPED: this kernel has no Landlock, or an old one: version %d, %v", abi, errno)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: dir})
	conn := open(t, srv)
	for _, path := range []string{secret, "/etc/passwd", fmt.Sprintf("/proc/%d/environ", os.Getpid()), fmt.Sprintf("/proc/%d/cmdline", os.Getpid())} {
		var content string
		if err := conn.QueryRow(t.Context(), "SELECT file('"+path+"')").Scan(&content); err == nil {
			t.Errorf("file(%q) returned %d bytes", path, len(content))
		}
	}
}

func TestGrantsSufficeForReadModels(t *testing.T) {
	t.Parallel()
	conn := open(t, chservertest.Start(t))
	exec1(
		t, conn,
		"CREATE TABLE a (id UInt64, v UInt64, version UInt64, gone UInt8) ENGINE = ReplacingMergeTree(version, gone) ORDER BY id SETTINGS non_replicated_deduplication_window = 1000",
		"INSERT INTO a VALUES (1, 10, 1, 0), (2, 20, 1, 0)",
		"INSERT INTO a VALUES (1, 11, 2, 0), (2, 20, 2, 1)",
		"CREATE TABLE b CLONE AS a",
		"INSERT INTO b VALUES (3, 30, 1, 0)",
	)
	if got := number(t, conn, "SELECT sum(v) FROM a FINAL"); got != 11 {
		t.Errorf("the newest rows of the source add up to %d, want 11", got)
	}
	if got := number(t, conn, "SELECT sum(v) FROM b FINAL"); got != 41 {
		t.Errorf("the newest rows of the clone add up to %d, want 41", got)
	}
	exec1(t, conn, "EXCHANGE TABLES a AND b")
	if got := number(t, conn, "SELECT sum(v) FROM a FINAL"); got != 41 {
		t.Errorf("after the exchange they add up to %d, want 41", got)
	}
	exec1(
		t, conn,
		"RENAME TABLE b TO old",
		"CREATE TABLE daily (day Date, n AggregateFunction(uniq, UInt64)) ENGINE = AggregatingMergeTree ORDER BY day",
		"CREATE MATERIALIZED VIEW to_daily TO daily AS SELECT toDate(version) AS day, uniqState(id) AS n FROM a GROUP BY day",
		"INSERT INTO a VALUES (4, 40, 1, 0)",
		"ALTER TABLE a ADD COLUMN note LowCardinality(String), ADD INDEX i v TYPE minmax",
		"ALTER TABLE a UPDATE note = 'x' WHERE 1 SETTINGS mutations_sync = 2",
		"OPTIMIZE TABLE a FINAL",
		"CREATE VIEW seen AS SELECT uniqMerge(n) AS n FROM daily",
		"CREATE DATABASE other ENGINE = Atomic",
		"DROP DATABASE other",
		"TRUNCATE TABLE old",
		"DROP TABLE old SYNC",
	)
	if got := number(t, conn, "SELECT n FROM seen"); got != 1 {
		t.Errorf("the materialized view counted %d, want 1", got)
	}
}

func TestDataSurvivesStopAndStart(t *testing.T) {
	t.Parallel()
	// Also a folder whose name would break a configuration it is not escaped in.
	dir := filepath.Join(t.TempDir(), "a & <b>")
	srv, stop := chservertest.StartConfig(t, chserver.Config{Dir: dir})
	exec1(t, open(t, srv), "CREATE TABLE t (x UInt64) ENGINE = MergeTree ORDER BY x", "INSERT INTO t SELECT number FROM numbers(1000)")
	stop()
	srv, _ = chservertest.StartConfig(t, chserver.Config{Dir: dir})
	if got := number(t, open(t, srv), "SELECT count() FROM t"); got != 1000 {
		t.Errorf("%d rows after the restart, want 1000", got)
	}
}

func TestStopIsOrderlyAndLeavesNoProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, stop := chservertest.StartConfig(t, chserver.Config{Dir: dir})
	conn := open(t, srv)
	exec1(t, conn, "CREATE TABLE t (x UInt64) ENGINE = MergeTree ORDER BY x", "INSERT INTO t VALUES (1)")
	if enginePID(t, dir) == 0 {
		t.Fatal("no engine works in the data folder, so this test proves nothing")
	}
	stop() // with a connection still open
	if pid := enginePID(t, dir); pid != 0 {
		t.Errorf("process %d is left", pid)
	}
	if _, err := srv.DialContext(t.Context(), ""); !errors.Is(err, chserver.ErrDown) {
		t.Errorf("dialling a stopped server: got %v, want ErrDown", err)
	}
	if err := srv.Healthy(); !errors.Is(err, chserver.ErrDown) {
		t.Errorf("health of a stopped server: got %v, want ErrDown", err)
	}
}

func TestKilledEngineIsRestartedAndPoolsOutliveIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: dir})
	conn := open(t, srv)
	exec1(t, conn, "CREATE TABLE t (x UInt64) ENGINE = MergeTree ORDER BY x", "INSERT INTO t VALUES (1)")
	before, port := enginePID(t, dir), dialedPort(t, srv)
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the same pool answers from a new engine, which is healthy", func() bool {
		var n uint64
		err := conn.QueryRow(t.Context(), "SELECT count() FROM t").Scan(&n)
		return err == nil && n == 1 && enginePID(t, dir) != before && srv.Healthy() == nil
	})
	if now := dialedPort(t, srv); now == port {
		t.Logf("the kernel gave %s again, so finding a new port is not proven this time", port)
	}
}

func TestOnlyMergesGiveWayToOtherThreads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: dir, HealthInterval: 20 * time.Millisecond})
	conn := open(t, srv)
	exec1(t, conn, "CREATE TABLE t (x UInt64, y String) ENGINE = MergeTree ORDER BY x SETTINGS min_bytes_for_wide_part = 0")
	merging := func() (gives, does int) {
		t.Helper()
		for name, nices := range threadNices(t, enginePID(t, dir)) {
			for _, nice := range nices {
				switch {
				case name != "MergeMutate" && nice > 0: // started by one of them it would have its priority
					t.Errorf("a thread %s has nice %d", name, nice)
				case name == "MergeMutate" && nice > 0:
					gives++
				case name == "MergeMutate":
					does++
				}
			}
		}
		return gives, does
	}
	eventually(t, "merges give way", func() bool {
		gives, does := merging()
		return gives > 0 && does == 0
	})
	for range 4 {
		exec1(t, conn, "INSERT INTO t SELECT number, toString(number) FROM numbers(100000)", "OPTIMIZE TABLE t FINAL")
	}
	if got := number(t, conn, "SELECT count() FROM system.parts WHERE active AND table = 't'"); got != 1 {
		t.Fatalf("%d parts, so nothing was merged", got)
	}
	if gives, does := merging(); gives == 0 || does > 0 {
		t.Errorf("%d threads that merge give way, %d do not", gives, does)
	}
}

// With as many merges as threads, tables of many small parts wait behind a large merge.
func TestMoreMergesMayBeUnderWayThanThreadsWorkAtThem(t *testing.T) {
	t.Parallel()
	for _, threads := range []int{1, 3, 40} {
		srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: t.TempDir(), MergeThreads: threads})
		settings := map[string]string{}
		rows, err := open(t, srv).Query(t.Context(), "SELECT name, value FROM system.server_settings WHERE name LIKE 'background%'")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var name, value string
			if err := rows.Scan(&name, &value); err != nil {
				t.Fatal(err)
			}
			settings[name] = value
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		const pool, ratio, policy = "background_pool_size", "background_merges_mutations_concurrency_ratio", "background_merges_mutations_scheduling_policy"
		if settings[pool] != strconv.Itoa(threads) {
			t.Errorf("%s merge, want %d", settings[pool], threads)
		}
		if each, err := strconv.ParseFloat(settings[ratio], 64); err != nil || each < 2 || each*float64(threads) < 15 {
			t.Errorf("%d threads may have %s merges each under way: %v", threads, settings[ratio], err)
		}
		if settings[policy] != "shortest_task_first" {
			t.Errorf("merges are taken by %s", settings[policy])
		}
	}
}

// threadNices gives the nice values of a process's threads, by the threads' names.
func threadNices(t *testing.T, pid int) map[string][]int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it ended meanwhile
		}
		_, after, _ := strings.Cut(string(text), "(")
		name, rest, _ := strings.Cut(after, ") ")
		const nice = 16 // of what follows the name
		value, err := strconv.Atoi(strings.Fields(rest)[nice])
		if err != nil {
			t.Fatal(err)
		}
		out[name] = append(out[name], value)
	}
	return out
}

func TestEngineThatStoppedListeningIsRestarted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: dir, HealthInterval: 50 * time.Millisecond})
	before := enginePID(t, dir)
	// Any local user may do this; see the engine's own login.
	exec1(t, openAs(t, srv, clickhouse.Auth{Username: "default"}), "SYSTEM STOP LISTEN TCP")
	eventually(t, "a new engine", func() bool {
		now := enginePID(t, dir)
		return now != 0 && now != before && srv.Healthy() == nil
	})
}

func TestPasswordIsNotSentToWhoeverTookThePort(t *testing.T) {
	t.Parallel()
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: t.TempDir(), HealthInterval: time.Hour, Listen: freeAddr(t)})
	address := dialedPort(t, srv)
	exec1(t, openAs(t, srv, clickhouse.Auth{Username: "default"}), "SYSTEM STOP LISTEN TCP")
	var impostor net.Listener
	eventually(t, "the port is free", func() (ok bool) {
		var err error
		impostor, err = net.Listen("tcp4", address)
		return err == nil
	})
	defer impostor.Close()
	if conn, err := srv.DialContext(t.Context(), ""); err == nil {
		conn.Close()
		t.Error("DialContext handed out a connection to another process")
	}
}

func TestSecondServerOnTheSameFolderIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, _ := chservertest.StartConfig(t, chserver.Config{Dir: dir})
	second, err := chserver.New(chserver.Config{Dir: dir, Engine: chservertest.Engine(t)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = second.Run(t.Context(), func() { t.Error("the second server says it is ready") })
	if !errors.Is(err, chserver.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want ErrInUse with the folder", err)
	}
	if got := number(t, open(t, first), "SELECT toUInt64(1)"); got != 1 {
		t.Errorf("the first server answers %d", got)
	}
}

func TestEngineEndsWithItsParentAndTheFolderIsUsableAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	parent := exec.CommandContext(t.Context(), os.Args[0], parentArg, dir, chservertest.Engine(t).Library)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	parent.Stderr = &stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("ready\n"))
	if _, err := out.Read(line); err != nil || string(line) != "ready\n" {
		t.Fatalf("the parent said %q, %v: %s", line, err, stderr.String())
	}
	if enginePID(t, dir) == 0 {
		t.Fatal("no engine works in the data folder, so this test proves nothing")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	// At once, while the old engine may still be stopping.
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: dir})
	if got := number(t, open(t, srv), "SELECT toUInt64(1)"); got != 1 {
		t.Errorf("the next server answers %d", got)
	}
}

func TestEngineIsGoneSoonAfterItsParentWasKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	parent := exec.CommandContext(t.Context(), os.Args[0], parentArg, dir, chservertest.Engine(t).Library)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if enginePID(t, dir) == 0 {
		t.Fatal("no engine works in the data folder, so this test proves nothing")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	eventually(t, "the engine is gone", func() bool { return enginePID(t, dir) == 0 })
}

func TestFailedStartSaysWhyAndLeavesNoProcess(t *testing.T) {
	t.Parallel()
	engine := chservertest.Engine(t)
	noLibrary := filepath.Join(t.TempDir(), "libchdb.so")
	if err := os.WriteFile(noLibrary, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		engine chserver.Engine
		want   string
	}{
		"not a library":   {chserver.Engine{Library: noLibrary}, "load the library"},
		"not an engine":   {chserver.Engine{Binary: "/bin/false"}, "ended before it was ready"},
		"another version": {chserver.Engine{Library: engine.Library, Version: "1.2.3.4"}, "is made for 1.2.3.4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			srv, err := chserver.New(chserver.Config{Dir: dir, Engine: test.engine, StartTimeout: hang}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			err = srv.Run(t.Context(), func() { t.Error("it says it is ready") })
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
			if pid := enginePID(t, dir); pid != 0 {
				t.Errorf("process %d is left", pid)
			}
		})
	}
}

func TestStopWhileStartingIsNoError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, err := chserver.New(chserver.Config{Dir: dir, Engine: chservertest.Engine(t)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx, func() {}) }()
	eventually(t, "the engine was started", func() bool { return enginePID(t, dir) != 0 })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if pid := enginePID(t, dir); pid != 0 {
		t.Errorf("process %d is left", pid)
	}
}

func TestPasswordStaysOutOfLogs(t *testing.T) {
	t.Parallel()
	srv, err := chserver.New(chserver.Config{Dir: t.TempDir(), Engine: chserver.Engine{Library: "x"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("auth", "auth", srv.Auth())
	if strings.Contains(logged.String(), srv.Auth().Password) || !json.Valid(logged.Bytes()) {
		t.Errorf("logged %s", logged.String())
	}
}

// Other processes know the address and the password beforehand (engine serve).
func TestEngineServesOtherProcessesAtAFixedAddress(t *testing.T) {
	t.Parallel()
	address := freeAddr(t)
	chservertest.StartConfig(t, chserver.Config{Dir: t.TempDir(), Listen: address, Password: "as agreed"})
	for password, lets := range map[string]bool{"as agreed": true, "": false} {
		conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{address}, Auth: clickhouse.Auth{Username: "app", Password: password, Database: "shipledger"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Ping(t.Context()); (err == nil) != lets {
			t.Errorf("with the password %q: %v", password, err)
		}
		conn.Close()
	}
}

func TestAddressThatTheEngineCannotHaveIsRefused(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"localhost:9000", "[::1]:9000", "127.0.0.1", ":9000", "127.0.0.1:70000"} {
		err := chserver.Config{Dir: "x", Engine: chserver.Engine{Binary: "x"}, Listen: listen}.Validate()
		if err == nil || !strings.Contains(err.Error(), "such as 127.0.0.1:9000") {
			t.Errorf("%s: %v", listen, err)
		}
	}
}
