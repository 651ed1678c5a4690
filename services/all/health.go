package all

import (
	"context"
	"time"

	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

const healthTimeout = time.Second

type healthy interface{ Healthy() error }

type project interface {
	healthy
	Quarantine() error
}

// health knows how the parts feel. What is wrong with them stands in the logs;
// the public answer names the part.
type health struct {
	version, durability string
	log, keys           healthy
	projector           project
	ledger              healthy
	model               readmodel.Reader
}

func (h *health) check(r *httpapi.Request) httpapi.Health {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	_, modelErr := h.model.AsOf(ctx)
	logErr, keysErr, projectorErr, ledgerErr := h.log.Healthy(), h.keys.Healthy(), h.projector.Healthy(), h.ledger.Healthy()
	out := httpapi.Health{Status: httpapi.HealthOK, Version: h.version, Durability: h.durability, Parts: map[string]string{
		"log": word(logErr), "keys": word(keysErr), "read_model": word(modelErr), "projector": word(projectorErr),
		"ledger": httpapi.HealthOK, "quarantine": httpapi.HealthOK,
	}}
	quarantineErr := h.projector.Quarantine()
	if quarantineErr != nil {
		out.Parts["quarantine"] = httpapi.HealthDegraded // as is the ledger without those events
	}
	if ledgerErr != nil {
		out.Parts["ledger"] = httpapi.HealthDegraded // it answers, but not for every event
	}
	switch {
	case keysErr != nil || logErr != nil && modelErr != nil:
		out.Status = httpapi.HealthUnavailable // neither writes nor reads
	case logErr != nil || modelErr != nil || projectorErr != nil || ledgerErr != nil || quarantineErr != nil:
		out.Status = httpapi.HealthDegraded
	}
	return out
}

func word(err error) string {
	if err != nil {
		return httpapi.HealthUnavailable
	}
	return httpapi.HealthOK
}
