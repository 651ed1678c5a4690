package projector

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/replay"
)

const (
	// near is how many frames a rebuild may lack when both are asked to stand still.
	near = 20
	// nearTime is how much later than the last event that a rebuild has the last one may
	// be that the live version has, where the rebuild reads partitions in turn: each then
	// follows at the pace of the live version, and all are rarely within near at once.
	nearTime = 2 * time.Second
	// stillTimeout bounds how long versions may be made to wait.
	stillTimeout = 30 * time.Second
	// look is how often a rebuild is looked at while it catches up.
	look = 50 * time.Millisecond
	// tidyLook is how often parts are counted while they are merged, partsLook while
	// they are not.
	tidyLook, partsLook = 200 * time.Millisecond, 10 * time.Second
	// fewParts are as many as a table has that is merged beside its inserts.
	fewParts = 30
	// rateWindow is the time over which the rate is taken.
	rateWindow = 5 * time.Second
)

// attempt is a replay that this process runs.
type attempt struct {
	id     string
	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex
	verifying bool
	events    uint64 // in the new version
	total     uint64 // in the live one
	samples   []sample
}

type sample struct {
	at     time.Time
	events uint64
}

func (a *attempt) end() {
	a.cancel()
	<-a.done
}

// advance is how far a running replay is.
type advance struct {
	Verifying     bool
	Events, Total uint64
	Rate          float64 // events a second
	Left          time.Duration
}

func (a *attempt) sampled(now time.Time, events, total uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events, a.total = events, max(events, total)
	a.samples = append(a.samples, sample{now, events})
	for len(a.samples) > 2 && now.Sub(a.samples[0].at) > rateWindow {
		a.samples = a.samples[1:]
	}
}

func (a *attempt) setVerifying(v bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.verifying = v
}

func (a *attempt) progress() advance {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := advance{Verifying: a.verifying, Events: a.events, Total: a.total}
	if n := len(a.samples); n > 1 {
		first, last := a.samples[0], a.samples[n-1]
		if took := last.at.Sub(first.at).Seconds(); took > 0 {
			p.Rate = float64(last.events-first.events) / took
		}
	}
	if p.Rate > 0 {
		p.Left = time.Duration(math.Ceil(float64(p.Total-p.Events)/p.Rate)) * time.Second
	}
	return p
}

// startAttempt runs a replay, unless it runs already.
func (s *Service) startAttempt(ctx context.Context, r replay.Replay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempt != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &attempt{id: r.ID, cancel: cancel, done: make(chan struct{})}
	rebuilt, live := s.versions[r.Version], s.versions[r.Previous]
	s.attempt = a
	s.replayRunning.Set(1)
	go func() {
		defer close(a.done)
		defer s.replayRunning.Set(0)
		s.run(ctx, a, r, rebuilt, live)
	}()
}

// run brings a replay to its end: verified or failed, and switched to where that
// was asked for. A crash begins it anew where the rebuilt version stands.
func (s *Service) run(ctx context.Context, a *attempt, r replay.Replay, rebuilt, live *version) {
	s.logger.InfoContext(ctx, "a replay goes on", "replay", r.ID, "version", r.Version)
	pause := firstPause
	for failures := 0; ctx.Err() == nil; {
		c, err := s.rebuildAndVerify(ctx, a, r, rebuilt, live)
		if err == nil {
			s.verified(ctx, r, c)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if fault.KindOf(err) != fault.Unavailable {
			failures++
		}
		if failures >= maxFailures || fault.KindOf(err) == fault.Precondition || errors.Is(err, errBroken) {
			s.failed(ctx, r, err)
			return
		}
		s.logger.WarnContext(ctx, "a replay was held up, trying again", "replay", r.ID, "pause", pause, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

var (
	errBroken = errors.New("the rebuild does not get on")
	errMoving = fault.New(fault.Unavailable, "", "the versions did not reach one position in %s", stillTimeout)
)

func (s *Service) rebuildAndVerify(ctx context.Context, a *attempt, r replay.Replay, rebuilt, live *version) (*replay.Certificate, error) {
	a.setVerifying(false)
	if err := s.catchUp(ctx, a, r, rebuilt, live); err != nil {
		return nil, err
	}
	a.setVerifying(true)
	if err := s.tidyUp(ctx, r); err != nil {
		return nil, err
	}
	defer func() { // also what an attempt that was cancelled half-way has made
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), stillTimeout)
		defer cancel()
		if err := s.tables.DropClones(cleaning); err != nil {
			s.logger.WarnContext(ctx, "clones are left, the next comparison drops them", "err", err)
		}
	}()
	if err := s.tables.DropClones(ctx); err != nil {
		return nil, err
	}
	stood := standStill(ctx, [2]*version{live, rebuilt}, func(ctx context.Context, v *version) error {
		return s.tables.Clone(ctx, v.number)
	})
	if err := joined([]error{stood[0].err, stood[1].err}); err != nil {
		return nil, err
	}
	if stood[0].heeded != stood[1].heeded {
		return nil, fault.New(fault.Unavailable, "", "one version has done what was decided at %d, the other at %d", stood[0].heeded, stood[1].heeded)
	}
	if !slices.Equal(stood[0].at, stood[1].at) {
		return nil, fault.New(fault.Unavailable, "", "the versions stood at %v and %v", stood[0].at, stood[1].at)
	}
	to := live.positions(stood[0].at)
	s.logger.InfoContext(ctx, "a replay has caught up and is compared", "replay", r.ID, "position", to, "live_stood", stood[0].took, "rebuilt_stood", stood[1].took)
	found, err := s.tables.Compare(ctx, replay.Comparison{ReplayID: r.ID, To: to, Old: r.Previous, New: r.Version, Part: r.Part})
	if err != nil {
		return nil, err
	}
	return s.certify(r, found, to, stood[0].took), nil
}

// tidyTimeout is how long a comparison waits for merges: without them it takes
// longer, and reads would after a switch.
const tidyTimeout = 10 * time.Minute

// tidyUp returns when the parts of a rebuilt version are merged, about. The
// version keeps up with the live one meanwhile.
func (s *Service) tidyUp(ctx context.Context, r replay.Replay) error {
	if err := s.tables.AllowMerges(ctx, r.Version); err != nil {
		return err
	}
	began := time.Now()
	for time.Since(began) < tidyTimeout {
		if n, err := s.tables.Parts(ctx, r.Version); err != nil || n <= fewParts {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(tidyLook):
		}
	}
	s.logger.WarnContext(ctx, "a rebuilt version is compared before its parts are merged", "replay", r.ID, "waited", tidyTimeout)
	return nil
}

func (s *Service) certify(r replay.Replay, found replay.Findings, to string, stood time.Duration) *replay.Certificate {
	now := s.cfg.Now().UTC().Truncate(time.Millisecond)
	c := &replay.Certificate{
		ReplayID: r.ID, Verdict: replay.Equal, From: s.beginning(), To: to,
		Events: found.Events, Deployments: found.Deployments, Accounts: found.Accounts, Tables: found.Tables, Cells: found.Cells,
		CodeVersion: s.cfg.CodeVersion, Seconds: now.Sub(r.StartedAt).Seconds(), StoodStill: stood.Seconds(),
		MadeBy: replay.MadeBy(r.StartedBy), MadeAt: now, FirstDifference: found.First,
		QuarantinedOld: found.Quarantined[0], QuarantinedNew: found.Quarantined[1], Reason: found.Reason(),
	}
	if r.Part.From.Offset > 0 {
		c.From = r.Part.From.String()
	}
	if !found.Equal() {
		c.Verdict = replay.Different
	}
	return c
}

// beginning names the first frame of each stream.
func (s *Service) beginning() string {
	var names []string
	for _, stream := range s.cfg.Streams {
		names = append(names, event.Position{Stream: stream.Name, Offset: event.At(1, 0)}.String())
	}
	return strings.Join(names, ",")
}

// catchUp returns when the rebuilt version is nearly as far as the live one.
func (s *Service) catchUp(ctx context.Context, a *attempt, r replay.Replay, rebuilt, live *version) error {
	events := rebuilt.state().Events
	stored, err := s.tables.Stored(ctx, r.Version)
	if err != nil {
		return err
	}
	total, err := s.tables.Stored(ctx, r.Previous)
	if err != nil {
		return err
	}
	liveEvents := live.state().Events
	tick, parts := time.NewTicker(look), time.NewTicker(partsLook)
	defer tick.Stop()
	defer parts.Stop()
	for {
		if err := rebuilt.broken(); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		at, goal := rebuilt.state(), live.state()
		a.sampled(s.cfg.Now(), stored+at.Events-events, total+goal.Events-liveEvents)
		p := a.progress()
		s.replayEvents.Set(float64(p.Events))
		s.replayTotal.Set(float64(p.Total))
		if rebuilt.near(live) {
			rebuilt.keepPace()
			return nil
		}
		select {
		case <-tick.C:
		case <-parts.C:
			n, err := s.tables.Parts(ctx, r.Version)
			if err == nil && n > deferredParts {
				parts.Stop()
				err = s.tables.AllowMerges(ctx, r.Version)
			}
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Service) verified(ctx context.Context, r replay.Replay, c *replay.Certificate) {
	by := r.StartedBy
	done, err := s.ops.commit(ctx, by, s.leads, func(b *replay.Book, now time.Time) (replay.Change, error) {
		stands, _ := b.Find(r.ID)
		return stands.Verify(c, now)
	})
	if err != nil {
		s.logger.WarnContext(ctx, "what a replay found is not recorded", "replay", r.ID, "err", err)
		s.again(ctx)
		return
	}
	s.logger.InfoContext(ctx, "a replay is verified", "replay", r.ID, "verdict", c.Verdict, "events", c.Events, "seconds", c.Seconds)
	if done.Switch == replay.WhenEqual {
		s.switchWhenEqual(ctx, r.ID)
	}
}

// leads refuses what only who leads may record. Who has held the lease until now was
// the only one who made clones and compared them, so that what it found is right.
func (s *Service) leads() error {
	if s.cfg.Lease.Held() {
		return nil
	}
	return fault.New(fault.Unavailable, "", "another projector leads")
}

// switchWhenEqual does what its starter asked for in advance.
func (s *Service) switchWhenEqual(ctx context.Context, id string) {
	r, ok := s.find(id)
	if !ok || r.State != replay.Ready || r.Switch != replay.WhenEqual || r.Part.Check() || r.Certificate.Verdict != replay.Equal {
		return
	}
	err := s.level(ctx, r.Previous, r.Version, func() bool { return true })
	if err == nil {
		_, err = s.ops.commit(ctx, r.StartedBy, s.leads, func(b *replay.Book, now time.Time) (replay.Change, error) {
			stands, _ := b.Find(id)
			return stands.SwitchTo(false, s.cfg.Keep, now)
		})
	}
	if err != nil && ctx.Err() == nil { // else the plan, when it is looked at next, leads here again
		s.logger.WarnContext(ctx, "a replay is equal, but not switched to", "replay", id, "err", err)
		s.again(ctx)
	}
}

func (s *Service) failed(ctx context.Context, r replay.Replay, cause error) {
	s.logger.ErrorContext(ctx, "a replay failed", "replay", r.ID, "err", cause)
	_, err := s.ops.commit(ctx, r.StartedBy, s.leads, func(b *replay.Book, now time.Time) (replay.Change, error) {
		stands, _ := b.Find(r.ID)
		return stands.Fail(reasonOf(cause), now)
	})
	if err != nil {
		s.logger.WarnContext(ctx, "that a replay failed is not recorded", "replay", r.ID, "err", err)
		s.again(ctx)
	}
}

// reasonOf tells a person why a replay failed; the rest is in the logs.
func reasonOf(cause error) string {
	if f, ok := errors.AsType[*fault.Error](cause); ok {
		return f.Message
	}
	if errors.Is(cause, errBroken) {
		return "The log could not be projected into the new tables; the projector's logs say why."
	}
	return "The new tables could not be made or compared; the projector's logs say why."
}

// again makes the plan be looked at anew in a while, with an attempt of its own.
func (s *Service) again(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(maxPause):
	}
	s.mu.Lock()
	s.attempt = nil
	s.mu.Unlock()
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

func (s *Service) find(id string) (r replay.Replay, ok bool) {
	s.ops.look(func(b *replay.Book) { r, ok = b.Find(id) })
	return r, ok
}

// replayProgress tells how far a replay is that this process runs.
func (s *Service) replayProgress(id string) (advance, bool) {
	s.mu.Lock()
	a := s.attempt
	s.mu.Unlock()
	if a == nil || a.id != id {
		return advance{}, false
	}
	return a.progress(), true
}

// resumeSwitch switches where a crash came between verdict and switch.
func (s *Service) resumeSwitch(ctx context.Context, r replay.Replay) {
	if r.Switch != replay.WhenEqual || r.Certificate.Verdict != replay.Equal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempt != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &attempt{id: r.ID, cancel: cancel, done: make(chan struct{})}
	s.attempt = a
	go func() {
		defer close(a.done)
		s.switchWhenEqual(ctx, r.ID)
	}()
}
