// Package replay decides about rebuilds of the read model: what may be started,
// switched to, undone and cancelled, and what has become of it. It is pure; the
// projector runs what is decided here.
//
// # How a rebuild goes
//
//	running ─► verifying ─► ready ─► switched ─► undone
//	   └───────────┴──────────┴──► cancelled, failed
//
// The log is read from its first frame into tables of a version of its own,
// beside the live ones, which go on. When the rebuild has caught up, both stand
// still between the same two frames for some milliseconds, in which each table of
// both is cloned by hard links. Both go on, and the clones are compared. What was
// found is a Certificate. Switching changes one pointer, so all tables change at
// once; the version before it is kept up to date for some time, so that undoing
// loses nothing.
//
// # What may surprise
//
//   - The events are the truth, the pointer in the read model follows them.
//     Which version is live is a fold of this stream (Book.Active), so a crash
//     between the two is mended at the next start, and a lost ClickHouse is
//     filled into the version that was live.
//   - A version number is never used twice, not even that of a cancelled
//     rebuild: checkpoints and late inserts are named after it.
//   - Verifying is not an event. It is a part of running that begins anew after
//     a crash, because clones are made in no time.
//   - "different" is no failure. Where the code of the projection was changed on
//     purpose it is the preview of that change, and consent switches to it.
//   - A check (Account or From is set) rebuilds a part only, so it can never be
//     switched to; its tables go once it is verified.
//   - Decisions are stored after the end of the whole stream and not of their
//     subject: "one at a time" is about all replays.
package replay

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
)

// Ledger is the one projection: all tables.
const Ledger = "ledger"

// Stream is the short name of the stream of operations.
const Stream = "o"

// FirstVersion is the version of the tables that no replay made.
const FirstVersion = 1

// DropAfter is how long tables stay that nobody shall read any more: longer than
// a query takes, and than a process takes to follow the pointer.
const DropAfter = 30 * time.Second

// State says how far a replay is.
type State string

// The states. Verifying is told by who runs the replay and never recorded.
const (
	Running   State = "running"
	Verifying State = "verifying"
	Ready     State = "ready"
	Switched  State = "switched"
	Undone    State = "undone"
	Cancelled State = "cancelled"
	Failed    State = "failed"
)

// Switch says who switches.
type Switch string

// The ways of switching.
const (
	Manual    Switch = "manual"
	WhenEqual Switch = "when_equal" // by itself, if the verdict is equal
)

// Verdict is what a comparison found.
type Verdict string

// The verdicts.
const (
	Equal     Verdict = "equal"
	Different Verdict = "different"
)

// A Replay is one rebuild as it stands after an event.
type Replay struct {
	ID         string // a ULID
	Account    string // whose admin started it
	Projection string
	Version    uint32 // of the tables that it makes
	Previous   uint32 // live when it started, and compared with
	Switch     Switch
	Part       Part
	Snapshot   string // the file that the log is read from, as far as it goes; empty: the log itself is
	State      State
	StartedAt  time.Time
	StartedBy  event.Author

	Certificate *Certificate // nil until it is verified
	VerifiedAt  time.Time
	SwitchedAt  time.Time
	KeepUntil   time.Time // until when a switch can be undone
	EndedAt     time.Time // undone, cancelled or failed
	Reason      string    // why it failed
}

// A Part narrows a replay to a check. The zero value is everything.
type Part struct {
	Account string         // only this account
	From    event.Position // only events from here on; the zero value: all
}

// Check tells whether it is only a part.
func (p Part) Check() bool { return p.Account != "" || p.From != (event.Position{}) }

// A Certificate says what a comparison found, for whoever asks later on what
// ground a version went live.
type Certificate struct {
	ReplayID    string    `json:"replay_id"`
	Verdict     Verdict   `json:"verdict"`
	From        string    `json:"from"` // positions, both inclusive
	To          string    `json:"to"`
	Events      uint64    `json:"events"`
	Deployments uint64    `json:"deployments"`
	Accounts    int       `json:"accounts"` // that were compared
	Tables      []Table   `json:"tables"`
	Cells       uint64    `json:"cells_changed"` // cells of the matrix that would change
	CodeVersion string    `json:"code_version"`
	Seconds     float64   `json:"seconds"`       // from the start to the verdict
	StoodStill  float64   `json:"stood_still_s"` // of them, how long the live projection waited
	MadeBy      string    `json:"made_by"`
	MadeAt      time.Time `json:"made_at"`

	FirstDifference *Difference `json:"first_difference,omitzero"`

	// What each version could not apply, and what that says of the verdict.
	QuarantinedOld uint64 `json:"quarantined_old,omitzero"`
	QuarantinedNew uint64 `json:"quarantined_new,omitzero"`
	Reason         string `json:"reason,omitzero"`
}

// Table is what was found of one table. A hash is the sum of the 128-bit hashes
// of its rows, in hex: it does not depend on their order.
type Table struct {
	Name     string   `json:"name"`
	Rows     uint64   `json:"rows"` // in the new tables
	HashOld  string   `json:"hash_old"`
	HashNew  string   `json:"hash_new"`
	Added    uint64   `json:"added"`
	Removed  uint64   `json:"removed"`
	Changed  uint64   `json:"changed"`
	Accounts []string `json:"accounts,omitzero"` // that differ, some of them
}

// A Difference is a row that differs: the one with the lowest key of the first
// table that has one.
type Difference struct {
	Table   string            `json:"table"`
	Account string            `json:"account"`
	Key     map[string]string `json:"key"`
	Columns []string          `json:"columns"`       // that differ
	Old     map[string]string `json:"old,omitempty"` // absent where there is none
	New     map[string]string `json:"new,omitempty"`
	Event   *Cause            `json:"event,omitzero"`
}

// Cause is the event behind a row.
type Cause struct {
	Position string `json:"position"`
	ID       string `json:"id"`
	Type     string `json:"type"`
	Subject  string `json:"subject"`
}

// Book is the fold of the stream of operations. The zero value is an empty one.
// It is not safe for concurrent use.
type Book struct {
	byID    map[string]*Replay
	order   []string // of their start
	active  uint32
	highest uint32
	applied uint64
	at      time.Time
}

// Applied gives the sequence of the last event that b knows, and its time.
func (b *Book) Applied() (seq uint64, at time.Time) { return b.applied, b.at }

// Skip takes note of an event that is about something else, or cannot be read.
func (b *Book) Skip(seq uint64) { b.applied = seq }

// Apply adds an event; others than those of replays change nothing.
func (b *Book) Apply(e *event.Recorded) error {
	defer b.Skip(e.Position.Offset.Seq())
	r, err := Decode(&e.Event)
	if err != nil || r == nil {
		return err
	}
	b.at = e.Time
	if b.byID == nil {
		b.byID = map[string]*Replay{}
	}
	if b.byID[r.ID] == nil {
		b.order = append(b.order, r.ID)
	}
	b.byID[r.ID] = r
	b.highest = max(b.highest, r.Version)
	if e.Type == WasSwitched {
		b.active = r.Version
		for _, other := range b.byID { // of two switches only the last can be undone
			if other.ID != r.ID {
				other.KeepUntil = time.Time{}
			}
		}
	}
	if e.Type == WasUndone {
		b.active = r.Previous
	}
	return nil
}

// Active gives the version that reads use.
func (b *Book) Active() uint32 { return max(b.active, FirstVersion) }

// Find gives the replay with an id.
func (b *Book) Find(id string) (Replay, bool) {
	r := b.byID[id]
	if r == nil {
		return Replay{}, false
	}
	return *r, true
}

// Replays gives all, newest first.
func (b *Book) Replays() []Replay {
	var out []Replay
	for _, id := range slices.Backward(b.order) {
		out = append(out, *b.byID[id])
	}
	return out
}

// Open gives the replay that holds the place: no other may start before it is
// switched to, cancelled, failed or, where it is a check, verified.
func (b *Book) Open() (Replay, bool) {
	for _, r := range b.byID {
		if r.Open() {
			return *r, true
		}
	}
	return Replay{}, false
}

// Open tells whether more is to come of r by itself or by a switch.
func (r *Replay) Open() bool {
	return r.State == Running || r.State == Ready && !r.Part.Check()
}

// Undoable tells whether r's switch can be undone at a moment.
func (b *Book) Undoable(r *Replay, now time.Time) bool {
	return r.State == Switched && r.Version == b.Active() && now.Before(r.KeepUntil)
}

// A Plan says which versions of the tables there are to be at a moment.
type Plan struct {
	Active    uint32
	Projected []uint32  // kept up to date, Active among them
	Kept      []uint32  // not projected but not dropped yet, either
	Change    time.Time // when the plan will be another one; zero: with an event only
}

// Plan gives the plan at a moment.
func (b *Book) Plan(now time.Time) Plan {
	p := Plan{Active: b.Active()}
	project := map[uint32]bool{p.Active: true}
	keep := map[uint32]bool{}
	until := func(set map[uint32]bool, version uint32, end time.Time) {
		if !now.Before(end) {
			return
		}
		set[version] = true
		if p.Change.IsZero() || end.Before(p.Change) {
			p.Change = end
		}
	}
	for _, r := range b.byID {
		switch r.State {
		case Running, Verifying:
			project[r.Version] = true
		case Ready:
			if !r.Part.Check() {
				project[r.Version] = true
			}
		case Switched:
			if r.Version == p.Active {
				until(project, r.Previous, r.KeepUntil)
			}
			until(keep, r.Previous, r.SwitchedAt.Add(DropAfter))
		case Undone:
			until(keep, r.Version, r.EndedAt.Add(DropAfter))
		case Cancelled, Failed: // nobody ever read them
		}
	}
	p.Projected = slices.Sorted(maps.Keys(project))
	for _, v := range slices.Sorted(maps.Keys(keep)) {
		if !project[v] {
			p.Kept = append(p.Kept, v)
		}
	}
	return p
}

// MadeBy names an author: the person where there is one, else the credential.
func MadeBy(a event.Author) string {
	if a.Actor != "" {
		return a.Actor
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", a.CredentialID, a.CredentialName))
}
