package contract_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/services/all"
)

// shared is the one embedded system: its engine takes seconds to start, so that
// all scripts use it side by side.
var shared embedded

type embedded struct {
	once  sync.Once
	err   error
	close func() error

	url             string
	key, pat, admin string
}

// onEmbedded gives a script the embedded system, which the first one starts.
func onEmbedded(t *testing.T) *ledger {
	t.Helper()
	chservertest.Engine(t)
	shared.once.Do(func() { shared.err = shared.start() })
	if shared.err != nil {
		t.Fatalf("the embedded system did not start: %v", shared.err)
	}
	l := newLedger(t, shared.url, "main")
	l.key, l.pat, l.admin = shared.key, shared.pat, shared.admin
	return l
}

func (e *embedded) start() error {
	dir, err := os.MkdirTemp("", "contract")
	if err != nil {
		return err
	}
	var addr net.Addr
	var credentials string
	system, err := all.New(all.Config{
		Data: dir, Addr: "127.0.0.1:0", Account: "main", NATSReplicas: 1, Version: "test", RateLimit: "off", Partitions: *partitionsFlag,
		Listening:    func(a net.Addr) { addr = a },
		Bootstrapped: func(s all.Start) { credentials = s.File },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	stop, err := lifecycle.Start(context.Background(), system)
	if err != nil {
		return err
	}
	e.close = func() error { return errors.Join(stop(), os.RemoveAll(dir)) }
	e.url = "http://" + addr.String()
	if err := e.keys(credentials); err != nil {
		return err
	}
	return e.awaitReads()
}

// keys reads the first credentials.
func (e *embedded) keys(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var made struct {
		APIKey   string `json:"api_key"`
		PAT      string `json:"pat"`
		AdminPAT string `json:"admin_pat"`
	}
	err = json.Unmarshal(text, &made)
	e.key, e.pat, e.admin = made.APIKey, made.PAT, made.AdminPAT
	return err
}

// awaitReads returns when the read model answers: the API does not wait for the
// tables to be made.
func (e *embedded) awaitReads() error {
	deadline, retry := time.After(hang), time.NewTicker(20*time.Millisecond)
	defer retry.Stop()
	for {
		r, err := http.NewRequest(http.MethodGet, e.url+"/deployments/", nil)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+e.pat)
		response, err := client.Do(r)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return nil
		}
		select {
		case <-retry.C:
		case <-deadline:
			return fmt.Errorf("reads still answer %d", response.StatusCode)
		}
	}
}

// stop stops the system, if a script started it, and waits for its end.
func (e *embedded) stop() error {
	if e.close == nil {
		return nil
	}
	return e.close()
}
