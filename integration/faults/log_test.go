//go:build linux

package faults_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
)

// history is the log as it was read from its files.
type history struct {
	frames []eventlog.Recorded
	events []event.Recorded
}

// readLog opens a copy of a JetStream folder whose server is not running, so
// that the original is still there for the product to recover.
func readLog(t *testing.T, folder string) history {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	srv, err := natsserver.New(natsserver.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer lifecycletest.Run(t, srv)()
	ctx := t.Context()
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	log, err := natslog.Open(ctx, js, natslog.Track(0, 1))
	if err != nil {
		t.Fatal(err)
	}
	var h history
	if err := h.read(ctx, log); err != nil {
		t.Fatal(err)
	}
	return h
}

// read adds what the log holds behind what is known of it.
func (h *history) read(ctx context.Context, log eventlog.Reader) error {
	var after uint64
	if n := len(h.frames); n > 0 {
		after = h.frames[n-1].Seq
	}
	for r, err := range log.Read(ctx, after) {
		if err != nil {
			return err
		}
		events, err := event.DecodeFrame(event.TrackStream(0), r.Seq, r.Body)
		if err != nil {
			return err
		}
		h.frames, h.events = append(h.frames, r), append(h.events, events...)
	}
	return nil
}

// logOf is where the product keeps its embedded log.
func logOf(dir string) string { return filepath.Join(dir, "nats") }

// sound holds the log to what is true of it at any moment.
func (h *history) sound(t *testing.T) {
	t.Helper()
	frames, events, created := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, f := range h.frames {
		if f.Seq != uint64(i+1) {
			t.Fatalf("frame %d stands at sequence %d", i+1, f.Seq)
		}
		if frames[f.ID] {
			t.Errorf("frame %s is stored twice", f.ID)
		}
		frames[f.ID] = true
	}
	for i, e := range h.events {
		if id := e.ID.String(); events[id] {
			t.Errorf("event %s is stored twice", id)
		} else {
			events[id] = true
		}
		if i > 0 && e.Time.Before(h.events[i-1].Time) {
			t.Errorf("receipt falls from %s to %s at %s", h.events[i-1].Time, e.Time, e.Position)
		}
		if strings.HasSuffix(string(e.Type), ".created") {
			if created[e.Subject] {
				t.Errorf("%s of %s at %s, which exists already", e.Type, e.Subject, e.Position)
			}
			created[e.Subject] = true
		}
	}
}

// begins holds the log to have kept every byte of what it was before.
func (h *history) begins(t *testing.T, before history) {
	t.Helper()
	if len(h.frames) < len(before.frames) {
		t.Fatalf("the log has lost frames: %d are left of %d", len(h.frames), len(before.frames))
	}
	for i, f := range before.frames {
		if g := h.frames[i]; g.ID != f.ID || string(g.Body) != string(f.Body) {
			t.Fatalf("frame %d has changed", f.Seq)
		}
	}
}

// A verdict is what a comparison of acknowledgements with a log came to.
type verdict struct {
	lost, doubled int
	faults        []string
}

func (v *verdict) fault(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

// reportOf gives what an event was sent as. What has no run id is told apart by
// its version, which then is one of its own.
func reportOf(e *event.Recorded) (report, bool) {
	p, ok := e.Payload.(*event.Run)
	if !ok {
		return report{}, false
	}
	kind, status, _ := strings.Cut(string(e.Type), ".")
	return report{kind, cmp.Or(p.Record.Attributes[event.InvokeID], p.Record.Version), status}, true
}

// judge holds each of these acknowledgements to be in the log, once and where it
// was said to be, and the log to hold nothing that was not sent.
func (h *history) judge(l *ledger, acks map[report]ack) (v verdict) {
	stored := map[report]*event.Recorded{}
	for i := range h.events {
		e := &h.events[i]
		r, ok := reportOf(e)
		if !ok {
			continue
		}
		if before, twice := stored[r]; twice {
			v.doubled++
			v.fault("%v is stored twice, at %s and %s", r, before.Position, e.Position)
		}
		if !l.wasSent(r) {
			v.fault("%v at %s was never sent", r, e.Position)
		}
		stored[r] = e
	}
	for r, a := range acks {
		e, ok := stored[r]
		if !ok {
			v.lost++
			v.fault("%v was acknowledged as event %s at %q and is not in the log", r, a.event, a.position)
			continue
		}
		if e.ID.String() != a.event || e.Subject != a.run || a.position != "" && a.position != e.Position.String() {
			v.fault("%v was acknowledged as %v and stands in the log as event %s of %s at %s", r, a, e.ID, e.Subject, e.Position)
		}
	}
	return v
}

// holds fails the test for every fault that judge finds.
func (h *history) holds(t *testing.T, l *ledger, acks map[report]ack) {
	t.Helper()
	v := h.judge(l, acks)
	for _, f := range v.faults[:min(len(v.faults), 10)] {
		t.Error(f)
	}
	if v.lost > 0 {
		t.Errorf("%d of %d acknowledged events are lost", v.lost, len(acks))
	}
}

// runs gives each run of a kind and how it stands after its last event.
func (h *history) runs(kind event.Kind) map[string]string {
	out := map[string]string{}
	for _, e := range h.events {
		if p, ok := e.Payload.(*event.Run); ok && p.Record.Kind == kind {
			out[e.Subject] = p.Record.Status.String()
		}
	}
	return out
}
