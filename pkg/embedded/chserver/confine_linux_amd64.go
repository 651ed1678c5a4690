package chserver

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights of Landlock. What reads is allowed on more folders than what changes.
const (
	readRights = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	allRights  = readRights | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REFER
	dirRights  = allRights &^ unix.LANDLOCK_ACCESS_FS_EXECUTE
	fileRights = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
)

// confine takes from this thread, and from all that it will start, what the
// engine has no business with: files outside its own folder and the system's,
// running programs, connecting anywhere. No grant does that for the scalar
// file() function, which any user may call on any path.
//
// It must run on the thread that then loads the library. Threads of the Go
// runtime keep their rights; they run our few lines only.
func confine(library string) error {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fmt.Errorf("ask the kernel for Landlock: %w", errno)
	}
	if abi < 2 { // it forbids renames between folders, which the engine needs
		return errors.New("the kernel's Landlock is too old")
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: allRights}
	folder := uint64(dirRights)
	if abi >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
		folder |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	rules, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("make a Landlock rule set: %w", errno)
	}
	defer unix.Close(int(rules))

	// /proc/self is kept open for good: a rule holds for the folder as it is
	// now, and the kernel would make a new one if it forgot this.
	self, err := unix.Open("/proc/self", unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open /proc/self: %w", err)
	}
	if err := allow(int(rules), self, readRights); err != nil {
		return err
	}
	for _, rule := range []struct {
		path   string
		rights uint64
	}{
		{".", folder}, // its data folder
		{library, readRights},
		{"/dev/null", fileRights},
		{"/dev/urandom", readRights},
		// To load what the library needs, and what the engine wants to know of
		// its machine. Not all of /proc: our parent's environment is in there.
		{"/lib", readRights},
		{"/lib64", readRights},
		{"/usr", readRights},
		{"/etc/ld.so.cache", readRights},
		{"/etc/localtime", readRights},
		{"/sys", readRights},
		{"/proc/cpuinfo", readRights},
		{"/proc/meminfo", readRights},
		{"/proc/stat", readRights},
		{"/proc/loadavg", readRights},
		{"/proc/uptime", readRights},
		{"/proc/version", readRights},
		{"/proc/vmstat", readRights},
		{"/proc/diskstats", readRights},
		{"/proc/sys", readRights},
	} {
		if err := allowPath(int(rules), rule.path, rule.rights); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); errno != 0 {
		return fmt.Errorf("apply the Landlock rule set: %w", errno)
	}
	return nil
}

// allowPath allows rights on what is at path, if there is anything.
func allowPath(rules int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights // the kernel refuses the others on a file
	}
	return allow(rules, fd, rights)
}

func allow(rules, fd int, rights uint64) error {
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("add a Landlock rule: %w", errno)
	}
	return nil
}
