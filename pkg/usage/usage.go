// Package usage keeps who uses which credential: when, from where, with what,
// and how often. Every process counts in memory and shares what it counted in a
// table a few seconds later; no request waits for that.
//
//	request ─► Used: a shard's tally ──every 2 s──► merged into the table's entry
//	lists   ◄── Of ◄── entries of all processes ◄── watch ◄──┘
//
// The time of the last use is exact. Counts are not facts: what a process
// counted in its last 2 seconds is lost when it is killed, and what a table
// stored without answering is counted twice.
package usage

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/kv"
)

const (
	flushEvery   = 2 * time.Second
	flushTimeout = 5 * time.Second // of all that is shared at once
	swapAttempts = 10
	newsWithin   = 200 * time.Millisecond // an entry that another process changed

	// MaxCallers is how many callers of a credential are remembered: the latest.
	MaxCallers   = 100
	maxAgent     = 255 // bytes of a user agent
	maxSource    = 50
	rememberDays = 400
	shardCount   = 64
)

// A Caller is who uses a credential, as far as requests tell.
type Caller struct {
	SourceSystem string     `json:"source,omitzero"` // of events; else empty
	UserAgent    string     `json:"agent,omitzero"`
	Addr         netip.Addr `json:"addr,omitzero"`
}

// A Use is a caller with when and how often. Count is of requests.
type Use struct {
	Caller

	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count uint64    `json:"count"`
}

// A Summary is what is known of a credential's use.
type Summary struct {
	Callers []Use `json:"callers"` // the latest first
	// Accepted are requests that were not refused, by day in UTC (2006-01-02).
	Accepted map[string]uint64 `json:"accepted,omitzero"`
}

// Latest gives the last use; false: there was none.
func (s *Summary) Latest() (Use, bool) {
	if len(s.Callers) == 0 {
		return Use{}, false
	}
	return s.Callers[0], true
}

// merged gives what two summaries say together.
func (s *Summary) merged(with *Summary) Summary {
	byCaller := make(map[Caller]Use, len(s.Callers)+len(with.Callers))
	for _, u := range s.Callers {
		byCaller[u.Caller] = u
	}
	for _, u := range with.Callers {
		if held, ok := byCaller[u.Caller]; ok {
			u.Count += held.Count
			if held.First.Before(u.First) {
				u.First = held.First
			}
			if held.Last.After(u.Last) {
				u.Last = held.Last
			}
		}
		byCaller[u.Caller] = u
	}
	out := Summary{Callers: slices.SortedFunc(maps.Values(byCaller), latestFirst), Accepted: map[string]uint64{}}
	out.Callers = out.Callers[:min(len(out.Callers), MaxCallers)]
	for _, days := range []map[string]uint64{s.Accepted, with.Accepted} {
		for day, n := range days {
			out.Accepted[day] += n
		}
	}
	if len(out.Accepted) > rememberDays {
		days := slices.Sorted(maps.Keys(out.Accepted))
		for _, day := range days[:len(days)-rememberDays] {
			delete(out.Accepted, day)
		}
	}
	return out
}

func latestFirst(a, b Use) int {
	return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.UserAgent, b.UserAgent), cmp.Compare(a.SourceSystem, b.SourceSystem), a.Addr.Compare(b.Addr))
}

// A Book is a lifecycle.Service and safe for concurrent use.
type Book struct {
	table  kv.Table
	now    func() time.Time
	logger *slog.Logger
	seed   maphash.Seed
	shards [shardCount]shard

	mu      sync.RWMutex
	entries map[string]entry // by record id
	changed chan struct{}    // closed and replaced whenever entries changes
}

type entry struct {
	Summary

	revision uint64
}

type shard struct {
	mu      sync.Mutex
	tallies map[string]*tally // by record id
	_       [48]byte          // no two locks in one line of the cache
}

// tally is what was counted of a credential since it was shared last.
type tally struct {
	uses   []Use
	latest int // the use that is most likely meant
	days   map[int64]uint64
}

// New returns a book that shares what it counts in table.
func New(table kv.Table, now func() time.Time, logger *slog.Logger) *Book {
	return &Book{
		table: table, now: now, logger: logger, seed: maphash.MakeSeed(), entries: map[string]entry{}, changed: make(chan struct{}),
	}
}

// Used takes note of a request that a credential was verified for. It keeps
// nothing of its arguments' memory.
func (b *Book) Used(id *credential.Identity, from netip.Addr, userAgent, sourceSystem string, accepted bool) {
	if id.Kind == credential.Session {
		return
	}
	now := b.now()
	s := &b.shards[maphash.String(b.seed, id.RecordID)%shardCount]
	c := Caller{sourceSystem[:min(len(sourceSystem), maxSource)], userAgent[:min(len(userAgent), maxAgent)], from}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tallies[id.RecordID]
	if t == nil {
		if s.tallies == nil {
			s.tallies = map[string]*tally{}
		}
		t = &tally{days: map[int64]uint64{}}
		s.tallies[id.RecordID] = t
	}
	u := t.use(c, now)
	u.Count++
	if now.After(u.Last) {
		u.Last = now
	}
	if accepted {
		t.days[now.Unix()/86400]++
	}
}

// use gives the use of a caller, in place of the oldest one where there are too many.
func (t *tally) use(c Caller, now time.Time) *Use {
	if t.latest < len(t.uses) && t.uses[t.latest].Caller == c {
		return &t.uses[t.latest]
	}
	if t.latest = slices.IndexFunc(t.uses, func(u Use) bool { return u.Caller == c }); t.latest >= 0 {
		return &t.uses[t.latest]
	}
	c.SourceSystem, c.UserAgent = strings.Clone(c.SourceSystem), strings.Clone(c.UserAgent)
	made := Use{Caller: c, First: now, Last: now}
	if len(t.uses) < MaxCallers {
		t.latest = len(t.uses)
		t.uses = append(t.uses, made)
		return &t.uses[t.latest]
	}
	t.latest = 0
	for i := range t.uses {
		if t.uses[i].Last.Before(t.uses[t.latest].Last) {
			t.latest = i
		}
	}
	t.uses[t.latest] = made
	return &t.uses[t.latest]
}

// summary gives what the tally holds as it may be stored: without secrets that
// somebody sends as a user agent, and in valid text.
func (t *tally) summary() Summary {
	out := Summary{Accepted: map[string]uint64{}}
	for _, u := range t.uses {
		u.SourceSystem, u.UserAgent = stored(u.SourceSystem), stored(u.UserAgent)
		u.First, u.Last = u.First.UTC(), u.Last.UTC()
		out.Callers = append(out.Callers, u)
	}
	for day, n := range t.days {
		out.Accepted[time.Unix(day*86400, 0).UTC().Format(time.DateOnly)] = n
	}
	return (&Summary{}).merged(&out)
}

func stored(text string) string {
	return string(credential.RedactIn([]byte(strings.ToValidUTF8(text, "?"))))
}

// Of gives what all processes shared of the use of a credential.
func (b *Book) Of(recordID string) Summary {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.entries[recordID].Summary
}

// Run shares until ctx is done, and what is left then.
func (b *Book) Run(ctx context.Context, ready func()) error {
	ready()
	watching, stop := context.WithCancel(context.WithoutCancel(ctx)) // the last sharing needs it
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() { b.watch(watching) })
	ticks := time.NewTicker(flushEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			b.Share(ctx)
		case <-ctx.Done():
			b.Share(context.WithoutCancel(ctx))
			return nil
		}
	}
}

const retryWatch = 500 * time.Millisecond

func (b *Book) watch(ctx context.Context) {
	for ctx.Err() == nil {
		for e, err := range b.table.Watch(ctx) {
			if err != nil {
				b.logger.WarnContext(ctx, "cannot hear of the use of credentials", "err", err)
				break
			}
			b.hear(ctx, e)
		}
		pause := time.NewTimer(retryWatch)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

func (b *Book) hear(ctx context.Context, e kv.Entry) {
	var s Summary
	if e.Value != nil {
		if err := json.Unmarshal(e.Value, &s); err != nil {
			b.logger.WarnContext(ctx, "the use of a credential cannot be read", "credential", e.Key, "err", err)
		}
	}
	b.set(e.Key, entry{s, e.Revision})
}

func (b *Book) set(key string, e entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if key != "" && b.entries[key].revision < e.revision {
		b.entries[key] = e
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// Share stores what was counted. What cannot be stored is kept for the next time.
func (b *Book) Share(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	var failed error
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		counted := s.tallies
		s.tallies = nil
		s.mu.Unlock()
		for id, t := range counted {
			news := t.summary()
			if err := b.share(ctx, id, &news); err != nil {
				s.keep(id, t)
				failed = err
			}
		}
	}
	if failed != nil {
		b.logger.WarnContext(ctx, "cannot share the use of credentials", "err", failed)
	}
}

// share merges news into the entry of a credential. Where another process is
// faster, its entry is awaited and merged with.
func (b *Book) share(ctx context.Context, id string, news *Summary) (err error) {
	for range swapAttempts {
		b.mu.RLock()
		held, changed := b.entries[id], b.changed
		b.mu.RUnlock()
		merged := held.merged(news)
		body, err := json.Marshal(&merged, json.Deterministic(true))
		if err != nil {
			return err
		}
		revision, err := b.table.Swap(ctx, id, body, held.revision)
		if err == nil {
			b.set(id, entry{merged, revision})
			return nil
		}
		if !errors.Is(err, kv.ErrConflict) {
			return err
		}
		wait := time.NewTimer(newsWithin)
		select {
		case <-changed:
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
	return kv.ErrConflict
}

// keep puts back what could not be shared.
func (s *shard) keep(id string, t *tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newer := s.tallies[id]
	if newer == nil {
		if s.tallies == nil {
			s.tallies = map[string]*tally{}
		}
		s.tallies[id] = t
		return
	}
	for i := range t.uses {
		u := newer.use(t.uses[i].Caller, t.uses[i].Last)
		u.Count += t.uses[i].Count
		if t.uses[i].First.Before(u.First) {
			u.First = t.uses[i].First
		}
	}
	for day, n := range t.days {
		newer.days[day] += n
	}
}
