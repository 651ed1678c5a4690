package chmodel

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// Newer implements readmodel.Freshness. It reads the end of the account's range
// of the key.
func (m *Model) Newer(ctx context.Context, account, stream string, after event.Offset) (newer bool, err error) {
	err = m.now().ask(ctx, "look for newer events", `
		SELECT 1 FROM events_vN
		WHERE account = {account:String} AND stream = {stream:String} AND pos > {after:UInt64} LIMIT 1`,
		params{"account": account, "stream": stream, "after": uint64(after)}, func(s scanner) error {
			newer = true
			var one uint8
			return s.Scan(&one)
		})
	return newer, err
}

// Edition implements readmodel.Freshness: it is the version of the tables.
func (m *Model) Edition() uint32 { return m.Active() }

// told is the progress that the only writer of the tables knows without asking them:
// what they told it last, and what it stored since. The zero value knows nothing.
type told struct {
	mu       sync.Mutex
	version  uint32
	progress []readmodel.Progress // it does not change; nil: not known
	asked    time.Time            // when they told it
	stores   uint64               // ended, whatever became of them
}

// toldFor is how long the tables are not asked. They know better only where
// somebody changed them by hand.
const toldFor = time.Second

func (t *told) of(version uint32) ([]readmodel.Progress, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.progress, t.progress != nil && t.version == version && time.Since(t.asked) < toldFor
}

// asking begins a question, whose answer learn takes.
func (t *told) asking() (stores uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stores
}

// learn takes what the tables told, unless a store ended meanwhile.
func (t *told) learn(version uint32, stores uint64, progress []readmodel.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stores == stores {
		t.version, t.progress, t.asked = version, progress, time.Now()
	}
}

// stored takes what was stored with all its rows.
func (t *told) stored(version uint32, upTo readmodel.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stores++
	if t.progress != nil && t.version == version {
		upTo.Time = moment(upTo.Time.UnixMilli()) // as the table has it
		others := slices.DeleteFunc(slices.Clone(t.progress), func(p readmodel.Progress) bool { return p.Stream == upTo.Stream })
		for _, p := range t.progress {
			if p.Stream == upTo.Stream {
				upTo.Mended = max(upTo.Mended, p.Mended)
				if upTo.Offset < p.Offset {
					upTo.Offset, upTo.Time = p.Offset, p.Time
				}
			}
		}
		t.progress, _ = joinProgress(others, []readmodel.Progress{upTo})
	}
}

// failed says that nobody knows whether a store came through.
func (t *told) failed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stores++
	t.progress = nil
}
