package memkv_test

import (
	"testing"

	"github.com/shipledger/shipledger/pkg/kv"
	"github.com/shipledger/shipledger/pkg/kv/kvtest"
	"github.com/shipledger/shipledger/pkg/kv/memkv"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	kvtest.Run(t, func(_ *testing.T, n int) []kv.Table {
		table := memkv.New()
		tables := make([]kv.Table, n)
		for i := range tables {
			tables[i] = table
		}
		return tables
	})
}
