package accounts_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
)

// warnings gives the warnings in a log, as credential and days.
func warnings(t *testing.T, log eventlog.Log) map[string][]int {
	t.Helper()
	got := map[string][]int{}
	for _, f := range frames(t, log) {
		e, err := event.DecodeEvent(event.Position{Stream: event.CredentialStream, Offset: event.At(f.Seq, 0)}, f.Body)
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != credential.Expiring {
			continue
		}
		state, err := credential.Decode(&e.Event)
		if err != nil {
			t.Fatal(err)
		}
		r := state.(*credential.Record)
		got[r.ID] = append(got[r.ID], r.DaysLeft)
	}
	return got
}

// lookAt lets every process look for what ends soon, all at the same time, and
// returns when nothing more is recorded.
func lookAt(t *testing.T, processes []*process, later time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, p := range processes {
		p.later.Store(int64(later))
		group.Go(func() {
			if err := p.warn.Run(ctx, func() {}); err != nil {
				t.Error(err)
			}
		})
	}
	deadline := time.Now().Add(time.Minute)
	for len(processes[0].ring.Warnings(noon.Add(later))) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("what is due is not recorded")
		}
	}
	cancel()
	group.Wait()
}

// Rows: VF-17, VF-18
func TestAdminsAreWarnedTwiceAndOnceEachByHoweverManyProcesses(t *testing.T) {
	log, admin := founded(t)
	processes := []*process{newProcess(t, log, admin), newProcess(t, log, admin), newProcess(t, log, admin)}
	const day = 24 * time.Hour
	kept, missed, revoked := processes[0].create(), processes[0].create(), processes[0].create()
	if got := processes[0].send(http.MethodDelete, "/api-keys/"+revoked.ID, ""); got.status != http.StatusNoContent {
		t.Fatalf("%+v", got)
	}
	late := processes[0].send(http.MethodPost, "/personal-access-tokens/", `{"name":"late","expires":"90d"}`)
	for _, look := range []struct {
		days float64
		want []int // of the keys, which end after 30 days
	}{
		{15.9, nil}, {16, []int{14}}, {16.5, []int{14}}, {26.9, []int{14}}, {27, []int{14, 3}}, {29.9, []int{14, 3}}, {31, []int{14, 3}},
	} {
		lookAt(t, processes, time.Duration(look.days*float64(day)))
		got := warnings(t, log)
		if !slices.Equal(got[kept.ID], look.want) || !slices.Equal(got[missed.ID], look.want) || got[revoked.ID] != nil || got[late.ID] != nil {
			t.Errorf("after %v days: %v", look.days, got)
		}
	}
	lookAt(t, processes, 89*day) // nobody looked on either day
	if got := warnings(t, log)[late.ID]; !slices.Equal(got, []int{14, 3}) {
		t.Errorf("after an outage: %v", got)
	}
}
