package chserver

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// acceptAgain is the pause after a connection that could not be taken, such as for
// want of files.
const acceptAgain = 50 * time.Millisecond

// Relay passes what comes on connections of ln on to the engine, until ctx is done; it
// closes ln. The engine itself speaks no TLS: this puts a listener before it that does.
func (s *Server) Relay(ctx context.Context, ln net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err != nil {
			if !wait(ctx, acceptAgain) {
				return nil
			}
			continue
		}
		conns.Go(func() { s.relay(ctx, c) })
	}
}

// relayPatience is how long a client may take to agree on TLS, where the listener speaks it.
const relayPatience = 10 * time.Second

func (s *Server) relay(ctx context.Context, client net.Conn) {
	defer client.Close()
	if secure, ok := client.(interface {
		HandshakeContext(ctx context.Context) error
	}); ok {
		// Before the engine hears of it: who may not speak takes none of its connections.
		agreeing, cancel := context.WithTimeout(ctx, relayPatience)
		err := secure.HandshakeContext(agreeing)
		cancel()
		if err != nil {
			return
		}
	}
	engine, err := s.DialContext(ctx, "")
	if err != nil {
		return // it is down, and says so in the log
	}
	defer engine.Close()
	stop := context.AfterFunc(ctx, func() { _, _ = client.Close(), engine.Close() })
	defer stop()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, engine) // whichever side ends, both do
		_ = client.Close()
	})
	_, _ = io.Copy(engine, client)
	_ = engine.Close()
	back.Wait()
}
