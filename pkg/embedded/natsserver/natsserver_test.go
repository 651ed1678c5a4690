package natsserver_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
)

// lines is a log that a test reads while it is written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The server calls a stream unwell while it is being made. Whoever opened the
// streams again for that would close them under a process that is starting.
func TestStreamsThatAreBeingMadeAreLeftAlone(t *testing.T) {
	var log lines
	srv, err := natsserver.New(natsserver.Config{Dir: t.TempDir(), LookEvery: time.Microsecond}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	up, down := make(chan struct{}), make(chan error, 1)
	go func() { down <- srv.Run(ctx, func() { close(up) }) }()
	select {
	case <-up:
	case err := <-down:
		t.Fatal(err)
	}
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nc.Close()
		cancel()
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		name := fmt.Sprint("S", i)
		if _, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name}}); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	if text := log.String(); text != "" {
		t.Errorf("streams in the making were meddled with: %s", text)
	}
}
