// Package lease decides which of several processes does what only one should do at
// a time, such as projecting a partition.
//
// The lease is an entry of a table that the processes share, and the table's
// revisions decide: an entry is replaced only by whoever knows its revision. Clocks
// of different machines are never compared. Whoever holds the lease counts its life
// from before it asked, whoever waits from when it heard, so that the first is over
// when the second begins.
//
//	holder   ──renew──renew──✕ (stopped) ··· goes on: Held is false, its context ends
//	waiting  ────hears──hears────── life ──► takes it, with the revision it heard
//
// A lease cannot stop what a process had begun before it was stopped. Whoever
// leads must do nothing whose repetition by two would do harm, or ask Held right
// before it.
package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/kv"
)

const (
	defaultLife = 3 * time.Second
	renewals    = 4 // within a life
	// listenFor is how long one watch is trusted to be heard.
	listenFor = 30 * time.Second
)

// Config says which lease, and who asks for it.
type Config struct {
	Key   string
	Owner string // drawn at the start of the process
	// Value is what others are told of the holder, such as its address.
	Value string
	// Life is how long a lease lasts that is not renewed. Default: 3 s.
	Life time.Duration
}

// A Lease is what one process knows of it. It is safe for concurrent use.
type Lease struct {
	cfg    Config
	table  kv.Table
	logger *slog.Logger

	mu      sync.Mutex
	stands  stands
	synced  bool          // what stood in the table is known
	changed chan struct{} // closed and replaced whenever stands changes
	doubted chan struct{} // holds something when what was heard proved wrong
	until   time.Time     // this process holds it until then
}

// stands is the entry as it was heard last.
type stands struct {
	wire     wire
	revision uint64 // 0: there is none
	heard    time.Time
}

type wire struct {
	Owner string `json:"owner"` // empty: it was given back
	Value string `json:"value"`
}

// New returns a lease that nobody asks for until Lead.
func New(cfg Config, table kv.Table, logger *slog.Logger) *Lease {
	if cfg.Life <= 0 {
		cfg.Life = defaultLife
	}
	return &Lease{cfg: cfg, table: table, logger: logger, changed: make(chan struct{}), doubted: make(chan struct{}, 1)}
}

// Held tells whether this process holds the lease at this moment.
func (l *Lease) Held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.until)
}

// Holder gives what is told of the holder as it was heard last; false where nobody
// holds it.
func (l *Lease) Holder() (value string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stands.wire.Value, l.stands.wire.Owner != ""
}

// Lead calls lead whenever this process has come to hold the lease, and standby
// whenever it finds that another one does, until ctx is done. The context of lead
// ends with the lease, and lead must return then. When ctx is done the lease is
// given back.
func (l *Lease) Lead(ctx context.Context, lead func(ctx context.Context), standby func()) {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group.Go(func() { l.listen(ctx) })
	for {
		revision, ok := l.awaitFree(ctx, standby)
		if !ok {
			return
		}
		began := time.Now()
		stored, err := l.store(ctx, l.cfg.Owner, revision)
		if err == nil {
			l.logger.InfoContext(ctx, "this process leads", "lease", l.cfg.Key, "epoch", stored)
			l.hold(ctx, began, stored, lead)
			continue
		}
		if errors.Is(err, kv.ErrConflict) {
			l.doubt()
		} else if ctx.Err() == nil {
			l.logger.WarnContext(ctx, "cannot ask for the lease", "lease", l.cfg.Key, "err", err)
		}
		if !pause(ctx, l.cfg.Life/renewals) {
			return
		}
	}
}

// awaitFree returns when nobody holds the lease, with the revision to replace.
func (l *Lease) awaitFree(ctx context.Context, standby func()) (revision uint64, ok bool) {
	for {
		l.mu.Lock()
		stands, synced, changed := l.stands, l.synced, l.changed
		l.mu.Unlock()
		left := l.cfg.Life - time.Since(stands.heard)
		switch {
		case !synced:
			left = l.cfg.Life // and then again
		case stands.wire.Owner == "" || left <= 0:
			return stands.revision, true
		case stands.wire.Owner != l.cfg.Owner:
			standby()
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return 0, false
		}
	}
}

// hold leads for as long as the lease can be renewed.
func (l *Lease) hold(ctx context.Context, began time.Time, revision uint64, lead func(context.Context)) {
	leading, stop := context.WithCancel(ctx)
	defer stop()
	over := time.AfterFunc(l.extend(began), stop)
	defer over.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		lead(leading)
	}()
	for pause(leading, l.cfg.Life/renewals) {
		began = time.Now()
		stored, err := l.store(leading, l.cfg.Owner, revision)
		switch {
		case err == nil && l.Held(): // one that was over is not prolonged: another may have led meanwhile
			revision = stored
			over.Reset(l.extend(began))
		case err == nil || errors.Is(err, kv.ErrConflict):
			l.doubt()
			stop()
		case leading.Err() == nil:
			l.logger.WarnContext(leading, "cannot renew the lease", "lease", l.cfg.Key, "err", err)
		}
	}
	<-done
	held := l.Held()
	l.mu.Lock()
	l.until = time.Time{}
	l.mu.Unlock()
	if ctx.Err() == nil {
		l.logger.WarnContext(ctx, "this process leads no longer", "lease", l.cfg.Key)
		return
	}
	if held {
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.Life)
		defer cancel()
		if _, err := l.store(leaving, "", revision); err != nil { // others wait for its end
			l.logger.WarnContext(leaving, "cannot give the lease back", "lease", l.cfg.Key, "err", err)
		}
	}
}

// extend counts a life from a moment, and gives what is left of it.
func (l *Lease) extend(began time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = began.Add(l.cfg.Life)
	return time.Until(l.until)
}

func (l *Lease) store(ctx context.Context, owner string, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Life/2)
	defer cancel()
	body, err := json.Marshal(wire{owner, l.cfg.Value})
	if err != nil {
		return 0, err
	}
	return l.table.Swap(ctx, l.cfg.Key, body, revision)
}

// doubt makes this process listen anew: the table knows something else than it
// heard, or was made anew without what stood in it.
func (l *Lease) doubt() {
	select {
	case l.doubted <- struct{}{}:
	default:
	}
}

// listen follows the table, and anew from time to time: a watch that has become
// deaf does not say so.
func (l *Lease) listen(ctx context.Context) {
	for ctx.Err() == nil {
		bound, cancel := context.WithTimeout(ctx, listenFor)
		go func() { // ends with bound
			select {
			case <-l.doubted:
				cancel()
			case <-bound.Done():
			}
		}()
		found := false
		for e, err := range l.table.Watch(bound) {
			if err != nil {
				if bound.Err() == nil {
					l.logger.WarnContext(ctx, "cannot hear who leads", "lease", l.cfg.Key, "err", err)
				}
				break
			}
			found = found || e.Key == l.cfg.Key
			if e.Key == "" && !found {
				l.forget()
			}
			l.hear(ctx, e)
		}
		quiet := bound.Err() != nil
		cancel()
		if !quiet {
			pause(ctx, l.cfg.Life/renewals)
		}
	}
}

// forget notes that the table does not hold what stood in it: it lives in memory,
// and was made anew. Whoever held the lease may hold it for one life more.
func (l *Lease) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stands.revision != 0 {
		l.stands.revision, l.stands.heard = 0, time.Now()
	}
}

func (l *Lease) hear(ctx context.Context, e kv.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case e.Key == "":
		l.synced = true
	case e.Key != l.cfg.Key || e.Revision == l.stands.revision:
		return // an entry that is heard again was not renewed
	default:
		l.stands = stands{revision: e.Revision, heard: time.Now()}
		if e.Value == nil {
			l.stands.revision = 0 // as a table wants to hear of what is not there
		} else if err := json.Unmarshal(e.Value, &l.stands.wire); err != nil {
			l.logger.WarnContext(ctx, "who leads cannot be read", "lease", l.cfg.Key, "err", err)
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// pause tells whether ctx lasts for d.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
