package ingest_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/services/ingest"
)

const allPlaces = 16 << 10

// Bodies that nothing can be made of show that nobody has read them.
func TestWhatAFullQueueRefusesIsNotRead(t *testing.T) {
	c := newCommitter(memlog.New(), time.Now, slog.DiscardHandler)
	h := handler(t, c)
	post := func(path, contentType, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer x")
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	places, err := c.Reserve(allPlaces - 1)
	if err != nil {
		t.Fatal(err)
	}
	if w := post("/events/batch", "application/x-ndjson", "nonsense"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "INVALID_JSON") {
		t.Errorf("one place is left: %d %s", w.Code, w.Body)
	}
	for what, w := range map[string]*httptest.ResponseRecorder{
		"a batch of two": post("/events/batch", "application/x-ndjson", "nonsense\nnonsense"),
		"one, after the last place is taken": func() *httptest.ResponseRecorder {
			last, err := c.Reserve(1)
			if err != nil {
				t.Fatal(err)
			}
			defer last.Release()
			return post("/deployment-events/", "application/json", "nonsense")
		}(),
	} {
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "QUEUE_FULL") {
			t.Errorf("%s: %d, Retry-After %q: %s", what, w.Code, w.Header().Get("Retry-After"), w.Body)
		}
	}
	places.Release()
	if n := c.Waiting(); n != 0 {
		t.Errorf("%d places are held by nobody", n)
	}
}

// refusedFor asks for more places than there are.
func refusedFor(t *testing.T, c *ingest.Committer) time.Duration {
	t.Helper()
	_, err := c.Reserve(allPlaces + 1)
	later, ok := errors.AsType[httpapi.RetryLater](err)
	if !ok {
		t.Fatalf("not refused: %v", err)
	}
	return later.After
}

func TestARefusalAsksToWaitForAsLongAsTheQueueTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const frame = 40 * time.Millisecond
		log := &faultyLog{Log: memlog.New()}
		log.append = func(_ context.Context, _ eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
			time.Sleep(frame)
			return store()
		}
		c := run(t, log, time.Now)
		if got := refusedFor(t, c); got != time.Second {
			t.Errorf("nothing is known of the log: %s", got)
		}
		submit(t, c, command("1", event.Completed), command("2", event.Completed)) // with their product: some events in 40 ms
		events := len(stored(t, log))
		pace := frame / time.Duration(events)
		if got, want := refusedFor(t, c), min(pace*(allPlaces+1), 30*time.Second); got != want {
			t.Errorf("after a frame of %d events in %s: %s, want %s", events, frame, got, want)
		}
	})
}

func TestARefusalAsksToWaitAtLeastAsLongAsTheLogHasBeenSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &faultyLog{Log: memlog.New()}
		log.append = func(_ context.Context, _ eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
			time.Sleep(time.Minute) // longer than anybody is asked to wait
			return store()
		}
		c := run(t, log, time.Now)
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			submit(t, c, command("1", event.Completed))
		}()
		for _, silent := range []time.Duration{7 * time.Second, 30 * time.Second} {
			time.Sleep(silent - time.Second)
			synctest.Wait()
			if got := refusedFor(t, c); got < silent-time.Second || got > 30*time.Second {
				t.Errorf("after %s: %s", silent, got)
			}
		}
		<-answered
	})
}
