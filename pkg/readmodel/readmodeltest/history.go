package readmodeltest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// A history is what the events of some accounts contribute, an element each, in
// the order of the log.
type history struct {
	stream   string
	accounts []*account
	events   []readmodel.Rows
}

// An account is a small world, so that events meet each other often.
type account struct {
	name         string
	products     []event.ProductID
	environments []event.EnvironmentID
	deployments  []ulid.ULID
	builds       []ulid.ULID
	runs         map[ulid.ULID]event.Record // what never changes of each run
}

var (
	productNames     = []string{"checkout", "Check_in", "50% off", "übersicht"}
	environmentNames = []string{"prod-eu", "dev", "Prod", "somewhere", "staging"}
	versionNames     = []string{"1.0", "1.1", "2.0-rc.1"}
	commits          = []string{
		"", "0123456789abcdef0123456789abcdef01234567", "0123456", "0123456789ABCDEF0123456789ABCDEF01234567",
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "012345", "feature/x",
		"0000000000000000000000000000000000000000",
	}
)

// epoch is the middle of the times of a history; runs spread about a year
// around it, and around the wall clock while this is young.
var epoch = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// drawHistory makes a history that shares nothing with one of another serial.
func drawHistory(t *rapid.T, serial int64) *history {
	h := &history{stream: event.TrackStream(int(serial % 10000))}
	for _, suffix := range []string{"a", "b"} {
		a := &account{name: fmt.Sprintf("acc%d%s", serial, suffix), runs: map[ulid.ULID]event.Record{}}
		for _, name := range productNames {
			a.products = append(a.products, event.ProductIDOf(a.name, name))
		}
		for _, name := range environmentNames {
			a.environments = append(a.environments, event.EnvironmentIDOf(a.name, name))
		}
		h.accounts = append(h.accounts, a)
	}
	for _, a := range h.accounts { // the last ones may never be created
		for i := range len(a.products) - 1 {
			h.product(t, a, i)
		}
		for i := range len(a.environments) - 1 {
			h.environment(t, a, i)
		}
	}
	for range rapid.IntRange(0, 40).Draw(t, "events") {
		a := rapid.SampledFrom(h.accounts).Draw(t, "account")
		switch kind := rapid.IntRange(0, 11).Draw(t, "kind"); kind {
		case 0:
			h.product(t, a, rapid.IntRange(0, len(a.products)-1).Draw(t, "product"))
		case 1:
			h.environment(t, a, rapid.IntRange(0, len(a.environments)-1).Draw(t, "environment"))
		case 2, 3:
			h.version(t, a)
		case 4, 5, 6:
			h.run(t, a, event.Build)
		default:
			h.run(t, a, event.Deployment)
		}
	}
	return h
}

// next is the position of the event being drawn.
func (h *history) next() event.Position {
	n := len(h.events)
	return event.Position{Stream: h.stream, Offset: event.At(uint64(n/3+1), n%3)}
}

// id makes an id that no other history has.
func (h *history) id(t *rapid.T) (id ulid.ULID) {
	ms := epoch.UnixMilli() + rapid.Int64Range(-180, 180).Draw(t, "day")*24*3600*1000 + rapid.Int64Range(0, 1000).Draw(t, "ms")
	_ = id.SetTime(uint64(ms)) // in range
	binary.BigEndian.PutUint16(id[8:], uint16(len(h.events)))
	copy(id[10:], h.accounts[0].name)
	return id
}

// drawMoment is one of few, so that there are ties, and finer than what is kept.
func drawMoment(t *rapid.T, label string) time.Time {
	at := epoch.Add(time.Duration(rapid.Int64Range(0, 4000).Draw(t, label)) * 500 * time.Microsecond)
	if rapid.Bool().Draw(t, "zone") {
		at = at.In(time.FixedZone("", 5400))
	}
	return at
}

// daysBack take effective times to the months before: a model may keep each apart.
var daysBack = []int{0, 0, 0, 0, 0, -16, -31, -47, -62, -95, -400, -365 * 70}

// drawIncarnation is mostly the first.
func drawIncarnation(t *rapid.T) uint16 {
	return rapid.SampledFrom([]uint16{0, 0, 0, 1}).Draw(t, "incarnation")
}

func (h *history) add(t *rapid.T, a *account, kind event.Type, subject, status string, r readmodel.Rows) {
	p, received := h.next(), drawMoment(t, "received")
	for i := range r.Cells {
		r.Cells[i].ReceivedAt = received
	}
	for i := range r.Attempts {
		r.Attempts[i].ReceivedAt = received
	}
	r.Events = []readmodel.EventRow{{
		Account: a.name, Position: p, ID: h.id(t), Type: kind, Subject: subject, Status: status,
		ReceivedAt: received, EffectiveAt: drawMoment(t, "effective"), Author: drawAuthor(t),
		Backfilled: rapid.Bool().Draw(t, "backfilled"),
		Flag:       rapid.SampledFrom([]string{"", event.FlagSecondTerminal}).Draw(t, "flag"),
		Request:    rapid.SampledFrom([]string{"", `{"product_name":"it's \"x\"\\ü"}`}).Draw(t, "request"),
	}}
	h.events = append(h.events, r)
}

func drawAuthor(t *rapid.T) event.Author {
	return rapid.SampledFrom([]event.Author{
		{}, {CredentialID: "k1", CredentialName: "ci", Mode: event.Live}, {CredentialID: "k2", Mode: event.Test, Actor: "u1"},
	}).Draw(t, "author")
}

func (h *history) product(t *rapid.T, a *account, i int) {
	name := productNames[i] + rapid.SampledFrom([]string{"", "", "-renamed"}).Draw(t, "rename")
	h.add(t, a, event.ProductCreated, a.products[i].String(), "", readmodel.Rows{Products: []readmodel.ProductRow{{
		Product: event.Product{
			ID: a.products[i], Name: name, Description: drawDescription(t), Extra: drawExtra(t),
			Incarnation: drawIncarnation(t), Deleted: drawDeleted(t), CreatedAt: drawMoment(t, "created"),
		},
		Account: a.name, Position: h.next(),
	}}})
}

func (h *history) environment(t *rapid.T, a *account, i int) {
	name := environmentNames[i] + rapid.SampledFrom([]string{"", "", "-renamed"}).Draw(t, "rename")
	h.add(t, a, event.EnvironmentCreated, a.environments[i].String(), "", readmodel.Rows{Environments: []readmodel.EnvironmentRow{{
		Environment: event.Environment{
			ID: a.environments[i], Name: name, Class: event.ClassOf(environmentNames[i]),
			Description: drawDescription(t), Extra: drawExtra(t),
			ConcurrencyLimit: rapid.Uint16Range(0, 2).Draw(t, "limit"), StaleAfter: time.Duration(rapid.IntRange(0, 2).Draw(t, "stale after")) * time.Minute,
			Incarnation: drawIncarnation(t), Deleted: drawDeleted(t), CreatedAt: drawMoment(t, "created"),
		},
		Account: a.name, Position: h.next(),
	}}})
}

func drawDescription(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "it's \"x\"\\ü"}).Draw(t, "description")
}

func drawExtra(t *rapid.T) []byte {
	return rapid.SampledFrom([][]byte{nil, []byte(`{"team":"it's ü","n":[1,null]}`)}).Draw(t, "metadata")
}

// drawDeleted is mostly false.
func drawDeleted(t *rapid.T) bool {
	return rapid.SampledFrom([]bool{false, false, false, false, true}).Draw(t, "deleted")
}

func (h *history) version(t *rapid.T, a *account) {
	product := rapid.SampledFrom(a.products).Draw(t, "product")
	version := rapid.SampledFrom(versionNames).Draw(t, "version")
	id := event.VersionIDOf(a.name, product, version)
	h.add(t, a, event.VersionCreated, id.String(), "", readmodel.Rows{Versions: []readmodel.VersionRow{{
		Version: event.Version{
			ID: id, ProductID: product, Version: version, Incarnation: drawIncarnation(t),
			SHA: rapid.SampledFrom(commits).Draw(t, "sha"), SHAFixed: rapid.Bool().Draw(t, "fixed"), CreatedAt: drawMoment(t, "created"),
		},
		Account: a.name, Position: h.next(),
	}}})
}

func (h *history) run(t *rapid.T, a *account, kind event.Kind) {
	ids := &a.deployments
	if kind == event.Build {
		ids = &a.builds
	}
	var id ulid.ULID
	if len(*ids) > 0 && rapid.Bool().Draw(t, "known run") {
		id = rapid.SampledFrom(*ids).Draw(t, "run")
	} else {
		id = h.id(t)
		*ids = append(*ids, id)
		rec := event.Record{
			Kind: kind, ID: id, Account: a.name, ProductID: rapid.SampledFrom(a.products).Draw(t, "product"),
			ProductIncarnation: drawIncarnation(t), Version: rapid.SampledFrom(versionNames).Draw(t, "version"),
			CreatedAt: drawMoment(t, "created"),
		}
		rec.VersionID = event.VersionIDOf(a.name, rec.ProductID, rec.Version)
		if kind == event.Deployment {
			rec.EnvironmentID = rapid.SampledFrom(a.environments).Draw(t, "environment")
			rec.EnvironmentIncarnation = drawIncarnation(t)
		}
		a.runs[id] = rec
	}
	rec := a.runs[id]
	rec.Status = rapid.SampledFrom([]event.Status{event.Pending, event.Started, event.Completed, event.Completed, event.Failed, event.Aborted}).Draw(t, "status")
	rec.Seen = rec.Seen.With(rec.Status)
	rec.SHAMismatch = rapid.Bool().Draw(t, "mismatch")
	if rapid.Bool().Draw(t, "has start") {
		rec.StartedAt = drawMoment(t, "started")
	}
	if rec.Status.Terminal() {
		rec.CompletedAt = drawMoment(t, "completed")
	}
	for i := range rec.Attributes {
		rec.Attributes[i] = rapid.SampledFrom([]string{"", fmt.Sprintf("value %d", i), "it's \"ü\"\t\\"}).Draw(t, "attribute")
	}
	rec.Attributes[event.SCMSHA] = rapid.SampledFrom(commits).Draw(t, "sha")
	if rapid.Bool().Draw(t, "has extra") {
		rec.Extra = map[string]event.Extra{
			"a \"key\"":   {Value: []byte(`{"n":[1, 2.50,null]}`)},
			"commit_time": {Value: []byte(rapid.SampledFrom([]string{`"2026-09-01T11:00:00.1234+01:00"`, `"2026-09-01T10:00:00Z"`, `"yesterday"`, `7`}).Draw(t, "commit time"))},
			"z":           {Value: []byte(`"é"`), Stamp: event.Stamp{Rank: 3}},
			"o":           {Value: []byte(`{"n":-7,"b":true,"f":2.50,"s":"it's 'x'"}`)},
		}
	}
	position, at := h.next(), drawMoment(t, "at").AddDate(0, 0, rapid.SampledFrom(daysBack).Draw(t, "days back"))
	rows := readmodel.Rows{}
	run := readmodel.RunRow{Record: rec, Author: drawAuthor(t), Backfilled: rapid.Bool().Draw(t, "backfilled"), Position: position}
	switch {
	case kind == event.Build:
		rows.Builds = []readmodel.RunRow{run}
	case rec.Status == event.Completed:
		rows.Deployments = []readmodel.RunRow{run}
		rows.Cells = []readmodel.Cell{{Record: rec, EffectiveAt: at, Position: position}}
	default:
		rows.Deployments = []readmodel.RunRow{run}
		rows.Attempts = []readmodel.Attempt{{Record: rec, At: at, Position: position}}
	}
	h.add(t, a, event.TypeOf(kind, rec.Status), id.String(), rec.Status.String(), rows)
}

// portions gives every event at least once, in any order, cut anywhere.
func (h *history) portions(t *rapid.T) [][]readmodel.Rows {
	order := make([]int, 0, 2*len(h.events))
	for i := range h.events {
		order = append(order, i)
		if rapid.IntRange(0, 3).Draw(t, "again") == 0 {
			order = append(order, i)
		}
	}
	if rapid.Bool().Draw(t, "shuffle") {
		order = rapid.Permutation(order).Draw(t, "order")
	}
	var out [][]readmodel.Rows
	for len(order) > 0 {
		n := min(rapid.IntRange(1, max(1, len(h.events)/2)).Draw(t, "portion"), len(order))
		portion := make([]readmodel.Rows, n)
		for i, at := range order[:n] {
			portion[i] = h.events[at]
		}
		out = append(out, portion)
		if rapid.IntRange(0, 4).Draw(t, "portion again") == 0 {
			out = append(out, portion)
		}
		order = order[n:]
	}
	return out
}

// join gives the rows of events as a projection would store them.
func join(events []readmodel.Rows) *readmodel.Rows {
	var out readmodel.Rows
	for i := range events {
		r := &events[i]
		out.Events = append(out.Events, r.Events...)
		out.Deployments = append(out.Deployments, r.Deployments...)
		out.Builds = append(out.Builds, r.Builds...)
		out.Cells = append(out.Cells, r.Cells...)
		out.Attempts = append(out.Attempts, r.Attempts...)
		out.Products = append(out.Products, r.Products...)
		out.Environments = append(out.Environments, r.Environments...)
		out.Versions = append(out.Versions, r.Versions...)
	}
	return &out
}

// upTo is the progress of having stored events.
func upTo(events []readmodel.Rows) readmodel.Progress {
	last := slices.MaxFunc(events, func(a, b readmodel.Rows) int {
		return int(a.Events[0].Position.Offset) - int(b.Events[0].Position.Offset)
	}).Events[0]
	return readmodel.Progress{Stream: last.Position.Stream, Offset: last.Position.Offset, Time: last.ReceivedAt}
}
