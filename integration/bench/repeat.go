package bench

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/projection"
)

const (
	repeatedOn    = 64 // connections
	storedAtOnce  = 20 // events, where others write meanwhile; 80 a second
	largestAnswer = 4 << 20
)

// repeated measures answers that are kept: as fast as they come, over many
// connections, in turns with a handler that writes the same bytes.
func (b *bench) repeated(ctx context.Context, r *readServer) ([]Repeated, error) {
	const small = "/matrix?limit=20&environment=test-1&environment=test-2&environment=dev-1&environment=dev-2"
	var out []Repeated
	for _, q := range []struct {
		name, path    string
		have, writing bool
	}{
		{name: "matrix of 20 × 4", path: small},
		{name: "matrix of 20 × 4, 304", path: small, have: true},
		{name: "matrix of 20 × 4, 304, while others write", path: small, have: true, writing: true},
		{name: "matrix of 500 × 10, 304", path: "/matrix?limit=500", have: true},
	} {
		b.logf("again and again: %s", q.name)
		row, err := b.repeat(ctx, r, q.path, q.have, q.writing)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.name, err)
		}
		row.Name = q.name
		out = append(out, row)
	}
	return out, nil
}

func (b *bench) repeat(ctx context.Context, r *readServer, path string, have, writing bool) (row Repeated, err error) {
	a, err := r.ask(ctx, r.base, bigAccount, path, "")
	if err != nil {
		return row, err
	}
	row.Bytes = len(a.body)
	more, status := "", http.StatusOK
	if have {
		more, status, row.Bytes = "If-None-Match: "+a.tag+"\r\n", http.StatusNotModified, 0
	}
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer " + r.pat[bigAccount] + "\r\n" + more + "\r\n")

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bare, err := serveBare(ctx, a, status)
	if err != nil {
		return row, err
	}
	var writers sync.WaitGroup
	defer writers.Wait()
	defer cancel()
	if writing {
		writers.Go(func() { r.write(ctx) })
	}
	addr := strings.TrimPrefix(r.base[bigAccount], "http://")
	var ours, theirs []sample
	var statements float64
	for range b.Rounds {
		r.cost.Statements.Store(0)
		s, n, refused, err := repeatOn(ctx, addr, request, b.Round)
		if err != nil {
			return row, err
		}
		row.Refused += refused
		ours, statements = append(ours, s), statements+float64(r.cost.Statements.Load())*1000/float64(max(n, 1))/float64(b.Rounds)
		if s, _, _, err = repeatOn(ctx, bare, request, b.Round); err != nil {
			return row, err
		}
		theirs = append(theirs, s)
	}
	our, their := medians(ours), medians(theirs)
	row.PerSecond, row.Bare, row.CPUMicros, row.BareMicros = our.PerSecond, their.PerSecond, our.CPUMicros, their.CPUMicros
	row.Engine, row.Statements, row.Times = our.ChildrenCPUMicros, statements, our.Times
	return row, nil
}

// write stores events of all accounts until ctx is done, as often as a live
// projection does.
func (r *readServer) write(ctx context.Context) {
	tick := time.NewTicker(projection.DefaultConfig.Pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		upTo, err := r.history.fill(&r.rows, storedAtOnce)
		if err != nil || r.writer.Store(ctx, &r.rows, upTo) != nil {
			return
		}
	}
}

// serveBare answers everything with the same bytes.
func serveBare(ctx context.Context, a readAnswer, status int) (addr string, err error) {
	listening, ready := make(chan net.Addr, 1), make(chan struct{})
	length := []string{strconv.Itoa(len(a.body))}
	server := &httpapi.Server{Addr: "127.0.0.1:0", Grace: time.Second, Listening: func(a net.Addr) { listening <- a }, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Etag"] = []string{a.tag}
		if status == http.StatusNotModified {
			w.WriteHeader(status)
			return
		}
		h["Content-Type"], h["Content-Length"] = []string{"application/json"}, length
		_, _ = w.Write(a.body)
	})}
	failed := make(chan error, 1)
	go func() { failed <- server.Run(ctx, func() { close(ready) }) }() // it ends with ctx
	select {
	case <-ready:
		return (<-listening).String(), nil
	case err := <-failed:
		return "", err
	}
}

// repeatOn asks until the time is up.
func repeatOn(ctx context.Context, addr string, request []byte, measured time.Duration) (s sample, answered, turnedAway int, err error) {
	times := make([]*hdr.Histogram, repeatedOn)
	var all, refused atomic.Int64
	var failure atomic.Pointer[error]
	before, began := cpuOf(os.Getpid()), time.Now()
	until := began.Add(measured)
	var wg sync.WaitGroup
	for i := range times {
		wg.Go(func() {
			times[i] = hdr.New(1, maxMicros, significant)
			err := func() error {
				c, err := dialFor(ctx, addr, largestAnswer)
				if err != nil {
					return err
				}
				defer c.Close()
				_ = c.SetDeadline(until.Add(time.Minute)) // a guard
				for start := time.Now(); start.Before(until) && ctx.Err() == nil; start = time.Now() {
					status, header, err := c.roundTrip(request)
					if err == nil && status != http.StatusOK && status != http.StatusNotModified && status != http.StatusServiceUnavailable {
						err = fmt.Errorf("answered %d: %q", status, header)
					}
					if err != nil {
						return err
					}
					if status == http.StatusServiceUnavailable { // where others write, on a machine that is short of time
						refused.Add(1)
						continue
					}
					all.Add(1)
					_ = times[i].RecordValue(max(1, time.Since(start).Microseconds())) // never above a minute
				}
				return nil
			}()
			if err != nil {
				failure.Store(&err)
			}
		})
	}
	wg.Wait()
	took, spent := time.Since(began), cpuOf(os.Getpid()).minus(before)
	if err := failure.Load(); err != nil {
		return sample{}, 0, 0, *err
	}
	n := int(all.Load())
	d := driven{times: times[0], requests: n, all: n, took: took}
	for _, h := range times[1:] {
		d.times.Merge(h)
	}
	return d.sample(used{}, spent), n, int(refused.Load()), ctx.Err()
}
