package chserver

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// self starts this program again. Unlike the path of the file, it still works,
// and still means the same program, after the file was replaced by an upgrade.
const self = "/proc/self/exe"

// errLocked is returned by lockFile when another process holds the lock.
var errLocked = errors.New("locked by another process")

// lockFile takes an exclusive lock on the file at path, creating it, or returns
// errLocked at once. The lock ends with unlock or with this process: the
// descriptor is not inherited by children.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, &os.PathError{Op: "flock", Path: path, Err: err}
	}
	return func() { f.Close() }, nil
}

// detach keeps ^C in a terminal from reaching the child before we stop it in order.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// Merges give way: a merge can wait, and who posts an event or asks a question is waiting.
// Of live events they are half of what the engine spends, in bursts of up to some seconds.
const (
	mergeThread = "MergeMutate" // what the engine calls the threads that merge; they live as long as it does
	mergeNice   = 10            // a tenth of the weight of other threads, where these want to run
)

// giveWay lowers the priority of the threads of process pid that merge parts, and gives
// how many there are. The engine's own setting for that,
// os_threads_nice_value_merge_mutate, does nothing without CAP_SYS_NICE.
func giveWay(pid int) (merging int, err error) {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return 0, fmt.Errorf("list the engine's threads: %w", err)
	}
	for _, t := range threads {
		name, err := os.ReadFile(filepath.Join(tasks, t.Name(), "comm"))
		if err != nil || strings.TrimSpace(string(name)) != mergeThread {
			continue // or it ended meanwhile
		}
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return merging, fmt.Errorf("list the engine's threads: %w", err)
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, mergeNice); err != nil {
			return merging, fmt.Errorf("lower the priority of merges: %w", err)
		}
		merging++
	}
	return merging, nil
}

// A listener is a listening TCP socket: the port, and the kernel's number for
// the socket, by which it is told from one of another process on the same port.
type listener struct {
	port  int
	inode string
}

// findListener asks the kernel which TCP socket process pid listens on. That
// needs no log parsing, and leaves no gap in which another process could take a
// port we had chosen and be handed our password.
func findListener(pid int) (listener, bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return listener{}, false, fmt.Errorf("list the engine's sockets: %w", err)
	}
	own := map[string]bool{}
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var found listener
	err = eachListener(pid, func(l listener) bool {
		if own[l.inode] {
			found = l
		}
		return found.port == 0
	})
	return found, found.port != 0, err
}

// stillOpen reports whether l is still open in the network of process pid.
func (l listener) stillOpen(pid int) (bool, error) {
	open := false
	err := eachListener(pid, func(other listener) bool {
		open = other == l
		return !open
	})
	return open, err
}

// eachListener calls yield with the IPv4 sockets that listen, until it returns false.
func eachListener(pid int, yield func(listener) bool) error {
	const (
		localAddress = 1
		state        = 3
		inode        = 9
		listening    = "0A"
	)
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		return fmt.Errorf("read the kernel's socket table: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) <= inode || fields[state] != listening {
			continue
		}
		_, hexPort, _ := strings.Cut(fields[localAddress], ":")
		port, err := strconv.ParseUint(hexPort, 16, 16)
		if err != nil {
			return fmt.Errorf("read the kernel's socket table: %w", err)
		}
		if !yield(listener{int(port), fields[inode]}) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the kernel's socket table: %w", err)
	}
	return nil
}
