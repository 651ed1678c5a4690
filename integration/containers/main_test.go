package containers_test

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		// Its image is not to be had where no registry can be reached. Every test
		// removes what it started.
		"TESTCONTAINERS_RYUK_DISABLED": "true",
		// Inside a container of its own it would look for the engine at a gateway.
		"TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
	} {
		if os.Getenv(name) == "" {
			os.Setenv(name, value)
		}
	}
	os.Exit(m.Run())
}
