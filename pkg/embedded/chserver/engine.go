package chserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// The pinned engine. It is exact because listening came to this kind of engine
// with 26.7 only, as a prerelease: an update to "latest" would be a step back
// to one that refuses SYSTEM START LISTEN.
const (
	// Version is the version of the npm package.
	Version = "26.7.3-stable.1"
	// EngineVersion is what the engine in it answers to SELECT version().
	EngineVersion = "26.7.2.1"

	librarySize   = 566_330_096
	librarySHA256 = "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5"
	libraryName   = "libchdb.so"
	stampName     = libraryName + ".sha256"
)

// An engine older than this cannot listen.
var oldestEngine = [2]int{26, 6}

// ErrNoEngine is returned by Locate when there is no ClickHouse to start. The
// message around it names the ways out.
var ErrNoEngine = errors.New("no ClickHouse engine found")

// Engine says which ClickHouse to start: exactly one of Library and Binary.
type Engine struct {
	// Library is the path of a libchdb.so, which a child process of ours loads.
	Library string
	// Binary is the path of a clickhouse program, which is started as
	// "clickhouse local" and must be 26.6 or newer.
	Binary string
	// Version is what the engine must answer to SELECT version(). Empty means
	// anything new enough to listen.
	Version string
}

// String names the engine for messages.
func (e Engine) String() string {
	if e.Library != "" {
		return e.Library
	}
	return e.Binary
}

// LocateConfig says where Locate looks.
type LocateConfig struct {
	// Library is the path of a libchdb.so to use instead of the installed one.
	// A path that does not exist is an error, never a reason to look further.
	Library string
	// CacheDir is the folder Install installed into. Empty means DefaultCacheDir.
	CacheDir string
}

// Locate finds the engine to start: the configured library, then the installed
// one, then clickhouse on the PATH. If there is none it returns ErrNoEngine.
// That an external server was configured instead is the caller's to know.
func Locate(cfg LocateConfig) (Engine, error) {
	if cfg.Library != "" {
		path, err := filepath.Abs(cfg.Library)
		if err != nil {
			return Engine{}, fmt.Errorf("locate the ClickHouse library: %w", err)
		}
		if _, err := os.Stat(path); err != nil {
			return Engine{}, fmt.Errorf("locate the configured ClickHouse library: %w", err)
		}
		return Engine{Library: path}, nil
	}
	cache, err := cacheDir(cfg.CacheDir)
	if err != nil {
		return Engine{}, err
	}
	dir := filepath.Join(cache, Version)
	notInstalled := installed(dir)
	if notInstalled == nil && canLoadLibrary {
		return Engine{Library: filepath.Join(dir, libraryName), Version: EngineVersion}, nil
	}
	if bin, err := exec.LookPath("clickhouse"); err == nil && runtime.GOOS == "linux" {
		if bin, err = filepath.Abs(bin); err == nil {
			return Engine{Binary: bin}, nil
		}
	}
	if !canLoadLibrary {
		return Engine{}, fmt.Errorf("%w: the embedded engine is for linux/amd64, this is %s/%s; "+
			"set SHIPLEDGER_CLICKHOUSE_DSN to a ClickHouse server", ErrNoEngine, runtime.GOOS, runtime.GOARCH)
	}
	return Engine{}, fmt.Errorf("%w (%w, and no clickhouse on the PATH): "+
		"run `make engine` once (it needs npm), or set SHIPLEDGER_CLICKHOUSE_DSN to a ClickHouse server", ErrNoEngine, notInstalled)
}

// DefaultCacheDir is where Install installs unless told otherwise:
// shipledger/clickhouse in the user's cache folder.
func DefaultCacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	return filepath.Join(base, "shipledger", "clickhouse"), nil
}

func cacheDir(configured string) (string, error) {
	if configured == "" {
		return DefaultCacheDir()
	}
	abs, err := filepath.Abs(configured)
	if err != nil {
		return "", fmt.Errorf("find the engine cache: %w", err)
	}
	return abs, nil
}

// installed reports why dir holds no complete engine, or nil if it does. It
// trusts the stamp, which is written after the whole file was hashed: hashing
// half a gigabyte at every start would cost seconds.
func installed(dir string) error {
	stamp, err := os.ReadFile(filepath.Join(dir, stampName))
	if err != nil {
		return fmt.Errorf("no engine in %s", dir)
	}
	if string(stamp) != stampText {
		return fmt.Errorf("the engine in %s is another one", dir)
	}
	info, err := os.Stat(filepath.Join(dir, libraryName))
	if err != nil || info.Size() != librarySize {
		return fmt.Errorf("the engine in %s is incomplete", dir)
	}
	return nil
}

// stampText is in the format of sha256sum, so that `sha256sum -c` checks an installation.
const stampText = librarySHA256 + "  " + libraryName + "\n"

// checkVersion compares what a started engine calls itself with what e asks for.
func (e Engine) checkVersion(got string) error {
	if e.Version != "" && got != e.Version {
		return fmt.Errorf("%s calls itself %s, this build is made for %s", e, got, e.Version)
	}
	parts := strings.SplitN(got, ".", 3)
	if len(parts) < 2 {
		return fmt.Errorf("%s calls itself %q, which is no version", e, got)
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("%s calls itself %q, which is no version: %w", e, got, err)
	}
	if major < oldestEngine[0] || major == oldestEngine[0] && minor < oldestEngine[1] {
		return fmt.Errorf("%s is %s, older than %d.%d", e, got, oldestEngine[0], oldestEngine[1])
	}
	return nil
}
