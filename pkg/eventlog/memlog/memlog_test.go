package memlog_test

import (
	"testing"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/eventlogtest"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
)

func TestLogKeepsTheContract(t *testing.T) {
	eventlogtest.Run(t, func(*testing.T) eventlog.Log { return memlog.New() })
}
