package ingest

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// lenient reads bodies as package httpapi checks them.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// managing gives the handlers of what is decided on the log and is no event of
// a pipeline. It needs no read model.
func (s *Service) managing() httpapi.Handlers {
	return httpapi.Handlers{
		"createRelease":     s.create(readRelease),
		"updateRelease":     s.update(readReleasePatch),
		"addReleaseVersion": s.addReleaseVersion, "removeReleaseVersion": s.removeReleaseVersion,
		"getSettings":       s.getSettings,
		"updateSettings":    s.updateSettings,
		"createProduct":     s.create(readProduct),
		"updateProduct":     s.update(readProductPatch),
		"deleteProduct":     s.remove("product", func(id uuid.UUID) tracking.Action { return tracking.DeleteProduct{ID: event.ProductID(id)} }),
		"createEnvironment": s.create(readEnvironment),
		"updateEnvironment": s.update(readEnvironmentPatch),
		"deleteEnvironment": s.remove("environment", func(id uuid.UUID) tracking.Action {
			return tracking.DeleteEnvironment{ID: event.EnvironmentID(id)}
		}),
	}
}

// productWire is a body about a product, checked by its schema.
type productWire struct {
	Name          string         `json:"name"`
	Description   string         `json:"description"`
	ExtraMetadata jsontext.Value `json:"extra_metadata"`
}

// environmentWire is a body about an environment, checked by its schema.
type environmentWire struct {
	Name             string         `json:"name"`
	Type             string         `json:"type"`
	Description      string         `json:"description"`
	Metadata         jsontext.Value `json:"metadata"`
	ExtraMetadata    jsontext.Value `json:"extra_metadata"`
	ConcurrencyLimit uint16         `json:"concurrency_limit"`
	StaleAfter       int            `json:"stale_after"` // minutes
}

// class gives the type that was asked for; nil where none was.
func (w *environmentWire) class() *event.Class {
	switch w.Type {
	case "":
		return nil
	case "other":
		c := event.Other
		return &c
	}
	c, _ := event.ParseClass(w.Type) // checked
	return &c
}

func (w *environmentWire) extra() []byte {
	if extra := objectIn(w.Metadata); extra != nil {
		return extra
	}
	return objectIn(w.ExtraMetadata)
}

func readProduct(body []byte) (tracking.Action, error) {
	w, err := wire[productWire](body)
	return tracking.CreateProduct{Name: w.Name, Description: w.Description, Extra: objectIn(w.ExtraMetadata)}, err
}

func readProductPatch(_ *httpapi.Request, id string, body []byte) (tracking.Action, error) {
	of, err := derivedID("product", id)
	if err != nil {
		return nil, err
	}
	w, err := wire[productWire](body)
	return tracking.UpdateProduct{
		ID: event.ProductID(of), Name: asked(w.Name), Description: asked(w.Description), Extra: objectIn(w.ExtraMetadata),
	}, err
}

func readEnvironment(body []byte) (tracking.Action, error) {
	w, err := wire[environmentWire](body)
	return tracking.CreateEnvironment{
		Name: w.Name, Class: w.class(), Description: w.Description, Extra: w.extra(),
		ConcurrencyLimit: w.ConcurrencyLimit, StaleAfter: time.Duration(w.StaleAfter) * time.Minute,
	}, err
}

func readEnvironmentPatch(_ *httpapi.Request, id string, body []byte) (tracking.Action, error) {
	of, err := derivedID("environment", id)
	if err != nil {
		return nil, err
	}
	w, err := wire[environmentWire](body)
	return tracking.UpdateEnvironment{
		ID: event.EnvironmentID(of), Name: asked(w.Name), Class: w.class(), Description: asked(w.Description), Extra: w.extra(),
		ConcurrencyLimit: asked(w.ConcurrencyLimit), StaleAfter: asked(time.Duration(w.StaleAfter) * time.Minute),
	}, err
}

// derivedID reads the id in a path; no object has an id of another form.
func derivedID(kind, id string) (uuid.UUID, error) {
	of, err := uuid.Parse(id)
	if err != nil {
		return of, httpapi.NotFound(kind)
	}
	return of, nil
}

func wire[W any](body []byte) (w W, err error) {
	if json.Unmarshal(body, &w, lenient) != nil {
		err = httpapi.InvalidJSON()
	}
	return w, err
}

// asked is nil for what counts as absent (contract 1.8).
func asked[T comparable](v T) *T {
	var none T
	if v == none {
		return nil
	}
	return &v
}

// objectIn gives a JSON object without white space; nil for anything else.
func objectIn(v jsontext.Value) []byte {
	if len(v) == 0 || v.Kind() != '{' {
		return nil
	}
	return compact(v)
}

// create answers 201 with what was made.
func (s *Service) create(read func(body []byte) (tracking.Action, error)) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		body, err := s.body(r)
		if err != nil {
			return err
		}
		action, err := read(body)
		if err != nil {
			return err
		}
		d, err := s.change(w, r, action, body)
		if err != nil {
			return err
		}
		return r.JSON(http.StatusCreated, shown(d.Object))
	}
}

// update answers 200 with what it became.
func (s *Service) update(read func(r *httpapi.Request, id string, body []byte) (tracking.Action, error)) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		body, err := s.body(r)
		if err != nil {
			return err
		}
		action, err := read(r, r.PathValue("id"), body)
		if err != nil {
			return err
		}
		d, err := s.change(w, r, action, body)
		if err != nil {
			return err
		}
		return r.JSON(http.StatusOK, shown(d.Object))
	}
}

// remove answers 204.
func (s *Service) remove(kind string, action func(uuid.UUID) tracking.Action) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		id, err := derivedID(kind, r.PathValue("id"))
		if err != nil {
			return err
		}
		if _, err := s.change(w, r, action(id), nil); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

// body reads a body that its schema says everything about. No secret that
// somebody wrote into it is kept (contract 21).
func (s *Service) body(r *httpapi.Request) ([]byte, error) {
	body, err := r.ReadJSON()
	if err != nil {
		return nil, err
	}
	faults, err := s.spec.CheckBody(r.Operation.Body, body)
	if err != nil {
		return nil, err
	}
	if len(faults) > 0 {
		return nil, &httpapi.ValidationError{Faults: faults}
	}
	return credential.RedactIn(body), nil
}

// change hands in an action and waits until it is decided and durable.
func (s *Service) change(w http.ResponseWriter, r *httpapi.Request, action tracking.Action, body []byte) (tracking.Decision, error) {
	key, err := idempotencyKey(r)
	if err != nil {
		return tracking.Decision{}, err
	}
	c := &tracking.Change{
		Account: r.Identity.Account, Author: r.Identity.Author(), Action: action,
		BodyHash: changeHash(r.Operation.ID, r.PathValue("id")+"/"+r.PathValue("version_id"), body), IdempotencyKey: string(credential.RedactIn([]byte(key))),
	}
	results, err := s.committer(r.Identity.Account).Submit(r.Context(), []tracking.Input{c}, r.Reverify)
	if err != nil {
		return tracking.Decision{}, err
	}
	out := results[0]
	if out.Err != nil {
		return out.Decision, s.orNotOwner(r, c, out.Err)
	}
	w.Header()[httpapi.PositionHeader] = []string{out.Position.String()}
	return out.Decision, nil
}

// orNotOwner tells an object of another account from one that exists nowhere, for
// which the partition of the caller takes what is in another one.
func (s *Service) orNotOwner(r *httpapi.Request, c *tracking.Change, err error) error {
	if fault.KindOf(err) != fault.NotFound {
		return err
	}
	for _, committer := range s.committers {
		if committer == s.committer(c.Account) {
			continue
		}
		results, unknown := committer.Submit(r.Context(), []tracking.Input{tracking.Trial{Change: c}}, r.Reverify)
		if unknown == nil && fault.KindOf(results[0].Err) == fault.Forbidden {
			return results[0].Err
		}
	}
	return err
}

// changeHash stands for what an idempotency key may be used for once. It is
// stable and never zero.
func changeHash(operation, object string, body []byte) uint64 {
	h := sha256.New()
	_, _ = h.Write([]byte(operation + "\x00" + object + "\x00"))
	_, _ = h.Write(body)
	var sum [sha256.Size]byte
	return max(1, binary.BigEndian.Uint64(h.Sum(sum[:0])))
}

// shown is an object as answers show it.
func shown(p event.Payload) any {
	switch p := p.(type) {
	case *event.Product:
		return httpapi.ProductOf(p)
	case *event.Release:
		return httpapi.ReleaseOf(p)
	case *event.Settings:
		return p
	case *event.Environment:
		return httpapi.EnvironmentOf(p)
	}
	panic("an object that nobody shows was decided")
}
