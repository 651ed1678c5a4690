package natslog_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/eventlogtest"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
)

// start runs a server on dir until stop is called or the test ends.
func start(t *testing.T, dir string) (js jetstream.JetStream, stop func()) {
	t.Helper()
	srv, err := natsserver.New(natsserver.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	halt := lifecycletest.Run(t, srv)
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	stop = func() {
		nc.Close()
		halt()
	}
	t.Cleanup(stop)
	if js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return js, stop
}

func open(t *testing.T, js jetstream.JetStream, cfg natslog.Config) *natslog.Log {
	t.Helper()
	log, err := natslog.Open(t.Context(), js, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestLogKeepsTheContract(t *testing.T) {
	eventlogtest.Run(t, func(t *testing.T) eventlog.Log {
		js, _ := start(t, t.TempDir())
		return open(t, js, natslog.Credentials(1))
	})
}

func TestLogOutlivesItsServer(t *testing.T) {
	dir := t.TempDir()
	js, stop := start(t, dir)
	log := open(t, js, natslog.Track(0, 1))
	for i := range uint64(3) {
		if _, err := log.AppendFrame(t.Context(), eventlog.Frame{ID: fmt.Sprint(i), Body: []byte("[]")}, i); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	js, _ = start(t, dir)
	log = open(t, js, natslog.Track(0, 1))
	if last, err := log.Last(t.Context()); last != 3 || err != nil {
		t.Errorf("last = %d, %v; want 3", last, err)
	}
}

// Whoever reads often, as checkpoints of the log are made, would otherwise leave hundreds.
func TestAReaderLeavesNoConsumerBehind(t *testing.T) {
	js, _ := start(t, t.TempDir())
	log := open(t, js, natslog.Track(0, 1))
	for i := range uint64(3) {
		if _, err := log.AppendFrame(t.Context(), eventlog.Frame{ID: fmt.Sprint(i), Body: []byte("[]")}, i); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, c := range []struct {
		name   string
		frames iter.Seq2[eventlog.Recorded, error]
		take   func() (more bool)
	}{
		{"reads to the end", log.Read(t.Context(), 0), func() bool { return true }},
		{"breaks off", log.Read(t.Context(), 0), func() bool { return false }},
		{"follows until it is told to stop", log.Follow(ctx, 0), func() bool { cancel(); return true }},
	} {
		for _, err := range c.frames {
			if err != nil {
				t.Fatalf("who %s: %v", c.name, err)
			}
			if !c.take() {
				break
			}
		}
	}
	stream, err := js.Stream(t.Context(), natslog.Track(0, 1).Stream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Consumers; n != 0 {
		t.Errorf("the server has %d consumers after all readers ended, want none", n)
	}
}

func TestAFullLogRefusesAndForgetsNothing(t *testing.T) {
	js, _ := start(t, t.TempDir())
	cfg := natslog.Track(0, 1)
	cfg.MaxBytes = 4096
	log := open(t, js, cfg)
	body := make([]byte, 1000)
	var stored uint64
	var err error
	for err == nil && stored < 100 {
		if _, err = log.AppendFrame(t.Context(), eventlog.Frame{ID: fmt.Sprint(stored), Body: body}, stored); err == nil {
			stored++
		}
	}
	if !errors.Is(err, eventlog.ErrRefused) || stored == 0 {
		t.Fatalf("after %d frames: %v, want a refusal", stored, err)
	}
	var read uint64
	for _, err := range log.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		read++
	}
	if read != stored {
		t.Errorf("%d frames are there, want the %d that were stored", read, stored)
	}
}

func TestAppendToAStoppedServerIsNeverTakenForStored(t *testing.T) {
	js, stop := start(t, t.TempDir())
	log := open(t, js, natslog.Track(0, 1))
	stop()
	_, err := log.AppendFrame(t.Context(), eventlog.Frame{ID: "x", Body: []byte("[]")}, 0)
	if !errors.Is(err, eventlog.ErrUnreachable) && !errors.Is(err, eventlog.ErrAmbiguous) {
		t.Errorf("err = %v", err)
	}
}
