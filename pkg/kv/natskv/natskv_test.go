package natskv_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/kv"
	"github.com/shipledger/shipledger/pkg/kv/kvtest"
	"github.com/shipledger/shipledger/pkg/kv/natskv"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
)

func start(t *testing.T) *natsserver.Server {
	t.Helper()
	srv, err := natsserver.New(natsserver.Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	lifecycletest.Run(t, srv)
	return srv
}

// connect gives what one process has.
func connect(t *testing.T, srv *natsserver.Server) jetstream.JetStream {
	t.Helper()
	nc, err := srv.Connect(nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestBucketsKeepTheContract(t *testing.T) {
	for name, cfg := range map[string]natskv.Config{
		"Volatile": {Bucket: "NODES", Life: time.Minute, Volatile: true}, "OnDisk": {Bucket: "USAGE"},
	} {
		t.Run(name, func(t *testing.T) {
			kvtest.Run(t, func(t *testing.T, n int) []kv.Table {
				srv := start(t)
				tables := make([]kv.Table, n)
				for i := range tables {
					table, err := natskv.Open(t.Context(), connect(t, srv), cfg)
					if err != nil {
						t.Fatal(err)
					}
					tables[i] = table
				}
				return tables
			})
		})
	}
}

// A bucket in memory is gone when its NATS is: it is made again.
func TestABucketThatIsGoneIsMadeAgain(t *testing.T) {
	js := connect(t, start(t))
	table, err := natskv.Open(t.Context(), js, natskv.Config{Bucket: "NODES", Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), "NODES"); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Put(t.Context(), "a", []byte("1")); err == nil {
		t.Error("a bucket that is gone took a value")
	}
	if _, err := table.Put(t.Context(), "a", []byte("1")); err != nil {
		t.Errorf("the bucket was not made again: %v", err)
	}
}
