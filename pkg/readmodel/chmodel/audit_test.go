package chmodel_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// countRows gives a context whose questions add up how many rows they read.
func countRows(ctx context.Context) (context.Context, func() uint64) {
	var cost chmodel.Cost
	return chmodel.WithCost(ctx, &cost), cost.Rows.Load
}

func TestPageOfEventsDoesNotReadTheAccount(t *testing.T) {
	m, w := open(t, chservertest.Start(t))
	const total, parts = 200_000, 4
	var rows readmodel.Rows
	var middle readmodel.EventRow
	for i := range total {
		at := epoch.Add(time.Duration(i-total) * time.Second)
		r := readmodel.EventRow{
			Account: "acme", Position: event.Position{Stream: "t0", Offset: event.At(uint64(i/2+1), i%2)}, ID: ulid.MustNew(ulid.Timestamp(at), ulid.DefaultEntropy()),
			Type: "deployment.completed", Subject: fmt.Sprint("run", i/2), ReceivedAt: at, EffectiveAt: at,
			Author: event.Author{CredentialID: "k1", CredentialName: "ci", Mode: event.Live},
		}
		if i == total/2 {
			r.Type, r.Author = "version.created", event.Author{CredentialID: "k2", Mode: event.Test, Actor: "u1"}
			middle = r
		}
		if rows.Events = append(rows.Events, r); len(rows.Events) == total/parts {
			if err := w.Store(t.Context(), &rows, readmodel.Progress{Stream: "t0", Offset: r.Position.Offset, Time: at}); err != nil {
				t.Fatal(err)
			}
			rows.Reset()
		}
	}
	whole := readmodel.Spans{"t0": {UpTo: event.At(total, 0)}, "c": {UpTo: event.At(total, 0)}}
	const page, most = 51, 20_000 // a few blocks of each part
	for _, c := range []struct {
		filter readmodel.EventFilter
		want   int
	}{
		{readmodel.EventFilter{}, page},
		{readmodel.EventFilter{Family: "deployment"}, page},
		{readmodel.EventFilter{Family: "version"}, 1},
		{readmodel.EventFilter{Family: "credential"}, 0},
		{readmodel.EventFilter{Type: middle.Type}, 1},
		{readmodel.EventFilter{Credential: "k1"}, page},
		{readmodel.EventFilter{Credential: "k2"}, 1},
		{readmodel.EventFilter{Actor: "u1"}, 1},
		{readmodel.EventFilter{Mode: event.Test}, 1},
		{readmodel.EventFilter{Subject: middle.Subject}, 2},
		{readmodel.EventFilter{Until: epoch.Add(-(total - 20) * time.Second)}, 20},
		{readmodel.EventFilter{Since: epoch.Add(-20 * time.Second)}, 20},
	} {
		for _, newest := range []bool{true, false} {
			ctx, read := countRows(t.Context())
			got, err := m.Events(ctx, "acme", c.filter, whole, newest, page)
			if err != nil || len(got) != c.want {
				t.Errorf("%+v: %d events, %v; want %d", c.filter, len(got), err, c.want)
			}
			t.Logf("%+v, newest first %t: %d rows read", c.filter, newest, read())
			if read() > most {
				t.Errorf("%+v, newest first %t: %d rows read of %d", c.filter, newest, read(), total)
			}
		}
	}
	ctx, read := countRows(t.Context())
	if got, err := m.Event(ctx, "acme", middle.ID); err != nil || got.Position != middle.Position || read() > most {
		t.Errorf("by id: %+v, %v, %d rows read", got, err, read())
	}
}
