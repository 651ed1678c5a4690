package main

import (
	"context"
	"fmt"
	"os"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
)

type engine struct {
	Install engineInstall `cmd:"" help:"Install the pinned engine into the cache."`
}

type engineInstall struct {
	From  string `default:"deploy/engine" help:"Directory of the engine's package.json and lock."`
	Cache string `env:"SHIPLEDGER_ENGINE_CACHE" help:"Where to install it; default: the user's cache directory."`
}

// Run installs the engine, or finds it installed.
func (e *engineInstall) Run(ctx context.Context) error {
	path, err := chserver.Install(ctx, chserver.InstallConfig{From: e.From, CacheDir: e.Cache, Progress: os.Stderr})
	if err != nil {
		return err
	}
	fmt.Println("ClickHouse engine:", path)
	return nil
}
