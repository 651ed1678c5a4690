package keyring

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/kv"
)

// NodeLife is how long a node counts at least after its last report. It counts
// for longer where it trusts its keys for longer without news: it may have been
// held up, and let somebody in the moment that it goes on.
const NodeLife = 5 * time.Second

// joinSuffix is behind the key of a node where it says that it joins.
const joinSuffix = ".join"

const (
	reportEvery = time.Second
	// echoWithin is when a node that does not hear its own reports listens anew.
	echoWithin    = 3 * reportEvery
	reportTimeout = 2 * time.Second
)

// A Node is a process that verifies credentials.
type Node struct {
	Service string
	ID      string // drawn at its start
	// Applied is the sequence of the last credential event that it acts by: it
	// applied the event, and nothing that it decided before is in flight.
	Applied uint64
	// Beside is how far it follows NodesConfig.Beside, likewise.
	Beside uint64
	SeenAt time.Time // when its last report was heard here
	// Trusts is how long it lets in by what it knows after a report of its own.
	Trusts time.Duration
}

// gone tells whether a node no longer lets anybody in, whatever became of it.
func (n *Node) gone(now time.Time) bool { return now.Sub(n.SeenAt) > max(NodeLife, n.Trusts) }

func (n *Node) key() string { return n.Service + "." + n.ID }

// NodesConfig says which node this process is.
type NodesConfig struct {
	Service, ID string
	// Flights are what this process decides by its keyring.
	Flights []*Flight
	// Beside is what else every process acts by; nil: nothing.
	Beside Followed
}

// Followed is something that every process follows, by numbers that rise. It is
// safe for concurrent use.
type Followed interface {
	// Applied gives the number that this process acts by.
	Applied() uint64
	// Changed gives what is closed when that may have grown.
	Changed() <-chan struct{}
	// CatchUp returns when everything is applied that others had done by the call.
	CatchUp(ctx context.Context) error
}

// alone is a Followed in which nothing happens.
type alone struct{}

func (alone) Applied() uint64               { return 0 }
func (alone) Changed() <-chan struct{}      { return nil }
func (alone) CatchUp(context.Context) error { return nil }

func (c *NodesConfig) key() string { return c.Service + "." + c.ID }

// Nodes tells the other processes how far this one is, and knows how far they
// are. It is a lifecycle.Service, to be run after its ring and before the
// process lets anybody in, and safe for concurrent use.
//
//	ring applied n ─► what was decided before has landed ─► report n ─► table
//	                                                                      │
//	Await(n): every live node reported n, this one included ◄── watch ◄───┘
//
// A node says that it joins before it looks a last time where the log ends and
// lets anybody in. So of an event that is stored later, whoever hears its own
// report of that event has heard of all nodes that might not know it: entries
// come in one order. Joining has a key of its own because a report may be
// overtaken by the next one of its node, which comes later in that order.
type Nodes struct {
	cfg    NodesConfig
	ring   *Ring
	table  kv.Table
	now    func() time.Time
	logger *slog.Logger

	mu      sync.Mutex
	settled reached         // what this node may report
	heard   map[string]Node // by key
	changed chan struct{}   // closed and replaced whenever heard changes
	moved   chan struct{}   // holds something when settled grew
}

// NewNodes returns the nodes that report in table, of which this process is one.
func NewNodes(cfg NodesConfig, ring *Ring, table kv.Table, now func() time.Time, logger *slog.Logger) *Nodes {
	if cfg.Beside == nil {
		cfg.Beside = alone{}
	}
	return &Nodes{
		cfg: cfg, ring: ring, table: table, now: now, logger: logger,
		heard: map[string]Node{}, changed: make(chan struct{}), moved: make(chan struct{}, 1),
	}
}

// Flies adds what this process decides by its keyring. It must be called before Run.
func (n *Nodes) Flies(flights ...*Flight) { n.cfg.Flights = append(n.cfg.Flights, flights...) }

// Live gives the nodes that count, by service and id.
func (n *Nodes) Live() []Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.live()
}

func (n *Nodes) live() []Node {
	now := n.now()
	var out []Node
	for _, node := range n.heard {
		if !node.gone(now) {
			out = append(out, node)
		}
	}
	slices.SortFunc(out, func(a, b Node) int { return cmp.Compare(a.key(), b.key()) })
	return out
}

// Await tells whether every live node acts by the event at seq. It returns as
// soon as they do, and false when ctx is done first.
func (n *Nodes) Await(ctx context.Context, seq uint64) bool {
	return n.await(ctx, func(node *Node) bool { return node.Applied >= seq })
}

// AwaitBeside does so for what is followed beside the keyring.
func (n *Nodes) AwaitBeside(ctx context.Context, number uint64) bool {
	return n.await(ctx, func(node *Node) bool { return node.Beside >= number })
}

func (n *Nodes) await(ctx context.Context, there func(*Node) bool) bool {
	for {
		n.mu.Lock()
		everywhere, changed := n.reached(there), n.changed
		n.mu.Unlock()
		if everywhere {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.reached(there) // a node may have ceased to count meanwhile
		}
	}
}

// reached is for whoever holds n.mu. Without an echo of this node's own report
// nothing is known of the others.
func (n *Nodes) reached(there func(*Node) bool) bool {
	self, ok := n.heard[n.cfg.key()]
	if !ok || !there(&self) {
		return false
	}
	return !slices.ContainsFunc(n.live(), func(node Node) bool { return !there(&node) })
}

// Run reports until ctx is done, and then that this node is gone.
func (n *Nodes) Run(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	n.settled = reached{n.ring.Applied(), n.cfg.Beside.Applied()}
	for first := (backoff{}); !n.report(ctx, n.cfg.key()+joinSuffix) || !n.report(ctx, n.cfg.key()); {
		if !first.wait(ctx) {
			return nil
		}
	}
	for last := (backoff{}); n.ring.CatchUp(ctx) != nil || n.cfg.Beside.CatchUp(ctx) != nil; {
		if !last.wait(ctx) {
			return nil
		}
	}
	group.Go(func() { n.settle(ctx) })
	group.Go(func() { n.watch(ctx) })
	ready()
	ticks := time.NewTicker(min(reportEvery, n.ring.limit/probesPerLimit))
	defer ticks.Stop()
	for {
		select {
		case <-n.moved:
		case <-ticks.C:
		case <-ctx.Done():
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
			defer cancel()
			if err := errors.Join(n.table.Delete(leaving, n.cfg.key()+joinSuffix), n.table.Delete(leaving, n.cfg.key())); err != nil {
				n.logger.WarnContext(leaving, "cannot tell the other nodes that this one stops", "err", err)
			}
			return nil
		}
		n.report(ctx, n.cfg.key())
	}
}

// settle follows the ring, and tells of an event once nothing that was decided
// without it is in flight.
func (n *Nodes) settle(ctx context.Context) {
	for {
		ringChanged, besideChanged := n.ring.Changed(), n.cfg.Beside.Changed() // before asking
		now := reached{n.ring.Applied(), n.cfg.Beside.Applied()}
		n.mu.Lock()
		news := now != n.settled
		n.mu.Unlock()
		if !news {
			select {
			case <-ringChanged:
			case <-besideChanged:
			case <-ctx.Done():
				return
			}
			continue
		}
		for _, f := range n.cfg.Flights {
			if f.Landed(ctx) != nil {
				return
			}
		}
		n.mu.Lock()
		n.settled = now
		n.mu.Unlock()
		select {
		case n.moved <- struct{}{}:
		default:
		}
	}
}

// reached is how far a node is.
type reached struct {
	Applied uint64 `json:"applied"`
	Beside  uint64 `json:"beside,omitzero"`
}

type reportWire struct {
	reached

	TrustsMS int64 `json:"trusts_ms"`
}

func (n *Nodes) report(ctx context.Context, key string) bool {
	n.mu.Lock()
	wire := reportWire{n.settled, n.ring.limit.Milliseconds()}
	n.mu.Unlock()
	began := n.now() // whoever hears it hears it later, and counts this node for longer than it trusts itself
	body, err := json.Marshal(wire)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, reportTimeout)
		defer cancel()
		_, err = n.table.Put(ctx, key, body)
	}
	if err == nil {
		n.ring.reported(began)
	} else if ctx.Err() == nil {
		n.logger.WarnContext(ctx, "cannot report to the other nodes", "err", err)
	}
	return err == nil
}

// watch listens to all nodes, and anew where it has become deaf: that shows by
// this node's own reports.
func (n *Nodes) watch(ctx context.Context) {
	retry := backoff{}
	for {
		n.listen(ctx, &retry)
		if !retry.wait(ctx) {
			return
		}
	}
}

func (n *Nodes) listen(ctx context.Context, retry *backoff) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	deaf := time.AfterFunc(echoWithin, cancel)
	defer deaf.Stop()
	own := n.cfg.key()
	for e, err := range n.table.Watch(ctx) {
		if err != nil {
			n.logger.WarnContext(ctx, "cannot hear the other nodes", "err", err)
			return
		}
		if e.Key == own {
			deaf.Reset(echoWithin)
			*retry = backoff{}
		}
		n.hear(ctx, e)
	}
}

func (n *Nodes) hear(ctx context.Context, e kv.Entry) {
	key, joins := strings.CutSuffix(e.Key, joinSuffix)
	service, id, ok := strings.Cut(key, ".")
	if !ok {
		return // the end of what stood
	}
	var wire reportWire
	if e.Value != nil {
		if err := json.Unmarshal(e.Value, &wire); err != nil { // as if it had applied nothing
			n.logger.WarnContext(ctx, "the report of a node cannot be read", "node", e.Key, "err", err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	if _, known := n.heard[key]; joins && (known || e.Value == nil) {
		return
	}
	if e.Value == nil {
		delete(n.heard, key)
	} else {
		n.heard[key] = Node{service, id, wire.Applied, wire.Beside, now, time.Duration(wire.TrustsMS) * time.Millisecond}
	}
	for key, node := range n.heard { // those that never said goodbye
		if node.gone(now) {
			delete(n.heard, key)
		}
	}
	close(n.changed)
	n.changed = make(chan struct{})
}
