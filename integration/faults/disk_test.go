//go:build linux

package faults_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// A post that is alone pays for its own write: nobody else's can stand in for
// it, so that no answer may leave before as many writes have ended.
func TestAnswerWaitsForTheDisk(t *testing.T) {
	const posts = 200
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("SKIPPED, WRITES TO THE DISK ARE NOT COUNTED: strace is not installed")
	}
	srv := start(t, setup{dir: t.TempDir()})
	k := srv.keys(t)
	l := newLedger()
	c := newClient(newTarget(srv.url), l, k.APIKey)

	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-y", "-s", "16", "-e", "trace=fsync,fdatasync,write", "-o", trace, "-p", fmt.Sprint(srv.cmd.Process.Pid))
	tracer, out := spawn(t, cmd)
	defer out.Close()
	attached := false
	eventually(t, "strace attaches", func() error {
		select {
		case <-tracer.exited:
			return nil
		default:
		}
		// It attaches to every thread before it lets the first go on.
		if attached = tracedThreads(srv.cmd.Process.Pid); !attached {
			return errors.New("it has not")
		}
		return nil
	})
	if !attached {
		t.Skipf("SKIPPED, WRITES TO THE DISK ARE NOT COUNTED: strace may not attach: %s", tracer.errors)
	}
	for i := range posts {
		e := entry{
			report:  report{"deployment", fmt.Sprintf("disk-%d", i), "completed"},
			product: "disk", environment: "production", version: fmt.Sprint(i),
		}
		if err := c.single(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	l.clean(t)
	if err := tracer.cmd.Process.Signal(os.Interrupt); err != nil { // detaches
		t.Fatal(err)
	}
	<-tracer.exited

	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	synced, answered, early := readTrace(text)
	t.Logf("%d posts one after another: %d writes of the log's blocks to the disk (fsync, fdatasync), %d answers 200", posts, synced, answered)
	if synced < posts || answered != posts || early > 0 {
		t.Errorf("%d posts came with %d writes of the log to the disk and %d answers, %d of them before their write had ended",
			posts, synced, answered, early)
	}
}

var (
	syncCall   = regexp.MustCompile(`^(\d+) +(?:fsync|fdatasync)\(\d+<([^>]*)>`)
	syncEnd    = regexp.MustCompile(`^(\d+) .*(?:fsync|fdatasync).*\) += 0`)
	answerCall = regexp.MustCompile(`^\d+ +write\(\d+<.*>, "HTTP/1\.1 200 `)
)

// readTrace counts, in the order in which they happened: how often the log's
// blocks were written to the disk, how many answers left, and how many of those
// left when fewer writes than answers had ended.
func readTrace(trace []byte) (synced, answered, early int) {
	ofLog := map[string]bool{} // by thread: it is about to write the log
	for lines := bufio.NewScanner(bytes.NewReader(trace)); lines.Scan(); {
		line := lines.Text()
		if m := syncCall.FindStringSubmatch(line); m != nil {
			ofLog[m[1]] = strings.Contains(m[2], "/TRACK_00/msgs/") && strings.HasSuffix(m[2], ".blk")
		}
		if m := syncEnd.FindStringSubmatch(line); m != nil && ofLog[m[1]] {
			synced++
			ofLog[m[1]] = false
		}
		if answerCall.MatchString(line) {
			if answered++; answered > synced {
				early++
			}
		}
	}
	return synced, answered, early
}

// tracedThreads tells whether all threads of a process are traced.
func tracedThreads(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
		if !strings.Contains(string(status), "TracerPid:\t") || strings.Contains(string(status), "TracerPid:\t0\n") {
			return false
		}
	}
	return err == nil
}

func TestFullLogRefusesAndLosesNothing(t *testing.T) {
	s := setup{dir: t.TempDir(), args: []string{"--log-max-bytes", fmt.Sprint(4 << 20)}}
	srv := start(t, s)
	fills(t, s, srv, func() setup {
		s.args = []string{"--log-max-bytes", fmt.Sprint(64 << 20)}
		return s
	})
}

func TestFullDiskRefusesAndLosesNothing(t *testing.T) {
	dir := t.TempDir()
	// All of the data: a full disk is full for the log and for ClickHouse.
	size := func(megabytes int) string { return fmt.Sprintf("size=%dm", megabytes) }
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, size(24)); err != nil {
		t.Skipf("SKIPPED, NO DISK IS FILLED: a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := setup{dir: dir}
	srv := start(t, s)
	fills(t, s, srv, func() setup {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, size(512)); err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// fills writes until the log refuses, makes room, starts the server again, and
// looks for what was acknowledged.
func fills(t *testing.T, s setup, srv *server, makeRoom func() setup) {
	t.Helper()
	k := srv.keys(t)
	l, at := newLedger(), newTarget(srv.url)
	c := newClient(at, l, k.APIKey)
	work := startBulk(t, c)
	eventually(t, "the log refuses", func() error {
		if l.refusedBy("LOG_UNAVAILABLE") == 0 {
			return errors.New("it takes what it is sent")
		}
		return nil
	})
	full := l.count()
	// What is refused first is a frame of several events. One event alone may still
	// find room behind it, and then the log is well for as long as that lasts.
	reads := newReader(srv.url, k.PAT)
	eventually(t, "health says that the log is full", func() error {
		h, err := reads.health(t.Context())
		if err == nil && h.Parts["log"] != "unavailable" {
			err = fmt.Errorf("it says %+v", h)
		}
		return err
	})
	if full == 0 {
		t.Error("nothing was acknowledged before the log was full")
	}
	at.move("")
	srv.kill() // with the disk full: there is no worse moment
	acks := l.snapshot()

	s = makeRoom()
	left := readLog(t, logOf(s.dir))
	left.sound(t)
	left.holds(t, l, acks)
	srv = start(t, s)
	at.move(srv.url)
	eventually(t, "the log takes events again", func() error {
		if l.count() < full+2*bulkWorkers {
			return errors.New("it does not")
		}
		return nil
	})
	work.end()
	work.settle(t)
	deployments := newReader(srv.url, k.PAT).sees(t, l)
	l.clean(t)
	srv.interrupt(t)
	end := readLog(t, logOf(s.dir))
	end.sound(t)
	end.begins(t, left)
	end.holds(t, l, l.snapshot())
	t.Logf("%d events acknowledged until it was full, %d answers 503 LOG_UNAVAILABLE, after room was made %d more; %d deployments read",
		full, l.refusedBy("LOG_UNAVAILABLE"), l.count()-full, deployments)
}

func TestAFullDiskIsUsedAgainOnceItHasRoom(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "nats") // the log alone: what ClickHouse does on a full disk is its own matter
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	size := func(megabytes int) string { return fmt.Sprintf("size=%dm", megabytes) }
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, size(6)); err != nil {
		t.Skipf("SKIPPED, NO DISK IS FILLED: a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := setup{dir: dir}
	srv := start(t, s)
	k := srv.keys(t)
	l, at := newLedger(), newTarget(srv.url)
	work := startBulk(t, newClient(at, l, k.APIKey))
	eventually(t, "the log refuses", func() error {
		if l.refusedBy("LOG_UNAVAILABLE") == 0 {
			return errors.New("it takes what it is sent")
		}
		return nil
	})
	full := l.count()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, size(512)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log takes events again, without a restart", func() error {
		if l.count() < full+2*bulkWorkers {
			return errors.New("it does not")
		}
		return nil
	})
	work.end()
	work.settle(t)
	deployments := newReader(srv.url, k.PAT).sees(t, l)
	l.clean(t)
	srv.interrupt(t)
	end := readLog(t, logOf(s.dir))
	end.sound(t)
	end.holds(t, l, l.snapshot())
	t.Logf("%d events acknowledged until it was full, %d more after room was made; %d deployments read", full, l.count()-full, deployments)
}
