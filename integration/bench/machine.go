package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Machine is what the figures were measured on.
type Machine struct {
	Cores       int     `json:"cores"`
	CPU         string  `json:"cpu"`
	Kernel      string  `json:"kernel"`
	Go          string  `json:"go"`
	Shipledger  string  `json:"shipledger"`
	Load        string  `json:"load"`         // of the last minute, before the run
	FsyncMillis float64 `json:"fsync_millis"` // median of a small write
}

func describeMachine(ctx context.Context, binary, dir string) (Machine, error) {
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return Machine{}, fmt.Errorf("ask %s for its version: %w", binary, err)
	}
	fsync, err := fsyncMillis(dir)
	if err != nil {
		return Machine{}, fmt.Errorf("measure the disk: %w", err)
	}
	m := Machine{Cores: runtime.NumCPU(), CPU: "unknown", Kernel: runtime.GOOS, Go: runtime.Version(), Shipledger: strings.TrimSpace(string(out)), FsyncMillis: fsync}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel += " " + strings.TrimSpace(string(release))
	}
	m.Load = machineLoad()
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	return m, nil
}

// fsyncMillis is what durability costs here.
func fsyncMillis(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var took []float64
	block := make([]byte, 512)
	for range 101 {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
	return median(took), nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// machineLoad gives how busy the machine was in the last minute.
func machineLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(text), " ")
	return load
}
