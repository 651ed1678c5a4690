package chmodel_test

import (
	"flag"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/readmodeltest"
)

func TestMain(m *testing.M) {
	// A history takes a real engine about a second; -rapid.checks asks for more.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	chservertest.Main(m)
}

var databases atomic.Int64

// epoch is when the tests' events end.
var epoch = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

func logger(tb testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(tb.Output(), nil)) }

// hang is no expectation: only a question that hangs reaches it.
const hang = 2 * time.Minute

// config is that of a model in a database, which a busy machine may take its time for.
func config(srv *chserver.Server, database string) chmodel.Config {
	auth, reads := srv.Auth(), srv.ReadAuth()
	return chmodel.Config{
		DialContext: srv.DialContext, User: auth.User, Password: auth.Password, Database: database,
		Reader:      &chmodel.Login{User: reads.User, Password: reads.Password},
		DialTimeout: hang, QueryTimeout: hang, StoreTimeout: hang,
	}
}

// open gives a model in a database of its own, which is asked by the user who may
// only read, as in every way of running.
func open(tb testing.TB, srv *chserver.Server, change ...func(*chmodel.Config)) (*chmodel.Model, *chmodel.Writer) {
	tb.Helper()
	cfg := config(srv, fmt.Sprint(chservertest.Databases, databases.Add(1)))
	for _, c := range change {
		c(&cfg)
	}
	m, err := chmodel.Open(tb.Context(), cfg, logger(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.Close() })
	if err := m.Migrate(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	w := m.Writer(m.Active())
	tb.Cleanup(func() { _ = w.Close() })
	return m, w
}

func TestModelKeepsTheContract(t *testing.T) {
	srv := chservertest.Start(t)
	readmodeltest.Run(t, func(t *testing.T) (readmodel.Sink, readmodel.Reader) {
		m, w := open(t, srv, func(c *chmodel.Config) { c.Alone = true })
		return w, m
	})
}
