package replay

import (
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// A Change is a decision: the replay as it then stands, and the type of the
// event that says so.
type Change struct {
	Replay
	Type event.Type
}

// Order is what a caller wants rebuilt.
type Order struct {
	Account string // whose admin asks
	By      event.Author
	Part    Part
	Switch  Switch
	// Snapshot names an archive of the log; empty: the log itself is read.
	Snapshot string
}

// Start begins a replay with an id that was never used.
func (b *Book) Start(id string, o Order, now time.Time) (Change, error) {
	if r, open := b.Open(); open {
		return Change{}, fault.New(fault.Conflict, "REPLAY_IN_PROGRESS", "Another replay is %s: one at a time. Switch to it or cancel it first.", r.State)
	}
	r := Replay{
		ID: id, Account: o.Account, Projection: Ledger, Version: max(b.highest, b.Active()) + 1, Previous: b.Active(),
		Switch: o.Switch, Part: o.Part, Snapshot: o.Snapshot, State: Running, StartedAt: now, StartedBy: o.By,
	}
	return Change{r, WasStarted}, nil
}

// Verify records what a comparison found.
func (r *Replay) Verify(c *Certificate, now time.Time) (Change, error) {
	if r.State != Running {
		return Change{}, r.wrong("verified")
	}
	next := *r
	next.State, next.Certificate, next.VerifiedAt = Ready, c, now
	if r.Part.Check() {
		next.EndedAt = now
	}
	return Change{next, WasVerified}, nil
}

// SwitchTo makes r's version live. A verdict of different needs consent: what
// would change is known by then, as the preview. The version before it is kept
// up to date for keep.
func (r *Replay) SwitchTo(consent bool, keep time.Duration, now time.Time) (Change, error) {
	switch {
	case r.Part.Check():
		return Change{}, fault.New(fault.Conflict, "REPLAY_IS_CHECK", "This replay rebuilt a part only, to check it. Start one of everything to switch to it.")
	case r.State == Running:
		return Change{}, fault.New(fault.Conflict, "REPLAY_NOT_VERIFIED", "This replay is not verified yet. Wait until its state is ready.")
	case r.State != Ready:
		return Change{}, r.wrong("switched to")
	case r.Certificate.Verdict != Equal && !consent:
		return Change{}, fault.New(fault.Conflict, "REPLAY_DIFFERS", `The rebuilt tables differ from the live ones. Look at its diff, then switch with {"consent":true}, or cancel it.`)
	}
	next := *r
	next.State, next.SwitchedAt, next.KeepUntil = Switched, now, now.Add(keep)
	return Change{next, WasSwitched}, nil
}

// Undo makes the version live again that was so before r.
func (b *Book) Undo(r *Replay, now time.Time) (Change, error) {
	switch {
	case r.State != Switched:
		return Change{}, r.wrong("undone")
	case r.Version != b.Active():
		return Change{}, fault.New(fault.Conflict, "REPLAY_NOT_LIVE", "A later replay is live. Undo that one.")
	case !b.Undoable(r, now):
		return Change{}, fault.New(fault.Conflict, "REPLAY_NOT_UNDOABLE", "The version before it was kept until %s and is gone.", r.KeepUntil.UTC().Format(time.RFC3339))
	}
	if open, ok := b.Open(); ok && open.ID != r.ID {
		return Change{}, fault.New(fault.Conflict, "REPLAY_IN_PROGRESS", "Another replay is compared with the live version. Cancel it first.")
	}
	next := *r
	next.State, next.EndedAt = Undone, now
	return Change{next, WasUndone}, nil
}

// Cancel ends a replay that is not live.
func (r *Replay) Cancel(now time.Time) (Change, error) {
	if !r.Open() {
		return Change{}, r.wrong("cancelled")
	}
	next := *r
	next.State, next.EndedAt = Cancelled, now
	return Change{next, WasCancelled}, nil
}

// Fail ends a replay that cannot go on.
func (r *Replay) Fail(reason string, now time.Time) (Change, error) {
	if r.State != Running {
		return Change{}, r.wrong("failed")
	}
	next := *r
	next.State, next.EndedAt, next.Reason = Failed, now, reason
	return Change{next, HasFailed}, nil
}

func (r *Replay) wrong(done string) error {
	return fault.New(fault.Conflict, "REPLAY_STATE", "This replay is %s and cannot be %s.", r.State, done)
}
