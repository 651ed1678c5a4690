//go:build linux

package faults_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/kv/natskv"
	"github.com/shipledger/shipledger/pkg/lifecycle"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/ingest"
)

const (
	servers = 2
	pepper  = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"
)

// A world is a whole ledger in parts, each of which can be broken and mended:
//
//	clients ─cable─► server 0 ─cable─► NATS (a process, a disk of its own)
//	   │    ─cable─► server 1 ─cable─►  ▲
//	   │               server 0 ─cable─►│ClickHouse (a process, a disk of its own)
//	   └────────────► stepped ──────────┘
//
// Server 0 has the read model, server 1 only decides. Stepped is the ingest of
// the product in this process, on a clock that jumps.
type world struct {
	t          *testing.T
	servers    [servers]*server
	setups     [servers]setup
	nats       *natsServer
	natsDisk   *disk
	clickhouse *chserver.Server
	chDisk     *disk
	tables     driver.Conn

	toServer, toNATS [servers]*cable
	toClickHouse     *cable
	stepped          *httptest.Server
	offset           atomic.Int64 // of stepped's clock, in nanoseconds

	js       jetstream.JetStream // a way to NATS of the test's own
	log      *natslog.Log
	operator keys
	ledger   *ledger
	checker  *checker

	began string // the position at which the round began
	after func() // what else the round waits for once it is quiet; nil: nothing
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ledger: newLedger()}
	w.natsDisk, w.chDisk = newDisk(t), newDisk(t)
	w.nats = startNATS(t, natsOptions{Dir: w.natsDisk.dir, SyncAlways: true})
	w.clickhouse, _ = chservertest.StartConfig(t, chserver.Config{Dir: w.chDisk.dir})
	proxies := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	auth := w.clickhouse.Auth()
	engine := newWireTo(t, func(ctx context.Context) (net.Conn, error) { return w.clickhouse.DialContext(ctx, "") })
	w.toClickHouse = newCable(t, proxies, engine.Addr().String())
	for i := range w.servers {
		w.toNATS[i] = newCable(t, proxies, fmt.Sprintf("127.0.0.1:%d", w.nats.Port))
		address := freeAddress(t)
		w.setups[i] = setup{
			dir: t.TempDir(), args: []string{"--addr", address}, external: true,
			env: []string{
				"SHIPLEDGER_NATS_URL=nats://" + w.toNATS[i].Listen, fmt.Sprintf("SHIPLEDGER_NATS_MONITOR_URL=http://127.0.0.1:%d", w.nats.MonitorPort),
				"SHIPLEDGER_PEPPER=" + pepper,
				fmt.Sprintf("SHIPLEDGER_CLICKHOUSE_DSN=clickhouse://%s:%s@%s/%s", auth.User, auth.Password, w.toClickHouse.Listen, auth.Database),
			},
		}
		w.setups[i].logOnly = i > 0
		w.servers[i] = start(t, w.setups[i])
		w.toServer[i] = newCable(t, proxies, address)
	}
	w.operator = w.servers[0].keys(t)

	tables, err := clickhouse.Open(&clickhouse.Options{
		DialContext: func(ctx context.Context, _ string) (net.Conn, error) { return w.clickhouse.DialContext(ctx, "") },
		Auth:        clickhouse.Auth{Username: auth.User, Password: auth.Password, Database: auth.Database},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tables.Close() })
	w.tables = tables

	nc, err := nats.Connect(fmt.Sprintf("nats://127.0.0.1:%d", w.nats.Port), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if w.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	if w.log, err = natslog.Open(t.Context(), w.js, natslog.Track(0, 1)); err != nil {
		t.Fatal(err)
	}
	w.startStepped()
	w.checker = newChecker(t)
	return w
}

// targets are the processes that decide.
func (w *world) targets() []string {
	return []string{"http://" + w.toServer[0].Listen, "http://" + w.toServer[1].Listen, w.stepped.URL}
}

func (w *world) restart(i int) {
	w.t.Helper()
	eventually(w.t, "the server starts again", func() (err error) {
		w.servers[i], err = launch(w.t, w.setups[i])
		return err
	})
}

// startStepped runs the product's ingest in this process: its clock is an
// argument. Other processes cannot be given one without one clock for the machine.
func (w *world) startStepped() {
	w.t.Helper()
	t, logger := w.t, slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	credentials, err := natslog.Open(t.Context(), w.js, natslog.Credentials(1))
	must(err)
	peppers, err := keyring.LoadPeppers(pepper, "", t.TempDir(), rand.Reader)
	must(err)
	table, err := natskv.Open(t.Context(), w.js, natskv.Config{
		Bucket: "NODES", Description: "How far each process has heard of credentials", Life: keyring.NodeLife, Volatile: true,
	})
	must(err)
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	must(err)
	ids := ulid.Monotonic(rand.Reader, 0)
	ring := keyring.New(keyring.Config{DeafLimit: 30 * time.Second}, credentials, peppers, time.Now, logger)
	clock := func() time.Time { return time.Now().Round(0).Add(time.Duration(w.offset.Load())) }
	committer := ingest.NewCommitter(w.log, event.TrackStream(0), clock, func(ms uint64) ulid.ULID { return ulid.MustNew(ms, ids) }, logger)
	nodes := keyring.NewNodes(keyring.NodesConfig{Service: "stepped", ID: rand.Text(), Flights: []*keyring.Flight{committer.Flight()}}, ring, table, time.Now, logger)
	api, err := httpapi.New(httpapi.Config{Spec: spec, Services: []string{"ingest"}, Authenticator: ring, Logger: logger},
		ingest.New(spec, committer).Handlers(), httpapi.Handlers{"getHealth": func(http.ResponseWriter, *httpapi.Request) error { return nil }})
	must(err)
	lifecycletest.Run(t, lifecycle.Seq(ring, nodes, committer))
	w.stepped = httptest.NewServer(api)
	t.Cleanup(w.stepped.Close)
}

// engine finds ClickHouse, which is a child of the tests.
func (w *world) engine() int {
	w.t.Helper()
	return engineOf(w.t, os.Getpid())
}

// account makes an account of its own for one round.
func (w *world) account(name string) (k keys) {
	w.t.Helper()
	m := &manager{w.t, w.targets()[0], w.operator.AdminPAT, &http.Client{Timeout: answerWithin}}
	eventually(w.t, "an account is made", func() error {
		res, err := m.ask(http.MethodPost, "/accounts/", m.token, fmt.Sprintf(`{"account":%q,"admin_email":"a@example.org"}`, name))
		if err == nil && res.status != http.StatusCreated {
			err = fmt.Errorf("answered %d: %s", res.status, res.body)
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(res.body, &k)
	})
	return k
}

// A cable is the way from one part to another, through toxiproxy.
type cable struct {
	*toxiproxy.Proxy
	t *testing.T
}

func newCable(t *testing.T, proxies *toxiproxy.ApiServer, to string) *cable {
	t.Helper()
	p := toxiproxy.NewProxy(proxies, to, "127.0.0.1:0", to)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return &cable{p, t}
}

// spoil adds what toxiproxy calls a toxic, in one direction: upstream or downstream.
func (c *cable) spoil(toxic, direction, attributes string) (mend func()) {
	name := toxic + direction
	if _, err := c.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":%s}`, name, toxic, direction, attributes))); err != nil {
		c.t.Fatal(err)
	}
	return func() {
		if err := c.Toxics.RemoveToxic(context.Background(), name); err != nil {
			c.t.Error(err)
		}
	}
}

// A disk is a file system of its own, where one can be mounted.
type disk struct {
	dir string
	err error // why it is an ordinary folder
}

const diskMegabytes = 1024

func newDisk(t *testing.T) *disk {
	t.Helper()
	d := &disk{dir: t.TempDir()}
	if d.err = syscall.Mount("tmpfs", d.dir, "tmpfs", 0, fmt.Sprintf("size=%dm", diskMegabytes)); d.err != nil {
		return d
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

// fill leaves no room on the disk.
func (d *disk) fill() error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &s); err != nil {
		return err
	}
	used := (s.Blocks - s.Bfree) * uint64(s.Bsize)
	return d.resize(used)
}

func (d *disk) empty() error { return d.resize(diskMegabytes << 20) }

func (d *disk) resize(bytes uint64) error {
	// More may have been written since it was counted; a disk is never smaller than what it holds.
	for range 100 {
		err := syscall.Mount("tmpfs", d.dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", bytes))
		if !errors.Is(err, syscall.EINVAL) {
			return err
		}
		bytes += 64 << 10
	}
	return os.ErrInvalid
}
