package natslog_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
)

func TestObjectsAreStoredWholeOrNotAtAll(t *testing.T) {
	js, _ := start(t, t.TempDir())
	objects, err := natslog.OpenObjects(t.Context(), js, "STATE", "for a test", 1)
	if err != nil {
		t.Fatal(err)
	}
	if names, err := objects.List(t.Context()); err != nil || len(names) != 0 {
		t.Fatalf("an empty bucket has %v, %v", names, err)
	}
	large := bytes.Repeat([]byte("0123456789"), 100_000) // several messages
	if err := objects.Put(t.Context(), "t0.v1.2", bytes.NewReader(large)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the disk is away")
	if err := objects.Put(t.Context(), "t0.v1.3", io.MultiReader(bytes.NewReader(large), iotest.ErrReader(broken))); err == nil {
		t.Error("half an object was stored")
	}
	if err := objects.Put(t.Context(), "t0.v1.1", strings.NewReader("small")); err != nil {
		t.Fatal(err)
	}
	if err := objects.Remove(t.Context(), "t0.v1.1"); err != nil {
		t.Fatal(err)
	}
	names, err := objects.List(t.Context())
	if diff := cmp.Diff([]string{"t0.v1.2"}, names); diff != "" || err != nil {
		t.Fatal(err, diff)
	}
	r, err := objects.Open(t.Context(), "t0.v1.2")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, large) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
