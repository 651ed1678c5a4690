package tracking_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/tracking"
)

func (l *ledger) change(a tracking.Action) (tracking.Decision, error) {
	l.t.Helper()
	l.now = l.now.Add(time.Second)
	return l.decide(&tracking.Change{
		Account: "acme", Author: event.Author{CredentialID: "p", CredentialName: "person", Mode: event.Live}, Action: a, BodyHash: 1,
	})
}

// thing is a product or an environment in the plain model.
type thing struct {
	id          string
	name        string
	incarnation int
	deleted     bool
}

// catalog is the plain model of contract 2: names mean things, and things may
// be deleted and begin again.
type catalog struct {
	names  map[string]*thing
	things []*thing
}

// said is what happens to a name that an event says.
func (c *catalog) said(name, derived string) *thing {
	o := c.names[name]
	if o == nil {
		o = &thing{id: derived, name: name}
		c.names[name], c.things = o, append(c.things, o)
	}
	if o.deleted {
		o.deleted, o.name = false, name
		o.incarnation++
	}
	return o
}

func (c *catalog) taken(name string, by *thing) bool {
	o := c.names[name]
	return o != nil && o != by && !o.deleted
}

func (c *catalog) find(id string) *thing {
	for _, o := range c.things {
		if o.id == id {
			return o
		}
	}
	return nil
}

func code(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// TestRenamesAndDeletionsAreAsInAPlainModel draws commands in any order and
// holds each decision to the model: what it is about, whether it is allowed, and
// whether anything of a deleted incarnation binds or blocks it. Contract 2.
func TestRenamesAndDeletionsAreAsInAPlainModel(t *testing.T) {
	words := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger(t)
		products, environments := catalog{names: map[string]*thing{}}, catalog{names: map[string]*thing{}}
		started := map[string]bool{} // by cell
		fixed := map[string]string{} // commits by product, incarnation and version
		expect := func(what string, err error, want string) {
			if code(err) != want {
				t.Fatalf("%s: %q (%v), want %q", what, code(err), err, want)
			}
		}
		for i := range rapid.IntRange(1, 40).Draw(t, "commands") {
			name, other := rapid.SampledFrom(words).Draw(t, "name"), rapid.SampledFrom(words).Draw(t, "other name")
			productID, environmentID := event.ProductIDOf("acme", name), event.EnvironmentIDOf("acme", name)
			switch what := rapid.SampledFrom([]string{"start", "start", "build", "build", "create", "rename", "delete", "create env", "rename env", "delete env"}).Draw(t, "what"); what {
			case "build":
				sha := rapid.SampledFrom([]string{"1111111", "2222222"}).Draw(t, "sha")
				l.now = l.now.Add(time.Second)
				d, err := l.decide(command(build("success", fields{"product_name": name, "version": "1", "scm_sha": sha})))
				o := products.names[name]
				if o != nil && !o.deleted {
					if had := fixed[fmt.Sprint(o.id, o.incarnation)]; had != "" && had != sha {
						expect(what, err, "VERSION_SHA_MISMATCH")
						continue
					}
				}
				expect(what, err, "")
				o = products.said(name, productID.String())
				fixed[fmt.Sprint(o.id, o.incarnation)] = sha
				if got := fmt.Sprint(d.Record.ProductID, d.Record.ProductName, d.Record.ProductIncarnation); got != fmt.Sprint(o.id, o.name, o.incarnation) {
					t.Fatalf("a build of %s is of %s, want %+v", name, got, *o)
				}
			case "start":
				l.now = l.now.Add(time.Second)
				d, err := l.decide(command(deployment("started", fields{"product_name": name, "environment_name": other, "version": "1", "invoke_id": fmt.Sprint(i)})))
				expect(what, err, "")
				p, e := products.said(name, productID.String()), environments.said(other, event.EnvironmentIDOf("acme", other).String())
				cell := fmt.Sprint(p.id, p.incarnation, e.id, e.incarnation)
				if blocked := d.Refusal != nil; blocked != started[cell] {
					t.Fatalf("a start of %s in %s: refused %v, want %v", name, other, blocked, started[cell])
				}
				started[cell] = true
				got := fmt.Sprint(d.Record.ProductID, d.Record.ProductName, d.Record.EnvironmentID, d.Record.EnvironmentName)
				if got != fmt.Sprint(p.id, p.name, e.id, e.name) {
					t.Fatalf("a start of %s in %s is of %s, want %+v %+v", name, other, got, *p, *e)
				}
			default:
				of, id := &products, productID.String()
				actions := map[string]tracking.Action{
					"create": tracking.CreateProduct{Name: name}, "rename": tracking.UpdateProduct{ID: productID, Name: &other}, "delete": tracking.DeleteProduct{ID: productID},
					"create env": tracking.CreateEnvironment{Name: name}, "rename env": tracking.UpdateEnvironment{ID: environmentID, Name: &other}, "delete env": tracking.DeleteEnvironment{ID: environmentID},
				}
				d, err := l.change(actions[what])
				if len(what) > len("rename") {
					of, id = &environments, environmentID.String()
				}
				o := of.find(id)
				switch {
				case what == "create" || what == "create env":
					if of.taken(name, nil) {
						expect(what, err, "NAME_IN_USE")
						continue
					}
					o = of.said(name, id)
				case o == nil || o.deleted:
					expect(what, err, "NOT_FOUND")
					continue
				case what == "rename" || what == "rename env":
					if of.taken(other, o) {
						expect(what, err, "NAME_IN_USE")
						continue
					}
					o.name, of.names[other] = other, o
				default:
					o.deleted = true
				}
				expect(what, err, "")
				got := ""
				switch p := d.Object.(type) {
				case *event.Product:
					got = fmt.Sprint(p.ID, p.Name, p.Incarnation, p.Deleted)
				case *event.Environment:
					got = fmt.Sprint(p.ID, p.Name, p.Incarnation, p.Deleted)
				}
				if got != fmt.Sprint(o.id, o.name, o.incarnation, o.deleted) {
					t.Fatalf("%s %s %s leaves %s, want %+v", what, name, other, got, *o)
				}
			}
		}
		folded := newLedger(t)
		folded.state.Begin()
		mark := folded.state.Mark()
		for range 2 { // also after all of it was rolled back
			folded.state.RollbackTo(mark)
			for _, r := range l.events {
				folded.state.Apply(r)
			}
		}
		if diff := cmp.Diff(l.state.Sizes(), folded.state.Sizes()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestAChangeThatChangesNothingIsNoEvent(t *testing.T) {
	l := newLedger(t)
	made, err := l.change(tracking.CreateProduct{Name: "svc", Description: "d", Extra: []byte(`{"a":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	id, name, description := event.ProductIDOf("acme", "svc"), "svc", "d"
	again, err := l.change(tracking.UpdateProduct{ID: id, Name: &name, Description: &description, Extra: []byte(`{"a":1}`)})
	if err != nil || len(again.Events) > 0 || again.Offset != made.Offset || again.EventID != made.EventID {
		t.Errorf("%+v, %v; want what the first event left", again, err)
	}
	if diff := cmp.Diff(made.Object, again.Object); diff != "" {
		t.Error(diff)
	}
}

func TestARenameThatSaysMoreIsTwoEvents(t *testing.T) {
	l := newLedger(t)
	l.post(deployment("success", nil))
	id, name, description := event.EnvironmentIDOf("acme", "production"), "live", "d"
	if _, err := l.change(tracking.UpdateEnvironment{ID: id, Name: &name, Description: &description}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"environment.renamed", "environment.updated"}, l.types()[len(l.events)-2:]); diff != "" {
		t.Error(diff)
	}
	same(t, "environment", l.post(deployment("success", nil)).Record.EnvironmentName, "live")
}
