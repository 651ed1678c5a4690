package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// connection is the least client of HTTP/1.1 that a benchmark can be honest
// with: it keeps the connection, writes prepared bytes, and reads answers that
// say their length. On two cores a real client would take most of the time, on
// both sides alike, and so flatter every ratio.
type connection struct {
	net.Conn
	buf []byte
}

func dial(ctx context.Context, addr string) (*connection, error) { return dialFor(ctx, addr, 16<<10) }

// dialFor is for answers that are larger.
func dialFor(ctx context.Context, addr string, largest int) (*connection, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &connection{c, make([]byte, largest)}, nil
}

var (
	endOfHeader   = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
)

// roundTrip gives the status and the header of the answer, valid until the next call.
func (c *connection) roundTrip(request []byte) (status int, header []byte, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, nil, err
	}
	n, end := 0, -1
	for end < 0 {
		if n == len(c.buf) {
			return 0, nil, errors.New("the header of an answer is too long")
		}
		m, err := c.Read(c.buf[n:])
		if err != nil {
			return 0, nil, err
		}
		n += m
		end = bytes.Index(c.buf[:n], endOfHeader)
	}
	header = c.buf[:end+2]
	status, err = strconv.Atoi(string(header[len("HTTP/1.1 "):len("HTTP/1.1 200")]))
	if err != nil {
		return 0, nil, fmt.Errorf("not an answer: %q", header)
	}
	if status == http.StatusNotModified {
		return status, header, nil
	}
	_, rest, ok := bytes.Cut(header, contentLength)
	if !ok {
		return 0, nil, fmt.Errorf("an answer without its length: %q", header)
	}
	digits, _, _ := bytes.Cut(rest, []byte("\r\n"))
	length, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0, nil, fmt.Errorf("an answer without its length: %q", header)
	}
	for left := end + len(endOfHeader) + length - n; left > 0; {
		if left > len(c.buf)-len(header) {
			return 0, nil, errors.New("an answer is too long")
		}
		m, err := c.Read(c.buf[len(header):][:left])
		if err != nil {
			return 0, nil, err
		}
		left -= m
	}
	return status, header, nil
}

// load is how hard, and how long.
type load struct {
	connections int
	perSecond   float64 // of all connections; 0: as fast as answers come
	warmUp      time.Duration
	measured    time.Duration
	max         int // requests
}

type driven struct {
	times    *hdr.Histogram // microseconds, of the measured part
	requests int            // of the measured part
	all      int            // with the warm-up
	took     time.Duration  // the measured part
}

const (
	maxMicros   = 60_000_000
	significant = 3
)

// drive sends single events until the time or the count is up. Where a rate is
// kept up, a time begins when its request was due, so that a slow answer counts
// for all that waited behind it.
func drive(ctx context.Context, to *server, events *events, l load) (driven, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	connections := make([]*connection, l.connections)
	for i := range connections {
		c, err := dial(ctx, to.addr)
		if err != nil {
			return driven{}, fmt.Errorf("connect: %w", err)
		}
		defer c.Close()
		connections[i] = c
	}
	defer context.AfterFunc(ctx, func() {
		for _, c := range connections {
			_ = c.SetDeadline(time.Now()) // wakes who waits for an answer
		}
	})()

	var all atomic.Int64
	micros := make([][]uint32, l.connections)
	began := time.Now()
	from := began.Add(l.warmUp)
	until := from.Add(l.measured)
	var wg sync.WaitGroup
	for i, c := range connections {
		wg.Go(func() {
			request, run := events.request()
			for n := 0; ; n++ {
				start := time.Now()
				if l.perSecond > 0 {
					due := began.Add(time.Duration(float64(n*l.connections+i) / l.perSecond * float64(time.Second)))
					if wait := due.Sub(start); wait > 0 {
						time.Sleep(wait)
					}
					start = due
				}
				if start.After(until) || ctx.Err() != nil || int(all.Load()) >= l.max {
					return
				}
				events.next(run)
				status, header, err := c.roundTrip(request)
				if err == nil && status != 200 {
					err = fmt.Errorf("answered %d: %q", status, header)
				}
				if err != nil {
					cancel(fmt.Errorf("post an event: %w", err)) // the first cause counts
					return
				}
				all.Add(1)
				if start.After(from) {
					micros[i] = append(micros[i], uint32(time.Since(start).Microseconds())) //nolint:gosec // a round is far shorter than 71 minutes
				}
			}
		})
	}
	wg.Wait()
	out := driven{times: hdr.New(1, maxMicros, significant), all: int(all.Load()), took: min(time.Since(from), l.measured)}
	to.accepted.Add(int64(out.all))
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	for _, list := range micros {
		for _, m := range list {
			if err := out.times.RecordValue(int64(max(m, 1))); err != nil {
				return out, err
			}
		}
		out.requests += len(list)
	}
	return out, nil
}
