// Package eventlogtest states the contract of eventlog.Log as tests.
//
// What it does not ask is that a repeated frame is recognised: an adapter may
// answer it with ErrConflict (see eventlog.Appender). It asks that a repeat is
// never stored twice.
package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

// Run holds the logs made by open to the contract. Each subtest gets an empty log.
func Run(t *testing.T, open func(*testing.T) eventlog.Log) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, eventlog.Log){
		"SequencesBeginAtOneWithoutGaps":            sequences,
		"FramesComeBackAsTheyWereStored":            comeBack,
		"AppendAtAnotherEndConflictsAndIsNotStored": conflict,
		"ARepeatedFrameIsStoredOnce":                repeated,
		"OfTwoAtOnceOneWins":                        race,
		"SubjectsAreCheckedApart":                   subjects,
		"ReadEndsAtTheEndOfTheCall":                 readEnds,
		"ReadResumesAfterASequence":                 resumes,
		"FollowSeesWhatComesLater":                  follow,
		"FollowEndsWithItsContext":                  followEnds,
		"AFrameIsFoundAtItsSequence":                at,
		"ASubjectIsReadApart":                       readSubject,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func frame(id string) eventlog.Frame {
	return eventlog.Frame{ID: id, ContentType: "application/cloudevents-batch+json", Body: []byte(`[{"id":"` + id + `"}]`)}
}

func fill(t *testing.T, log eventlog.Log, n int) {
	t.Helper()
	for i := range n {
		seq, err := log.AppendFrame(t.Context(), frame(fmt.Sprint("f", i+1)), uint64(i))
		if err != nil || seq != uint64(i+1) {
			t.Fatalf("append %d = %d, %v", i+1, seq, err)
		}
	}
}

func ids(t *testing.T, log eventlog.Log, after uint64) []string {
	t.Helper()
	out := []string{}
	for r, err := range log.Read(t.Context(), after) {
		if err != nil {
			t.Fatal(err)
		}
		if want := after + uint64(len(out)) + 1; r.Seq != want {
			t.Errorf("sequence %d, want %d", r.Seq, want)
		}
		out = append(out, r.ID)
	}
	return out
}

func sequences(t *testing.T, log eventlog.Log) {
	if last, err := log.Last(t.Context()); last != 0 || err != nil {
		t.Fatalf("an empty log ends at %d, %v", last, err)
	}
	fill(t, log, 3)
	if last, err := log.Last(t.Context()); last != 3 || err != nil {
		t.Errorf("last = %d, %v; want 3", last, err)
	}
}

func comeBack(t *testing.T, log eventlog.Log) {
	f := frame("x")
	f.Headers = map[string]string{"Shipledger-Tally": "1@0 acme:a.b=1", "other": "é"}
	if _, err := log.AppendFrame(t.Context(), f, 0); err != nil {
		t.Fatal(err)
	}
	for r, err := range log.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		r.Subject = "" // the stream's default
		if diff := cmp.Diff(eventlog.Recorded{Frame: f, Seq: 1}, r); diff != "" {
			t.Error(diff)
		}
	}
}

func conflict(t *testing.T, log eventlog.Log) {
	fill(t, log, 2)
	for _, after := range []uint64{0, 1, 3} {
		if _, err := log.AppendFrame(t.Context(), frame("late"), after); !errors.Is(err, eventlog.ErrConflict) {
			t.Errorf("append after %d = %v, want a conflict", after, err)
		}
	}
	if got := ids(t, log, 0); len(got) != 2 {
		t.Errorf("the log holds %q", got)
	}
}

func repeated(t *testing.T, log eventlog.Log) {
	fill(t, log, 1)
	for range 3 {
		if seq, err := log.AppendFrame(t.Context(), frame("f1"), 0); err == nil && seq != 1 || err != nil && !errors.Is(err, eventlog.ErrConflict) {
			t.Errorf("repeat = %d, %v; want 1 or a conflict", seq, err)
		}
	}
	if diff := cmp.Diff([]string{"f1"}, ids(t, log, 0)); diff != "" {
		t.Error(diff)
	}
}

func race(t *testing.T, log eventlog.Log) {
	const n = 8
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { _, errs[i] = log.AppendFrame(t.Context(), frame(fmt.Sprint("r", i)), 0) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, eventlog.ErrConflict):
			t.Error(err)
		}
	}
	if got := ids(t, log, 0); won != 1 || len(got) != 1 {
		t.Errorf("%d won and the log holds %q, want one", won, got)
	}
}

func subjects(t *testing.T, log eventlog.Log) {
	on := func(id, subject string) eventlog.Frame {
		f := frame(id)
		f.Subject = subject
		return f
	}
	a, err := log.AppendToSubject(t.Context(), on("a1", "cred.acme.sk.k1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.AppendToSubject(t.Context(), on("b1", "cred.acme.sk.k2"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := log.AppendToSubject(t.Context(), on("a2", "cred.acme.sk.k1"), 0); !errors.Is(err, eventlog.ErrConflict) {
		t.Errorf("a subject that exists = %v, want a conflict", err)
	}
	if _, err := log.AppendToSubject(t.Context(), on("a3", "cred.acme.sk.k1"), a); err != nil {
		t.Errorf("append at the subject's end, behind another subject: %v", err)
	}
	var got []string
	for r, err := range log.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Subject+" "+r.ID)
	}
	if diff := cmp.Diff([]string{"cred.acme.sk.k1 a1", "cred.acme.sk.k2 b1", "cred.acme.sk.k1 a3"}, got); diff != "" {
		t.Error(diff)
	}
}

func readEnds(t *testing.T, log eventlog.Log) {
	if got := ids(t, log, 0); len(got) != 0 {
		t.Errorf("an empty log yields %q", got)
	}
	fill(t, log, 2)
	n := 0
	for _, err := range log.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 1 {
			if _, err := log.AppendFrame(t.Context(), frame("later"), 2); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n != 2 {
		t.Errorf("read %d frames, want the 2 of the call", n)
	}
	if got := ids(t, log, 3); len(got) != 0 {
		t.Errorf("behind the end: %q", got)
	}
}

func resumes(t *testing.T, log eventlog.Log) {
	fill(t, log, 4)
	if diff := cmp.Diff([]string{"f3", "f4"}, ids(t, log, 2)); diff != "" {
		t.Error(diff)
	}
}

func follow(t *testing.T, log eventlog.Log) {
	fill(t, log, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for r, err := range log.Follow(ctx, 1) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.ID)
		if r.Seq == 5 {
			break
		}
		if _, err := log.AppendFrame(t.Context(), frame(fmt.Sprint("f", r.Seq+1)), r.Seq); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"f2", "f3", "f4", "f5"}, got); diff != "" {
		t.Error(diff)
	}
}

func followEnds(t *testing.T, log eventlog.Log) {
	fill(t, log, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range log.Follow(ctx, 0) {
		if err != nil {
			t.Fatalf("after the context ended: %v", err)
		}
		cancel()
	}
}

func at(t *testing.T, log eventlog.Log) {
	fill(t, log, 3)
	r, err := log.At(t.Context(), 2)
	if err != nil || r.ID != "f2" || r.Seq != 2 || string(r.Body) != string(frame("f2").Body) {
		t.Errorf("at 2 = %+v, %v", r, err)
	}
	if _, err := log.At(t.Context(), 9); !errors.Is(err, eventlog.ErrNoFrame) {
		t.Errorf("at 9 = %v, want ErrNoFrame", err)
	}
}

func readSubject(t *testing.T, log eventlog.Log) {
	const one, other = "cred.acme.sk.k1", "cred.acme.sk.k2"
	last := map[string]uint64{}
	for i, subject := range []string{one, other, one, other, one} {
		f := frame(fmt.Sprint("s", i))
		f.Subject = subject
		seq, err := log.AppendToSubject(t.Context(), f, last[subject])
		if err != nil {
			t.Fatal(err)
		}
		last[subject] = seq
	}
	for subject, want := range map[string][]string{one: {"s0 1", "s2 3", "s4 5"}, other: {"s1 2", "s3 4"}, "cred.acme.sk.k9": nil} {
		var got []string
		for r, err := range log.ReadSubject(t.Context(), subject) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(r.ID, " ", r.Seq))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", subject, diff)
		}
	}
}
