package compose

import (
	"context"
	"time"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

const healthTimeout = time.Second

// health knows how the parts of a process feel. What is wrong with them stands in
// the logs; the public answer names the part.
type health struct {
	version, durability string
	checks              []Check
}

// ServeHealth makes the handler of getHealth from checks.
func ServeHealth(version, durability string, checks ...Check) httpapi.Handler {
	h := &health{version: version, durability: durability, checks: checks}
	return httpapi.ServeHealth(h.check)
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
	return httpapi.Health{Status: httpapi.OverallHealth(parts), Version: h.version, Durability: h.durability, Parts: parts}
}

func errorOf(ask func() error) func(context.Context) error {
	return func(context.Context) error { return ask() }
}
