package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/tlsfiles"
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

	TLSCert string `name:"tls-cert" env:"SHIPLEDGER_TLS_CERT" help:"File of the certificate to serve with, PEM; none: without TLS."`
	TLSKey  string `name:"tls-key" env:"SHIPLEDGER_TLS_KEY" help:"File of its key."`
	TLSCA   string `name:"tls-ca" env:"SHIPLEDGER_TLS_CA" help:"File of the authorities that clients must have a certificate of; none: they need none."`
}

// Run serves until ctx is done.
func (e *engineServe) Run(ctx context.Context) error {
	found, err := chserver.Locate(chserver.LocateConfig{Library: e.Library, CacheDir: e.Cache})
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	secrecy, err := e.secrecy(logger)
	if err != nil {
		return err
	}
	listen := e.Listen
	if secrecy != nil {
		listen = "" // on this machine alone, behind the listener that speaks TLS
	}
	srv, err := chserver.New(chserver.Config{
		Dir: e.Data, Engine: found, Database: e.Database, Listen: listen, Password: e.Password, ReadPassword: e.Reads, MaxServerMemory: e.Memory,
	}, logger)
	if err != nil {
		return err
	}
	announce := func() {
		fmt.Printf("ClickHouse listens on %s, user %s, database %s\n", e.Listen, srv.Auth().User, e.Database)
	}
	if secrecy == nil {
		return srv.Run(ctx, announce)
	}
	return lifecycle.Seq(srv, lifecycle.Func(func(ctx context.Context, ready func()) error {
		ln, err := tls.Listen("tcp", e.Listen, secrecy)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", e.Listen, err)
		}
		ready()
		return srv.Relay(ctx, ln)
	})).Run(ctx, announce)
}

// secrecy is what is spoken on the address; nil: no TLS.
func (e *engineServe) secrecy(logger *slog.Logger) (*tls.Config, error) {
	if e.TLSCert == "" && e.TLSKey == "" && e.TLSCA == "" {
		return nil, nil //nolint:nilnil // without an error it says so
	}
	if e.TLSCert == "" {
		return nil, errors.New("SHIPLEDGER_TLS_CA asks clients for certificates, which needs TLS: set SHIPLEDGER_TLS_CERT and SHIPLEDGER_TLS_KEY")
	}
	files, err := tlsfiles.Open(tlsfiles.Config{Cert: e.TLSCert, Key: e.TLSKey, Clients: e.TLSCA}, logger)
	if err != nil {
		return nil, fmt.Errorf("read SHIPLEDGER_TLS_CERT, _KEY and _CA: %w", err)
	}
	return files.Server(), nil
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
