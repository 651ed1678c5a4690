// Package banktest states the contract of ratelimit.Bank as tests: of one bank,
// and of several over the same buckets.
package banktest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// Open gives n banks over the same new buckets, as n processes have them.
type Open func(t *testing.T, n int) []ratelimit.Bank

// Run holds the banks made by open to the contract.
func Run(t *testing.T, open Open) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Open){
		"ABucketNobodyAskedForIsFull":       fresh,
		"WhatIsThereIsGivenAndNotMore":      partly,
		"AskingForNothingTellsTheState":     nothing,
		"NamesAreApart":                     apart,
		"TokensComeBackSteadily":            steadily,
		"AClockThatGoesBackAddsNothing":     clockBack,
		"WhatIsGivenBackCanBeTakenAgain":    givenBack,
		"OneBankTellsEveryTokenOfItsBucket": exact,
		"NeverMoreThanBurstAndRateAllow":    neverMore,
		"TogetherTheyLetThroughTheBudget":   together,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

// start is when a test's clock begins, far from what a real clock says.
var start = time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)

var perMinute = ratelimit.Rate{Tokens: 1000, Per: time.Minute, Burst: 1000}

// takes checks one call.
func takes(t *testing.T, b ratelimit.Bank, name string, r ratelimit.Rate, n int, now time.Time, granted, left int) {
	t.Helper()
	if g, l := b.Take(name, r, n, now); g != granted || int(l) != left {
		t.Fatalf("take %d: %d granted and %.2f left, want %d and %d", n, g, l, granted, left)
	}
}

func fresh(t *testing.T, open Open) {
	b := open(t, 1)[0]
	takes(t, b, "b", perMinute, 0, start, 0, 1000)
	takes(t, b, "b", perMinute, 1000, start, 1000, 0)
}

func partly(t *testing.T, open Open) {
	b := open(t, 1)[0]
	takes(t, b, "b", perMinute, 600, start, 600, 400)
	takes(t, b, "b", perMinute, 600, start, 400, 0)
	takes(t, b, "b", perMinute, 1, start, 0, 0)
}

func nothing(t *testing.T, open Open) {
	b := open(t, 1)[0]
	takes(t, b, "b", perMinute, 7, start, 7, 993)
	for range 3 {
		takes(t, b, "b", perMinute, 0, start, 0, 993)
	}
}

func apart(t *testing.T, open Open) {
	b := open(t, 1)[0]
	takes(t, b, "ingestion.01J", perMinute, 1000, start, 1000, 0)
	takes(t, b, "other.01J", perMinute, 1, start, 1, 999)
}

func steadily(t *testing.T, open Open) {
	b := open(t, 1)[0]
	r := ratelimit.Rate{Tokens: 60, Per: time.Minute, Burst: 100}
	takes(t, b, "b", r, 100, start, 100, 0)
	now := start
	for range 20 {
		takes(t, b, "b", r, 1, now.Add(999*time.Millisecond), 0, 0)
		now = now.Add(time.Second)
		takes(t, b, "b", r, 2, now, 1, 0)
	}
	takes(t, b, "b", r, 0, now.Add(time.Hour), 0, 100)
}

func clockBack(t *testing.T, open Open) {
	b := open(t, 1)[0]
	takes(t, b, "b", perMinute, 1000, start, 1000, 0)
	takes(t, b, "b", perMinute, 1, start.Add(-time.Hour), 0, 0)
	takes(t, b, "b", perMinute, 1, start, 0, 0)
	takes(t, b, "b", perMinute, 1, start.Add(60*time.Millisecond), 1, 0)
}

func givenBack(t *testing.T, open Open) {
	b := open(t, 1)[0]
	takes(t, b, "b", perMinute, 700, start, 700, 300)
	takes(t, b, "b", perMinute, -500, start, -500, 800)
	takes(t, b, "b", perMinute, 1, start, 1, 799)
	takes(t, b, "b", perMinute, -1, start, -1, 800)
	takes(t, b, "b", perMinute, 1000, start, 800, 0)
	if _, left := b.Take("b", perMinute, -5000, start); left > 1000 {
		t.Errorf("%.0f tokens are left of 1000", left)
	}
}

func exact(t *testing.T, open Open) {
	b := open(t, 1)[0]
	for i := range 1000 {
		takes(t, b, "b", perMinute, 1, start, 1, 999-i)
	}
	takes(t, b, "b", perMinute, 1, start, 0, 0)
}

// neverMore lets several banks ask in any order, with clocks that stand still,
// move and go back.
func neverMore(t *testing.T, open Open) {
	banks := open(t, 3)
	var names atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		r := ratelimit.Rate{Tokens: rapid.IntRange(1, 300).Draw(t, "tokens"), Per: time.Minute, Burst: rapid.IntRange(1, 300).Draw(t, "burst")}
		name, now, through := fmt.Sprint("b", names.Add(1)), start, 0
		first, latest := now.Add(time.Hour), now
		for range rapid.IntRange(1, 60).Draw(t, "asks") {
			now = now.Add(time.Duration(rapid.IntRange(-500, 8000).Draw(t, "ms")) * time.Millisecond)
			if now.Before(first) {
				first = now
			}
			if now.After(latest) {
				latest = now
			}
			n := rapid.IntRange(0, 40).Draw(t, "n")
			granted, left := banks[rapid.IntRange(0, len(banks)-1).Draw(t, "bank")].Take(name, r, n, now)
			if granted < 0 || granted > n || left < 0 || left > float64(r.Burst) {
				t.Fatalf("%d of %d granted, %v left of %d", granted, n, left, r.Burst)
			}
			through += granted
			if most := float64(r.Burst) + latest.Sub(first).Seconds()*r.PerSecond(); float64(through) > most+1e-6 {
				t.Fatalf("%d went through after %v, %v allows %.1f", through, latest.Sub(first), r, most)
			}
		}
	})
}

// together holds n processes to 100 - 2n % to 100 %, while nobody's clock moves.
func together(t *testing.T, open Open) {
	const n = 4
	banks := open(t, n)
	for round, r := range []ratelimit.Rate{perMinute, {Tokens: 10_000, Per: time.Hour, Burst: 10_000}, {Tokens: 30, Per: time.Minute, Burst: 30}} {
		name := fmt.Sprint("b", round)
		var through atomic.Int64
		var group sync.WaitGroup
		for i := range 2 * n {
			group.Go(func() {
				for refused := 0; refused < 3; {
					granted, _ := banks[i%n].Take(name, r, 1, start)
					through.Add(int64(granted))
					if granted == 0 {
						refused++
					}
				}
			})
		}
		group.Wait()
		least := int64(r.Burst - r.Burst*2*n/100)
		if got := through.Load(); got < least || got > int64(r.Burst) {
			t.Errorf("%v: %d went through, want %d to %d", r, got, least, r.Burst)
		}
	}
}
