package integration_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
	"github.com/shipledger/shipledger/pkg/kv/natskv"
	"github.com/shipledger/shipledger/services/compose"
)

// denied is how long a request may take that nobody answers: NATS drops what is not
// permitted. It bounds how long the test waits, and says nothing of how fast anything is.
const denied = 100 * time.Millisecond

// partitions is how many of a log the file lets its users make and read.
const partitions = 8

// startNATS runs the file as it stands, but for its ports and its folder.
func startNATS(t *testing.T) *natsd.Server {
	t.Helper()
	text, err := os.ReadFile("../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range compose.Services {
		t.Setenv("NATS_"+strings.ToUpper(name)+"_PASSWORD", "of-"+name)
	}
	dir := t.TempDir()
	conf := strings.NewReplacer("127.0.0.1:4222", "127.0.0.1:-1", "127.0.0.1:8222", "127.0.0.1:-1", "./data/nats", dir).Replace(string(text))
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := natsd.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !options.SyncAlways {
		t.Error("it answers before its disk has a message")
	}
	options.NoLog, options.NoSigs = true, true
	srv, err := natsd.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("it does not start")
	}
	return srv
}

// Every user can do the work of its service, on the adapters that services use, and
// nothing that another service decides.
func TestAServiceMayDoInNATSWhatItDoesAndNothingElse(t *testing.T) {
	srv := startNATS(t)
	streams := map[string]jetstream.JetStream{}
	for _, name := range compose.Services {
		nc, err := natsgo.Connect(srv.ClientURL(), natsgo.UserInfo(name, "of-"+name), natsgo.Timeout(time.Minute), natsgo.ErrorHandler(func(*natsgo.Conn, *natsgo.Subscription, error) {}))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(nc.Close)
		if streams[name], err = jetstream.New(nc, jetstream.WithDefaultTimeout(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := natsgo.Connect(srv.ClientURL()); err == nil {
		t.Error("somebody without a name is let in")
	}
	// A log of as many partitions as the file has users for.
	if _, err := natslog.OpenTracks(t.Context(), streams["ingest"], natslog.Tracks{Partitions: partitions}); err != nil {
		t.Fatalf("ingest makes %d partitions: %v", partitions, err)
	}
	for _, name := range []string{"query", "projector"} {
		tracks, err := natslog.OpenTracks(t.Context(), streams[name], natslog.Tracks{Foreign: true})
		if err != nil || len(tracks) != partitions {
			t.Fatalf("%s opens %d partitions: %v", name, len(tracks), err)
		}
	}
	owners := []struct {
		writer  string
		log     natslog.Config
		subject string
		readers []string
	}{
		{"accounts", natslog.Credentials(1), "cred.main.sk.x", compose.Services},
		{"ingest", natslog.Track(0, 1), "track.00", []string{"ingest", "query", "projector"}},
		{"ingest", natslog.Track(3, 1), "track.03", []string{"ingest", "query", "projector"}},
		{"ingest", natslog.Track(partitions-1, 1), "track.07", []string{"ingest", "query", "projector"}},
		{"projector", natslog.Operations(1), "ops.replay.x", []string{"query", "projector"}},
		{"query", natslog.Checkpoints(1), "checkpoint.t0", []string{"query"}},
	}
	for _, o := range owners {
		own, err := natslog.Open(t.Context(), streams[o.writer], o.log)
		if err != nil {
			t.Fatalf("%s makes %s: %v", o.writer, o.log.Stream, err)
		}
		if _, err := own.AppendFrame(t.Context(), eventlog.Frame{ID: "first", Subject: o.subject, Body: []byte("[]")}, 0); err != nil {
			t.Fatalf("%s appends to %s: %v", o.writer, o.log.Stream, err)
		}
		for _, name := range compose.Services {
			may := strings.Contains(strings.Join(o.readers, " "), name)
			if read := reads(t, streams[name], o.log, may); read != may {
				t.Errorf("%s reads %s: %v, want %v", name, o.log.Stream, read, may)
			}
			if name == o.writer {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), denied)
			if _, err := streams[name].Publish(ctx, o.subject, []byte("[]")); err == nil {
				t.Errorf("%s appends to %s", name, o.log.Stream)
			}
			cancel()
		}
		for _, name := range compose.Services {
			ctx, cancel := context.WithTimeout(t.Context(), denied)
			if err := streams[name].DeleteStream(ctx, o.log.Stream); err == nil {
				t.Errorf("%s deletes %s", name, o.log.Stream)
			}
			cancel()
		}
		if last, err := own.Last(t.Context()); err != nil || last != 1 {
			t.Errorf("%s ends at %d: %v", o.log.Stream, last, err)
		}
	}
	for _, name := range compose.Services {
		for _, bucket := range []string{"NODES", "SETTINGS", "USAGE", "BUDGETS"} {
			if err := keeps(t, streams[name], bucket, name); err != nil {
				t.Errorf("%s keeps %s: %v", name, bucket, err)
			}
		}
	}
	if err := keeps(t, streams["projector"], "LEASES", "projector"); err != nil {
		t.Errorf("the projector leads: %v", err)
	}
	if err := keeps(t, streams["query"], "LEASES", "query"); err == nil {
		t.Error("query says who leads")
	}
	if _, err := natslog.OpenObjects(t.Context(), streams["ingest"], "STATE", "snapshots", 1); err != nil {
		t.Errorf("ingest keeps snapshots: %v", err)
	}
}

func reads(t *testing.T, js jetstream.JetStream, cfg natslog.Config, may bool) bool {
	t.Helper()
	patience := denied
	if may {
		patience = time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cfg.Foreign = true
	log, err := natslog.Open(ctx, js, cfg)
	if err != nil {
		return false
	}
	whole, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for r, err := range log.Read(whole, 0) {
		return err == nil && r.ID == "first"
	}
	return false
}

// keeps writes an entry and hears of it.
func keeps(t *testing.T, js jetstream.JetStream, bucket, key string) error {
	t.Helper()
	patience := time.Minute
	if bucket == "LEASES" && key != "projector" {
		patience = denied
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	table, err := natskv.Open(ctx, js, natskv.Config{Bucket: bucket, Volatile: true})
	if err != nil {
		return err
	}
	if _, err := table.Put(ctx, key, []byte("x")); err != nil {
		return err
	}
	for e, err := range table.Watch(ctx) {
		if err != nil || e.Key == key {
			return err
		}
	}
	return errors.New("it is not heard")
}
