package ingest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/tracking"
	"github.com/shipledger/shipledger/services/ingest"
)

// faultyLog lets a test decide what each append does.
type faultyLog struct {
	eventlog.Log
	append func(ctx context.Context, f eventlog.Frame, after uint64, store func() (uint64, error)) (uint64, error)
}

func (l *faultyLog) AppendFrame(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	store := func() (uint64, error) { return l.Log.AppendFrame(ctx, f, after) }
	if l.append == nil {
		return store()
	}
	return l.append(ctx, f, after, store)
}

// run starts a committer that stops with the test.
func run(t testing.TB, log eventlog.Log, clock func() time.Time) *ingest.Committer {
	t.Helper()
	c := newCommitter(log, clock, slog.DiscardHandler)
	start(t, c)
	return c
}

func newCommitter(log eventlog.Log, clock func() time.Time, logs slog.Handler) *ingest.Committer {
	ids := ulid.Monotonic(rand.Reader, 0)
	newID := func(ms uint64) ulid.ULID { return ulid.MustNew(ms, ids) }
	return ingest.NewCommitter(log, "t0", clock, newID, slog.New(logs))
}

// start runs a committer until stop is called or the test ends.
func start(t testing.TB, c *ingest.Committer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up, down := make(chan struct{}), make(chan error, 1)
	go func() { down <- c.Run(ctx, func() { close(up) }) }()
	select {
	case <-up:
	case err := <-down:
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func command(run string, status event.Status) *tracking.Command {
	body := fmt.Appendf(nil, `{"product_name":"svc","version":"1","environment_name":"production","status":%q,"invoke_id":%q}`, status, run)
	c := &tracking.Command{
		Account: "acme", Author: event.Author{CredentialID: "k1", Mode: event.Live}, Kind: event.Deployment,
		ProductName: "svc", EnvironmentName: "production", Version: "1", Status: status, Body: body,
	}
	c.Attributes[event.InvokeID] = run
	for _, b := range body {
		c.Hash = c.Hash*31 + uint64(b)
	}
	return c
}

func alive() error { return nil }

func submit(t *testing.T, c *ingest.Committer, commands ...*tracking.Command) []ingest.Result {
	t.Helper()
	out, err := c.Submit(t.Context(), inputs(commands), alive)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func inputs(commands []*tracking.Command) []tracking.Input {
	out := make([]tracking.Input, len(commands))
	for i, c := range commands {
		out[i] = c
	}
	return out
}

// stored gives the events of the log, type and position.
func stored(t *testing.T, log eventlog.Log) []string {
	t.Helper()
	out := []string{}
	for f, err := range log.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		events, err := event.DecodeFrame("t0", f.Seq, f.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			out = append(out, e.Position.String()+" "+string(e.Type))
		}
	}
	return out
}

func TestTheAnswerWaitsForTheLog(t *testing.T) {
	stores, answered := make(chan struct{}), make(chan []ingest.Result, 1)
	log := &faultyLog{Log: memlog.New()}
	log.append = func(_ context.Context, _ eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
		<-stores
		return store()
	}
	c := run(t, log, time.Now)
	go func() { answered <- submit(t, c, command("1", event.Completed)) }()
	select {
	case <-answered:
		t.Fatal("answered before the log had the frame")
	case stores <- struct{}{}:
	}
	out := (<-answered)[0]
	if out.Err != nil || out.Position.String() != "t0.1.3" {
		t.Errorf("answer = %v, %v", out.Position, out.Err)
	}
}

func TestWhatQueuesDuringAWriteIsOneFrame(t *testing.T) {
	const n = 40
	writing, release := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(writing); <-release })
	log := &faultyLog{Log: memlog.New()}
	log.append = func(_ context.Context, _ eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
		first()
		return store()
	}
	c := run(t, log, time.Now)
	var wg sync.WaitGroup
	wg.Go(func() { submit(t, c, command("0", event.Completed)) })
	<-writing
	var queued sync.WaitGroup
	for i := range n {
		queued.Add(1)
		wg.Go(func() {
			queued.Done()
			submit(t, c, command(fmt.Sprint(i+1), event.Completed))
		})
	}
	queued.Wait()
	for c.Queued() < n {
		select {
		case <-t.Context().Done():
			t.Fatal("they never queued")
		default:
		}
	}
	close(release)
	wg.Wait()
	if last, _ := log.Last(t.Context()); last != 2 {
		t.Errorf("%d frames, want the first and one for all that queued", last)
	}
}

// slowLog stores each frame in as long as a disk may take, and tells how many events each held.
func slowLog() (log *faultyLog, frames *[]int) {
	frames = new([]int)
	log = &faultyLog{Log: memlog.New()}
	log.append = func(_ context.Context, f eventlog.Frame, after uint64, store func() (uint64, error)) (uint64, error) {
		time.Sleep(writeTakes)
		events, err := event.DecodeFrame("t0", after+1, f.Body)
		if err != nil {
			return 0, err
		}
		*frames = append(*frames, len(events))
		return store()
	}
	return log, frames
}

const writeTakes = 300 * time.Microsecond

func TestALoneCommandWaitsForNothingButItsWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 50
		log, frames := slowLog()
		c := run(t, log, time.Now)
		began := time.Now()
		for i := range n {
			submit(t, c, command(fmt.Sprint(i), event.Completed))
		}
		if took := time.Since(began); took != n*writeTakes || len(*frames) != n {
			t.Errorf("%d commands, one after the other, took %s and %d frames", n, took, len(*frames))
		}
	})
}

func TestThoseWhoPostTogetherShareAFrame(t *testing.T) {
	for _, senders := range []int{4, 10, 32} {
		synctest.Test(t, func(t *testing.T) {
			const n = 50
			log, frames := slowLog()
			c := run(t, log, time.Now)
			submit(t, c, command("first", event.Completed)) // what it creates would count as events
			*frames = nil
			began := time.Now()
			var wg sync.WaitGroup
			for s := range senders {
				wg.Go(func() {
					for i := range n {
						submit(t, c, command(fmt.Sprint(s, " ", i), event.Completed))
					}
				})
			}
			wg.Wait()
			// The first of them is alone, and the last frame has who is left.
			for i, events := range (*frames)[1 : n-1] {
				if events != senders {
					t.Errorf("frame %d of %d senders holds %d events", i+2, senders, events)
				}
			}
			// They are all there at once, and only the last frame waits in vain.
			if took := time.Since(began); took > (n+1)*writeTakes+time.Millisecond {
				t.Errorf("%d events of each of %d senders took %s", n, senders, took)
			}
		})
	}
}

func TestAFrameDoesNotWaitForFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := slowLog()
		c := run(t, log, time.Now)
		submit(t, c, command("a", event.Completed), command("b", event.Completed), command("c", event.Completed))
		began := time.Now()
		submit(t, c, command("alone", event.Completed))
		if took := time.Since(began); took != writeTakes {
			t.Errorf("a command after three together took %s", took)
		}
	})
}

func TestAFrameDoesNotWaitLongForWhoDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, frames := slowLog()
		c := run(t, log, time.Now)
		submit(t, c, command("first", event.Completed))
		submit(t, c, command("a", event.Completed), command("b", event.Completed), command("c", event.Completed), command("d", event.Completed))
		*frames = nil
		began := time.Now()
		submit(t, c, command("alone", event.Completed))
		if took := time.Since(began); took > time.Millisecond+writeTakes {
			t.Errorf("it waited %s for others", took)
		}
		began = time.Now()
		submit(t, c, command("alone again", event.Completed))
		if took := time.Since(began); took != writeTakes || len(*frames) != 2 {
			t.Errorf("the next took %s, in %v", took, *frames)
		}
	})
}

// What stores nothing tells as well who posts together.
func TestALoneRepeatAfterABatchWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, frames := slowLog()
		c := run(t, log, time.Now)
		batch := make([]*tracking.Command, 100)
		for i := range batch {
			batch[i] = command(fmt.Sprint(i), event.Completed)
		}
		submit(t, c, batch...)
		submit(t, c, batch[0]) // it may wait: a hundred were there
		began := time.Now()
		submit(t, c, batch[1])
		if took := time.Since(began); took != 0 || len(*frames) != 1 {
			t.Errorf("a repeat took %s, and there are %d frames", took, len(*frames))
		}
	})
}

func TestAFrameThatHoldsEnoughWaitsForNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := slowLog()
		c := run(t, log, time.Now)
		together := func(round string, n int) {
			many := make([]*tracking.Command, n)
			for i := range many {
				many[i] = command(fmt.Sprint(round, " ", i), event.Completed)
			}
			submit(t, c, many...)
		}
		together("first", 100)
		began := time.Now()
		together("second", 32)
		if took := time.Since(began); took != writeTakes {
			t.Errorf("32 commands, after 100 together, took %s", took)
		}
	})
}

func TestAFrameOfAnotherProcessMakesItDecideAgain(t *testing.T) {
	shared := memlog.New()
	a, b := run(t, shared, time.Now), run(t, shared, time.Now)
	if out := submit(t, a, command("1", event.Started)); out[0].Err != nil || out[0].Decision.Refusal != nil {
		t.Fatalf("first start: %+v", out[0])
	}
	// b has not heard of it; the log tells it.
	out := submit(t, b, command("2", event.Started))[0]
	if out.Err != nil || out.Decision.Refusal == nil {
		t.Fatalf("second start through another process = %+v, want a refusal", out)
	}
	if got := submit(t, a, command("1", event.Completed))[0]; got.Err != nil || got.Decision.Record.Status != event.Completed {
		t.Errorf("the end: %+v", got)
	}
	want := []string{
		"t0.1.0 product.created", "t0.1.1 environment.created", "t0.1.2 version.created", "t0.1.3 deployment.started",
		"t0.2.0 deployment.preflight_failed", "t0.3.0 deployment.completed",
	}
	if diff := cmp.Diff(want, stored(t, shared)); diff != "" {
		t.Error(diff)
	}
}

func TestOfTwoStartsThroughTwoProcessesOneIsRefused(t *testing.T) {
	shared := memlog.New()
	a, b := run(t, shared, time.Now), run(t, shared, time.Now)
	for i := range 100 {
		var ra, rb ingest.Result
		var wg sync.WaitGroup
		wg.Go(func() { ra = submit(t, a, command(fmt.Sprint("a", i), event.Started))[0] })
		wg.Go(func() { rb = submit(t, b, command(fmt.Sprint("b", i), event.Started))[0] })
		wg.Wait()
		if ra.Err != nil || rb.Err != nil || (ra.Decision.Refusal == nil) == (rb.Decision.Refusal == nil) {
			t.Fatalf("round %d: %+v and %+v", i, ra, rb)
		}
		winner, name := a, "a"
		if ra.Decision.Refusal != nil {
			winner, name = b, "b"
		}
		submit(t, winner, command(fmt.Sprint(name, i), event.Completed))
	}
}

// A process that has not written for a while knows nothing of what others wrote since.
// What it would refuse it holds against the log first.
func TestNobodyIsRefusedByAStateThatIsBehind(t *testing.T) {
	shared := memlog.New()
	a, b := run(t, shared, time.Now), run(t, shared, time.Now)
	change := func(c *ingest.Committer, action tracking.Action) ingest.Result {
		t.Helper()
		out, err := c.Submit(t.Context(), []tracking.Input{&tracking.Change{
			Account: "acme", Author: event.Author{CredentialID: "k1", Mode: event.Live}, Action: action, BodyHash: 1,
		}}, alive)
		if err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	for i := range 10 {
		name, says := fmt.Sprint("shop-", i), "sells"
		if err := change(a, tracking.CreateProduct{Name: name}).Err; err != nil {
			t.Fatal(err)
		}
		id := event.ProductIDOf("acme", name)
		if err := change(b, tracking.UpdateProduct{ID: id, Description: &says}).Err; err != nil {
			t.Errorf("what another process has made: %v", err)
		}
		if err := change(a, tracking.DeleteProduct{ID: id}).Err; err != nil {
			t.Errorf("what another process has changed: %v", err)
		}
		if err := change(b, tracking.UpdateProduct{ID: id, Description: &says}).Err; fault.KindOf(err) != fault.NotFound {
			t.Errorf("what another process has deleted: %v", err)
		}
		if err := change(b, tracking.CreateProduct{Name: name}).Err; err != nil {
			t.Errorf("a name that is free again: %v", err)
		}
	}
}

func TestASilentLogIsAskedAgainWithTheSameBytes(t *testing.T) {
	for name, lost := range map[string]bool{"the frame was stored": false, "the frame was lost": true} {
		t.Run(name, func(t *testing.T) {
			log := &faultyLog{Log: memlog.New()}
			var bodies []string
			log.append = func(_ context.Context, f eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
				bodies = append(bodies, f.ID+string(f.Body))
				if len(bodies) > 1 {
					return store()
				}
				if !lost {
					if _, err := store(); err != nil {
						return 0, err
					}
				}
				return 0, eventlog.ErrAmbiguous
			}
			c := run(t, log, time.Now)
			out := submit(t, c, command("1", event.Completed))[0]
			if out.Err != nil || out.Position.String() != "t0.1.3" {
				t.Errorf("answer = %v, %v", out.Position, out.Err)
			}
			if len(bodies) != 2 || bodies[0] != bodies[1] {
				t.Errorf("sent %q", bodies)
			}
			if got := stored(t, log); len(got) != 4 {
				t.Errorf("the log holds %q", got)
			}
		})
	}
}

// On one replica JetStream answers a repeated frame with a conflict: it is the
// frame itself that moved the log on.
func TestAConflictAfterSilenceMayBeTheFrameItself(t *testing.T) {
	for name, foreign := range map[string]bool{"its own": false, "another's": true} {
		t.Run(name, func(t *testing.T) {
			mem := memlog.New()
			log := &faultyLog{Log: mem}
			calls := 0
			log.append = func(ctx context.Context, f eventlog.Frame, after uint64, store func() (uint64, error)) (uint64, error) {
				switch calls++; calls {
				case 1:
					if !foreign {
						if _, err := store(); err != nil {
							return 0, err
						}
					} else if _, err := mem.AppendFrame(ctx, eventlog.Frame{ID: "other", Body: []byte("[]")}, after); err != nil {
						return 0, err
					}
					return 0, eventlog.ErrAmbiguous
				case 2:
					return 0, eventlog.ErrConflict
				}
				return store()
			}
			c := run(t, log, time.Now)
			out := submit(t, c, command("1", event.Completed))[0]
			if want := map[bool]string{false: "t0.1.3", true: "t0.2.3"}[foreign]; out.Err != nil || out.Position.String() != want {
				t.Errorf("answer = %v, %v; want %s", out.Position, out.Err, want)
			}
			if got := stored(t, log); len(got) != 4 {
				t.Errorf("the log holds %q", got)
			}
		})
	}
}

// A replica may be behind the leader that has just refused: what moved the log on
// cannot be read for a moment, and may be the frame itself. Decided anew, an event
// without a run id would be recorded twice.
func TestAFrameThatCannotBeReadYetIsNotTakenForLost(t *testing.T) {
	mem := memlog.New()
	log := laggingLog{&faultyLog{Log: mem}, new(int)}
	calls := 0
	log.append = func(_ context.Context, _ eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
		switch calls++; calls {
		case 1:
			if _, err := store(); err != nil {
				return 0, err
			}
			*log.behind = 2
			return 0, eventlog.ErrAmbiguous
		case 2, 3, 4:
			return 0, eventlog.ErrConflict
		}
		return store()
	}
	cmd := command("", event.Completed)
	cmd.Attributes[event.InvokeID] = ""
	if out := submit(t, run(t, log, time.Now), cmd)[0]; out.Err != nil || out.Position.String() != "t0.1.3" {
		t.Errorf("answer = %v, %v", out.Position, out.Err)
	}
	if got := stored(t, log); len(got) != 4 {
		t.Errorf("the log holds %q", got)
	}
}

// laggingLog is one whose replicas do not know the newest frame for so many questions.
type laggingLog struct {
	*faultyLog
	behind *int
}

func (l laggingLog) At(ctx context.Context, seq uint64) (eventlog.Recorded, error) {
	if last, err := l.Last(ctx); err == nil && seq == last && *l.behind > 0 {
		*l.behind--
		return eventlog.Recorded{}, eventlog.ErrNoFrame
	}
	return l.faultyLog.At(ctx, seq)
}

func TestALogWithoutALeaderIsAskedUntilThereIsOne(t *testing.T) {
	log := &faultyLog{Log: memlog.New()}
	elections := 3
	log.append = func(_ context.Context, _ eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
		if elections--; elections >= 0 {
			return 0, eventlog.ErrUnreachable
		}
		return store()
	}
	if out := submit(t, run(t, log, time.Now), command("1", event.Completed))[0]; out.Err != nil || out.Position.String() != "t0.1.3" {
		t.Errorf("answer = %v, %v", out.Position, out.Err)
	}
}

func TestAFullLogIsA503AndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a failure counts for seconds
		log := &faultyLog{Log: memlog.New()}
		full := true
		log.append = func(_ context.Context, _ eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
			if full {
				return 0, eventlog.ErrRefused
			}
			return store()
		}
		c := run(t, log, time.Now)
		out := submit(t, c, command("1", event.Started))[0]
		if fault.KindOf(out.Err) != fault.Unavailable {
			t.Fatalf("answer = %v, want unavailable", out.Err)
		}
		if c.Healthy() == nil {
			t.Error("healthy although nothing can be stored")
		}
		full = false
		// Nothing of the refused start may be left: another run may start.
		if out := submit(t, c, command("2", event.Started))[0]; out.Err != nil || out.Decision.Refusal != nil {
			t.Errorf("after there was room: %+v", out)
		}
		if c.Healthy() != nil {
			t.Error("unhealthy although it stores again")
		}
	})
}

func TestNobodyIsRefusedBecauseOfWhatWasNotStored(t *testing.T) {
	log := &faultyLog{Log: memlog.New()}
	log.append = func(context.Context, eventlog.Frame, uint64, func() (uint64, error)) (uint64, error) {
		return 0, eventlog.ErrRefused
	}
	build := func(sha string) *tracking.Command {
		c := command(sha, event.Completed)
		c.Kind, c.EnvironmentName, c.Attributes[event.SCMSHA] = event.Build, "", sha
		return c
	}
	out := submit(t, run(t, log, time.Now), build("1111111"), build("2222222")) // the second contradicts the first
	for i, r := range out {
		if fault.KindOf(r.Err) != fault.Unavailable {
			t.Errorf("answer %d = %v, want unavailable", i, r.Err)
		}
	}
}

func TestACredentialThatDiesInFlightStoresNothing(t *testing.T) {
	log := memlog.New()
	c := run(t, log, time.Now)
	dead := fault.New(fault.Unauthenticated, "AUTH_REVOKED_KEY", "revoked")
	out, err := c.Submit(t.Context(), []tracking.Input{command("1", event.Completed)}, func() error { return dead })
	if err != nil || !errors.Is(out[0].Err, dead) {
		t.Errorf("answer = %v, %v", out, err)
	}
	if got := stored(t, log); len(got) != 0 {
		t.Errorf("the log holds %q", got)
	}
}

// Rows: VF-20
func TestWhatWaitsBehindAWriteIsDecidedAfterARevocation(t *testing.T) {
	inAppend, release := make(chan struct{}), make(chan struct{})
	log := memlog.New()
	c := run(t, &faultyLog{Log: log, append: func(_ context.Context, _ eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
		inAppend <- struct{}{}
		<-release
		return store()
	}}, time.Now)
	var revoked atomic.Bool
	dead := fault.New(fault.Unauthenticated, "AUTH_REVOKED_KEY", "revoked")
	mayStill := func() error {
		if revoked.Load() {
			return dead
		}
		return nil
	}
	first, second := make(chan error, 1), make(chan error, 1)
	send := func(run string, done chan<- error) {
		out, err := c.Submit(context.Background(), []tracking.Input{command(run, event.Completed)}, mayStill)
		if err == nil {
			err = out[0].Err
		}
		done <- err
	}
	go send("1", first)
	<-inAppend
	go send("2", second)
	for c.Waiting() < 2 {
		runtime.Gosched()
	}
	revoked.Store(true)
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Flight().Landed(expired); err == nil {
		t.Error("the frame has landed before the log has it")
	}
	close(release)
	if err := c.Flight().Landed(t.Context()); err != nil || len(stored(t, log)) == 0 {
		t.Errorf("the frame has landed, and the log holds %q: %v", stored(t, log), err)
	}
	if err := <-first; err != nil {
		t.Errorf("what was decided before the revocation: %v", err)
	}
	if err := <-second; !errors.Is(err, dead) {
		t.Errorf("what was queued before the revocation: %v", err)
	}
	if last, _ := log.Last(t.Context()); last != 1 {
		t.Errorf("the log holds %q", stored(t, log))
	}
}

func TestReceiptNeverFallsWhenTheClockDoes(t *testing.T) {
	log := memlog.New()
	now := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	c := run(t, log, func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
	first := submit(t, c, command("1", event.Completed))[0].Decision.Record
	mu.Lock()
	now = now.Add(-time.Hour)
	mu.Unlock()
	second := submit(t, c, command("2", event.Completed))[0].Decision.Record
	if second.CreatedAt.Before(first.CreatedAt) {
		t.Errorf("received at %v after %v", second.CreatedAt, first.CreatedAt)
	}
}

func TestAGroupLargerThanAFrameIsDecidedInOrder(t *testing.T) {
	log := memlog.New()
	c := run(t, log, time.Now)
	var commands []*tracking.Command
	for i := range 1500 {
		cmd := command(fmt.Sprint(i), event.Completed)
		cmd.Body = fmt.Appendf(nil, `{"x":%q,"status":"completed"}`, strings.Repeat("x", 1000))
		commands = append(commands, cmd)
	}
	var last event.Offset
	for i, out := range submit(t, c, commands...) {
		if out.Err != nil || out.Position.Offset <= last {
			t.Fatalf("result %d: %v after %d, %v", i, out.Position, last, out.Err)
		}
		last = out.Position.Offset
	}
	for f, err := range log.Read(t.Context(), 0) {
		if err != nil || len(f.Body) > 512<<10 {
			t.Errorf("frame %d has %d bytes, %v", f.Seq, len(f.Body), err)
		}
	}
}

func TestMoreThanTheQueueHoldsIsRefusedAtOnce(t *testing.T) {
	release := make(chan struct{})
	log := &faultyLog{Log: memlog.New()}
	log.append = func(_ context.Context, _ eventlog.Frame, _ uint64, store func() (uint64, error)) (uint64, error) {
		<-release
		return store()
	}
	c := run(t, log, time.Now)
	var wg sync.WaitGroup
	group := func() []*tracking.Command {
		out := make([]*tracking.Command, 1000)
		for i := range out {
			out[i] = command(fmt.Sprint(i), event.Completed)
		}
		return out
	}
	refused := make(chan error, 64)
	for range 20 {
		wg.Go(func() {
			if _, err := c.Submit(t.Context(), inputs(group()), alive); err != nil {
				refused <- err
			}
		})
	}
	if err := <-refused; fault.KindOf(err) != fault.Unavailable {
		t.Errorf("refused with %v", err)
	}
	close(release)
	wg.Wait()
}

func TestACommitterFindsTheLogsEndAfterARestart(t *testing.T) {
	log := memlog.New()
	submit(t, run(t, log, time.Now), command("1", event.Started))
	again := run(t, log, time.Now)
	if out := submit(t, again, command("1", event.Started))[0]; !out.Decision.Duplicate {
		t.Errorf("the same bytes after a restart = %+v", out)
	}
	if out := submit(t, again, command("2", event.Started))[0]; out.Decision.Refusal == nil {
		t.Error("the start before the restart was forgotten")
	}
}

// deafLog does not answer who asks for a frame up to a sequence, once there is one.
type deafLog struct {
	eventlog.Log

	upTo  atomic.Uint64
	asked atomic.Int64
}

func (l *deafLog) At(ctx context.Context, seq uint64) (eventlog.Recorded, error) {
	if seq > l.upTo.Load() {
		return l.Log.At(ctx, seq)
	}
	l.asked.Add(1)
	<-ctx.Done()
	return eventlog.Recorded{}, ctx.Err()
}

// A log that does not answer is waited for once, not once for each of a thousand
// commands that need something of it.
func TestALogThatDoesNotAnswerIsWaitedForOnceAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const runs = 30
		var ended []*tracking.Command
		log := memlog.New()
		first := newCommitter(log, time.Now, slog.DiscardHandler)
		stop := start(t, first)
		for i := range runs {
			ended = append(ended, command(fmt.Sprint(i), event.Completed))
		}
		submit(t, first, ended...)
		stop()
		last, err := log.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		deaf := &deafLog{Log: log}
		c := run(t, deaf, time.Now) // it remembers no frame
		deaf.upTo.Store(last)
		began := time.Now()
		for i, r := range submit(t, c, ended...) {
			if fault.KindOf(r.Err) != fault.Unavailable {
				t.Errorf("command %d: %v", i, r.Err)
			}
		}
		if n := deaf.asked.Load(); n != 1 {
			t.Errorf("asked %d times, for %v", n, time.Since(began))
		}
	})
}
