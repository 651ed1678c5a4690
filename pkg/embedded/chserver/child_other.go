//go:build !(linux && amd64)

package chserver

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

const canLoadLibrary = false

func terminal() (*os.File, error) { return nil, errors.ErrUnsupported }

func runLibrary(string, []string) error {
	return fmt.Errorf("the engine library is for linux/amd64, this is %s/%s", runtime.GOOS, runtime.GOARCH)
}
