package httpapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	dialTimeout = time.Second
	// sickFor is how long a process that could not be reached is asked last.
	sickFor = time.Second
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

	mu   sync.Mutex
	turn int
	sick map[string]time.Time // until when, by address
}

// NewUpstream returns what connects to the processes at these addresses, host:port,
// of which there must be one. If secure is set, it encrypts the connections.
func NewUpstream(at []string, secure Secure) *Upstream {
	return &Upstream{at: at, secure: secure, sick: map[string]time.Time{}}
}

// Transport carries requests for http:// to the processes: what encrypts is beneath.
func (u *Upstream) Transport() *http.Transport { return &http.Transport{DialContext: u.DialContext} }

// DialContext connects to one of the processes, whatever the address says. One that
// could not be reached is tried last for a while. Nothing of a request was sent
// before, so that trying another one is safe whatever the request asks for.
func (u *Upstream) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	errs := []error{ErrUnreached}
	for _, address := range u.order(time.Now()) {
		conn, err := u.dial(ctx, network, address)
		u.tell(address, err)
		if err == nil {
			return conn, nil
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
		if u.sick[address].After(now) {
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
