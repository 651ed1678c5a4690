package lifecycle_test

import (
	"context"
	"errors"
	"testing"

	"github.com/shipledger/shipledger/pkg/lifecycle"
)

func TestStartReturnsWhenReadyAndStopAwaitsTheEnd(t *testing.T) {
	ended := false
	last := errors.New("the last words")
	stop, err := lifecycle.Start(t.Context(), lifecycle.Func(func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		ended = true
		return last
	}))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stop(); !errors.Is(err, last) || !ended {
			t.Errorf("stop: %v, ended %t", err, ended)
		}
	}
}

func TestAServiceThatEndsBeforeItIsReadyIsAnError(t *testing.T) {
	fault := errors.New("no port")
	for _, want := range []error{fault, nil} {
		_, err := lifecycle.Start(t.Context(), lifecycle.Func(func(context.Context, func()) error { return want }))
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%v: %v", want, err)
		}
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := false
	_, err := lifecycle.Start(ctx, lifecycle.Func(func(ctx context.Context, _ func()) error {
		<-ctx.Done()
		ended = true
		return nil
	}))
	if !errors.Is(err, context.Canceled) || !ended {
		t.Errorf("%v, ended %t", err, ended)
	}
}
