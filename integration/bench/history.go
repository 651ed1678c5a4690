package bench

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// shape is how big the accounts of a history are.
type shape struct {
	products, environments int // of the big account
	small                  int // accounts beside it
	smallProducts          int
	smallEnvironments      int
}

// readShape is what the figures are about: 1,000 products in 10 environments
// beside thousands of small accounts.
var (
	readShape = shape{products: 1000, environments: 10, small: 5000, smallProducts: 4, smallEnvironments: 4}
	wideShape = shape{products: 1000, environments: 1500, small: 10, smallProducts: 4, smallEnvironments: 4}
)

const (
	bigAccount = "big"
	openAtOnce = 40 // deployments that run at the same time
	buildEvery = 12 // deployments of a product, about, from one version to the next
	rareHand   = "rare-hand"
	years2     = 2 * 365 * 24 * time.Hour
)

// history makes events as the write side would leave them, of commands that it
// decides itself: what it projects are real rows. The same shape, size and end
// always give the same rows. It holds what the write side holds, and no rows.
type history struct {
	shape
	random   *rand.Rand
	state    *tracking.State
	total    int // events that the time is spread over
	begin    time.Time
	now      time.Time
	seq      uint64
	events   int
	runs     int // deployments begun
	open     []*tracking.Command
	built    map[string]int // the newest version that was built, by account and product
	deployed map[string]int // deployments begun, the same
}

func newHistory(s shape, total int, end time.Time) *history {
	return &history{
		shape: s, random: rand.New(rand.NewPCG(11, 13)), state: tracking.NewState(), total: total,
		begin: end.Add(-years2), now: end.Add(-years2), built: map[string]int{}, deployed: map[string]int{},
	}
}

func smallAccount(i int) string { return fmt.Sprintf("small-%04d", i) }

var environmentNames = []string{
	"production-eu", "production-us", "production-ap", "staging-eu", "staging-us", "test-1", "test-2", "dev-1", "dev-2", "sandbox",
}

func environmentName(i int) string {
	if i < len(environmentNames) {
		return environmentNames[i]
	}
	return fmt.Sprintf("site-%04d", i)
}

func productName(i int) string { return fmt.Sprintf("service-%04d", i) }

// fill puts the rows of about n more events in place of what rows holds, and
// gives how far that brings the stream.
func (h *history) fill(rows *readmodel.Rows, n int) (readmodel.Progress, error) {
	rows.Reset()
	var at event.Position
	for until := h.events + n; h.events < until; {
		command := h.next()
		h.seq++
		d, err := tracking.Decide(h.state, command, tracking.Context{Now: h.now, Next: event.At(h.seq, 0), NewID: h.newID})
		if err != nil {
			return readmodel.Progress{}, fmt.Errorf("decide event %d: %w", h.events, err)
		}
		for i := range d.Events {
			at = event.Position{Stream: event.TrackStream(0), Offset: event.At(h.seq, i)}
			r := event.Recorded{Event: d.Events[i], Position: at}
			h.state.Apply(r)
			projection.Project(r, rows)
		}
		h.events += len(d.Events)
	}
	return readmodel.Progress{Stream: at.Stream, Offset: at.Offset, Time: h.now}, nil
}

// next ends the oldest open deployment, reports a build, or begins a deployment.
func (h *history) next() *tracking.Command {
	h.now = h.begin.Add(time.Duration(float64(h.events) / float64(h.total) * float64(years2))).Truncate(time.Millisecond)
	if len(h.open) >= openAtOnce {
		started := *h.open[0]
		h.open = h.open[1:]
		return h.finish(started)
	}
	account, product, environment := bigAccount, 0, 0
	switch n := h.runs / 2; {
	case h.runs%2 == 1 && h.small > 0:
		account = smallAccount(h.random.IntN(h.small))
		product, environment = h.random.IntN(h.smallProducts), h.random.IntN(h.smallEnvironments)
	case n < h.products*h.environments: // first every cell once, in an order that is no order of keys
		n = int(uint64(n) * 7919 % uint64(h.products*h.environments))
		product, environment = n/h.environments, n%h.environments
	default:
		product, environment = h.random.IntN(h.products), h.random.IntN(h.environments)
	}
	of := account + "/" + productName(product)
	if newest := h.deployed[of]/buildEvery + 1; newest > h.built[of] {
		h.built[of] = newest
		return h.command(event.Build, account, product, environment, newest, event.Completed)
	}
	h.deployed[of]++
	h.runs++
	version := h.built[of]
	if version > 1 && h.random.IntN(50) == 0 { // back to the one before
		version--
	}
	c := h.command(event.Deployment, account, product, environment, version, event.Started)
	h.open = append(h.open, c)
	return c
}

func (h *history) finish(c tracking.Command) *tracking.Command {
	switch n := h.random.IntN(100); {
	case n < 2:
		c.Status = event.Aborted
	case n < 8:
		c.Status = event.Failed
	default:
		c.Status = event.Completed
	}
	h.body(&c)
	return &c
}

func (h *history) command(kind event.Kind, account string, product, environment, version int, status event.Status) *tracking.Command {
	c := &tracking.Command{
		Account: account, Kind: kind, Status: status, ProductName: productName(product), Version: fmt.Sprintf("1.%d.0", version),
		Author: event.Author{CredentialID: "k1", CredentialName: "ci", Mode: event.Live},
	}
	a := &c.Attributes
	a[event.SourceSystem], a[event.SCMBranch] = "github", "main"
	a[event.SCMSHA] = fmt.Sprintf("%016x%016x%08x", uint64(product)*0x9e3779b97f4a7c15, uint64(version)*0xc2b2ae3d27d4eb4f, len(account))
	a[event.SCMRepository] = account + "/" + c.ProductName
	a[event.InvokeID] = strconv.FormatUint(16_000_000_000+h.seq, 10)
	a[event.BuildNumber] = strconv.Itoa(version)
	a[event.By] = fmt.Sprintf("user-%d", h.random.IntN(200))
	if kind == event.Deployment {
		c.EnvironmentName = environmentName(environment)
		a[event.URL] = fmt.Sprintf("https://ci.example.com/%s/runs/%s", a[event.SCMRepository], a[event.InvokeID])
		if h.random.IntN(5000) == 0 {
			a[event.By] = rareHand
		}
		if h.random.IntN(10) == 0 {
			c.Extra = fmt.Appendf(nil, `{"workflow":"deploy","change":{"id":"CHG-%d"}}`, h.random.IntN(2000))
		}
	}
	h.body(c)
	return c
}

// seeded, so that a run's hashes are its own; they never leave it.
var seeded = maphash.MakeSeed()

// body writes what the command would have been read from.
func (h *history) body(c *tracking.Command) {
	a := &c.Attributes
	b := fmt.Appendf(nil, `{"product_name":%q,"version":%q,"status":%q`, c.ProductName, c.Version, c.Status.String())
	if c.Kind == event.Deployment {
		b = fmt.Appendf(b, `,"environment_name":%q`, c.EnvironmentName)
	}
	for i, value := range a {
		if name := event.Attribute(i).Name(c.Kind); value != "" && name != "" {
			b = fmt.Appendf(b, `,%q:%q`, name, value)
		}
	}
	if c.Extra != nil {
		b = append(append(b, `,"extra_metadata":`...), c.Extra...)
	}
	b = append(b, '}')
	c.Body = b
	c.BodyHash = max(1, maphash.Bytes(seeded, c.Body))
	c.Hash = max(1, c.BodyHash^maphash.String(seeded, c.Account))
}

func (h *history) newID() ulid.ULID {
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(h.now)) // the years of a history always fit
	binary.BigEndian.PutUint16(id[6:], uint16(h.random.Uint32()))
	binary.BigEndian.PutUint64(id[8:], h.random.Uint64())
	return id
}
