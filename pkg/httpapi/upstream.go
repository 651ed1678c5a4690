package httpapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"
)

const (
	dialTimeout = time.Second
	// sickFor is how long a process that could not be reached is asked last.
	sickFor = time.Second
	// upstreamIdle is how long a connection is kept that nobody uses. It is less than
	// a process that stops waits for those in front of it (Server.Leave): so that no
	// request is sent on a connection that the other side is closing.
	upstreamIdle = time.Second
	// leavingFor is how long a process that said that it stops is asked last: for as
	// long as it may take.
	leavingFor = 6 * time.Second
)

// ErrUnreached says that no process was reached, so that nothing was sent.
var ErrUnreached = errors.New("none of its processes can be reached")

// Secure encrypts a connection to an address, or closes it.
type Secure func(ctx context.Context, conn net.Conn, address string) (net.Conn, error)

// An Upstream connects to the processes of a service, in turn. It is safe for
// concurrent use.
type Upstream struct {
	at     []string
	secure Secure // nil: nothing is encrypted

	mu      sync.Mutex
	turn    int
	sick    map[string]time.Time // until when, by address
	leaving map[string]time.Time // likewise
}

// NewUpstream returns what connects to the processes at these addresses, host:port,
// of which there must be one. If secure is set, it encrypts the connections.
func NewUpstream(at []string, secure Secure) *Upstream {
	return &Upstream{at: at, secure: secure, sick: map[string]time.Time{}, leaving: map[string]time.Time{}}
}

// Through makes t carry requests for http:// to the processes: what encrypts is beneath.
// A process that says that it is about to stop is asked last from then on. What may be
// asked twice is sent to another process where the first one ends without an answer.
func (u *Upstream) Through(t *http.Transport) http.RoundTripper {
	t.DialContext, t.IdleConnTimeout = u.DialContext, upstreamIdle
	return through{u, t}
}

type through struct {
	upstream  *Upstream
	transport *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t through) RoundTrip(r *http.Request) (*http.Response, error) {
	res, at, err := t.send(r)
	if err != nil && repeatable(r) && r.Context().Err() == nil && endedEarly(err) {
		t.upstream.tell(at, err)
		res, at, err = t.send(r)
	}
	if err == nil && res.Header.Get(leavingHeader) != "" {
		res.Header.Del(leavingHeader)
		t.upstream.leaves(at)
	}
	return res, err
}

// send gives the answer, and who was asked.
func (t through) send(r *http.Request) (res *http.Response, at string, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if c, ok := info.Conn.(*dialled); ok {
			at = c.address
		}
	}}
	res, err = t.transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace))) //nolint:bodyclose // the caller's
	return res, at, err
}

// repeatable tells whether a request may be sent again though the first may have been
// heard. Reports may not: without an invoke_id each one is a record (contract 4.3).
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return r.Body == nil || r.Body == http.NoBody
	}
	return false
}

// endedEarly tells whether a connection ended before the answer began. A process that
// was not reached, or that is slow, is nothing of the sort.
func endedEarly(err error) bool {
	slow, ok := errors.AsType[net.Error](err)
	return !errors.Is(err, ErrUnreached) && (!ok || !slow.Timeout())
}

// dialled is a connection that knows whom it was made to.
type dialled struct {
	net.Conn
	address string
}

// DialContext connects to one of the processes, whatever the address says. One that
// could not be reached is tried last for a while. Nothing of a request was sent
// before, so that trying another one is safe whatever the request asks for.
func (u *Upstream) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	errs := []error{ErrUnreached}
	for _, address := range u.order(time.Now()) {
		conn, err := u.dial(ctx, network, address)
		u.tell(address, err)
		if err == nil {
			return &dialled{conn, address}, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (u *Upstream) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil || u.secure == nil {
		return conn, err
	}
	return u.secure(ctx, conn, address)
}

func (u *Upstream) order(now time.Time) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.turn++
	var well, sick []string
	for i := range u.at {
		address := u.at[(u.turn+i)%len(u.at)]
		if u.sick[address].After(now) || u.leaving[address].After(now) {
			sick = append(sick, address)
		} else {
			well = append(well, address)
		}
	}
	return append(well, sick...)
}

func (u *Upstream) tell(address string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		delete(u.sick, address)
	} else {
		u.sick[address] = time.Now().Add(sickFor)
	}
}

func (u *Upstream) leaves(address string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.leaving[address] = time.Now().Add(leavingFor)
}
