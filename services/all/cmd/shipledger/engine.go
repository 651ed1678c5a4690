package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
)

type engine struct {
	Install engineInstall `cmd:"" help:"Install the pinned engine into the cache."`
	Serve   engineServe   `cmd:"" help:"Run the engine alone, for processes apart from it."`
}

type engineInstall struct {
	From  string `default:"deploy/engine" help:"Directory of the engine's package.json and lock."`
	Cache string `env:"SHIPLEDGER_ENGINE_CACHE" help:"Where to install it; default: the user's cache directory."`
}

type engineServe struct {
	Data     string `default:"./data/clickhouse" env:"SHIPLEDGER_ENGINE_DATA" help:"Directory of its tables."`
	Listen   string `default:"127.0.0.1:9000" env:"SHIPLEDGER_ENGINE_LISTEN" help:"IPv4 address of its native protocol; 0.0.0.0:9000 in a container."`
	Password string `required:"" env:"CLICKHOUSE_PASSWORD" help:"Password of the user app."`
	Reads    string `name:"read-password" env:"CLICKHOUSE_READ_PASSWORD" help:"Password of the user reader, who may only read; default: nobody knows it."`
	Database string `default:"shipledger" env:"CLICKHOUSE_DB" help:"Database to make where there is none."`
	Memory   int64  `default:"1500000000" env:"SHIPLEDGER_ENGINE_MEMORY" help:"Bytes of memory that it may take."`
	Library  string `env:"SHIPLEDGER_CLICKHOUSE_LIB" help:"Engine library to use instead of the installed one."`
	Cache    string `env:"SHIPLEDGER_ENGINE_CACHE" help:"Where the engine is installed; default: the user's cache directory."`
}

// Run serves until ctx is done.
func (e *engineServe) Run(ctx context.Context) error {
	found, err := chserver.Locate(chserver.LocateConfig{Library: e.Library, CacheDir: e.Cache})
	if err != nil {
		return err
	}
	srv, err := chserver.New(chserver.Config{
		Dir: e.Data, Engine: found, Database: e.Database, Listen: e.Listen, Password: e.Password, ReadPassword: e.Reads, MaxServerMemory: e.Memory,
	}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	return srv.Run(ctx, func() {
		fmt.Printf("ClickHouse listens on %s, user %s, database %s\n", e.Listen, srv.Auth().User, e.Database)
	})
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
