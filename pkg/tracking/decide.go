package tracking

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// Needs is what Decide must be given for a command.
type Needs struct {
	Events []event.Offset // to be read for Context.Past
	Runs   []event.Offset // of these, the closed runs that the command may name; for Context.Runs
}

// Needs tells what Decide must be given: the closed runs that the command may
// name, and the event that an idempotency key was used for. What was sealed is
// looked up in sealed, whose error it gives.
func (s *State) Needs(in Input, sealed Sealed) (Needs, error) { return in.needs(s, sealed) }

func (c *Command) needs(s *State, sealed Sealed) (out Needs, err error) {
	t, known := s.triple(c)
	if k := keyOf(c, t); known && k.invoke != "" {
		if _, open := s.byRun[k]; !open {
			if out.Runs, err = s.closedUnder(k.hash(), sealed); err != nil {
				return Needs{}, err
			}
		}
	}
	out.Events = out.Runs
	if use, ok := s.keyUse(c.Account, c.IdempotencyKey); ok {
		out.Events = append(slices.Clip(out.Events), use.offset)
	}
	return out, nil
}

// Decide says what follows from a command. It changes nothing.
//
// The order is that of contract 1.13: idempotency, then the version's commit,
// then the rules. Errors are faults: of kind Conflict with code
// VERSION_SHA_MISMATCH, Unprocessable with IDEMPOTENCY_KEY_REUSED, Unavailable
// where too many idempotency keys are in use. A start that a rule refuses is
// no error: it is decided, recorded, and told by Refusal.
//
// For a Change they are also of kind NotFound, Forbidden with NOT_OWNER, and
// Conflict with the codes of its kind.
func Decide(s *State, in Input, k Context) (Decision, error) { return in.decide(s, k) }

// An Input is what can be decided: a *Command or a *Change.
type Input interface {
	needs(s *State, sealed Sealed) (Needs, error)
	decide(s *State, k Context) (Decision, error)
}

func (c *Command) decide(s *State, k Context) (Decision, error) {
	if d, done, err := s.decideByKey(c.Account, c.IdempotencyKey, c.BodyHash, k); done || err != nil {
		return d, err
	}
	d := decider{s: s, c: c, k: k, next: k.Next}
	d.resolve()
	if out, ok := d.duplicate(); ok {
		return out, nil
	}
	if err := d.checkCommit(); err != nil {
		return Decision{}, err
	}
	refusal, conflict := d.preflight()
	if refusal != nil {
		if out, ok := d.refusedBefore(refusal, conflict); ok {
			return out, nil
		}
	}
	d.createUnknown()
	return d.report(refusal, conflict), nil
}

func (s *State) keyUse(account, key string) (keyUse, bool) {
	if key == "" {
		return keyUse{}, false
	}
	use, ok := s.keys[idempotencyKey{account, key}]
	return use, ok
}

func (s *State) decideByKey(account, key string, body uint64, k Context) (Decision, bool, error) {
	if key == "" {
		return Decision{}, false, nil
	}
	use, ok := s.keyUse(account, key)
	switch {
	case ok && k.Now.Sub(use.at) <= keyMemory && use.body != body:
		return Decision{}, false, fault.New(fault.Unprocessable, "IDEMPOTENCY_KEY_REUSED",
			"this idempotency key was used for another body").WithHint("Use a new key for every event.")
	case ok && k.Now.Sub(use.at) <= keyMemory:
		past := k.Past[use.offset]
		out := Decision{Record: &event.Record{}, EventID: past.ID, Offset: use.offset, Duplicate: true}
		switch p := past.Payload.(type) {
		case nil:
			return Decision{}, false, nil
		case *event.Run:
			out.Record = &p.Record
		default:
			out.Object = p
		}
		return out, true, nil
	case len(s.keys) >= maxKeys:
		return Decision{}, false, fault.New(fault.Unavailable, "TOO_MANY_IDEMPOTENCY_KEYS",
			"too many idempotency keys are in use; try again later")
	}
	return Decision{}, false, nil
}

// decider holds one decision while it is made.
type decider struct {
	s *State
	c *Command
	k Context

	versionID            event.VersionID
	version              version
	triple               tripleKey
	product, environment named
	newVersion           bool

	run    *run // the run that the command belongs to; nil for a new one
	next   event.Offset
	events []event.Event
}

// triple names what the command is about; known is false where the product or
// the environment does not exist yet.
func (s *State) triple(c *Command) (t tripleKey, known bool) {
	p, e := s.names(c)
	return tripleOfNames(c, p, e), p.living != nil && (c.Kind == event.Build || e.living != nil)
}

// names gives the product and, of a deployment, the environment of a command.
func (s *State) names(c *Command) (product, environment named) {
	product = s.products.find(c.Account, c.ProductName, deriveProduct)
	if c.Kind == event.Deployment {
		environment = s.environments.find(c.Account, c.EnvironmentName, deriveEnvironment)
	}
	return product, environment
}

func tripleOfNames(c *Command, p, e named) tripleKey {
	return tripleKey{kind: c.Kind, version: c.Version, cell: cellKey{
		event.ProductID(p.id), p.incarnation, event.EnvironmentID(e.id), e.incarnation,
	}}
}

func keyOf(c *Command, t tripleKey) runKey {
	k := runKey{triple: t, invoke: c.Attributes[event.InvokeID]}
	// Most events have no such member, and decoding an object costs as much as
	// the rest of a decision. A name may be written with escapes.
	if k.invoke != "" && (bytes.Contains(c.Extra, runAttemptBytes) || bytes.IndexByte(c.Extra, '\\') >= 0) {
		k.attempt = string(c.members()[runAttemptMetadata])
	}
	return k
}

var runAttemptBytes = []byte(runAttemptMetadata)

func (d *decider) resolve() {
	c, s := d.c, d.s
	d.product, d.environment = s.names(c)
	d.triple = tripleOfNames(c, d.product, d.environment)
	var ok bool
	d.versionID = event.VersionIDOf(c.Account, d.triple.cell.product, c.Version)
	d.version, ok = s.versions.of(versionKey{d.versionID, d.triple.cell.productIncarnation})
	d.newVersion = !ok
	d.run = d.correlate()
}

// correlate finds the command's run (contract 11.1): by its run id among open
// and closed ones; without a run id, the newest open one of the triple.
func (d *decider) correlate() *run {
	k := keyOf(d.c, d.triple)
	if k.invoke == "" {
		open := d.s.byTriple[d.triple]
		if len(open) == 0 {
			return nil
		}
		return d.s.open[open[len(open)-1]]
	}
	if id, ok := d.s.byRun[k]; ok {
		return d.s.open[id]
	}
	for _, o := range d.k.Runs {
		past, ok := d.k.Past[o]
		if p, isRun := past.Payload.(*event.Run); ok && isRun && runKeyOf(&p.Record) == k {
			return &run{&p.Record, past.ID, o}
		}
	}
	return nil
}

// duplicate answers what an earlier event already said (contract 4.3, 4.4).
func (d *decider) duplicate() (Decision, bool) {
	if d.run == nil {
		return Decision{}, false
	}
	r := d.run.record
	if d.remembers(d.c.Status, r) {
		for _, x := range r.Receipts {
			if x.Hash == d.c.Hash {
				return Decision{Record: r, EventID: x.Event, Offset: x.Offset, Duplicate: true}, true
			}
		}
	}
	if d.c.Backfill && r.Seen.Has(d.c.Status) {
		return Decision{Record: r, EventID: d.run.event, Offset: d.run.offset, Duplicate: true}, true
	}
	return Decision{}, false
}

// remembers tells whether a run keeps the hash of an event, so that the same
// bytes sent again are recognised: always with a run id, otherwise only while
// the run is open.
func (d *decider) remembers(reported event.Status, r *event.Record) bool {
	return r.Attributes[event.InvokeID] != "" || !reported.Terminal()
}

// checkCommit holds a version to the commit that it was first built from
// (contract 10): builds always, deployments where the account says so.
func (d *decider) checkCommit() error {
	sha := d.c.Attributes[event.SCMSHA]
	strict := d.c.Kind == event.Build || !d.c.Backfill && d.s.setting(d.c.Account).DeploymentSHAStrict
	if !strict || sha == "" || !d.version.fixed || SameSHA(sha, d.version.sha) {
		return nil
	}
	return fault.New(fault.Conflict, "VERSION_SHA_MISMATCH", "Version %s already exists with different SHA", d.c.Version)
}

// SameSHA tells whether two forms name one commit: the shorter, of seven
// characters or more, begins the longer; shorter ones must be equal.
func SameSHA(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(a) < 7 {
		return a == b
	}
	return strings.HasPrefix(b, a)
}

// refusedBefore recognises a refused start that is sent again byte for byte and
// refused again by the same rule: it is not recorded twice (contract 4.3).
func (d *decider) refusedBefore(refusal *event.Refusal, conflict *event.Record) (Decision, bool) {
	before, ok := d.s.refused[d.c.Hash]
	if !ok || before.code != refusal.Code || tripleOf(before.record) != d.triple || d.k.Now.Sub(before.at) > refusalMemory {
		return Decision{}, false
	}
	return Decision{
		Record: before.record, EventID: before.event, Offset: before.offset,
		Duplicate: true, Refusal: refusal, Conflict: conflict,
	}, true
}

func (d *decider) emit(typ event.Type, subject string, p event.Payload) *event.Event {
	d.events = append(d.events, event.Event{
		ID: d.k.NewID(), Account: d.c.Account, Type: typ, Subject: subject, Time: d.k.Now,
		Author: d.c.Author, Backfilled: d.c.Backfill, Payload: p,
	})
	d.next++
	return &d.events[len(d.events)-1]
}

// createUnknown makes what the command names for the first time, and fixes the
// version's commit where a build tells it.
func (d *decider) createUnknown() {
	c, cell := d.c, d.triple.cell
	if d.product.living == nil {
		d.emit(event.ProductCreated, cell.product.String(), &event.Product{
			ID: cell.product, Name: c.ProductName, Incarnation: cell.productIncarnation, CreatedAt: d.k.Now,
		})
	}
	if c.Kind == event.Deployment && d.environment.living == nil {
		d.emit(event.EnvironmentCreated, cell.environment.String(), &event.Environment{
			ID: cell.environment, Name: c.EnvironmentName, Class: event.ClassOf(c.EnvironmentName),
			Incarnation: cell.environmentIncarnation, CreatedAt: d.k.Now,
		})
	}
	sha := c.Attributes[event.SCMSHA]
	fixes := c.Kind == event.Build && sha != "" && (!d.version.fixed || len(sha) > len(d.version.sha))
	if !d.newVersion && !fixes {
		return
	}
	v := &event.Version{
		ID: d.versionID, ProductID: cell.product, ProductName: d.product.name, Version: c.Version,
		Incarnation: cell.productIncarnation, SHA: sha, SHAFixed: fixes, CreatedAt: d.k.Now,
	}
	if d.newVersion {
		d.emit(event.VersionCreated, v.ID.String(), v)
	} else {
		v.CreatedAt = time.UnixMilli(d.version.created).UTC()
		d.emit(event.VersionSHAFixed, v.ID.String(), v)
	}
	if fixes {
		d.version.sha, d.version.fixed = sha, true
	}
}

// report merges the command into its run and tells it as an event.
func (d *decider) report(refusal *event.Refusal, conflict *event.Record) Decision {
	c := d.c
	status := c.Status
	if refusal != nil {
		status = event.PreflightFailed
	}
	p, flag := &event.Run{}, ""
	rec := &p.Record
	if d.run == nil {
		*rec = d.newRecord()
	} else {
		*rec = *d.run.record
		rec.ProductName, rec.EnvironmentName = d.product.name, d.environment.name
		if rec.Status.Terminal() && status.Terminal() && status != rec.Status {
			flag = event.FlagSecondTerminal
		}
	}
	if d.skips() && d.ruled() {
		flag = event.FlagPreflightSkipped
	}
	at := d.next
	effective := merge(rec, c, status, d.k.Now, at)
	if rec.Kind == event.Deployment {
		sha := rec.Attributes[event.SCMSHA]
		rec.SHAMismatch = sha != "" && d.version.fixed && !SameSHA(sha, d.version.sha)
	}
	p.Request, p.Asked, p.AskedExtra, p.EffectiveAt, p.Flag, p.Refusal = c.Body, c.Asked, c.Members, effective, flag, refusal
	e := d.emit(event.TypeOf(c.Kind, status), rec.ID.String(), p)
	if d.remembers(status, rec) || refusal != nil {
		p.Hash = c.Hash
		receipts := slices.Concat(rec.Receipts, []event.Receipt{{Hash: p.Hash, Event: e.ID, Offset: at}})
		rec.Receipts = receipts[max(0, len(receipts)-event.MaxReceipts):]
	}
	if c.IdempotencyKey != "" {
		e.IdempotencyKey, e.BodyHash = c.IdempotencyKey, c.BodyHash
	}
	return Decision{Events: d.events, Record: rec, EventID: e.ID, Offset: at, Refusal: refusal, Conflict: conflict}
}

func (d *decider) newRecord() event.Record {
	c, cell := d.c, d.triple.cell
	rec := event.Record{
		Kind: c.Kind, Account: c.Account,
		ProductID: cell.product, ProductName: d.product.name, ProductIncarnation: cell.productIncarnation,
		EnvironmentID: cell.environment, EnvironmentName: d.environment.name, EnvironmentIncarnation: cell.environmentIncarnation,
		VersionID: d.versionID, Version: c.Version, CreatedAt: d.k.Now,
	}
	if c.Backfill {
		rec.ID = backfillID(c, d.k.Now)
	} else {
		rec.ID = d.k.NewID()
	}
	return rec
}

// backfillID derives the id of a run that is loaded as history (contract 4.4),
// so that loading it again, anywhere and at any time, names the same run.
func backfillID(c *Command, now time.Time) ulid.ULID {
	at := now
	if !c.StartedAt.IsZero() {
		at = c.StartedAt
	} else if !c.CompletedAt.IsZero() {
		at = c.CompletedAt
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{
		c.Account, c.ProductName, c.EnvironmentName, c.Version, c.Attributes[event.InvokeID],
	}, "\x00")))
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(at)) // times from 1970 to 9999 always fit
	copy(id[6:], sum[:10])
	return id
}
