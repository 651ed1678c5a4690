//go:build !(linux && amd64)

package chserver

import (
	"fmt"
	"runtime"
)

const canLoadLibrary = false

func runLibrary(string, []string) error {
	return fmt.Errorf("the engine library is for linux/amd64, this is %s/%s", runtime.GOOS, runtime.GOARCH)
}
