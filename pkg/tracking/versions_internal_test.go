package tracking

import (
	"encoding/binary"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/event"
)

// However a commit is written, it is held as it was told, through changes, what undoes
// them, and a snapshot.
func TestACommitIsHeldAsItWasTold(t *testing.T) {
	digits := strings.Repeat("0123456789abcdef", 4)
	told := []string{
		"", "a", "0123abc", digits[:20], digits[:21], digits[:39], digits[:40], digits[:41], digits, strings.ToUpper(digits[:40]),
		digits[:39] + "g", digits[:39] + "é", strings.Repeat("\x00", 20), strings.Repeat("0", 40), "v1.2.3 of Tuesday",
	}
	s, k := NewState(), versionKey{event.VersionID{1}, 2}
	holds := func(when string, want version) {
		t.Helper()
		if got, ok := s.versions.of(k); !ok || got != want || s.versions.len() != 1 {
			t.Errorf("%s: %+v of %d, want %+v", when, got, s.versions.len(), want)
		}
		if got := maps.Collect(s.versions.all()); got[k] != want || len(got) != 1 {
			t.Errorf("%s: all are %+v, want %+v", when, got, want)
		}
	}
	for i, first := range told {
		was := version{first, true, int64(-i), event.Offset(i)}
		s.putVersion(k, was)
		holds(fmt.Sprintf("%q", first), was)
		frozen := s.versions.clone()
		for j, second := range told {
			s.Begin()
			mark := s.Mark()
			now := version{second, false, int64(j), event.Offset(j)}
			s.putVersion(k, now)
			holds(fmt.Sprintf("%q, then %q", first, second), now)
			s.RollbackTo(mark)
			s.Commit()
			holds(fmt.Sprintf("%q, undone %q", first, second), was)
		}
		if got, _ := frozen.of(k); got != was {
			t.Errorf("the frozen %q is %+v", first, got)
		}
	}
	s.putVersion(k, version{digits[:40], true, 1, 1})
	if n := len(s.versions.commits); n > 0 {
		t.Errorf("%d commits are left beside one that fits", n)
	}
}

// BenchmarkCollectionBesideVersions collects garbage while so many versions are alive.
func BenchmarkCollectionBesideVersions(b *testing.B) {
	s := NewState()
	for i := range uint64(400_000) {
		k := versionKey{incarnation: 1}
		binary.BigEndian.PutUint64(k.id[:], i*0x9e3779b97f4a7c15)
		s.putVersion(k, version{fmt.Sprintf("%040x", i*0x9e3779b97f4a7c15), true, int64(i), event.Offset(i)})
	}
	for b.Loop() {
		runtime.GC()
	}
	b.ReportMetric(float64(s.versions.len()), "versions")
}
