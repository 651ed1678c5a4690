package compose

import (
	"context"
	"time"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

const healthTimeout = time.Second

// The parts of health that everything hangs on.
const (
	PartLog       = "log"
	PartKeys      = "keys"
	PartReadModel = "read_model"
)

// health knows how the parts of a process feel. What is wrong with them stands in
// the logs; the public answer names the part.
type health struct {
	version, durability string
	checks              []Check
}

func (h *health) check(r *httpapi.Request) httpapi.Health {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	parts := map[string]string{}
	for _, c := range h.checks {
		switch err := c.Ask(ctx); {
		case err == nil:
			parts[c.Part] = httpapi.HealthOK
		case c.Mild:
			parts[c.Part] = httpapi.HealthDegraded
		default:
			parts[c.Part] = httpapi.HealthUnavailable
		}
	}
	return httpapi.Health{Status: Overall(parts), Version: h.version, Durability: h.durability, Parts: parts}
}

// Overall gives the word for a whole, of one process or of all, out of those for
// its parts: it is unavailable where it lets nobody in, or where it neither writes
// nor reads of what it is there for.
func Overall(parts map[string]string) string {
	serves, able := false, false
	for _, part := range []string{PartLog, PartReadModel} {
		if word, ok := parts[part]; ok {
			serves = true
			able = able || word == httpapi.HealthOK
		}
	}
	if parts[PartKeys] == httpapi.HealthUnavailable || serves && !able {
		return httpapi.HealthUnavailable
	}
	for _, word := range parts {
		if word != httpapi.HealthOK {
			return httpapi.HealthDegraded
		}
	}
	return httpapi.HealthOK
}

func errorOf(ask func() error) func(context.Context) error {
	return func(context.Context) error { return ask() }
}
