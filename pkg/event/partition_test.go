package event_test

import (
	"strconv"
	"testing"

	"github.com/shipledger/shipledger/pkg/event"
)

// The values are computed by another implementation of CRC-32. A log that was
// written by one build is read by every later one, so they never change.
func TestPartitionOfAnAccountNeverChanges(t *testing.T) {
	of := map[string]map[int]int{
		"main":                                 {1: 0, 2: 0, 3: 2, 4: 0, 8: 4, 64: 36},
		"acme":                                 {1: 0, 2: 0, 3: 2, 4: 2, 8: 6, 64: 62},
		"globex":                               {1: 0, 2: 0, 3: 1, 4: 2, 8: 2, 64: 58},
		"initech":                              {1: 0, 2: 0, 3: 0, 4: 0, 8: 0, 64: 16},
		"":                                     {1: 0, 2: 0, 3: 0, 4: 0, 8: 0, 64: 0},
		"Ünïcode":                              {1: 0, 2: 0, 3: 0, 4: 0, 8: 4, 64: 60},
		"a-very-long-account-name-of-somebody": {1: 0, 2: 0, 3: 2, 4: 0, 8: 0, 64: 16},
	}
	for account, numbers := range of {
		for n, want := range numbers {
			if got := event.PartitionOf(account, n); got != want {
				t.Errorf("%q of %d: partition %d, want %d", account, n, got, want)
			}
		}
	}
}

func TestPartitionsShareAccountsEvenly(t *testing.T) {
	const accounts = 10_000
	for _, n := range []int{2, 3, 4, 8, 64} {
		held := make([]int, n)
		for i := range accounts {
			held[event.PartitionOf("account-"+strconv.Itoa(i), n)]++
		}
		for i, got := range held {
			if fair := accounts / n; got < fair/2 || got > 2*fair {
				t.Errorf("partition %d of %d has %d of %d accounts", i, n, got, accounts)
			}
		}
	}
}
