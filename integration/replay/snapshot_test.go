package replay_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/logarchive"
)

// export keeps what a log holds in the folder for snapshots, as an operator would.
func (w *world) export(name string, log eventlog.Reader) []byte {
	w.t.Helper()
	var b bytes.Buffer
	if _, err := logarchive.Write(w.t.Context(), &b, []logarchive.Source{{Stream: "t0", Log: log}}, logarchive.Options{}); err != nil {
		w.t.Fatal(err)
	}
	w.snapshot(name, b.Bytes())
	return b.Bytes()
}

func (w *world) snapshot(name string, archive []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.snapshots, name), archive, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func TestAReplayRunsFromASnapshotAndGoesOnWithTheLog(t *testing.T) {
	w := newWorld(t)
	w.snapshots = t.TempDir()
	w.start(w.model)
	for range 5 {
		w.post(10)
	}
	archive := w.export("monday.jsonl", w.track)
	w.post(10) // what the snapshot does not hold
	w.projected()

	r := w.startReplay(`{"snapshot":"monday.jsonl","switch":"when_equal"}`)
	w.reaches(r.ID, "switched")
	if c := w.certificate(r.ID); c.Verdict != "equal" {
		t.Errorf("%+v", c)
	}
	w.post(10)
	w.equalsMemory()

	// Nothing is made of a file that is not sound, or not of this log.
	w.snapshot("damaged.jsonl", bytes.Replace(archive, []byte(`"seq":2`), []byte(`"seq":3`), 1))
	other := memlog.New()
	for f, err := range w.track.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		frame := f.Frame
		if f.Seq == 3 {
			frame.Body = append(bytes.Clone(frame.Body), ' ')
		}
		if _, err := other.AppendFrame(t.Context(), frame, f.Seq-1); err != nil {
			t.Fatal(err)
		}
	}
	w.export("other.jsonl", other)
	last, err := w.track.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ahead := memlog.New()
	for f, err := range w.track.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ahead.AppendFrame(t.Context(), f.Frame, f.Seq-1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ahead.AppendFrame(t.Context(), eventlog.Frame{ID: "more", Body: []byte("[]")}, last); err != nil {
		t.Fatal(err)
	}
	w.export("ahead.jsonl", ahead)
	for name, reason := range map[string]string{
		"damaged.jsonl": "is not sound", "other.jsonl": "is not of this log: they differ at t0.3", "ahead.jsonl": "goes on where the log ends",
	} {
		failed := w.reaches(w.startReplay(`{"snapshot":"`+name+`"}`).ID, "failed")
		if failed.Reason == nil || !strings.Contains(*failed.Reason, reason) {
			t.Errorf("%s: %+v; want a reason that says %q", name, failed, reason)
		}
	}
	w.equalsMemory()
}

func TestNoSnapshotIsReadThatNobodyPutThere(t *testing.T) {
	w := newWorld(t)
	w.start(w.model)
	w.post(1)
	refused := func(name string) {
		t.Helper()
		if code := w.ask(http.MethodPost, "/replays/", `{"snapshot":"`+name+`"}`, nil); code != http.StatusUnprocessableEntity {
			t.Errorf("%s: answered %d", name, code)
		}
	}
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "log.jsonl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("log.jsonl") // there is no folder
	w.stop()
	w.snapshots = filepath.Join(outside, "snapshots")
	if err := os.Mkdir(w.snapshots, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(w.snapshots, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "log.jsonl"), filepath.Join(w.snapshots, "link.jsonl")); err != nil {
		t.Fatal(err)
	}
	w.start(w.model)
	for _, name := range []string{"log.jsonl", "../log.jsonl", filepath.Join(outside, "log.jsonl"), "folder", ".", "..", "link.jsonl", "folder/../../log.jsonl"} {
		refused(name)
	}
}
