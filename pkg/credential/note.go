package credential

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/shipledger/shipledger/pkg/event"
)

// A Note says from where a change was asked for, and why. It stands beside what
// the event leaves behind, and no decision looks at it.
type Note struct {
	From   string `json:"from,omitzero"`   // the client's address
	Reason string `json:"reason,omitzero"` // in the words of whoever asked
}

// On puts the note into an event of this package.
func (n Note) On(e *event.Event) error {
	o, ok := e.Payload.(event.Opaque)
	if !ok || n == (Note{}) {
		return nil
	}
	n.Reason = string(RedactIn([]byte(n.Reason)))
	change, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("note a change: %w", err)
	}
	object := o.Data[:len(o.Data)-1] // without its closing brace
	o.Data = slices.Concat(object, []byte(`,"change":`), change, []byte("}"))
	e.Payload = o
	return nil
}
