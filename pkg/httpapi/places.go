package httpapi

import (
	"container/list"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/shipledger/shipledger/pkg/fault"
)

// maxConnections is how many connections a server has at a time, unless it is
// told another number: each takes some 20 kB and a file.
const maxConnections = 10_000

// refuseTimeout is how long the answer to a refused connection may take. It fits
// into the buffer of a connection that is just open.
const refuseTimeout = time.Second

var errFull = RetryLater{fault.New(fault.Unavailable, "TOO_MANY_CONNECTIONS", "This server has as many connections as it takes."), time.Second}

// places are the connections of a server, which are bounded. Where all are taken,
// a newcomer gets the place of the one that has waited longest for its client to
// say something; where every client is being served, the newcomer is answered 503.
//
// They also know on which nothing was ever sent: clients open such ones to have
// them ready, and http.Server waits for them when it stops, up to 5 s, as if
// they were requests in flight.
type places struct {
	net.Listener
	max int
	// secret says that TLS is spoken on them: one that has not agreed on it yet
	// cannot be told anything.
	secret bool

	mu      sync.Mutex
	held    map[net.Conn]*place
	waiting list.List // of those whose client is silent, the longest first
	closed  bool
	touched time.Time // when a connection last came or had an answer
}

type place struct {
	at    *list.Element // in waiting; nil: it is being served
	fresh bool          // nothing was ever sent on it
}

func newPlaces(ln net.Listener, most int) *places {
	if most <= 0 {
		most = maxConnections
	}
	return &places{Listener: ln, max: most, held: map[net.Conn]*place{}}
}

// Accept implements net.Listener: it gives the next connection that has a place.
func (p *places) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if p.take(c) {
			return c, nil
		}
		if p.secret {
			_ = c.Close()
		} else {
			refuse(c)
		}
	}
}

func (p *places) take(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) >= p.max {
		longest := p.waiting.Front()
		if longest == nil {
			return false
		}
		silent, _ := longest.Value.(net.Conn)
		p.free(silent)
		_ = silent.Close()
	}
	p.held[c] = &place{at: p.waiting.PushBack(c), fresh: true}
	p.touched = time.Now()
	return true
}

func (p *places) free(c net.Conn) {
	if held := p.held[c]; held != nil {
		if held.at != nil {
			p.waiting.Remove(held.at)
		}
		delete(p.held, c)
	}
}

// changed is the server's ConnState.
func (p *places) changed(c net.Conn, state http.ConnState) {
	if outer, ok := c.(*tls.Conn); ok {
		c = outer.NetConn()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.held[c]
	switch {
	case held == nil: // it had to go
	case state == http.StateNew && p.closed:
		_ = c.Close()
	case state == http.StateActive && held.at != nil:
		p.waiting.Remove(held.at)
		held.at, held.fresh = nil, false
	case state == http.StateIdle && held.at == nil:
		held.at, p.touched = p.waiting.PushBack(c), time.Now()
	case state == http.StateHijacked, state == http.StateClosed:
		if held.at == nil {
			p.touched = time.Now()
		}
		p.free(c)
	}
}

// awaitLeft waits until those in front have moved away: nobody is being served, and no
// connection came or had an answer for longer than an Upstream keeps one. It gives up
// after a while.
func (p *places) awaitLeft(atMost time.Duration) {
	ticks := time.NewTicker(leftAgain)
	defer ticks.Stop()
	for deadline := time.Now().Add(atMost); !p.left(time.Now()) && time.Now().Before(deadline); {
		<-ticks.C
	}
}

const (
	leftAgain = 10 * time.Millisecond
	// leftAfter is longer than an Upstream keeps a connection that it does not use, by
	// what a request may take on its way.
	leftAfter = upstreamIdle + 500*time.Millisecond
)

func (p *places) left(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held) == p.waiting.Len() && now.Sub(p.touched) >= leftAfter
}

// stop closes the connections on which nothing was ever sent, and those that
// still come. It gives how many are being served.
func (p *places) stop() (served int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c, held := range p.held {
		if held.fresh {
			_ = c.Close()
		}
	}
	return len(p.held) - p.waiting.Len()
}

// refuse answers a connection before it has said what it wants.
func refuse(c net.Conn) {
	id := "req_" + rand.Text()
	problem := Describe(errFull, id)
	_ = c.SetDeadline(time.Now().Add(refuseTimeout))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: %d\r\nX-Request-Id: %s\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n%s",
		len(problem.Body), problem.RetryAfter, id, problem.Body)
	_ = c.Close()
}
