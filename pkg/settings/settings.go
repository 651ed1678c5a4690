// Package settings tells every process what accounts decided, also those that do
// not fold the log of deployments: whoever verifies credentials must know whether
// tokens may write.
//
//	committer: setting.changed is stored ─► Offer ─► memory, at once
//	                                          └────► Share ─► table ─► watch ─► every process
//
// The log is the truth. The table is a copy of it that may be lost: what a fold
// knows and the table does not is shared again. Of two decisions the later one in
// the log wins, in whatever order they arrive.
package settings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/kv"
	"github.com/shipledger/shipledger/pkg/tracking"
)

const (
	// syncKey is written to hear it: accounts have other names, without a dot.
	syncKey = "sync.all"

	shareTimeout  = 5 * time.Second
	shareEvery    = 5 * time.Second // what could not be shared before
	shareAttempts = 10
	newsWithin    = 200 * time.Millisecond // an entry that another process changed
	// listenFor is how long one watch is trusted to be heard.
	listenFor   = 30 * time.Second
	retryListen = 500 * time.Millisecond
)

// Decided is what an account decided, and where in its partition.
type Decided = tracking.DecidedSettings

// Book knows the settings of all accounts. It is a lifecycle.Service and safe
// for concurrent use.
type Book struct {
	table    kv.Table
	defaults event.Settings
	logger   *slog.Logger
	synced   chan struct{} // closed once what stood in the table is known
	poke     chan struct{} // holds something when there is something to share

	mu      sync.RWMutex
	decided map[string]Decided // by account
	tabled  map[string]tabled
	applied uint64        // revision of the table up to which everything is known
	changed chan struct{} // closed and replaced whenever something is heard
}

// tabled is what the table has of an account.
type tabled struct {
	offset   event.Offset
	revision uint64
}

// New returns a book that knows nothing until it runs. The defaults are those of
// accounts that decided nothing.
func New(table kv.Table, defaults event.Settings, logger *slog.Logger) *Book {
	return &Book{
		table: table, defaults: defaults, logger: logger, synced: make(chan struct{}), poke: make(chan struct{}, 1),
		decided: map[string]Decided{}, tabled: map[string]tabled{}, changed: make(chan struct{}),
	}
}

// Of gives the settings of an account as this process knows them.
func (b *Book) Of(account string) event.Settings {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if d, ok := b.decided[account]; ok {
		return d.Settings
	}
	return b.defaults
}

// Offer tells what a fold of the log knows. This process acts by it from here on,
// the others soon.
func (b *Book) Offer(decided map[string]Decided) {
	b.mu.Lock()
	news := false
	for account, d := range decided {
		b.take(account, d)
		news = news || d.Offset > b.tabled[account].offset
	}
	b.mu.Unlock()
	if news {
		select {
		case b.poke <- struct{}{}:
		default:
		}
	}
}

// take is for whoever holds b.mu.
func (b *Book) take(account string, d Decided) {
	if held, ok := b.decided[account]; !ok || held.Offset < d.Offset {
		b.decided[account] = d
	}
}

// Share stores what an account decided where the table has nothing later, and
// gives the revision by which whoever applied it knows. Zero: it decided nothing.
func (b *Book) Share(ctx context.Context, account string) (revision uint64, err error) {
	for range shareAttempts {
		b.mu.RLock()
		d, held, changed := b.decided[account], b.tabled[account], b.changed
		b.mu.RUnlock()
		if d.Offset <= held.offset {
			return held.revision, nil
		}
		body, err := json.Marshal(wire{uint64(d.Offset), d.Settings})
		if err != nil {
			return 0, fmt.Errorf("encode the settings of %s: %w", account, err)
		}
		revision, err := b.table.Swap(ctx, account, body, held.revision)
		if err == nil {
			b.stands(account, tabled{d.Offset, revision})
			return revision, nil
		}
		if !errors.Is(err, kv.ErrConflict) {
			return 0, err
		}
		wait := time.NewTimer(newsWithin)
		select {
		case <-changed:
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
	return 0, kv.ErrConflict
}

func (b *Book) stands(account string, t tabled) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tabled[account].revision < t.revision {
		b.tabled[account] = t
	}
}

// Applied gives the revision of the table that this process acts by.
func (b *Book) Applied() uint64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.applied
}

// Changed gives what is closed when the book next hears something.
func (b *Book) Changed() <-chan struct{} {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.changed
}

// CatchUp returns when all is known that the table held at the call.
func (b *Book) CatchUp(ctx context.Context) error {
	revision, err := b.table.Put(ctx, syncKey, []byte("{}"))
	if err != nil {
		return err
	}
	for {
		b.mu.RLock()
		applied, changed := b.applied, b.changed
		b.mu.RUnlock()
		if applied >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Run follows the table and shares until ctx is done. It is ready once it knows
// what stood in the table.
func (b *Book) Run(ctx context.Context, ready func()) error {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { b.follow(ctx) })
	select {
	case <-b.synced:
	case <-ctx.Done():
		return nil
	}
	ready()
	ticks := time.NewTicker(shareEvery)
	defer ticks.Stop()
	for {
		select {
		case <-b.poke:
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
		b.shareAll(ctx)
	}
}

func (b *Book) shareAll(ctx context.Context) {
	b.mu.RLock()
	var todo []string
	for account, d := range b.decided {
		if d.Offset > b.tabled[account].offset {
			todo = append(todo, account)
		}
	}
	b.mu.RUnlock()
	for _, account := range todo {
		bound, cancel := context.WithTimeout(ctx, shareTimeout)
		_, err := b.Share(bound, account)
		cancel()
		if err != nil && ctx.Err() == nil {
			b.logger.WarnContext(ctx, "cannot share what an account decided", "account", account, "err", err)
			return // the next time
		}
	}
}

// follow listens, and anew from time to time: a watch that has become deaf does
// not say so.
func (b *Book) follow(ctx context.Context) {
	for ctx.Err() == nil {
		bound, cancel := context.WithTimeout(ctx, listenFor)
		for e, err := range b.table.Watch(bound) {
			if err != nil {
				if bound.Err() == nil {
					b.logger.WarnContext(ctx, "cannot hear what accounts decide", "err", err)
				}
				break
			}
			b.hear(ctx, e)
		}
		ended := bound.Err() != nil
		cancel()
		if ended {
			continue
		}
		pause := time.NewTimer(retryListen)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

type wire struct {
	Offset   uint64         `json:"offset"`
	Settings event.Settings `json:"settings"`
}

func (b *Book) hear(ctx context.Context, e kv.Entry) {
	w := wire{Settings: event.DefaultSettings()} // for what an older release did not know
	if e.Key != "" && e.Key != syncKey && e.Value != nil {
		if err := json.Unmarshal(e.Value, &w); err != nil { // as if it were not there: a fold mends it
			b.logger.WarnContext(ctx, "what an account decided cannot be read", "account", e.Key, "err", err)
			w.Offset = 0
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.Key {
	case "":
		select {
		case <-b.synced:
		default:
			close(b.synced)
		}
	case syncKey:
	default:
		if b.tabled[e.Key].revision <= e.Revision {
			revision := e.Revision
			if e.Value == nil {
				revision = 0 // as a table wants to hear of what is not there
			}
			b.tabled[e.Key] = tabled{event.Offset(w.Offset), revision}
		}
		if w.Offset > 0 {
			b.take(e.Key, Decided{Settings: w.Settings, Offset: event.Offset(w.Offset)})
		}
	}
	b.applied = max(b.applied, e.Revision)
	close(b.changed)
	b.changed = make(chan struct{})
}
