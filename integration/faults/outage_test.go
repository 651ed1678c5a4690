//go:build linux

package faults_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestKilledNATSLosesNothingAndIsFoundAgain(t *testing.T) {
	nats := startNATS(t, natsOptions{Dir: t.TempDir(), SyncAlways: true})
	s := setup{dir: t.TempDir(), env: nats.env(true)}
	srv := start(t, s)
	k := srv.keys(t)
	l := newLedger()
	c := newClient(newTarget(srv.url), l, k.APIKey)
	r := newReader(srv.url, k.PAT)
	work := startLoad(t, "outage", calm, c)
	underWay := func(what string) {
		acked := l.count()
		eventually(t, what, func() error {
			if l.count() < acked+200 {
				return errors.New("few events are acknowledged")
			}
			return nil
		})
	}
	underWay("the load is under way")

	nats.kill()
	gone := time.Now()
	acks := l.snapshot()
	eventually(t, "writes are refused", func() error {
		if l.refusedBy("LOG_UNAVAILABLE") == 0 {
			return errors.New("none was")
		}
		return nil
	})
	t.Logf("NATS is gone: %d events acknowledged by then, the first refusal after %s", len(acks), time.Since(gone).Round(time.Millisecond))
	eventually(t, "health says that NATS is gone", func() error {
		h, err := r.health(t.Context())
		if err == nil && (h.Parts["log"] != "unavailable" || h.Status != "degraded") {
			err = fmt.Errorf("%+v", h)
		}
		return err
	})
	left := readLog(t, nats.Dir)
	left.sound(t)
	left.holds(t, l, acks)
	nats = nats.again(t)
	back := time.Now()
	underWay("writes are acknowledged again")
	t.Logf("NATS is back: 200 more events acknowledged after %s", time.Since(back).Round(time.Millisecond))

	// One that is over within the retry budget.
	refused := l.refusedBy("LOG_UNAVAILABLE")
	nats.kill()
	nats = nats.again(t)
	underWay("writes are acknowledged after a short outage")
	t.Logf("NATS was killed and started again at once: %d writes were refused", l.refusedBy("LOG_UNAVAILABLE")-refused)

	work.end()
	work.settle(t)
	deployments := r.sees(t, l)
	eventually(t, "health is well again", func() error {
		h, err := r.health(t.Context())
		if err == nil && (h.Status != "ok" || h.Durability != "") {
			err = fmt.Errorf("%+v", h)
		}
		return err
	})
	l.clean(t)
	srv.interrupt(t)
	nats.stop()
	end := readLog(t, nats.Dir)
	end.sound(t)
	end.holds(t, l, l.snapshot())
	t.Logf("%d events acknowledged, all in the log once; %d answers 503; %d deployments read", l.count(), l.refusedBy("LOG_UNAVAILABLE"), deployments)
}

func TestNATSThatAnswersBeforeItsDiskIsRefused(t *testing.T) {
	nats := startNATS(t, natsOptions{Dir: t.TempDir(), SyncAlways: false})
	_, err := launch(t, setup{dir: t.TempDir(), env: nats.env(true)})
	if err == nil || !strings.Contains(err.Error(), "sync_interval: always") {
		t.Errorf("a NATS without sync_interval: always: %v", err)
	}
	t.Logf("refused: %v", err)
}

func TestUnknownDurabilityIsSaid(t *testing.T) {
	nats := startNATS(t, natsOptions{Dir: t.TempDir(), SyncAlways: true})
	srv := start(t, setup{dir: t.TempDir(), env: nats.env(false)})
	eventually(t, "health is well, but for this", func() error {
		h, err := newReader(srv.url, "").health(t.Context())
		if err == nil && (h.Durability != "unverified" || h.Status != "ok") { // tables are made a moment after the start
			err = fmt.Errorf("%+v", h)
		}
		return err
	})
}

// Two processes share nothing but the log, and decide alike.
func TestTwoProcessesDecideAsOne(t *testing.T) {
	const pairs = 50
	nats := startNATS(t, natsOptions{Dir: t.TempDir(), SyncAlways: true})
	env := append(nats.env(true), "SHIPLEDGER_PEPPER="+strings.Repeat("5e", 32))
	var servers [2]*server
	var clients [2]*client
	l := newLedger()
	for i := range servers {
		servers[i] = start(t, setup{dir: t.TempDir(), env: env})
		clients[i] = newClient(newTarget(servers[i].url), l, servers[0].keys(t).APIKey) // the first made the keys of both
	}
	work := startLoad(t, "two", calm, clients[0], clients[1])
	first := [2]int{}
	for n := range rounds(pairs, 10) {
		won := race(t, l, servers, clients, n)
		if t.Failed() {
			return
		}
		first[won]++
	}
	work.end()
	work.settle(t)
	for i, srv := range servers {
		r := newReader(srv.url, servers[0].keys(t).PAT)
		t.Logf("process %d: %d deployments read", i+1, r.sees(t, l))
	}
	l.clean(t)
	for _, srv := range servers {
		srv.interrupt(t)
	}
	nats.stop()
	end := readLog(t, nats.Dir)
	end.sound(t)
	end.holds(t, l, l.snapshot())
	t.Logf("%d events acknowledged by two processes, all in the log once, in %d frames; of %d races process 1 won %d and process 2 %d",
		l.count(), len(end.frames), first[0]+first[1], first[0], first[1])
}

// race starts two deployments of one product and environment through two
// processes at once: one is accepted, the other told so. The winner's is ended
// through the process that refused.
func race(t *testing.T, l *ledger, servers [2]*server, clients [2]*client, n int) (winner int) {
	t.Helper()
	var entries [2]entry
	var answers [2]response
	var errs [2]error
	gate := make(chan struct{})
	var both sync.WaitGroup
	for i := range entries {
		entries[i] = entry{
			report:  report{"deployment", fmt.Sprintf("race-%d-%d", n, i), "started"},
			product: "contested", environment: "production", version: fmt.Sprintf("3.%d.%d", n, i),
		}
		refused := entries[i].report
		refused.status = "preflight_failed"
		l.sending(entries[i].report, refused)
		both.Go(func() {
			<-gate
			errs[i] = clients[i].post(t.Context(), entries[i].path(), "application/json", entries[i].body(false), func(res response) bool {
				answers[i] = res
				return true
			})
		})
	}
	close(gate)
	both.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	switch [2]int{answers[0].status, answers[1].status} {
	case [2]int{http.StatusOK, http.StatusConflict}:
		winner = 0
	case [2]int{http.StatusConflict, http.StatusOK}:
		winner = 1
	default:
		t.Fatalf("pair %d: answered %d and %d, want one 200 and one 409:\n%s\n%s", n, answers[0].status, answers[1].status, answers[0].body, answers[1].body)
	}
	loser := 1 - winner
	clients[winner].took(entries[winner], answers[winner])
	var won runAnswer
	var lost struct {
		Code    string `json:"code"`
		Details struct {
			Deployment  string `json:"deployment_id"`
			Conflicting string `json:"conflicting_deployment_id"`
		} `json:"details"`
	}
	if err := errors.Join(json.Unmarshal(answers[winner].body, &won), json.Unmarshal(answers[loser].body, &lost)); err != nil {
		t.Fatal(err)
	}
	if lost.Code != "CONCURRENT_DEPLOYMENT" || lost.Details.Conflicting != won.ID {
		t.Errorf("pair %d: %s won, the other was told %s", n, won.ID, answers[loser].body)
	}
	l.refusedStart(lost.Details.Deployment)
	end := entries[winner]
	end.status = "completed"
	if err := clients[loser].single(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	return winner
}
