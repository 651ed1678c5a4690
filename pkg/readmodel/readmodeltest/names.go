package readmodeltest

import (
	"testing"

	"github.com/google/uuid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

func names(t *testing.T, open func(t *testing.T) (readmodel.Sink, readmodel.Reader)) {
	sink, reader := open(t)
	f := newFixture(t, sink)
	moved := event.ProductIDOf(f.account, "another")
	means := func(object readmodel.Object, name string, id uuid.UUID) readmodel.NameRow {
		return readmodel.NameRow{Account: f.account, Object: object, Name: name, ID: id, Position: f.next()}
	}
	early := means(readmodel.ProductObject, "it's ü", uuid.UUID(f.product()))
	rows := []readmodel.NameRow{
		means(readmodel.ProductObject, "it's ü", uuid.UUID(moved)),
		means(readmodel.EnvironmentObject, "it's ü", uuid.UUID(f.environment())),
	}
	f.store(readmodel.Rows{Names: rows})
	f.store(readmodel.Rows{Names: []readmodel.NameRow{early}}) // late, and again
	product := func(name string, want event.ProductID) {
		t.Helper()
		if got, err := reader.ProductNamed(t.Context(), f.account, name); err != nil || got != want {
			t.Errorf("the product %q is %v, %v; want %v", name, got, err, want)
		}
	}
	product("it's ü", moved)
	product("svc", f.product())
	product("", event.ProductIDOf(f.account, ""))
	for name, want := range map[string]event.EnvironmentID{"it's ü": f.environment(), "qa": event.EnvironmentIDOf(f.account, "qa")} {
		if got, err := reader.EnvironmentNamed(t.Context(), f.account, name); err != nil || got != want {
			t.Errorf("the environment %q is %v, %v; want %v", name, got, err, want)
		}
	}
	if got, err := reader.ProductNamed(t.Context(), f.account+"-other", "it's ü"); err != nil || got != event.ProductIDOf(f.account+"-other", "it's ü") {
		t.Errorf("another account's name means %v, %v", got, err)
	}
}
