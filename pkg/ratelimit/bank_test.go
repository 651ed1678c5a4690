package ratelimit_test

import (
	"testing"

	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/pkg/ratelimit/banktest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	banktest.Run(t, func(_ *testing.T, n int) []ratelimit.Bank {
		bank := ratelimit.NewMemory()
		banks := make([]ratelimit.Bank, n)
		for i := range banks {
			banks[i] = bank
		}
		return banks
	})
}

func TestLeasedKeepsTheContract(t *testing.T) {
	banktest.Run(t, func(t *testing.T, n int) []ratelimit.Bank {
		store := ratelimit.NewMemoryStore()
		banks := make([]ratelimit.Bank, n)
		for i := range banks {
			banks[i] = process(t, i, store)
		}
		return banks
	})
}
