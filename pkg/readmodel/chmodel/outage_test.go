package chmodel_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// inDatabase remembers the database that open chose.
func inDatabase(name *string) func(*chmodel.Config) {
	return func(c *chmodel.Config) { *name = c.Database }
}

// connect gives a plain connection, for what the port does not show.
func connect(t *testing.T, srv *chserver.Server, database string) driver.Conn {
	t.Helper()
	auth := srv.Auth()
	conn, err := clickhouse.Open(&clickhouse.Options{
		DialContext: srv.DialContext, Auth: clickhouse.Auth{Username: auth.User, Password: auth.Password, Database: database},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// engine gives the process of the server, which is our only child.
func engine(t *testing.T) int {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may be gone
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, pid)
		}
	}
	if len(found) != 1 {
		t.Fatalf("children %v, want the engine alone", found)
	}
	return found[0]
}

// sample gives rows of a small account and how far they go.
func sample(l *ledger, n int) (*readmodel.Rows, readmodel.Progress) {
	var rows readmodel.Rows
	upTo := l.fill(&rows, n)
	return &rows, upTo
}

// until polls, for what another process does in its own time.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(hang); !done(); {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %s", what, hang)
		case <-tick.C:
		}
	}
}

func TestModelOutlivesARestartOfTheServerOnAnotherPort(t *testing.T) {
	srv := chservertest.Start(t)
	m, w := open(t, srv)
	l := newLedger(1000, epoch)
	if err := w.Store(t.Context(), l.names(), readmodel.Progress{}); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		rows, upTo := sample(l, 20)
		if err := syscall.Kill(engine(t), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_, err := m.Products(t.Context(), big, readmodel.Page{Limit: 1})
		if err != nil && fault.KindOf(err) != fault.Unavailable {
			t.Errorf("round %d: a read without a server gave %v", round, err)
		}
		until(t, "store after a restart", func() bool {
			err := w.Store(t.Context(), rows, upTo)
			if err != nil && fault.KindOf(err) != fault.Unavailable {
				t.Fatalf("round %d: a store without a server gave %v", round, err)
			}
			return err == nil
		})
		for _, want := range rows.Deployments {
			if _, err := m.Deployment(t.Context(), want.Record.Account, want.Record.ID); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if p, err := w.Progress(t.Context(), upTo.Stream); err != nil || p.Offset != upTo.Offset {
			t.Errorf("round %d: progress %+v, %v", round, p, err)
		}
	}
}

func TestPausedServerDoesNotHoldQuestions(t *testing.T) {
	srv := chservertest.Start(t)
	var cfg chmodel.Config
	open(t, srv, func(c *chmodel.Config) { cfg = *c }) // its tables are made in peace
	cfg.DialTimeout, cfg.QueryTimeout = time.Second, 500*time.Millisecond
	m, err := chmodel.Open(t.Context(), cfg, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	until(t, "answer", func() bool { _, err := m.AsOf(t.Context()); return err == nil })
	resume := pause(t, engine(t))
	for range 2 { // on a pooled connection, then on a new one
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		_, err := m.AsOf(ctx)
		if fault.KindOf(err) != fault.Unavailable || ctx.Err() != nil {
			t.Errorf("a paused server gave %v", err)
		}
		cancel()
	}
	resume()
	until(t, "answer again", func() bool { _, err := m.AsOf(t.Context()); return err == nil })
}

// One insert that is refused calls those of the other tables off.
func TestAStoreThatIsCalledOffDoesNotWaitForTheServer(t *testing.T) {
	// Nobody looks after the engine, who would end it for its silence.
	srv, _ := chservertest.StartConfig(t, chserver.Config{Dir: t.TempDir(), Readable: chservertest.Databases, HealthInterval: 24 * time.Hour})
	_, w := open(t, srv, func(c *chmodel.Config) { c.StoreTimeout = 10 * hang })
	l := newLedger(1000, epoch)
	rows, upTo := sample(l, 20)
	if err := w.Store(t.Context(), rows, upTo); err != nil { // all connections are made
		t.Fatal(err)
	}
	resume := pause(t, engine(t))
	rows, upTo = sample(l, 20)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stored := make(chan error, 1)
	go func() { stored <- w.Store(ctx, rows, upTo) }()
	select {
	case err := <-stored:
		t.Fatalf("a paused server gave %v", err)
	case <-time.After(100 * time.Millisecond): // by now it waits, or it will be called off before
	}
	cancel()
	select {
	case err := <-stored:
		if err == nil {
			t.Error("a paused server has stored it")
		}
	case <-time.After(hang):
		t.Error("it waits for the server")
	}
	resume()
	if err := w.Store(t.Context(), rows, upTo); err != nil {
		t.Errorf("the same rows again: %v", err)
	}
}

// pause stops a process until resume is called, or the test ends.
func pause(t *testing.T, pid int) (resume func()) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume = func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	until(t, "stop all threads", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return err == nil && strings.Contains(string(status), "State:\tT")
	})
	return resume
}

func TestBackPressureOfTheServerAsksForAnotherTry(t *testing.T) {
	srv := chservertest.Start(t)
	var database string
	_, w := open(t, srv, inDatabase(&database))
	l := newLedger(1000, epoch)
	conn := connect(t, srv, database)
	if err := conn.Exec(t.Context(), "ALTER TABLE events_v1 MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1"); err != nil {
		t.Fatal(err)
	}
	var err error
	var rows *readmodel.Rows
	var upTo, stored readmodel.Progress
	for range 10 {
		rows, upTo = sample(l, 3)
		if err = w.Store(t.Context(), rows, upTo); err != nil {
			break
		}
		stored = upTo
	}
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "252") && !strings.Contains(strings.ToLower(err.Error()), "too many parts") {
		t.Fatalf("too many parts gave %v", err)
	}
	if p, err := w.Progress(t.Context(), upTo.Stream); err != nil || p.Offset != stored.Offset {
		t.Errorf("progress %+v, %v; want %+v", p, err, stored)
	}
	if err := conn.Exec(t.Context(), "ALTER TABLE events_v1 RESET SETTING parts_to_throw_insert, parts_to_delay_insert"); err != nil {
		t.Fatal(err)
	}
	if err := w.Store(t.Context(), rows, upTo); err != nil {
		t.Errorf("the same rows again: %v", err)
	}
}

func TestRepeatedBlockTakesNoSpace(t *testing.T) {
	srv := chservertest.Start(t)
	var database string
	_, w := open(t, srv, inDatabase(&database))
	rows, upTo := sample(newLedger(1000, epoch), 100)
	for range 3 {
		if err := w.Store(t.Context(), rows, upTo); err != nil {
			t.Fatal(err)
		}
	}
	conn := connect(t, srv, database)
	for table, want := range map[string]int{"events_v1": len(rows.Events), "cells_v1": len(rows.Cells), "checkpoint": 1} {
		var got uint64
		if err := conn.QueryRow(t.Context(), "SELECT count() FROM "+table).Scan(&got); err != nil || got != uint64(want) {
			t.Errorf("%s holds %d rows, %v; want %d", table, got, err, want)
		}
	}
}

func TestAllTablesFlipTogetherAndBack(t *testing.T) {
	srv := chservertest.Start(t)
	var database string
	m, w1 := open(t, srv, inDatabase(&database))
	cfg := config(srv, database)
	cfg.FollowInterval = 10 * time.Millisecond
	other, err := chmodel.Open(t.Context(), cfg, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- other.Run(ctx, func() { close(ready) }) }()
	<-ready

	if err := m.EnsureVersion(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	w2 := m.Writer(2)
	defer w2.Close()
	for i, w := range []*chmodel.Writer{w1, w2} {
		var rows readmodel.Rows
		name := fmt.Sprintf("of version %d", i+1)
		rows.Products = []readmodel.ProductRow{{Product: event.Product{ID: event.ProductIDOf(big, "svc"), Name: name}, Account: big}}
		if err := w.Store(t.Context(), &rows, readmodel.Progress{Stream: "t0", Offset: event.At(uint64(i+1), 0), Time: epoch}); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(r *chmodel.Model, version int) bool {
		t.Helper()
		p, err := r.Product(t.Context(), big, event.ProductIDOf(big, "svc"))
		asOf, err2 := r.AsOf(t.Context())
		if err != nil || err2 != nil || len(asOf) != 1 {
			t.Fatal(err, err2, asOf)
		}
		return p.Name == fmt.Sprintf("of version %d", version) && asOf[0].Offset.Seq() == uint64(version)
	}
	if !shows(m, 1) || !shows(other, 1) {
		t.Error("version 1 is not live at first")
	}
	for i, version := range []uint32{2, 1, 2} {
		if err := m.Activate(t.Context(), version, uint64(10*(i+1))); err != nil {
			t.Fatal(err)
		}
		if !shows(m, int(version)) {
			t.Errorf("version %d is not live where it was activated", version)
		}
		until(t, "another process follows", func() bool { return other.Active() == version })
		if !shows(other, int(version)) {
			t.Errorf("version %d is not live elsewhere", version)
		}
	}
	// A projector that was held up, and knows of no later decision.
	if err := m.Activate(t.Context(), 1, 20); err != nil {
		t.Fatal(err)
	}
	if !shows(m, 2) {
		t.Error("an earlier decision that came late has taken the place of a later one")
	}

	if err := m.DropVersion(t.Context(), 2); fault.KindOf(err) != fault.Conflict {
		t.Errorf("dropping the live version gave %v", err)
	}
	if err := m.DropVersion(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if !shows(m, 2) {
		t.Error("version 2 is gone with version 1")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestReaderBeforeAnyTableIsUnavailable(t *testing.T) {
	srv := chservertest.Start(t)
	cfg := config(srv, "not_yet")
	cfg.Reader = nil
	m, err := chmodel.Open(t.Context(), cfg, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.AsOf(t.Context()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("gave %v", err)
	}
	for range 2 {
		if err := m.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.AsOf(t.Context()); err != nil {
		t.Error(err)
	}
}
