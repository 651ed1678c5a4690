package query

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// What is kept is bounded in bytes, and the sum stays right where answers are
// replaced.
func TestKeptAnswersAreBounded(t *testing.T) {
	a := newAnswers()
	big := []byte(strings.Repeat("x", 1<<20))
	for i := range 200 {
		a.keep(fmt.Sprint(i%100), &kept{body: big})
		if a.bytes > keptBytes {
			t.Fatalf("%d bytes are kept", a.bytes)
		}
	}
	sum := 0
	for _, key := range a.cache.Keys() {
		sum += a.find(key).size()
	}
	if sum != a.bytes || sum < keptBytes/2 {
		t.Errorf("%d bytes are kept, counted as %d", sum, a.bytes)
	}
	a.keep("too large", &kept{body: make([]byte, largestKept+1)})
	if a.find("too large") != nil {
		t.Error("an answer above the bound is kept")
	}
}

// Nobody is given what was asked before they came, and who waits together
// shares one question.
func TestAQuestionIsSharedByThoseWhoCameBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q inTurn[int64]
		var asked atomic.Int64
		release := make(chan struct{})
		ask := func() (int64, error) {
			n := asked.Add(1)
			<-release
			return n, nil
		}
		answers := make([]int64, 50)
		var all sync.WaitGroup
		all.Go(func() { answers[0], _ = q.do(ask) })
		synctest.Wait()
		for i := 1; i < len(answers); i++ {
			all.Go(func() { answers[i], _ = q.do(ask) })
		}
		synctest.Wait()
		close(release)
		all.Wait()
		for i, n := range answers {
			if want := int64(min(i, 1) + 1); n != want {
				t.Errorf("caller %d was given question %d, want %d", i, n, want)
			}
		}
		if _, err := q.do(func() (int64, error) { return 0, errors.New("down") }); err == nil {
			t.Error("the error is lost")
		}
	})
}

// An answer compressed once is one gzip member with whatever stands behind it.
func TestAPackedAnswerUnpacksToItselfAndItsTail(t *testing.T) {
	body := []byte(`{"items":["` + strings.Repeat("checkout in production ", 5000) + `"],`)
	p := &packed{}
	for _, tail := range []string{"", `"as_of":{"position":"t0.7.0"}}`, `"as_of":{"position":"t0.8.1","time":"2026-09-01T12:00:00Z"}}`} {
		b := p.with(body, []byte(tail))
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		z.Multistream(false)
		got, err := io.ReadAll(z)
		if err != nil || string(got) != string(body)+tail {
			t.Errorf("%d bytes and %q unpack to %d bytes, %v", len(body), tail, len(got), err)
		}
		if len(b) > len(body)/10 {
			t.Errorf("%d of %d bytes", len(b), len(body))
		}
	}
}

// Who asks what is being drawn at the same position waits for it; at another
// position they draw it themselves, and nobody waits for one that has ended.
func TestTheSameAnswerIsDrawnOnceForThoseWhoAskTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(n uint64) []readmodel.Progress {
			return []readmodel.Progress{{Stream: "t0", Offset: event.At(n, 0)}}
		}
		request := func() *httpapi.Request {
			return &httpapi.Request{Request: httptest.NewRequest(http.MethodGet, "/matrix", http.NoBody)}
		}
		var u underWay
		first := request()
		if u.follow(first, &reading{key: "a", drawn: at(1)}) {
			t.Error("the first one follows")
		}
		var waiting atomic.Int64
		for range 20 {
			waiting.Add(1)
			go func() {
				r := request()
				if !u.follow(r, &reading{key: "a", drawn: at(1)}) {
					t.Error("it is drawn again")
				}
				u.end(r)
				waiting.Add(-1)
			}()
		}
		synctest.Wait()
		later := request()
		if waiting.Load() != 20 || u.follow(later, &reading{key: "a", drawn: at(2)}) {
			t.Error("a later position waits for an earlier one")
		}
		u.end(first)
		synctest.Wait()
		if n := waiting.Load(); n != 0 {
			t.Errorf("%d still wait", n)
		}
		u.end(later)
		if len(u.answers) > 0 || len(u.drawers) > 0 {
			t.Error("something is left")
		}
	})
}

// However many questions an answer asks, one that takes too long ends, and says what to do.
// Who leaves before is told nothing.
func TestAnAnswerThatTakesTooLongEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := func(_ http.ResponseWriter, r *httpapi.Request) error {
			<-r.Context().Done()
			return fmt.Errorf("find runs: %w", r.Context().Err())
		}
		begun := time.Now()
		r := &httpapi.Request{Request: httptest.NewRequest(http.MethodGet, "/deployments/", http.NoBody)}
		err := bounded(forever)(nil, r)
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Unavailable || e.Code != "QUERY_TOO_EXPENSIVE" || time.Since(begun) != answerTime {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		left, leave := context.WithCancel(t.Context())
		leave()
		r = &httpapi.Request{Request: httptest.NewRequest(http.MethodGet, "/deployments/", http.NoBody).WithContext(left)}
		if err := bounded(forever)(nil, r); !errors.Is(err, context.Canceled) || fault.KindOf(err) == fault.Unavailable {
			t.Errorf("who left is told %v", err)
		}
	})
}
