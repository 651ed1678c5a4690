package natslog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

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

// A state of 25 million closed runs is half a gigabyte, and whoever reads it may be busy.
func TestALargeObjectIsReadForLongerThanTheDriverWaitsForAnAnswer(t *testing.T) {
	patient, _ := start(t, t.TempDir())
	objects, err := natslog.OpenObjects(t.Context(), patient, "STATE", "for a test", 1)
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("0123456789"), 500_000)
	if err := objects.Put(t.Context(), "t0.v1.1", bytes.NewReader(large)); err != nil {
		t.Fatal(err)
	}
	const wait = 2 * time.Second // the driver's 5 s, for a test
	js, err := jetstream.New(patient.Conn(), jetstream.WithDefaultTimeout(wait))
	if err != nil {
		t.Fatal(err)
	}
	if objects, err = natslog.OpenObjects(t.Context(), js, "STATE", "for a test", 1); err != nil {
		t.Fatal(err)
	}
	r, err := objects.Open(t.Context(), "t0.v1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	busy, cancel := context.WithTimeout(t.Context(), wait+time.Second)
	defer cancel()
	<-busy.Done()
	if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(append(first, rest...), large) {
		t.Errorf("%d bytes more, %v", len(rest), err)
	}
}
