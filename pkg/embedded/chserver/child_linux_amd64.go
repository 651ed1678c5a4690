package chserver

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

const canLoadLibrary = true

// terminal makes standard input a terminal that nobody types on, and returns
// its other end; closing that is the end of the input.
func terminal() (*os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		master.Close()
		return nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		master.Close()
		return nil, fmt.Errorf("open the terminal: %w", errno)
	}
	defer unix.Close(int(peer))
	if err := unix.Dup3(int(peer), 0, 0); err != nil {
		master.Close()
		return nil, fmt.Errorf("make the terminal standard input: %w", err)
	}
	return master, nil
}

// runLibrary runs the engine in library with args until it ends.
func runLibrary(library string, args []string) error {
	// For ps and top; the kernel took the name from /proc/self/exe.
	name := append([]byte("clickhouse"), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)

	// A kernel without Landlock is no reason not to run: what this takes away is
	// what remains after grants took theirs.
	if err := confine(library); err != nil {
		fmt.Fprintln(os.Stderr, "the engine is not confined:", err)
	}
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("load the library: %w", err)
	}
	var run func(argc int32, argv **byte) uintptr
	var failure func(result uintptr) string
	purego.RegisterLibFunc(&run, handle, "chdb_query_cmdline")
	purego.RegisterLibFunc(&failure, handle, "chdb_result_error")

	// C keeps these pointers as long as it runs: pinned, and ended by NULL.
	var pin runtime.Pinner
	defer pin.Unpin()
	argv := make([]*byte, len(args)+1)
	for i, a := range args {
		b := append([]byte(a), 0)
		argv[i] = &b[0]
		pin.Pin(argv[i])
	}
	pin.Pin(&argv[0])
	if result := run(int32(len(args)), &argv[0]); result != 0 {
		if msg := failure(result); msg != "" {
			return errors.New(msg)
		}
	}
	return nil
}
