package tracking_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// ledger decides commands one by one and keeps what followed, as a committer
// with frames of one command would. Every event goes through its written form.
type ledger struct {
	t      fataler
	state  *tracking.State
	now    time.Time
	seq    uint64
	ids    uint64
	events []event.Recorded
	frames map[uint64][]event.Recorded
	sealed parts
}

// parts are what was sealed.
type parts []*tracking.Part

func (p parts) Lookup(hash uint64) (out []event.Offset, _ error) {
	for _, part := range p {
		out = append(out, part.Lookup(hash)...)
	}
	return out, nil
}

var epoch = time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func newLedger(t fataler) *ledger {
	return &ledger{t: t, state: tracking.NewState(), now: epoch, frames: map[uint64][]event.Recorded{}}
}

// fields are the members of a body.
type fields map[string]any

func deployment(status string, more fields) fields {
	f := fields{"product_name": "svc", "version": "1.2.3", "environment_name": "production", "status": status}
	maps.Copy(f, more)
	return f
}

func build(status string, more fields) fields {
	f := fields{"product_name": "svc", "version": "1.2.3", "status": status}
	maps.Copy(f, more)
	return f
}

// command parses a body as the border does.
func command(f fields) *tracking.Command {
	body, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	r, err := event.DecodeRequest(body)
	if err != nil {
		panic(err)
	}
	c := &tracking.Command{
		Account: "acme", Author: event.Author{CredentialID: "k1", CredentialName: "ci", Mode: event.Live},
		Kind: event.Build, ProductName: r.ProductName, Version: r.Version, EnvironmentName: r.EnvironmentName,
		SkipPreflight: r.SkipPreflightChecks, Body: body, Extra: r.ExtraMetadata,
	}
	if r.EnvironmentName != "" {
		c.Kind = event.Deployment
	}
	c.Status, _ = event.ParseStatus(r.Status)
	c.Attributes = r.Attributes(c.Kind)
	c.StartedAt, c.CompletedAt = instant(r.StartedAt), instant(r.CompletedAt)
	h := fnv.New64a()
	_, _ = h.Write(body)
	c.Hash, c.BodyHash = max(1, h.Sum64()), max(1, h.Sum64())
	return c
}

func instant(s string) time.Time {
	t, _ := event.ParseTime(s)
	return t
}

// decide decides and keeps what follows.
func (l *ledger) decide(c tracking.Input) (tracking.Decision, error) {
	l.t.Helper()
	past := tracking.PastEvents{}
	needs, err := l.state.Needs(c, l.sealed)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, o := range needs.Events {
		past[o] = l.frames[o.Seq()][o.Index()]
	}
	d, err := tracking.Decide(l.state, c, tracking.Context{
		Now: l.now, Next: event.At(l.seq+1, 0), Past: past, Runs: needs.Runs, NewID: l.newID,
	})
	if err != nil || len(d.Events) == 0 {
		return d, err
	}
	l.seq++
	recorded, err := event.DecodeFrame("t0", l.seq, event.AppendFrame(nil, l.seq, d.Events))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, r := range recorded {
		l.state.Apply(r)
	}
	switch written := recorded[len(recorded)-1].Payload.(type) {
	case *event.Run:
		if diff := cmp.Diff(d.Record, &written.Record, cmpopts.EquateEmpty()); diff != "" {
			l.t.Fatalf("the record is read back differently: %s", diff)
		}
	default:
		if diff := cmp.Diff(d.Object, written, cmpopts.EquateEmpty()); diff != "" {
			l.t.Fatalf("the object is read back differently: %s", diff)
		}
	}
	l.frames[l.seq] = recorded
	l.events = append(l.events, recorded...)
	return d, nil
}

func (l *ledger) newID() ulid.ULID {
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(l.now))
	l.ids++
	for i := range 8 {
		id[15-i] = byte(l.ids >> (8 * i))
	}
	return id
}

// post decides a body that must be accepted.
func (l *ledger) post(f fields) tracking.Decision {
	l.t.Helper()
	d, err := l.decide(command(f))
	if err != nil {
		l.t.Fatalf("%v: %v", f, err)
	}
	if d.Refusal != nil {
		l.t.Fatalf("%v: refused: %s", f, d.Refusal.Message)
	}
	return d
}

// refuse decides a body that a rule must refuse.
func (l *ledger) refuse(f fields) tracking.Decision {
	l.t.Helper()
	d, err := l.decide(command(f))
	if err != nil {
		l.t.Fatalf("%v: %v", f, err)
	}
	if d.Refusal == nil {
		l.t.Fatalf("%v: accepted", f)
	}
	return d
}

func (l *ledger) after(d time.Duration) *ledger {
	l.now = l.now.Add(d)
	return l
}

func (l *ledger) types() []string {
	out := []string{}
	for _, e := range l.events {
		out = append(out, string(e.Type))
	}
	return out
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}
