package all_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/logarchive"
	"github.com/shipledger/shipledger/services/all"
)

// Restored frames stand in the embedded log at the same sequences: restoring
// checks each. What is there already is never added to.
func TestAnArchiveIsRestoredIntoAnEmptyDataDirectoryOnly(t *testing.T) {
	log := memlog.New()
	for i := range uint64(20) {
		f := eventlog.Frame{
			ID: fmt.Sprint("f", i), Subject: "track.00", ContentType: "application/json",
			Headers: map[string]string{"Shipledger-Tally": fmt.Sprint(i, "@0 ")}, Body: fmt.Appendf(nil, `[{"id":"E%d"}]`, i),
		}
		if _, err := log.AppendFrame(t.Context(), f, i); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	if _, err := logarchive.Write(t.Context(), &file, []logarchive.Source{{Stream: "t0", Log: log}}, logarchive.Options{}); err != nil {
		t.Fatal(err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(file.Bytes())), nil }
	cfg := all.Config{Data: t.TempDir(), NATSReplicas: 1}
	steps := 0
	if _, err := all.Restore(t.Context(), cfg, open, logarchive.Expect{}, func(uint64, uint64) { steps++ }); err != nil || steps != 20 {
		t.Fatal(steps, err)
	}
	if _, err := all.Restore(t.Context(), cfg, open, logarchive.Expect{}, nil); !errors.Is(err, logarchive.ErrNotEmpty) {
		t.Errorf("again: %v", err)
	}
}
