package credential

import (
	"fmt"

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
	data := append(o.Data[:len(o.Data)-1:len(o.Data)-1], `,"change":`...)
	o.Data = append(append(data, change...), '}')
	e.Payload = o
	return nil
}
