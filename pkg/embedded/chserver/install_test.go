//go:build linux

package chserver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
)

func TestLockPinsTheEngineOfThisBuildAndNoDownloadAddress(t *testing.T) {
	t.Parallel()
	const name = "@chdb/lib-linux-x64-gnu"
	from := chservertest.Source(t)
	var manifest struct{ Dependencies map[string]string }
	var lock struct {
		Packages map[string]struct{ Version, Integrity, Resolved string }
	}
	for file, into := range map[string]any{"package.json": &manifest, "package-lock.json": &lock} {
		content, err := os.ReadFile(filepath.Join(from, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(content, into); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), "://") {
			t.Errorf("%s names an address", file)
		}
	}
	if got := manifest.Dependencies[name]; got != chserver.Version {
		t.Errorf("package.json asks for %q, this build is made for %q", got, chserver.Version)
	}
	locked := lock.Packages["node_modules/"+name]
	if locked.Version != chserver.Version || !strings.HasPrefix(locked.Integrity, "sha512-") || locked.Resolved != "" {
		t.Errorf("package-lock.json has %+v", locked)
	}
}

func TestInstalledEngineIsFoundWithoutWork(t *testing.T) {
	t.Parallel()
	engine := chservertest.Engine(t)
	if engine.Library == "" {
		t.Skip("SKIPPED: no engine is installed, the tests run on", engine.Binary)
	}
	var progress bytes.Buffer
	library, err := chserver.Install(t.Context(), chserver.InstallConfig{From: "no such folder", Progress: &progress})
	if err != nil || library != engine.Library {
		t.Errorf("got %q, %v, want %q", library, err, engine.Library)
	}
	if progress.Len() > 0 {
		t.Errorf("it said %q", progress.String())
	}
}

func TestInstallFailsCleanlyWhenItsSourceIsMissing(t *testing.T) {
	t.Parallel()
	chservertest.Engine(t) // skips where nothing can be installed
	cache := t.TempDir()
	_, err := chserver.Install(t.Context(), chserver.InstallConfig{From: t.TempDir(), CacheDir: cache})
	if errors.Is(err, chserver.ErrNoNPM) {
		t.Skip("SKIPPED:", err)
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that package.json does not exist", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "install-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestLocateTakesTheConfiguredLibraryOrNothing(t *testing.T) {
	t.Parallel()
	library := filepath.Join(t.TempDir(), "libchdb.so")
	if _, err := chserver.Locate(chserver.LocateConfig{Library: library}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the library does not exist", err)
	}
	if err := os.WriteFile(library, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	engine, err := chserver.Locate(chserver.LocateConfig{Library: library})
	if err != nil || engine.Library != library || engine.Version != "" {
		t.Errorf("got %+v, %v", engine, err)
	}
}

func TestLocateFallsBackToThePathAndThenNamesTheWaysOut(t *testing.T) {
	bin, cache := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin)
	_, err := chserver.Locate(chserver.LocateConfig{CacheDir: cache})
	if !errors.Is(err, chserver.ErrNoEngine) || !strings.Contains(err.Error(), "SHIPLEDGER_CLICKHOUSE_DSN") {
		t.Errorf("got %v, want ErrNoEngine with the ways out", err)
	}
	// A library that another build installed, or half of one, does not count.
	version := filepath.Join(cache, chserver.Version)
	if err := os.MkdirAll(version, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"libchdb.so", "libchdb.so.sha256"} {
		if err := os.WriteFile(filepath.Join(version, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := chserver.Locate(chserver.LocateConfig{CacheDir: cache}); !errors.Is(err, chserver.ErrNoEngine) {
		t.Errorf("got %v, want ErrNoEngine", err)
	}
	program := filepath.Join(bin, "clickhouse")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	engine, err := chserver.Locate(chserver.LocateConfig{CacheDir: cache})
	if err != nil || engine.Binary != program {
		t.Errorf("got %+v, %v, want %s", engine, err, program)
	}
}
