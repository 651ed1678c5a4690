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

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
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
	// AppendMillis is the median of a lone frame's way into the log, its fsync among it:
	// what no answer can be faster than.
	AppendMillis float64 `json:"append_millis"`
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
	appended, err := appendMillis(ctx, filepath.Join(dir, "append"))
	if err != nil {
		return Machine{}, fmt.Errorf("measure the log: %w", err)
	}
	m := Machine{Cores: runtime.NumCPU(), CPU: "unknown", Kernel: runtime.GOOS, Go: runtime.Version(), Shipledger: strings.TrimSpace(string(out)), FsyncMillis: fsync, AppendMillis: appended}
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

// Of so many writes of so many bytes the median tells what durability costs here.
const (
	smallWrites     = 101
	smallWriteBytes = 512
)

// fsyncMillis is what it costs a file.
func fsyncMillis(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return millis(func(body []byte) error {
		if _, err := f.Write(body); err != nil {
			return err
		}
		return f.Sync()
	})
}

// appendMillis is what it costs the log, embedded and with nobody beside.
func appendMillis(ctx context.Context, dir string) (float64, error) {
	js, closed, err := openLog(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer closed()
	log, err := natslog.Open(ctx, js, natslog.Track(0, 1))
	if err != nil {
		return 0, err
	}
	var seq uint64
	return millis(func(body []byte) (err error) {
		seq, err = log.AppendFrame(ctx, eventlog.Frame{ID: ulid.Make().String(), ContentType: event.ContentType, Body: body}, seq)
		return err
	})
}

// millis gives the median time of small writes.
func millis(write func(body []byte) error) (float64, error) {
	body := make([]byte, smallWriteBytes)
	var took []float64
	for range smallWrites {
		began := time.Now()
		if err := write(body); err != nil {
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
