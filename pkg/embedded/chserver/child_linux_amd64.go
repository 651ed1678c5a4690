package chserver

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

const canLoadLibrary = true

// runLibrary runs the engine in library with args until it ends.
func runLibrary(library string, args []string) error {
	// For ps and top; the kernel took the name from /proc/self/exe.
	name := append([]byte("clickhouse"), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)

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
