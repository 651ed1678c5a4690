//go:build linux

package faults_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
)

// A wire is a connection to a server that can fall silent: nothing that is sent
// arrives, and nobody is told. It is what a network does, which a server that is
// killed does not.
type wire struct {
	net.Listener
	dial func(context.Context) (net.Conn, error)

	mu    sync.Mutex
	speak chan struct{} // closed while bytes pass
	open  map[net.Conn]bool
	pipes sync.WaitGroup
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	return newWireTo(t, func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", to) })
}

// newWireTo leads to wherever the server is by now.
func newWireTo(t *testing.T, dial func(context.Context) (net.Conn, error)) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: listener, dial: dial, speak: make(chan struct{}), open: map[net.Conn]bool{}}
	close(w.speak)
	w.pipes.Go(w.serve)
	t.Cleanup(func() {
		listener.Close()
		w.restore()
		w.mu.Lock()
		for c := range w.open {
			c.Close()
		}
		w.mu.Unlock()
		w.pipes.Wait()
	})
	return w
}

func (w *wire) serve() {
	for {
		in, err := w.Accept()
		if err != nil {
			return // closed
		}
		out, err := w.dial(context.Background())
		if err != nil {
			in.Close()
			continue
		}
		w.mu.Lock()
		w.open[in], w.open[out] = true, true
		w.mu.Unlock()
		w.pipes.Go(func() { w.carry(in, out) })
		w.pipes.Go(func() { w.carry(out, in) })
	}
}

// carry passes bytes on until an end is closed.
func (w *wire) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		speak := w.speak
		w.mu.Unlock()
		<-speak
		if _, writeErr := to.Write(buf[:n]); errors.Join(err, writeErr) != nil {
			return
		}
	}
}

func (w *wire) silence() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.speak = make(chan struct{})
}

// restore lets pass what was held back, and all that follows.
func (w *wire) restore() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.speak:
	default:
		close(w.speak)
	}
}
