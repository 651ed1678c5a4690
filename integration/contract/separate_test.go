package contract_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/shipledger/shipledger/integration/separate"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
)

// separateFlag runs the scripts against separate processes, several of each
// service. It is a mode of its own because its programs have to be built.
var separateFlag = flag.Bool("separate", false, "run the scripts against separate processes, and in no other mode")

// apart is the one system of separate processes.
var apart embedded

func onSeparate(t *testing.T) *ledger {
	t.Helper()
	chservertest.Engine(t)
	apart.once.Do(func() { apart.err = apart.startApart() })
	if apart.err != nil {
		t.Fatalf("the separate processes did not start: %v", apart.err)
	}
	l := newLedger(t, apart.url, "main")
	l.key, l.pat, l.admin = apart.key, apart.pat, apart.admin
	return l
}

func (e *embedded) startApart() error {
	dir, err := os.MkdirTemp("", "separate")
	if err != nil {
		return err
	}
	if err := separate.Build(dir); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	system, err := separate.Start(ctx, separate.Config{
		Programs: dir, Data: filepath.Join(dir, "data"), Addr: "127.0.0.1:0", Partitions: *partitionsFlag, Env: []string{"SHIPLEDGER_RATE_LIMIT=off"},
		Counts: map[string]int{"ingest": 2, "query": 2, "accounts": 2, "projector": 2, "mcp": 1},
	})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	e.close = func() error { return errors.Join(system.Stop(), os.RemoveAll(dir)) }
	e.url = system.URL
	if err := e.keys(filepath.Join(dir, "data", "bootstrap-credentials.json")); err != nil {
		return err
	}
	return e.awaitReads()
}
