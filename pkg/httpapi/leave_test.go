//nolint:bodyclose // bodies end with their connections, which are closed
package httpapi_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

// Processes are stopped one after the other while requests come that nobody may send
// twice: each is answered, by those that are left.
func TestNoWriteIsCutOffWhileProcessesLeave(t *testing.T) {
	const processes, clients = 3, 8
	var at []string
	var stops []func() error
	var heard atomic.Int64
	for range processes {
		address, stop := serve(t, &httpapi.Server{Leave: hang, Grace: hang, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			heard.Add(1)
			w.WriteHeader(http.StatusNoContent)
		})})
		at, stops = append(at, address), append(stops, stop)
	}
	idle := &http.Transport{MaxIdleConnsPerHost: clients}
	door := httpapi.NewUpstream(at, nil).Through(idle)
	defer idle.CloseIdleConnections()
	done := make(chan struct{})
	var group sync.WaitGroup
	var sent atomic.Int64
	for i := range clients {
		group.Go(func() {
			pause := time.NewTicker(time.Duration(i*i)*10*time.Millisecond + time.Millisecond) // some leave connections idle
			defer pause.Stop()
			for {
				select {
				case <-done:
					return
				case <-pause.C:
				}
				// As through the front door: a body that cannot be sent again.
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://ingest/", io.MultiReader(strings.NewReader("report")))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := door.RoundTrip(r)
				if err != nil {
					t.Errorf("a write was cut off: %v", err)
					return
				}
				sent.Add(1)
				_ = res.Body.Close()
				if res.Header.Get("X-Shipledger-Leaving") != "" {
					t.Error("a client is told who leaves")
				}
			}
		})
	}
	for _, stop := range stops[:processes-1] {
		if err := stop(); err != nil {
			t.Error(err)
		}
		before := sent.Load()
		eventually(t, "the others go on", func() bool { return sent.Load() > before })
	}
	close(done)
	group.Wait()
	if sent.Load() != heard.Load() {
		t.Errorf("%d writes were answered, %d were heard", sent.Load(), heard.Load())
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline, again := time.After(hang), time.NewTicker(time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatal(what + ": not so")
		}
	}
}

// A process that ends before it answers may have done what it was asked for: a question
// goes to another one, a write does not.
func TestOnlyQuestionsAreSentToAnotherProcess(t *testing.T) {
	var broken, asked atomic.Int64
	dies, _ := serve(t, &httpapi.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		broken.Add(1)
		panic(http.ErrAbortHandler)
	})})
	lives, _ := serve(t, &httpapi.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})})
	idle := &http.Transport{DisableKeepAlives: true}
	door := httpapi.NewUpstream([]string{lives, dies}, nil).Through(idle) // the second is first in turn
	send := func(method string, body io.Reader) error {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://query/", body)
		if err != nil {
			t.Fatal(err)
		}
		res, err := door.RoundTrip(r)
		if err == nil {
			err = res.Body.Close()
		}
		return err
	}
	for i, c := range []struct {
		method string
		body   io.Reader
		again  bool
	}{
		{http.MethodGet, nil, true},
		{http.MethodHead, nil, true},
		{http.MethodPost, strings.NewReader("report"), false},
		{http.MethodDelete, nil, false},
	} {
		brokenBefore, askedBefore := broken.Load(), asked.Load()
		door = httpapi.NewUpstream([]string{lives, dies}, nil).Through(idle)
		err := send(c.method, c.body)
		if broken.Load() != brokenBefore+1 {
			t.Fatalf("%d: the one that dies was asked %d times", i, broken.Load()-brokenBefore)
		}
		if again := asked.Load() > askedBefore; again != c.again || (err == nil) != c.again || errors.Is(err, httpapi.ErrUnreached) {
			t.Errorf("%s: sent to the other one: %t, %v", c.method, again, err)
		}
	}
}

// A process that is told to stop still takes requests, tells who asks, and answers what
// it was asked before.
func TestALeavingProcessAnswersAndSaysSo(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	finished := sync.OnceFunc(func() { close(finish) })
	defer finished()
	address, stop := serve(t, &httpapi.Server{Leave: hang, Grace: hang, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(begun)
			<-finish
		}
		w.WriteHeader(http.StatusNoContent)
	})})
	kept := dial(t, address)
	if res := ask(t, kept); res.Close {
		t.Error("a connection is closed though nobody stops")
	}
	answered := make(chan error, 1)
	go func() {
		res, err := http.Get("http://" + address + "/slow") //nolint:noctx // it ends with the server
		if err == nil {
			err = res.Body.Close()
		}
		answered <- err
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// New connections are still taken, and are told.
	eventually(t, "it says that it leaves", func() bool {
		c := dial(t, address)
		defer c.Close()
		res := ask(t, c)
		return res.Close && res.Header.Get("X-Shipledger-Leaving") == "true"
	})
	if res := ask(t, kept); !res.Close {
		t.Error("a connection that was there is kept")
	}
	finished()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
