// Package backends_test runs the system on backends that somebody else started.
// NATS has its tests in integration/faults.
package backends_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
	"github.com/shipledger/shipledger/services/all"
)

func TestMain(m *testing.M) { chservertest.Main(m) }

// address gives an ordinary TCP address for a server that only we can dial.
func address(t *testing.T, srv *chserver.Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = ln.Close(); wg.Wait() })
	pipe := func(client net.Conn) {
		defer client.Close()
		server, err := srv.DialContext(ctx, "")
		if err != nil {
			return
		}
		defer server.Close()
		stop := context.AfterFunc(ctx, func() { _ = client.Close(); _ = server.Close() })
		defer stop()
		wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
		_, _ = io.Copy(client, server)
	}
	wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { pipe(client) })
		}
	})
	return ln.Addr().String()
}

func TestAnotherClickHouseReplacesTheEmbeddedOne(t *testing.T) {
	srv := chservertest.Start(t)
	auth := srv.Auth()
	dsn := url.URL{Scheme: "clickhouse", User: url.UserPassword(auth.User, auth.Password), Host: address(t, srv), Path: "/elsewhere"}
	dir := t.TempDir()
	var base string
	app, err := all.New(all.Config{
		Data: dir, Addr: "127.0.0.1:0", ClickHouseDSN: dsn.String(),
		EngineCache: filepath.Join(dir, "no engine is here"), // what would be started is not there
		Listening:   func(a net.Addr) { base = "http://" + a.String() },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer lifecycletest.Run(t, app)()
	var first struct {
		APIKey string `json:"api_key"`
		PAT    string `json:"pat"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "bootstrap-credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &first); err != nil {
		t.Fatal(err)
	}

	body := `{"product_name":"my-service","version":"1.2.3","environment_name":"production","status":"success"}`
	posted, _ := call(t, http.MethodPost, base+"/deployment-events/", first.APIKey, body)
	position := posted.Get("X-Shipledger-Position")
	_, read := call(t, http.MethodGet, base+"/deployments/?product=my-service&min_position="+position, first.PAT, "")
	var list struct {
		Items []struct {
			Version string `json:"version"`
		} `json:"items"`
	}
	if err := json.Unmarshal(read, &list); err != nil || len(list.Items) != 1 || list.Items[0].Version != "1.2.3" {
		t.Errorf("read %+v, %v", list, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "clickhouse")); err == nil {
		t.Error("an embedded ClickHouse was started beside the other one")
	}
}

// patience is no expectation: only what hangs reaches it.
const patience = 3 * time.Minute

// call asks until the read model is there.
func call(t *testing.T, method, address, token, body string) (http.Header, []byte) {
	t.Helper()
	for deadline := time.After(patience); ; {
		status, header, answer := once(t, method, address, token, body)
		if status == http.StatusOK {
			return header, answer
		}
		if status != http.StatusServiceUnavailable {
			t.Fatalf("%s %s = %d: %s", method, address, status, answer)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s %s = %d: %s", method, address, status, answer)
		}
	}
}

func once(t *testing.T, method, address, token, body string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, answer
}
