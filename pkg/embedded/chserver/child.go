package chserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// childArg as first argument turns this program into an engine. The rest of
// the command line is the library, then the engine's own arguments.
const childArg = "__clickhouse-engine"

// lifelineFD is the read end of a pipe whose other end only the parent holds.
const lifelineFD = 3

// forcedExit bounds the engine's orderly shutdown in the child. It is shorter
// than the parent's patience, so that a parent seldom has to kill.
const forcedExit = 20 * time.Second

func init() {
	if isChild() {
		// The engine wants the main thread's 8 MB stack. Only an init function
		// can still bind the main goroutine to the main thread.
		runtime.LockOSThread()
	}
}

func isChild() bool { return len(os.Args) > 1 && os.Args[1] == childArg }

// MaybeRunChild turns this process into a ClickHouse engine, and never returns,
// if a Server started it as one. Every main and every TestMain that runs a
// Server must call it first, before flags are parsed.
func MaybeRunChild() {
	if !isChild() {
		return
	}
	if err := runChild(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "clickhouse engine:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runChild runs the engine until the lifeline ends or a signal asks it to stop.
//
// The lifeline is not handed to the engine itself, although the engine would end
// with it: SIGTERM would then be a hard kill. Instead the engine reads its last
// queries file from an inner pipe, and the end of that is its orderly shutdown.
func runChild(args []string) error {
	life := os.NewFile(lifelineFD, "lifeline")
	if info, err := life.Stat(); len(args) < 1 || err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return errors.New("this is started by shipledger, not by hand")
	}
	inner, stopEngine, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make the inner pipe: %w", err)
	}
	// Not interactive, this version of clickhouse-local ends itself when a client
	// gives a wrong password, sends garbage or drops its connection
	// (ClickHouse/ClickHouse#115666). Interactive it is if its input is a terminal.
	tty, err := terminal()
	if err == nil {
		args = slices.Insert(args, 1, "--interactive", "--disable_suggestion") // before the list of queries files
	} else {
		fmt.Fprintln(os.Stderr, "without a terminal a misbehaving client ends the engine:", err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		defer close(ended)
		_, _ = io.Copy(io.Discard, life)
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go func() { // ends with the process
		select {
		case <-ended:
		case <-signals:
		}
		stopEngine.Close()
		// After its queries files it would read from the terminal.
		if tty != nil {
			tty.Close()
		}
		time.AfterFunc(forcedExit, func() { os.Exit(3) })
	}()
	// The engine opens the pipe anew by this name and so gets a blocking
	// descriptor, although Go's own is not.
	argv := slices.Concat([]string{"clickhouse-local"}, args[1:], []string{fmt.Sprintf("/dev/fd/%d", inner.Fd())})
	err = runLibrary(args[0], argv)
	runtime.KeepAlive(inner) // or it could be closed before the engine opens it
	return err
}
