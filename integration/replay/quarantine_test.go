package replay_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// exec runs a statement in ClickHouse.
func (w *world) exec(statement string) {
	w.t.Helper()
	auth := w.srv.Auth()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Auth:        clickhouse.Auth{Database: w.database, Username: auth.User, Password: auth.Password},
		DialContext: func(ctx context.Context, addr string) (net.Conn, error) { return w.srv.DialContext(ctx, addr) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nothing is under way
	if err := conn.Exec(w.t.Context(), statement); err != nil {
		w.t.Fatal(err)
	}
}

// held counts what the live tables have of the log.
func (w *world) held() (stored, quarantined uint64) {
	w.t.Helper()
	_, counts, err := w.model.EventCounts(w.t.Context(), "", "t0")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range counts {
		stored += c.Stored
		quarantined += c.Quarantined
	}
	return stored, quarantined
}

// Poison of every sort: an event that the code cannot apply, a row that ClickHouse
// refuses, a frame that is no batch. The rest goes on, a restart changes nothing, a
// rebuild with mended code says what the live tables lack, and what is redriven
// leaves exactly the tables of a rebuild.
//
// Architecture 6 and 7.
func TestPoisonIsSetAsideSaidInTheCertificateAndHealedByRedriving(t *testing.T) {
	w := newWorld(t)
	w.code(func(r event.Recorded, rows *readmodel.Rows) bool {
		if p, ok := r.Payload.(*event.Run); ok && p.Record.Version == "1.21" {
			panic("of a bug")
		}
		return projection.Project(r, rows)
	})
	w.start(w.model)
	w.until("the tables are there", func() bool {
		_, err := w.model.AsOf(t.Context())
		return err == nil
	})
	w.exec("ALTER TABLE deployments_v1 ADD CONSTRAINT sane CHECK version != '1.22'")
	w.post(100)
	w.projected()
	all, aside := w.held()
	if aside != 2 {
		t.Fatalf("%d are set aside", aside)
	}
	w.balances("with two set aside")
	all += aside
	var list struct {
		Items []struct{ ID, Type, Reason string }
	}
	if code := w.ask(http.MethodGet, "/quarantine/", "", &list); code != http.StatusOK || len(list.Items) != 2 ||
		!strings.Contains(list.Items[0].Reason, "of a bug") || !strings.Contains(list.Items[1].Reason, "sane") {
		t.Errorf("%d %+v", code, list)
	}

	w.stop()
	w.code(projection.Project)
	w.start(w.model)
	w.post(10)
	w.projected()
	if _, aside := w.held(); aside != 2 {
		t.Errorf("after a restart %d are set aside", aside)
	}
	w.balances("after a restart")
	r := w.startReplay(`{"switch":"when_equal"}`)
	w.reaches(r.ID, "ready")
	if c := w.certificate(r.ID); c.Verdict != "different" || c.QuarantinedOld != 2 || c.QuarantinedNew != 0 || !strings.Contains(c.Reason, "2 events in the old version") {
		t.Errorf("%+v", c)
	}
	w.cancelled(r.ID)

	redrive := func(quarantined uint64) {
		t.Helper()
		if code := w.ask(http.MethodPost, "/quarantine/redrive", `{"all":true}`, nil); code != http.StatusOK {
			t.Errorf("answered %d", code)
		}
		// The answer may leave before all is done, where the machine is slow.
		w.until("what was asked for is done", func() bool {
			var b struct{ Balanced bool }
			_, aside := w.held()
			return aside == quarantined && w.ask(http.MethodGet, "/ledger/balance", "", &b) == http.StatusOK && b.Balanced
		})
		w.balances(fmt.Sprintf("with %d left", quarantined))
	}
	redrive(1)
	w.exec("ALTER TABLE deployments_v1 DROP CONSTRAINT sane")
	redrive(0)
	r = w.startReplay(`{}`)
	w.reaches(r.ID, "ready")
	if c := w.certificate(r.ID); c.Verdict != "equal" || c.QuarantinedOld != 0 {
		t.Errorf("%+v", c)
	}
	w.cancelled(r.ID)
	w.equalsMemory()

	last, err := w.track.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.track.AppendFrame(t.Context(), eventlog.Frame{ID: "poison", Body: []byte("no batch")}, last); err != nil {
		t.Fatal(err)
	}
	w.projected()
	stored, aside := w.held()
	if aside != 1 || stored < all {
		t.Errorf("%d stored, %d set aside", stored, aside)
	}
	w.balances("with a frame that is no batch")
}

// balances holds what was accepted against what the live tables have.
func (w *world) balances(when string) {
	w.t.Helper()
	var b struct {
		Balanced bool
		Accepted int
	}
	if code := w.ask(http.MethodGet, "/ledger/balance", "", &b); code != http.StatusOK || !b.Balanced || b.Accepted == 0 {
		w.t.Errorf("%s: %d %+v", when, code, b)
	}
}
