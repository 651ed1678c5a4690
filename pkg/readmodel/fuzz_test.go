package readmodel_test

import (
	"testing"

	"github.com/shipledger/shipledger/pkg/readmodel"
)

// FuzzKeys feeds cursors to whatever reads what stands in them: a client may
// write its own.
func FuzzKeys(f *testing.F) {
	for _, seed := range []string{
		"", "01HZX3V5K6QJ8W9Y0A1B2C3D4E", "20260302T100000.000/2f9cabf2-105e-5671-9b62-5f0a651b0848", "svc/x", "/", "2026-03-02T10:00:00Z/1", "1/2/3", "team", "change.ticket", "a.b.c.d.e.f.g.h.i", "..", "\x00", "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = readmodel.ParseRunKey(text)
		_, _, _ = readmodel.ParseVersionKey(text)
		_, _ = readmodel.ParseChangeKey(text)
		_, _, _ = readmodel.ParseStayKey(text)
		if path, err := readmodel.ParseMetaPath(text); err == nil && (len(path) == 0 || len(path) > 8) {
			t.Errorf("%q is a path of %d names", text, len(path))
		}
	})
}
