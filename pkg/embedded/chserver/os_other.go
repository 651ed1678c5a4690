//go:build !linux

package chserver

import (
	"errors"
	"os/exec"
)

// Supervising the engine leans on Linux: flock, process groups and /proc. The
// package still compiles elsewhere, so that a client-only build does.
const self = ""

var (
	errLocked      = errors.New("locked by another process")
	errUnsupported = errors.New("the embedded ClickHouse engine needs Linux; set SHIPLEDGER_CLICKHOUSE_DSN to a ClickHouse server")
)

type listener struct {
	port  int
	inode string
}

func lockFile(string) (func(), error)          { return nil, errUnsupported }
func detach(*exec.Cmd)                         {}
func giveWay(int) (int, error)                 { return 0, errUnsupported }
func findListener(int) (listener, bool, error) { return listener{}, false, errUnsupported }
func (listener) stillOpen(int) (bool, error)   { return false, errUnsupported }
