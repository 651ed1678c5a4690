package replay_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/shipledger/shipledger/services/projector"
)

// Issue 5: who deletes rows sets off the alarm, whoever it is and with whatever
// rights: what was accepted was counted by the write side. A rebuild names the first
// row that is gone and the event behind it, and brings all of them back. Rows that no
// event is counted by are found by a rebuild only, or by a check of a part.
func TestRowsThatWereDeletedSetOffTheAlarmAndARebuildBringsThemBack(t *testing.T) {
	w := newWorld(t)
	w.start(w.model)
	w.post(200)
	w.projected()
	audit := projector.NewAudit(w.track, w.model, "t0", time.Minute, w.logger())
	checked := func(when string, missing int64) {
		t.Helper()
		if err := audit.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if healthy := audit.Healthy() == nil; healthy != (missing == 0) {
			t.Errorf("%s the audit says %v", when, audit.Healthy())
		}
		var b struct {
			Balanced bool
			Items    []struct{ Difference int64 }
		}
		code := w.ask(http.MethodGet, "/ledger/balance", "", &b)
		var off int64
		for _, i := range b.Items {
			off += i.Difference
		}
		if code != http.StatusOK || b.Balanced != (missing == 0) || off != missing {
			t.Errorf("%s: %d %+v, want %d missing", when, code, b, missing)
		}
	}
	rebuilt := func(table string) {
		t.Helper()
		r := w.startReplay(`{}`)
		w.reaches(r.ID, "ready")
		c := w.certificate(r.ID)
		if c.Verdict != "different" || c.First == nil || c.First.Table != table || c.First.Event == nil && table != "events" {
			t.Errorf("%+v %+v", c, c.First)
		}
		w.switched(r, `{"consent":true}`)
		w.equalsMemory()
	}
	checked("at first", 0)
	w.exec("ALTER TABLE events_v1 DELETE WHERE pos IN (SELECT pos FROM events_v1 WHERE startsWith(type, 'deployment.') ORDER BY pos LIMIT 3) SETTINGS mutations_sync = 2")
	checked("with three rows deleted", 3)
	rebuilt("events")
	checked("rebuilt", 0)

	table := w.table("deployments")
	w.exec("ALTER TABLE " + table + " DELETE WHERE id IN (SELECT id FROM " + table + " ORDER BY id LIMIT 3) SETTINGS mutations_sync = 2")
	checked("with deployments deleted, which no event is counted by", 0)
	rebuilt("deployments")
}

// table gives the name of a table of the live version.
func (w *world) table(name string) string {
	return fmt.Sprintf("%s_v%d", name, w.model.Active())
}
