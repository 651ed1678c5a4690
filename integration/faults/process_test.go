//go:build linux

package faults_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
)

// engineArg marks the product's child that is ClickHouse.
const engineArg = "__clickhouse-engine"

// A process is one that a test started. It dies with the test binary, and at
// the end of its test at the latest.
type process struct {
	cmd    *exec.Cmd
	errors *tail
	exited chan struct{} // closed once it is gone and was reaped
}

// spawn starts a process and gives its standard output, which the caller reads
// to the end.
func spawn(t *testing.T, cmd *exec.Cmd) (*process, io.ReadCloser) {
	t.Helper()
	p := &process{cmd: cmd, errors: &tail{}, exited: make(chan struct{})}
	out, in, err := os.Pipe() // not cmd.StdoutPipe: Wait would close that while it is read
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, p.errors
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		t.Fatal(err)
	}
	go func() { // ends with the process, which the clean-up awaits
		_ = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p, out
}

// kill ends the process as the kernel would for want of memory, and waits until
// it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.exited
}

// A server is one run of the product.
type server struct {
	*process
	dir string
	url string
}

// A setup says how to run the product.
type setup struct {
	dir  string // its data; kept from one run to the next
	args []string
	env  []string
	// logOnly runs it without a read model, for what needs none.
	logOnly bool
	// external says that somebody else runs ClickHouse.
	external bool
}

// start runs the product until it answers.
func start(t *testing.T, s setup) *server {
	t.Helper()
	srv, err := launch(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return srv
}

// launch runs the product, and fails with its last words where it does not come up.
func launch(t *testing.T, s setup) (*server, error) {
	t.Helper()
	if !s.logOnly {
		chservertest.Engine(t) // installs it on a fresh machine, or skips
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"up", "--data", s.dir, "--addr", "127.0.0.1:0"}, s.args...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SHIPLEDGER_") { // what the caller's shell says is no part of the test
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, "SHIPLEDGER_RATE_LIMIT=off", "SHIPLEDGER_METRICS_ADDR="), s.env...)
	if s.logOnly {
		cmd.Env = append(cmd.Env, "SHIPLEDGER_CLICKHOUSE_DSN=clickhouse://127.0.0.1:1/absent")
	}
	var engine int
	t.Cleanup(func() { awaitGone(t, engine) }) // after the server is killed, which is cleaned up first
	p, out := spawn(t, cmd)
	srv := &server{process: p, dir: s.dir}
	address := make(chan string, 1)
	go func() { // ends with the process
		defer out.Close()
		defer close(address)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if name, rest, _ := strings.Cut(strings.TrimSpace(lines.Text()), " "); name == "API" {
				address <- strings.TrimSpace(rest)
			}
		}
	}()
	url, ok := <-address
	if !ok {
		<-p.exited
		return nil, fmt.Errorf("the server did not start: %s: %s", p.cmd.ProcessState, p.errors)
	}
	srv.url = url
	if !s.logOnly && !s.external {
		engine = srv.engine(t)
	}
	return srv, nil
}

// interrupt is Ctrl-C. It returns when the process is gone.
func (s *server) interrupt(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server stops", func() error {
		select {
		case <-s.exited:
			return nil
		default:
			return errors.New("it still runs")
		}
	})
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the server ended with code %d: %s", code, s.errors)
	}
}

// keys are the first credentials, as the operator finds them.
type keys struct {
	APIKey   string `json:"api_key"`
	PAT      string `json:"pat"`
	AdminPAT string `json:"admin_pat"`
}

func (s *server) keys(t *testing.T) keys {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "bootstrap-credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	var k keys
	if err := json.Unmarshal(text, &k); err != nil {
		t.Fatal(err)
	}
	return k
}

// engine finds the ClickHouse child.
func (s *server) engine(t *testing.T) int {
	t.Helper()
	return engineOf(t, s.cmd.Process.Pid)
}

// engineOf finds the ClickHouse child of a process, which may be starting it anew.
func engineOf(t *testing.T, parent int) (pid int) {
	t.Helper()
	eventually(t, "there is a ClickHouse child", func() error {
		pid = childOf(parent, engineArg)
		if pid == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	return pid
}

// childOf gives the living child of a process that was started with arg, else 0.
func childOf(parent int, arg string) int {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || parentOf(pid) != parent {
			continue
		}
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(line), "\x00"+arg+"\x00") {
			return pid
		}
	}
	return 0
}

// parentOf gives the parent of a process, or -1 where there is no such process
// or only its exit status is left of it.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return -1
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // behind the program's name
	var state string
	var parent int
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil || state == "Z" || state == "X" {
		return -1
	}
	return parent
}

// awaitGone holds the engine to ending with its parent, and makes sure of it.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	if pid == 0 {
		return // it was never found
	}
	err := await(func() error {
		if parentOf(pid) >= 0 {
			return errors.New("it still runs")
		}
		return nil
	})
	if err != nil {
		t.Errorf("ClickHouse (process %d) outlives its server: %v", pid, err)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// tail is a writer that keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 8 << 10

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
