package tally_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/tally"
)

// unlimited is more room than totals may take.
const unlimited = 1 << 20

// ctx is for logs in memory, which never wait.
var ctx = context.Background()

type ledger struct {
	log  *memlog.Log
	book tally.Book
	seq  uint64
}

func newLedger() *ledger { return &ledger{log: memlog.New()} }

// frame appends one with these counts, as a committer does.
func (l *ledger) frame(t interface{ Fatal(...any) }, counts tally.Counts, room int) map[string]string {
	l.seq++
	headers := l.book.Headers(l.seq, counts, room)
	if _, err := l.log.AppendFrame(ctx, eventlog.Frame{ID: fmt.Sprint(l.seq), Headers: headers}, l.seq-1); err != nil {
		t.Fatal(err)
	}
	l.book.Enter(l.seq, counts, headers)
	return headers
}

func TestAcceptedIsTheSumOfAllFramesAtEveryPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger()
		accounts := rapid.SliceOfNDistinct(rapid.String(), 1, 4, rapid.ID).Draw(t, "accounts")
		frames := rapid.IntRange(1, 900).Draw(t, "frames")
		sums := []tally.Counts{{}}
		for i := range frames {
			counts := tally.Counts{}
			for range 1 + i%3 {
				k := tally.Key{Account: accounts[i%len(accounts)], Type: event.Type([]string{"a.b", "c:d=e,f", ""}[(i*7+i/5)%3])}
				counts[k] += uint64(1 + i%5)
			}
			l.frame(t, counts, unlimited)
			sum := tally.Counts{}
			sum.Add(sums[i])
			sum.Add(counts)
			sums = append(sums, sum)
		}
		for _, seq := range []int{0, 1, rapid.IntRange(0, frames).Draw(t, "at"), min(256, frames), min(257, frames), frames} {
			got, err := tally.Accepted(ctx, l.log, "t0", uint64(seq))
			if diff := cmp.Diff(sums[seq], got); diff != "" || err != nil {
				t.Fatalf("at %d: %v\n%s", seq, err, diff)
			}
		}
	})
}

func TestAnAnswerReadsAFewHundredFramesHoweverLongTheLogIs(t *testing.T) {
	l := newLedger()
	for range 5000 {
		l.frame(t, tally.Counts{{"acme", "deployment.completed"}: 1, {"acme", "version.created"}: 1}, unlimited)
	}
	for _, seq := range []uint64{255, 256, 257, 4999, 5000} {
		r, err := l.log.At(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		line, err := tally.ParseLine(r.Headers[tally.Header])
		if err != nil || line.Total != 2*seq || seq-line.At > 256 {
			t.Errorf("frame %d: %+v, %v", seq, line, err)
		}
	}
}

func TestManyAccountsCostAFrameNoMoreThanAFew(t *testing.T) {
	l := newLedger()
	bytes := 0
	const frames = 20_000
	for i := range frames {
		for _, value := range l.frame(t, tally.Counts{{fmt.Sprintf("account-%d", i%2000), "deployment.completed"}: 1}, unlimited) {
			bytes += len(value)
		}
	}
	if perFrame := bytes / frames; perFrame > 120 {
		t.Errorf("headers take %d bytes a frame", perFrame)
	}
	if got, err := tally.Accepted(ctx, l.log, "t0", frames); err != nil || got.Sum() != frames {
		t.Errorf("%d, %v", got.Sum(), err)
	}
}

func TestAFrameWithoutRoomLeavesTheTotalsToTheNext(t *testing.T) {
	l := newLedger()
	one := tally.Counts{{"acme", "a.b"}: 1}
	for range 300 {
		if h := l.frame(t, one, 0); h[tally.TotalsHeader] != "" {
			t.Fatal("totals were written where there was no room")
		}
	}
	if h := l.frame(t, one, unlimited); h[tally.TotalsHeader] != "acme:a.b=301" || !strings.HasPrefix(h[tally.Header], "301@301 ") {
		t.Errorf("got %q", h)
	}
}

func TestFramesOfOthersAreCountedByTheirBody(t *testing.T) {
	l := newLedger()
	l.frame(t, tally.Counts{{"acme", "a.b"}: 3}, unlimited)
	foreign := []byte(`[{"specversion":"1.0","id":"01JW2C5R3V0E6H7Q8S9T0A1B2D","source":"/accounts/acme","type":"x.y","subject":"x","time":"2026-05-04T09:00:00Z","dataschema":"x/1","data":{}}]`)
	if _, err := l.log.AppendFrame(ctx, eventlog.Frame{ID: "foreign", Body: foreign}, 1); err != nil {
		t.Fatal(err)
	}
	got, err := tally.Accepted(ctx, l.log, "t0", 2)
	if diff := cmp.Diff(tally.Counts{{"acme", "a.b"}: 3, {"acme", "x.y"}: 1}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestTalliesThatContradictEachOtherAreNoAnswer(t *testing.T) {
	for name, h := range map[string]string{"too many": "9@0 acme:a.b=1", "totals ahead": "1@7 acme:a.b=1"} {
		log := memlog.New()
		if _, err := log.AppendFrame(ctx, eventlog.Frame{ID: "1", Headers: map[string]string{tally.Header: h}}, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := tally.Accepted(ctx, log, "t0", 1); !errors.Is(err, tally.ErrInconsistent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("901@256 acme:deployment.completed=2,version.created=1 b%3A:x=1")
	f.Add("0@0 ")
	f.Fuzz(func(t *testing.T, text string) {
		line, err := tally.ParseLine(text)
		if err != nil {
			return
		}
		var b tally.Book
		again, err := tally.ParseLine(b.Headers(1, line.Counts, 0)[tally.Header])
		if diff := cmp.Diff(line.Counts, again.Counts); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}

// BenchmarkHeaders is what counting costs a committer, a frame of one reported
// event and of a thousand.
func BenchmarkHeaders(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var book tally.Book
			e := event.Event{Account: "acme", Type: "deployment.completed"}
			counts := tally.Counts{}
			seq := uint64(0)
			for b.Loop() {
				seq++
				clear(counts)
				for range n {
					counts.Count(&e)
				}
				book.Enter(seq, counts, book.Headers(seq, counts, unlimited))
			}
		})
	}
}
