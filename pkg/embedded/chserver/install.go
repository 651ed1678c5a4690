package chserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// ErrNoNPM is returned by Install when npm is not there to fetch the engine.
var ErrNoNPM = errors.New("npm is not installed; it is the only client that has the engine")

// ErrPlatform is returned by Install where the pinned engine cannot run.
var ErrPlatform = errors.New("the embedded engine is for linux/amd64 with glibc only")

// npmPackage is where npm puts the library, below the folder it works in.
const npmPackage = "node_modules/@chdb/lib-linux-x64-gnu"

// InstallConfig says what to install and where to.
type InstallConfig struct {
	// From is the folder with package.json, package-lock.json and .npmrc, the
	// repository's deploy/engine. They are not compiled in: whoever installs the
	// engine has the repository, and there they stay readable and updatable by npm.
	From string
	// CacheDir is the folder to install into. Empty means DefaultCacheDir.
	CacheDir string
	// Progress receives a line for each slow step. Nil means nobody watches.
	Progress io.Writer
}

// Install makes sure the pinned engine is in the cache and returns the path of
// its library. It returns at once if it is already there. Concurrent calls, also
// of different processes, install it once. What npm fetched is compared with the
// hash in this package before anyone can see it under its final name.
func Install(ctx context.Context, cfg InstallConfig) (string, error) {
	if !canLoadLibrary {
		return "", fmt.Errorf("install the ClickHouse engine: %w", ErrPlatform)
	}
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	cache, err := cacheDir(cfg.CacheDir)
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, Version)
	library := filepath.Join(final, libraryName)
	if installed(final) == nil {
		return library, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make the engine cache: %w", err)
	}
	unlock, err := waitForLock(ctx, filepath.Join(cache, "lock"), cfg.Progress)
	if err != nil {
		return "", fmt.Errorf("lock the engine cache: %w", err)
	}
	defer unlock()
	if installed(final) == nil { // by the holder of the lock we waited for
		return library, nil
	}
	if err := installLocked(ctx, cfg, cache, final); err != nil {
		return "", fmt.Errorf("install ClickHouse engine %s: %w", Version, err)
	}
	return library, nil
}

func installLocked(ctx context.Context, cfg InstallConfig, cache, final string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return ErrNoNPM
	}
	// We hold the lock, so a work folder that exists is left from a killed install.
	left, _ := filepath.Glob(filepath.Join(cache, "install-*"))
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove a broken installation: %w", err)
		}
	}
	// Inside the cache, because the last step is a rename within one file system.
	work, err := os.MkdirTemp(cache, "install-")
	if err != nil {
		return fmt.Errorf("make a work folder: %w", err)
	}
	defer os.RemoveAll(work)

	began := time.Now()
	fmt.Fprintf(cfg.Progress, "Fetching ClickHouse engine %s with npm (about 170 MB) …\n", Version)
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		content, err := os.ReadFile(filepath.Join(cfg.From, name))
		if err != nil {
			return fmt.Errorf("read what to install: %w", err)
		}
		if err := os.WriteFile(filepath.Join(work, name), content, 0o644); err != nil {
			return fmt.Errorf("copy what to install: %w", err)
		}
	}
	// Nothing in the package needs install scripts, so none may run. The npm
	// cache is private and thrown away: the archive is of no use once unpacked.
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=5", "--cache", filepath.Join(work, "npm-cache"))
	cmd.Dir = work
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, bytes.TrimSpace(out))
	}

	fmt.Fprintln(cfg.Progress, "Checking its SHA-256 …")
	ready := filepath.Join(work, "ready")
	if err := os.Mkdir(ready, 0o755); err != nil {
		return fmt.Errorf("make a work folder: %w", err)
	}
	library := filepath.Join(ready, libraryName)
	if err := os.Rename(filepath.Join(work, npmPackage, libraryName), library); err != nil {
		return fmt.Errorf("take the library out of the package: %w", err)
	}
	if err := verify(ctx, library); err != nil {
		return err
	}
	if err := os.Chmod(library, 0o644); err != nil {
		return fmt.Errorf("make the library readable: %w", err)
	}
	if err := os.WriteFile(filepath.Join(ready, stampName), []byte(stampText), 0o644); err != nil {
		return fmt.Errorf("write the stamp: %w", err)
	}
	if err := os.RemoveAll(final); err != nil { // it is incomplete, or we would not be here
		return fmt.Errorf("remove an incomplete engine: %w", err)
	}
	if err := os.Rename(ready, final); err != nil {
		return fmt.Errorf("put the engine in place: %w", err)
	}
	fmt.Fprintf(cfg.Progress, "Installed %s in %s.\n", filepath.Join(final, libraryName), time.Since(began).Round(100*time.Millisecond))
	return nil
}

// verify compares the whole of the library with the hash compiled in. npm has
// already compared the archive with the lock; this also holds the lock to what
// this build was tested with.
func verify(ctx context.Context, library string) error {
	f, err := os.Open(library)
	if err != nil {
		return fmt.Errorf("open the library: %w", err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, contextReader{ctx, f}); err != nil {
		return fmt.Errorf("hash the library: %w", err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != librarySHA256 {
		return fmt.Errorf("the library has SHA-256 %s, this build is made for %s", got, librarySHA256)
	}
	return nil
}

// contextReader stops reading when its context is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// waitForLock takes the lock at path, and says so on progress if it has to wait.
// It polls because a blocking flock cannot be ended by a context.
func waitForLock(ctx context.Context, path string, progress io.Writer) (unlock func(), err error) {
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for told := false; ; told = true {
		unlock, err := lockFile(path)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		if !told {
			fmt.Fprintln(progress, "Waiting for another process that installs the ClickHouse engine …")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-poll.C:
		}
	}
}
