package memmodel_test

import (
	"testing"

	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/readmodeltest"
)

func TestModelKeepsTheContract(t *testing.T) {
	readmodeltest.Run(t, func(*testing.T) (readmodel.Sink, readmodel.Reader) {
		m := memmodel.New()
		return m, m
	})
}
