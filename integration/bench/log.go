package bench

import (
	"context"
	"fmt"
	"io"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
)

// LogArg starts this binary as the NATS that several processes share; the
// argument behind it is the directory of the streams.
const LogArg = "nats-server"

const logReady = 30 * time.Second

// ServeLog is NATS on a port of its own, which it prints, until input ends. It
// writes through, as the embedded one does.
func ServeLog(dir string, input io.Reader, output io.Writer) error {
	s, err := natsd.NewServer(&natsd.Options{
		ServerName: "bench", Host: "127.0.0.1", Port: natsd.RANDOM_PORT, JetStream: true, StoreDir: dir, SyncAlways: true, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return fmt.Errorf("configure NATS: %w", err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(logReady) {
		return fmt.Errorf("NATS is not ready after %s", logReady)
	}
	if _, err := fmt.Fprintln(output, s.Addr()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, input)
	return err
}

func startLog(ctx context.Context, dir string) (*server, error) { return startSelf(ctx, LogArg, dir) }
