package chmodel_test

import (
	"errors"
	"testing"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func TestARowThatTheServerRefusesForItsContentIsToldFromAnOutage(t *testing.T) {
	srv := chservertest.Start(t)
	var database string
	_, w := open(t, srv, inDatabase(&database))
	rows, upTo := sample(newLedger(1000, epoch), 40)
	conn := connect(t, srv, database)
	if err := conn.Exec(t.Context(), "ALTER TABLE events_v1 ADD CONSTRAINT sane CHECK subject != 'poison'"); err != nil {
		t.Fatal(err)
	}
	poisoned := readmodel.Rows{Events: append([]readmodel.EventRow(nil), rows.Events...)}
	poisoned.Events[7].Subject = "poison"
	if err := w.Store(t.Context(), &poisoned, upTo); !errors.Is(err, readmodel.ErrRefused) {
		t.Errorf("a row that violates a constraint: %v", err)
	}
	if p, err := w.Progress(t.Context(), upTo.Stream); err != nil || p.Offset != 0 {
		t.Errorf("it is progress: %+v %v", p, err)
	}
	if err := w.Store(t.Context(), rows, upTo); err != nil {
		t.Errorf("the others: %v", err)
	}
	if err := conn.Exec(t.Context(), "DROP TABLE events_v1"); err != nil {
		t.Fatal(err)
	}
	if err := w.Store(t.Context(), rows, upTo); err == nil || errors.Is(err, readmodel.ErrRefused) {
		t.Errorf("a table that is away: %v", err)
	}
}
