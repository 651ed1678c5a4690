//go:build linux

package faults_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/event"
)

func TestAcknowledgedEventsSurviveKilledProcesses(t *testing.T) {
	const kills = 10
	moment := newRand(t)
	s := setup{dir: t.TempDir()}
	srv := start(t, s)
	k := srv.keys(t)
	l, at := newLedger(), newTarget(srv.url)
	c := newClient(at, l, k.APIKey)
	var before history
	var unanswered int
	for round := range rounds(kills, 2) {
		acked := l.count()
		work := startLoad(t, newName("kill", round), restless, c)
		eventually(t, "the load is under way", func() error {
			if l.count() < acked+50 {
				return errors.New("few events are acknowledged")
			}
			return nil
		})
		// The one wait for a time to pass: the failure itself is at a random moment.
		<-time.After(time.Duration(moment.IntN(400)) * time.Millisecond)
		srv.kill()
		at.move("")
		work.end()
		acks := l.snapshot() // a moment after the kill: what comes later belongs to the next life

		dead := readLog(t, logOf(s.dir))
		dead.sound(t)
		dead.begins(t, before)
		dead.holds(t, l, acks)
		before = dead
		for _, e := range dead.events {
			if p, ok := e.Payload.(*event.Run); ok {
				if _, ok := acks[report{p.Record.Kind.String(), p.Record.Attributes[event.InvokeID], p.Record.Status.String()}]; !ok {
					unanswered++
				}
			}
		}

		srv = start(t, s)
		at.move(srv.url)
		work.settle(t)
		deployments := newReader(srv.url, k.PAT).sees(t, l)
		l.clean(t)
		t.Logf("kill %d: %d events acknowledged, %d frames in the log left behind; read after the restart: %d deployments",
			round+1, len(acks), len(dead.frames), deployments)
		if t.Failed() {
			return
		}
	}
	listed := newReader(srv.url, k.PAT).sees(t, l)
	srv.interrupt(t)
	end := readLog(t, logOf(s.dir))
	end.sound(t)
	end.begins(t, before)
	end.holds(t, l, l.snapshot())
	if diff := cmp.Diff(end.runs(event.Deployment), l.runs("deployment")); diff != "" {
		t.Errorf("deployments in the log (-) and acknowledged (+) differ:\n%.4000s", diff)
	}
	if n := len(end.runs(event.Deployment)); n != listed {
		t.Errorf("the log has %d deployments and the list %d", n, listed)
	}
	t.Logf("%d events acknowledged, all in the log once; %d frames, %d events; %d of the events found after a kill had lost their answer",
		l.count(), len(end.frames), len(end.events), unanswered)
}

func TestInterruptUnderLoadLosesNothing(t *testing.T) {
	s := setup{dir: t.TempDir()}
	srv := start(t, s)
	k := srv.keys(t)
	l, at := newLedger(), newTarget(srv.url)
	c := newClient(at, l, k.APIKey)
	work := startLoad(t, "interrupt", restless, c)
	eventually(t, "the load is under way", func() error {
		if l.count() < 500 {
			return errors.New("few events are acknowledged")
		}
		return nil
	})
	began := time.Now()
	srv.interrupt(t)
	took := time.Since(began)
	at.move("")
	work.end()
	acks := l.snapshot()
	left := readLog(t, logOf(s.dir))
	left.sound(t)
	left.holds(t, l, acks)

	srv = start(t, s)
	at.move(srv.url)
	work.settle(t)
	deployments := newReader(srv.url, k.PAT).sees(t, l)
	l.clean(t)
	srv.interrupt(t)
	t.Logf("stopped under load in %s, exit code 0; %d events acknowledged by then, all kept; %d deployments read by the second start",
		took.Round(time.Millisecond), len(acks), deployments)
}

func TestKilledServerTakesItsEngineAlong(t *testing.T) {
	s := setup{dir: t.TempDir()}
	srv := start(t, s)
	engine := srv.engine(t)
	srv.kill()
	awaitGone(t, engine)
}
