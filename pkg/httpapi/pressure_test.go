//nolint:bodyclose // bodies end with their connections, which are closed
package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

// hang is how long a test waits for what must come.
const hang = time.Minute

// serve runs a server and gives its address, and what stops it.
func serve(t *testing.T, s *httpapi.Server) (address string, stop func() error) {
	t.Helper()
	at := make(chan net.Addr, 1)
	s.Addr, s.Listening = "127.0.0.1:0", func(a net.Addr) { at <- a }
	if s.Handler == nil {
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, func() {}) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return (<-at).String(), stop
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(hang))
	return c
}

// ask sends a request on a connection and gives the answer.
func ask(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// closed waits until the server has closed a connection.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server keeps a connection whose client is too slow")
	}
}

func TestConnectionsWithoutWorkMakeRoomForOthers(t *testing.T) {
	const most, silent = 50, 1000
	address, _ := serve(t, &httpapi.Server{MaxConnections: most, Timeouts: httpapi.Timeouts{Header: hang, Idle: hang}}) // who makes room is not who took too long
	var conns []net.Conn
	for range silent {
		conns = append(conns, dial(t, address))
	}
	if res := ask(t, dial(t, address)); res.StatusCode != http.StatusNoContent {
		t.Errorf("beside %d silent connections an answer is %d", silent, res.StatusCode)
	}
	for _, c := range conns[:silent-most] {
		closed(t, c)
	}
	if res := ask(t, conns[silent-1]); res.StatusCode != http.StatusNoContent {
		t.Errorf("the newest is answered %d", res.StatusCode)
	}
}

func TestWhereEveryConnectionHasWorkOthersAreToldToComeAgain(t *testing.T) {
	const most = 5
	working, done := make(chan struct{}, most), make(chan struct{})
	address, _ := serve(t, &httpapi.Server{MaxConnections: most, Grace: hang, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		working <- struct{}{}
		<-done
		w.WriteHeader(http.StatusNoContent)
	})})
	var conns []net.Conn
	for range most {
		c := dial(t, address)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-working
		conns = append(conns, c)
	}
	refused, err := http.ReadResponse(bufio.NewReader(dial(t, address)), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(refused.Body)
	if refused.StatusCode != http.StatusServiceUnavailable || refused.Header.Get("Retry-After") != "1" || !strings.Contains(string(body), `"code":"TOO_MANY_CONNECTIONS"`) {
		t.Errorf("%d %v %s", refused.StatusCode, refused.Header, body)
	}
	close(done)
	for _, c := range conns {
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != http.StatusNoContent {
			t.Errorf("who was there before is answered %v, %v", res, err)
		}
	}
}

func TestSlowClientsAreCutOff(t *testing.T) {
	read := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	short := httpapi.Timeouts{Header: 50 * time.Millisecond, Body: 100 * time.Millisecond, Answer: hang, Idle: 50 * time.Millisecond}
	for name, sent := range map[string]string{
		"nothing at all":           "",
		"half a header":            "GET / HTTP/1.1\r\nHost: x\r\nX-A",
		"a header and no body":     "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
		"half a chunk":             "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
		"one request and no other": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := serve(t, &httpapi.Server{Handler: read, Timeouts: short})
			c := dial(t, address)
			if _, err := io.WriteString(c, sent); err != nil {
				t.Fatal(err)
			}
			closed(t, c)
		})
	}
}

func TestAHeaderHasALimit(t *testing.T) {
	address, _ := serve(t, &httpapi.Server{})
	c := dial(t, address)
	go func() {
		_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("a", 1<<20))
	}()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v", res, err)
	}
}

func TestAServerThatStopsSaysWhatItWaitsFor(t *testing.T) {
	working, done := make(chan struct{}), make(chan struct{})
	var log lockedBuffer
	var answered atomic.Bool
	address, stop := serve(t, &httpapi.Server{Grace: hang, Logger: slog.New(slog.NewTextHandler(&log, nil)), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(working)
		<-done
		answered.Store(true)
		w.WriteHeader(http.StatusNoContent)
	})})
	c := dial(t, address)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-working
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for !strings.Contains(log.String(), "waiting for requests in flight") {
		select {
		case err := <-ended:
			t.Fatalf("it stopped with a request in flight: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	close(done)
	if err := <-ended; err != nil || !answered.Load() || !strings.Contains(log.String(), "requests=1") {
		t.Errorf("%v, answered %v, log %s", err, answered.Load(), log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
