package natslog_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
)

func openTracks(t *testing.T, js jetstream.JetStream, cfg natslog.Tracks) []*natslog.Log {
	t.Helper()
	logs, err := natslog.OpenTracks(t.Context(), js, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return logs
}

// ends gives the last sequence of each partition.
func ends(t *testing.T, logs []*natslog.Log) []uint64 {
	t.Helper()
	var out []uint64
	for _, log := range logs {
		last, err := log.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, last)
	}
	return out
}

func TestTheNumberOfPartitionsIsFixedWhenTheLogIsMade(t *testing.T) {
	dir := t.TempDir()
	js, stop := start(t, dir)
	logs := openTracks(t, js, natslog.Tracks{Partitions: 3})
	if len(logs) != 3 {
		t.Fatalf("%d partitions, want 3", len(logs))
	}
	for i, log := range logs {
		for n := range uint64(i) {
			if _, err := log.AppendFrame(t.Context(), eventlog.Frame{ID: fmt.Sprint(i, n), Body: []byte("[]")}, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	js, _ = start(t, dir)
	for _, cfg := range []natslog.Tracks{{}, {Partitions: 3}, {Foreign: true}, {MaxBytes: 1 << 30}} {
		if got := ends(t, openTracks(t, js, cfg)); fmt.Sprint(got) != "[0 1 2]" {
			t.Errorf("%+v: the partitions end at %v", cfg, got)
		}
	}
	_, err := natslog.OpenTracks(t.Context(), js, natslog.Tracks{Partitions: 4})
	var other *natslog.PartitionsError
	if !errors.As(err, &other) || other.Has != 3 || other.Asked != 4 {
		t.Errorf("another number: %v", err)
	}
	open(t, js, natslog.Track(0, 1)) // whoever opens the first one alone leaves what it says
	if got := openTracks(t, js, natslog.Tracks{}); len(got) != 3 {
		t.Errorf("now there are %d partitions", len(got))
	}
}

func TestALogThatSaysNothingHasOnePartition(t *testing.T) {
	js, _ := start(t, t.TempDir())
	open(t, js, natslog.Track(0, 1))
	if _, err := natslog.OpenTracks(t.Context(), js, natslog.Tracks{Partitions: 2}); err == nil {
		t.Error("it is divided")
	}
	for _, cfg := range []natslog.Tracks{{}, {Partitions: 1}, {Foreign: true}} {
		if got := openTracks(t, js, cfg); len(got) != 1 {
			t.Errorf("%+v: %d partitions", cfg, len(got))
		}
	}
}

func TestALogHasFrom1To64Partitions(t *testing.T) {
	js, _ := start(t, t.TempDir())
	for _, n := range []int{-1, 65} {
		if _, err := natslog.OpenTracks(t.Context(), js, natslog.Tracks{Partitions: n}); err == nil {
			t.Errorf("%d partitions are made", n)
		}
	}
	if _, err := js.Stream(t.Context(), "TRACK_00"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("a stream was made: %v", err)
	}
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "TRACK_00", Subjects: []string{"track.00"}, Metadata: map[string]string{"shipledger-partitions": "many"}})
	if err != nil || s == nil {
		t.Fatal(err)
	}
	if _, err := natslog.OpenTracks(t.Context(), js, natslog.Tracks{}); err == nil || !strings.Contains(err.Error(), "many") {
		t.Errorf("a number that is none: %v", err)
	}
}

// Of processes that make a log at once one decides; the others find its number, and
// who was told another one hears so.
func TestOneOfSeveralDecidesHowManyPartitionsThereAre(t *testing.T) {
	js, _ := start(t, t.TempDir())
	const each = 4
	var wg sync.WaitGroup
	found := make([]int, 3*each)
	for i := range found {
		asked := 1 + i%3
		wg.Go(func() {
			logs, err := natslog.OpenTracks(t.Context(), js, natslog.Tracks{Partitions: asked})
			var other *natslog.PartitionsError
			switch {
			case errors.As(err, &other):
				found[i] = other.Has
			case err != nil:
				t.Error(err)
			case len(logs) != asked:
				t.Errorf("asked for %d, got %d", asked, len(logs))
			default:
				found[i] = len(logs)
			}
		})
	}
	wg.Wait()
	for _, n := range found {
		if n != found[0] {
			t.Fatalf("they found %v", found)
		}
	}
}

func TestTheBoundOfALogIsSharedByItsPartitions(t *testing.T) {
	js, _ := start(t, t.TempDir())
	openTracks(t, js, natslog.Tracks{Partitions: 4, MaxBytes: 1 << 20})
	for _, name := range []string{"TRACK_00", "TRACK_03"} {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.CachedInfo().Config.MaxBytes; got != 1<<18 {
			t.Errorf("%s may hold %d bytes", name, got)
		}
	}
}
