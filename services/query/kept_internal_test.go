package query

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
		sum += len(a.find(key).body)
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
