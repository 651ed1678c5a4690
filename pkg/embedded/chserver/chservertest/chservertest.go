// Package chservertest gives the tests of any package a running ClickHouse,
// installing the engine on a fresh machine. Only tests import it. A package
// that uses it must have
//
//	func TestMain(m *testing.M) { chservertest.Main(m) }
//
// because the engine is the test binary, started a second time.
package chservertest

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
)

// Main runs the tests, unless this process is to be an engine. It never returns.
func Main(m *testing.M) {
	chserver.MaybeRunChild()
	os.Exit(m.Run())
}

// Engine returns the pinned engine, which it installs first if need be. It
// skips the test only where the engine cannot be had: no npm, or not linux/amd64.
func Engine(tb testing.TB) chserver.Engine {
	tb.Helper()
	engine, err := chserver.Locate(chserver.LocateConfig{})
	if err == nil {
		return engine
	}
	_, err = chserver.Install(tb.Context(), chserver.InstallConfig{From: Source(tb), Progress: os.Stderr})
	if errors.Is(err, chserver.ErrNoNPM) || errors.Is(err, chserver.ErrPlatform) {
		tb.Skipf("SKIPPED, NOTHING ABOUT CLICKHOUSE IS TESTED: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	engine, err = chserver.Locate(chserver.LocateConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	return engine
}

// Source returns the repository's deploy/engine folder.
func Source(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		found := filepath.Join(dir, "deploy", "engine")
		if _, err := os.Stat(filepath.Join(found, "package-lock.json")); err == nil {
			return found
		}
		if dir == filepath.Dir(dir) {
			tb.Fatal("deploy/engine is in none of the folders above this test")
		}
		dir = filepath.Dir(dir)
	}
}

// Databases begins the names of databases that, on a server of Start, the user who
// may only read may read as well as the server's own.
const Databases = "test_"

// Start runs a server on a folder of its own until the test ends.
func Start(tb testing.TB) *chserver.Server {
	tb.Helper()
	srv, _ := StartConfig(tb, chserver.Config{Dir: tb.TempDir(), Readable: Databases})
	return srv
}

// startTimeout is no expectation: only a start that hangs reaches it.
const startTimeout = 5 * time.Minute

// StartConfig runs a server as cfg says, with the pinned engine unless cfg
// names one. stop stops it and waits; it may be called again, and is at the
// latest at the end of the test.
func StartConfig(tb testing.TB, cfg chserver.Config) (srv *chserver.Server, stop func()) {
	tb.Helper()
	if cfg.Engine == (chserver.Engine{}) {
		cfg.Engine = Engine(tb)
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = startTimeout
	}
	srv, err := chserver.New(cfg, slog.New(slog.NewTextHandler(tb.Output(), nil)))
	if err != nil {
		tb.Fatal(err)
	}
	return srv, lifecycletest.Run(tb, srv)
}
