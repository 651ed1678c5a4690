package chmodel_test

import (
	"testing"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func TestRowsDeletedFromATableAreMissingInTheCount(t *testing.T) {
	srv := chservertest.Start(t)
	var database string
	m, w := open(t, srv, inDatabase(&database))
	rows, upTo := sample(newLedger(1000, epoch), 40)
	if err := w.Store(t.Context(), rows, upTo); err != nil {
		t.Fatal(err)
	}
	if got := storedEvents(t, m, upTo.Stream); got != uint64(len(rows.Events)) {
		t.Fatalf("%d rows, want %d", got, len(rows.Events))
	}
	conn := connect(t, srv, database)
	err := conn.Exec(t.Context(), "ALTER TABLE events_v1 DELETE WHERE pos IN (SELECT pos FROM events_v1 ORDER BY pos LIMIT 3) SETTINGS mutations_sync = 2")
	if err != nil {
		t.Fatal(err)
	}
	if got := storedEvents(t, m, upTo.Stream); got != uint64(len(rows.Events)-3) {
		t.Errorf("%d rows, want %d", got, len(rows.Events)-3)
	}
}

func storedEvents(t *testing.T, m readmodel.Ledger, stream string) (n uint64) {
	t.Helper()
	_, counts, err := m.EventCounts(t.Context(), "", stream)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		n += c.Stored
	}
	return n
}
